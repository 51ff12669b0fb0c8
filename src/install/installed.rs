//! What `doorward install` left behind: which folder holds the authorities of the installed gate, and which files it reads.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::credentials::KEYS;
use super::{CONFIG, FOLDER, PKI, RECORD};
use crate::config::checked::Config;
use crate::config::credentials::Credentials;
use crate::config::{self, ConfigErrors};
use crate::files::{Access, Existing, NewFile, Warning, write_all};

/// The installed gate, if `doorward install` knew the folder of its authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    folder: PathBuf,
    authority: PathBuf,
}

impl Installed {
    /// The gate that is installed on this machine.
    pub fn find() -> Option<Self> {
        Self::in_folder(Path::new(FOLDER))
    }

    /// The gate whose configuration is in `folder`.
    pub(super) fn in_folder(folder: &Path) -> Option<Self> {
        let mut text = std::fs::read(folder.join(RECORD)).ok()?;
        if text.last() == Some(&b'\n') {
            text.pop();
        }
        let authority = PathBuf::from(OsString::from_vec(text));
        authority.is_absolute().then(|| Self { folder: folder.to_owned(), authority })
    }

    /// The text of the record, for the folder of the authorities.
    pub(super) fn record(authority: &Path) -> Vec<u8> {
        [authority.as_os_str().as_bytes(), b"\n"].concat()
    }

    /// The folder of the authorities.
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// The configuration of the gate.
    pub fn config(&self) -> PathBuf {
        self.folder.join(CONFIG)
    }

    /// Whether systemd hands the gate's keys to the service, which has to start again for a new one.
    pub fn has_credentials(&self) -> bool {
        self.folder.join(Path::new(KEYS).file_name().unwrap_or_default()).exists()
    }

    /// Where this user finds the gate's keys. Only the gate and root may read them, but the owner has the files that they were
    /// copied from.
    pub fn credentials(&self) -> Credentials {
        let service = Credentials::of_service();
        // Root reads what is in force, and nothing that another user may have put in its place.
        if rustix::process::geteuid().is_root() {
            return service;
        }
        let own = Credentials::in_folder(self.authority.clone());
        let owners = self.authority.parent().unwrap_or(&self.authority).to_owned();
        service.or(own).with_owners_keys(self.folder.clone(), owners)
    }

    /// The gate's configuration, for a user who may not read the gate's key: the files that it names in its own folder are read
    /// in the owner's folder, where they came from.
    ///
    /// # Errors
    /// Every mistake in it, and in the owner's files.
    pub fn load_with_owners_files(&self) -> Result<Config, ConfigErrors> {
        let (file, own) = (self.config(), self.authority.with_file_name(CONFIG));
        // If it cannot be read, the error is that of the usual way.
        let Ok(text) = std::fs::read_to_string(&file) else { return config::load(&file) };
        let credentials = Credentials::of_service().or(Credentials::in_folder(self.authority.clone()));
        Ok(Config { file, ..config::parse_with(&text, &own, &credentials)? })
    }

    /// Whether `folder` is the folder of the gate's authorities.
    pub fn is_of(&self, folder: &Path) -> bool {
        let same = |one: &Path, other: &Path| {
            let [one, other] = [one, other].map(|path| path.metadata().ok());
            one.zip(other).is_some_and(|(one, other)| (one.dev(), one.ino()) == (other.dev(), other.ino()))
        };
        same(folder, &self.authority)
    }

    /// Where the gate has the file `file` of the folder of the authorities; `None` if it is elsewhere, or if the gate uses that
    /// folder itself.
    pub fn place_of(&self, authority: &Path, file: &Path) -> Option<PathBuf> {
        let inside = file.strip_prefix(authority).ok()?;
        let own = self.folder.join(PKI);
        (!self.is_of(&own)).then(|| own.join(inside))
    }

    /// Writes `contents` to the gate's file at `place`, which [`Installed::place_of`] gave. It keeps owner and mode. Root writes
    /// with the rights of the folder's owner.
    ///
    /// # Errors
    /// If this user may not write there. The file is as it was then.
    pub fn replace(&self, place: &Path, contents: Vec<u8>, access: Access) -> Result<Vec<Warning>, String> {
        let file = NewFile { path: place.to_owned(), contents, access };
        write_all(&[file], Existing::Replace).map_err(|error| match error {
            crate::files::Error::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                format!("{} belongs to another user", place.display())
            }
            crate::files::Error::Io { ref source, .. } => format!("{error}: {source}"),
            crate::files::Error::Exists(_) => error.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn record_names_the_folder_and_nothing_else_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |text: &[u8]| fs::write(folder.path().join(RECORD), text).expect("written");
        assert_eq!(Installed::in_folder(folder.path()), None);
        for wrong in [&b""[..], b"\n", b"doorward/pki\n"] {
            write(wrong);
            assert_eq!(Installed::in_folder(folder.path()), None, "{wrong:?}");
        }
        let odd = Path::new("/home/a b/\u{e9}\n");
        write(&Installed::record(odd));
        assert_eq!(Installed::in_folder(folder.path()).expect("a record").authority(), odd);
    }

    #[test]
    fn files_of_the_authorities_have_their_place_at_the_gate() {
        let folder = tempfile::tempdir().expect("a folder");
        let [authority, gate] = ["home/pki", "gate/pki"].map(|path| folder.path().join(path));
        fs::create_dir_all(&authority).and_then(|()| fs::create_dir_all(&gate)).expect("folders");
        let installed = Installed { folder: folder.path().join("gate"), authority: authority.clone() };
        assert!(installed.is_of(&authority.join("../pki")) && !installed.is_of(&gate));
        let place = installed.place_of(&authority, &authority.join("clients.crl")).expect("a place");
        assert_eq!(place, gate.join("clients.crl"));
        assert_eq!(installed.place_of(&authority, Path::new("/elsewhere/clients.crl")), None);
        installed.replace(&place, b"list".to_vec(), Access::Public).expect("written");
        assert_eq!(fs::read(&place).expect("there"), b"list");

        let itself = Installed { authority: gate.clone(), ..installed };
        assert_eq!(itself.place_of(&gate, &gate.join("clients.crl")), None);
    }
}
