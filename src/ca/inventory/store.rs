//! The folder of the authorities: locked by one command at a time, and changed as a whole or not.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use zeroize::Zeroizing;

use super::transaction::{self, CommitError, Recovered, tidy};
use super::{AuthorityEntry, Inventory, VERSION};
use crate::files::{self, Access, Folder, NewFile, Warning, io_error as file_error};
use crate::model::shell;
use crate::pki::Authority;
use crate::pki::{self, keys};

/// The file name of the inventory.
pub const INVENTORY_FILE: &str = "inventory.toml";
/// The lock file.
const LOCK: &str = ".lock";

/// The certificate of the device authority, as `doorward init` names it.
const AUTHORITY: &str = "clients.pem";

/// The beginning of the file.
const HEAD: &str = "\
# The certificates that were issued, renewed and revoked here. `doorward ca` maintains this file, and needs it to revoke
# and renew. It has no secrets. To show it: doorward ca list
";

/// The folder of the authorities cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It has no inventory.
    #[error(fmt = missing)]
    Missing(PathBuf),
    /// The inventory cannot be parsed.
    #[error("cannot parse {path}; nothing was changed\n  restore a copy, or correct it: {message}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why not.
        message: String,
    },
    /// The inventory was written by a newer program, in a format that this one does not know.
    #[error("{0} was written by a newer doorward; nothing was changed\n  use that version")]
    Newer(PathBuf),
    /// The key of an authority is not where the inventory says.
    #[error(
        "{0} is missing, and issuing and revoking need the authority's key\n  put it back for this command. To block a \
         device without it: deny = [\"sha256:FINGERPRINT\"] in the gate's configuration"
    )]
    KeyAway(PathBuf),
    /// A file operation failed.
    #[error("{}", with_cause(.0))]
    Files(#[from] files::Error),
    /// A change could not be made; no file was changed.
    #[error("{}; nothing was changed", with_cause(.0))]
    Unchanged(#[source] files::Error),
    /// A change is made, but some files are not in place yet.
    #[error(
        "the change is made, but some files are not in place: {}\n  once this is resolved, complete it: doorward ca list \
         --folder {}",
        with_cause(source),
        shell::path(folder)
    )]
    Unfinished {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        source: files::Error,
    },
    /// A certificate or key in the folder cannot be used.
    #[error("{path}: {source}")]
    Pki {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: pki::Error,
    },
}

/// Without an inventory, the remedy depends on whether there are authorities.
fn missing(folder: &Path, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if folder.join(AUTHORITY).exists() {
        write!(
            f,
            "{folder} has authorities but no {INVENTORY_FILE}, which lists what they issued\n  restore a copy of that file: \
             doorward ca cannot use the folder without it",
            folder = folder.display()
        )
    } else {
        write!(
            f,
            "no inventory in {}\n  name the folder of your authorities with --folder, or create them: doorward ca init --help",
            folder.display()
        )
    }
}

/// A failure and its cause.
fn with_cause(error: &files::Error) -> String {
    match error {
        files::Error::Io { source, .. } => format!("{error}: {source}"),
        files::Error::Exists(_) => error.to_string(),
    }
}

/// What there is to report while the folder is used.
#[derive(Clone, Copy, Debug)]
pub enum Notice<'a> {
    /// Another command has the folder locked, and is waited for.
    Waiting,
    /// So many certificates are on a revocation list, and the inventory had not recorded them as revoked.
    RevocationsMerged(usize),
    /// A file could not be written as it should be.
    Warning(&'a Warning),
}

/// The folder of the authorities, locked while this value exists. Root uses it with the rights of its owner, see
/// [`Folder`].
#[derive(Debug)]
pub struct Store {
    folder: Folder,
    /// Another folder that the user named for files.
    output: Option<PathBuf>,
    notify: fn(Notice<'_>),
    /// The inventory.
    pub inventory: Inventory,
    /// What was done about an earlier command that was killed.
    pub recovered: Recovered,
    /// The kernel releases it when the process ends.
    _lock: File,
}

impl Store {
    /// Whether this folder has an inventory, or a command that creates one.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(INVENTORY_FILE).exists() || folder.join(LOCK).exists()
    }

