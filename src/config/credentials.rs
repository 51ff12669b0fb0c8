//! Keys that a service manager hands over: `key = "credential:NAME"` is the file NAME of its folder (`LoadCredential=`,
//! systemd.exec(5)).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// What a value begins with that names a credential instead of a file.
const PREFIX: &str = "credential:";

/// The folder in which root finds the credentials of the installed service while it runs.
pub const OF_THE_RUNNING_SERVICE: &str = "/run/credentials/doorward.service";

/// Where credentials are found.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The first one that has a file of the name.
    folders: Vec<PathBuf>,
    /// Those that were read before, by name: their files, and what is in them.
    known: BTreeMap<String, (PathBuf, Vec<u8>)>,
    /// The folder of the installed configuration, and the owner's folder that its files were copied from.
    owners: Option<(PathBuf, PathBuf)>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without what is in the files.
        let known = self.known.keys();
        f.debug_struct("Credentials").field("folders", &self.folders).field("known", &known).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Those of this service. A command outside of it is told of those of the running one, which only root may read.
    pub fn of_service() -> Self {
        let own = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from).filter(|folder| folder.is_absolute());
        Self::in_folder(own.unwrap_or_else(|| OF_THE_RUNNING_SERVICE.into()))
    }

    /// Those in `folder`.
    pub fn in_folder(folder: PathBuf) -> Self {
        Self { folders: vec![folder], ..Self::default() }
    }

    /// These, by name, which are read now: with the rights of this moment. Those that cannot be read are left out.
    pub fn read(files: impl IntoIterator<Item = (String, PathBuf)>) -> Self {
        let known = files.into_iter().filter_map(|(name, path)| {
            let contents = std::fs::read(&path).ok()?;
            Some((name, (path, contents)))
        });
        Self { known: known.collect(), ..Self::default() }
    }

    /// These; a key in the folder `installed` that this user may not read is read in the folder `owners`.
    #[must_use]
    pub fn with_owners_keys(mut self, installed: PathBuf, owners: PathBuf) -> Self {
        self.owners = Some((installed, owners));
        self
    }

    /// The owner's copy of a key.
    pub(super) fn owners_copy(&self, key: &Path) -> Option<PathBuf> {
        let (installed, owners) = self.owners.as_ref()?;
        key.strip_prefix(installed).ok().map(|inside| owners.join(inside))
    }

    /// These, and where there is none of a name, those of `other`.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        self.folders.extend(other.folders);
        for (name, file) in other.known {
            self.known.entry(name).or_insert(file);
        }
        self
    }

    /// The file of a credential, and what is in it if that is known.
    pub(super) fn find(&self, name: &str) -> Result<(PathBuf, Option<Vec<u8>>), NotFound> {
        if !is_name(name) {
            return Err(NotFound::NoName);
        }
        if let Some((path, contents)) = self.known.get(name) {
            return Ok((path.clone(), Some(contents.clone())));
        }
        if let Some(found) = self.folders.iter().map(|folder| folder.join(name)).find(|path| path.exists()) {
            return Ok((found, None));
        }
        let is_service = std::env::var_os("CREDENTIALS_DIRECTORY").is_some();
        Err(if is_service { NotFound::NotHandedOver } else { NotFound::OutsideOfTheService })
    }
}

/// Why there is no credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotFound {
    /// It has no such name.
    NoName,
    /// This is a command outside of the service.
    OutsideOfTheService,
    /// The service was not given it.
    NotHandedOver,
}

/// The name of the credential that `value` names; `None` if it is the path of a file.
pub fn credential_name(value: &str) -> Option<&str> {
    value.strip_prefix(PREFIX)
}

/// The value that names a credential.
pub fn credential_value(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// Whether systemd takes the name (`credential_name_valid` there), and it is that of a file in a folder.
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= 255
        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_of_credentials_are_not_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gate.key");
        std::fs::write(&path, [77; 4]).expect("written");
        let shown = format!("{:?}", Credentials::read([("gate.key".to_owned(), path)]));
        assert!(shown.contains("gate.key") && !shown.contains("77"), "{shown}");
    }

    #[test]
    fn name_of_a_credential_is_that_of_a_file_in_its_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gate.key");
        std::fs::write(&path, "key").expect("written");
        let credentials = Credentials::in_folder(folder.path().to_owned());
        assert_eq!(credentials.find("gate.key").ok(), Some((path.clone(), None)));
        let gone = ("gone".to_owned(), folder.path().join("gone"));
        let known = Credentials::read([("other".to_owned(), path.clone()), gone]).or(credentials);
        assert_eq!(known.find("other").ok(), Some((path.clone(), Some(b"key".to_vec()))));
        assert_eq!(known.find("gate.key").ok(), Some((path, None)));
        assert!(known.find("gone").is_err());
        for wrong in ["", ".", "..", "a/b", "../gate.key", "/etc/passwd", "a:b", "a b", "gate.key\n", "ä"] {
            assert_eq!(known.find(wrong), Err(NotFound::NoName), "{wrong:?}");
        }
        assert_eq!(known.find("missing"), Err(NotFound::OutsideOfTheService));
    }
}