    /// Opens the folder, and waits while another command has it locked. `notify` is called with what is worth reporting.
    pub fn open(folder: &Path, notify: fn(Notice<'_>)) -> Result<Self, StoreError> {
        if !Self::is_in(folder) {
            return Err(StoreError::Missing(folder.to_owned()));
        }
        let opened = open_folder(folder)?;
        Self::lock(opened, notify, |folder| read(folder)?.ok_or_else(|| StoreError::Missing(folder.path().to_owned())))
    }

    /// Opens the folder. Creates it if it does not exist, and starts with an empty inventory if it has none.
    pub fn open_or_create(folder: &Path, notify: fn(Notice<'_>)) -> Result<Self, StoreError> {
        let opened = Folder::create(folder, &mut Vec::new()).map_err(io_error("create the folder", folder))?;
        Self::lock(opened, notify, |folder| Ok(read(folder)?.unwrap_or_default()))
    }

    /// Waits for the lock, and completes what an earlier holder did not.
    fn lock(
        folder: Folder,
        notify: fn(Notice<'_>),
        inventory: impl FnOnce(&Folder) -> Result<Inventory, StoreError>,
    ) -> Result<Self, StoreError> {
        let lock = lock(&folder, notify).map_err(io_error("lock", &folder.path().join(LOCK)))?;
        let recovered = transaction::recover(&folder)?;
        Ok(Self { inventory: inventory(&folder)?, folder, recovered, output: None, notify, _lock: lock })
    }

    /// The inventory of a folder as it is now, if it has one. Changes nothing, so it works on read-only file systems.
    pub fn read_inventory(folder: &Path) -> Result<Option<Inventory>, StoreError> {
        match Folder::open(folder) {
            Ok(folder) => read(&folder),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("open the folder", folder)(error)),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Also allows writing files below this folder, which the user named: with the rights of its owner, not those of the
    /// owner of the folder of the authorities.
    pub fn set_output(&mut self, folder: Option<PathBuf>) {
        self.output = folder;
    }

    /// Runs `call` with the rights of the folder's owner.
    pub fn as_owner<T>(&self, call: impl FnOnce() -> T) -> T {
        self.folder.actor().act(call)
    }

    /// The contents of a file, if it exists. `path` is relative to the folder or absolute.
    ///
    /// # Errors
    /// If it exists and cannot be read, or is not a regular file.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Option<Vec<u8>>, StoreError> {
        let path = tidy(&self.folder.path().join(path));
        match self.read_path(&path) {
            Ok(contents) => Ok(Some(contents)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }

    /// Reads an absolute path, or one that starts with the folder, with the rights of the folder's owner.
    fn read_path(&self, path: &Path) -> io::Result<Vec<u8>> {
        if let Ok(inside) = path.strip_prefix(self.folder.path()) {
            return self.folder.read(inside);
        }
        let parent = Folder::open(files::parent(path))?.with_rights_of(self.folder.actor());
        parent.read(Path::new(path.file_name().unwrap_or_default()))
    }

    /// A path relative to the folder, as one that can be opened.
    pub fn path(&self, relative: &str) -> PathBuf {
        tidy(&self.folder().join(relative))
    }

    /// As [`Store::path`], for a folder that is not open.
    pub fn join(folder: &Path, relative: &Path) -> PathBuf {
        tidy(&folder.join(relative))
    }

    /// Adds to `inventory` what the revocation lists in the folder have and it has not (see
    /// [`Inventory::merge_revocation_list`]), and notifies of that.
    ///
    /// # Errors
    /// If a list exists and cannot be read: the next one would lack its entries.
    pub fn merge_revocation_lists(&self, inventory: &mut Inventory) -> Result<(), StoreError> {
        let mut count = 0;
        for authority in inventory.authorities.clone() {
            let Some(path) = authority.revocation_list.as_deref() else { continue };
            let Some(list) = self.read(path)? else { continue };
            // Without this certificate nothing can be issued or revoked, and every command that tries reports it.
            let Ok(certificate) = self.authority_certificate(&authority) else { continue };
            let list = CertificateRevocationListDer::from_pem_slice(&list).map_or(list, |list| list.to_vec());
            count += inventory.merge_revocation_list(&authority.id, &certificate, &list);
        }
        if count > 0 {
            (self.notify)(Notice::RevocationsMerged(count));
        }
        Ok(())
    }

    /// Writes `inventory` and `files`, all of them or none. Paths of `files` are relative to the folder, or absolute.
    pub fn commit(&mut self, inventory: Inventory, files: Vec<NewFile>) -> Result<(), StoreError> {
        let damaged = |error: toml::ser::Error| StoreError::Damaged {
            path: self.path(INVENTORY_FILE),
            message: error.to_string(),
        };
        let text = toml::to_string_pretty(&inventory).map_err(damaged)?;
        let own = NewFile {
            path: INVENTORY_FILE.into(),
            contents: format!("{HEAD}\n{text}").into_bytes(),
            // It names devices, which is private.
            access: Access::Private,
        };
        let all: Vec<NewFile> = std::iter::once(own).chain(files).collect();
        let mut warnings = Vec::new();
        let done = transaction::commit(&self.folder, &all, self.output.as_deref(), &mut warnings);
        warnings.iter().for_each(|warning| (self.notify)(Notice::Warning(warning)));
        done.map_err(|error| match error {
            CommitError::Unchanged(error) => StoreError::Unchanged(error),
            CommitError::Unfinished(source) => StoreError::Unfinished { folder: self.folder().to_owned(), source },
        })?;
        self.inventory = inventory;
        Ok(())
    }

    /// Which of these files exist; paths are relative to `folder`.
    pub fn existing(folder: &Path, files: &[NewFile]) -> Vec<PathBuf> {
        let paths = files.iter().map(|file| tidy(&folder.join(&file.path)));
        paths.filter(|path| fs::symlink_metadata(path).is_ok()).collect()
    }

    /// Loads an authority with its key. `passphrase` is called if the key is encrypted.
    pub fn authority<E: From<StoreError>>(
        &self,
        entry: &AuthorityEntry,
        passphrase: impl FnOnce() -> Result<Zeroizing<String>, E>,
    ) -> Result<Authority, E> {
        let certificate = self.authority_certificate(entry)?;
        let path = self.path(&entry.key);
        let unusable = |source| StoreError::Pki { path: path.clone(), source };
        let Some(pem) = self.read(&entry.key)?.map(Zeroizing::new) else {
            return Err(StoreError::KeyAway(path).into());
        };
        let key = if keys::is_encrypted(&pem) { keys::decrypt(&pem, &passphrase()?) } else { keys::read(&pem) };
        Ok(key.and_then(|key| Authority::from_parts(certificate, key)).map_err(unusable)?)
    }

    /// The certificate of an authority.
    pub fn authority_certificate(&self, entry: &AuthorityEntry) -> Result<CertificateDer<'static>, StoreError> {
        self.certificate(&entry.certificate)
    }

    /// A certificate that the inventory names.
    pub fn certificate(&self, relative: &str) -> Result<CertificateDer<'static>, StoreError> {
        let path = self.path(relative);
        let missing = || io_error("read", &path)(io::ErrorKind::NotFound.into());
        CertificateDer::from_pem_slice(&self.read(relative)?.ok_or_else(missing)?)
            .map_err(|_| StoreError::Pki { path, source: pki::Error::NotACertificate })
    }
}

fn open_folder(folder: &Path) -> Result<Folder, StoreError> {
    Folder::open(folder).map_err(io_error("open the folder", folder))
}

fn read(folder: &Folder) -> Result<Option<Inventory>, StoreError> {
    let path = folder.path().join(INVENTORY_FILE);
    let text = match folder.read(Path::new(INVENTORY_FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", &path)(error)),
    };
    let damaged = |message: String| StoreError::Damaged { path: path.clone(), message };
    let text = String::from_utf8(text).map_err(|error| damaged(error.to_string()))?;
    // The version first: the rest of a newer format may not parse.
    let document: toml::Table = text.parse().map_err(|error: toml::de::Error| damaged(error.to_string()))?;
    match document.get("version").and_then(toml::Value::as_integer) {
        Some(version) if version == i64::from(VERSION) => {}
        Some(version) if version > i64::from(VERSION) => return Err(StoreError::Newer(path)),
        _ => return Err(damaged(format!("it does not start with version = {VERSION}"))),
    }
    toml::from_str(&text).map(Some).map_err(|error| damaged(error.to_string()))
}

/// Waits for the lock. The file is not removed: a lock file that is removed and created again can be held twice.
fn lock(folder: &Folder, notify: fn(Notice<'_>)) -> io::Result<File> {
    let lock = folder.lock_file(LOCK)?;
    let locked = match lock.try_lock() {
        Ok(()) => Ok(()),
        Err(fs::TryLockError::WouldBlock) => {
            notify(Notice::Waiting);
            lock.lock()
        }
        Err(fs::TryLockError::Error(error)) => Err(error),
    };
    match locked {
        // CIFS and FUSE may not support locks.
        Err(error) if lacks_locks(&error) => {
            notify(Notice::Warning(&Warning::NoLocks { folder: folder.path().to_owned() }));
        }
        other => other?,
    }
    Ok(lock)
}

fn lacks_locks(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| matches!(errno, Errno::NOTSUP | Errno::NOLCK | Errno::NOSYS | Errno::INVAL))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let error = file_error(action, path);
    move |source| StoreError::Files(error(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_notice(notice: Notice<'_>) {
        panic!("unexpected notice: {notice:?}");
    }

    #[test]
    fn committed_inventory_is_read_back() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("pki");
        assert!(matches!(Store::open(&folder, no_notice), Err(StoreError::Missing(_))));
        let mut store = Store::open_or_create(&folder, no_notice).expect("made");
        store.commit(Inventory::default(), Vec::new()).expect("written");
        drop(store);
        let store = Store::open(&folder, no_notice).expect("there");
        assert_eq!(store.inventory, Inventory::default());
        assert_eq!(store.recovered, Recovered::Nothing);
    }

    #[test]
    fn inventory_that_does_not_parse_is_not_changed() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join(INVENTORY_FILE);
        for (text, newer) in [
            ("version = 2\nwhatever = 3\n", true),
            ("version = 1\nwhatever = 3\n", false),
            ("version = 0\n", false),
            ("", false),
            ("version = 1\n[[certificate]]\nname = 3\n", false),
        ] {
            fs::write(&path, text).expect("written");
            match Store::open(home.path(), no_notice) {
                Err(StoreError::Newer(_)) => assert!(newer, "{text}"),
                Err(StoreError::Damaged { .. }) => assert!(!newer, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
            assert_eq!(fs::read_to_string(&path).expect("there"), text);
        }
    }
}
