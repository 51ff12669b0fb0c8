//! The folder of the authorities: one command at a time, and all of a change or nothing.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use zeroize::Zeroizing;

use super::transaction::{self, Recovered, tidy};
use super::{AuthorityEntry, Inventory, VERSION};
use crate::pki::authority::Authority;
use crate::pki::files::{self, Access, NewFile};
use crate::pki::{self, keys};

/// What the inventory is called in the folder.
pub const FILE: &str = "inventory.toml";
/// What whoever changes anything holds.
const LOCK: &str = ".lock";

/// The lock is never made in another place, to which a link in the folder leads.
const NO_LINK: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

/// What `doorward init` calls the device authority's certificate.
const AUTHORITY: &str = "clients.pem";

/// What stands at the top of the file.
const HEAD: &str = "\
# What was issued, renewed and revoked here. `doorward ca` keeps this file; it holds no secrets, and without it nobody
# can say which certificates there are. `doorward ca list` shows it.
";

/// The folder cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no inventory in it.
    Missing(PathBuf),
    /// The inventory cannot be understood.
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it cannot be understood.
        message: String,
    },
    /// A newer program has written the inventory, in a form that this one does not know.
    Newer(PathBuf),
    /// The key of an authority is not where the inventory says.
    KeyAway(PathBuf),
    /// The system refused something.
    Files(files::Error),
    /// A certificate or key in the folder cannot be used.
    Pki {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: pki::Error,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(folder) if folder.join(AUTHORITY).exists() => write!(
                f,
                "there are authorities in {folder}, but no {FILE} that says what they have issued\n  put back a copy of that \
                 file; without one this folder is of no use to doorward ca",
                folder = folder.display()
            ),
            Self::Missing(folder) => write!(
                f,
                "there is no inventory in {}\n  name the folder of your authorities with --folder, or have them made: \
                 doorward ca init --help",
                folder.display()
            ),
            Self::Damaged { path, message } => write!(
                f,
                "{} cannot be understood; nothing was changed\n  put back a copy from before, or correct it by hand: \
                 {message}",
                path.display()
            ),
            Self::Newer(path) => {
                write!(f, "{} was written by a newer doorward; nothing was changed\n  use that one", path.display())
            }
            Self::KeyAway(path) => write!(
                f,
                "{} is not here, and only who has the key of an authority can issue and revoke\n  bring it back for this. To \
                 shut a device out without it: deny = [\"sha256:FINGERPRINT\"] in the gate's configuration",
                path.display()
            ),
            Self::Files(files::Error::Io { action, path, source }) => {
                write!(f, "failed to {action} {}: {source}", path.display())
            }
            Self::Files(error) => write!(f, "{error}"),
            Self::Pki { path, source } => write!(f, "{}: {source}", path.display()),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Files(error) => Some(error),
            Self::Pki { source, .. } => Some(source),
            Self::Missing(_) | Self::KeyAway(_) | Self::Damaged { .. } | Self::Newer(_) => None,
        }
    }
}

impl From<files::Error> for StoreError {
    fn from(error: files::Error) -> Self {
        Self::Files(error)
    }
}

/// The folder of the authorities, which nobody else changes as long as this is there.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// What the inventory says.
    pub inventory: Inventory,
    /// What was done about a command that had been killed.
    pub recovered: Recovered,
    /// Held; the system releases it however the process ends.
    _lock: File,
}

impl Store {
    /// Whether there is an inventory in this folder, or was about to be one.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(FILE).exists() || folder.join(LOCK).exists()
    }

    /// Opens the folder, and waits if another command changes it: then `waiting` is called once.
    pub fn open(folder: &Path, waiting: impl FnOnce()) -> Result<Self, StoreError> {
        if !Self::is_in(folder) {
            return Err(StoreError::Missing(folder.to_owned()));
        }
        let (lock, recovered) = lock(folder, waiting)?;
        let inventory = read(folder)?.ok_or_else(|| StoreError::Missing(folder.to_owned()))?;
        Ok(Self { folder: folder.to_owned(), inventory, recovered, _lock: lock })
    }

    /// Opens the folder, makes it if it is not there, and begins with an empty inventory if there is none.
    pub fn open_or_create(folder: &Path, waiting: impl FnOnce()) -> Result<Self, StoreError> {
        make_folder(folder)?;
        let (lock, recovered) = lock(folder, waiting)?;
        let inventory = read(folder)?.unwrap_or_default();
        Ok(Self { folder: folder.to_owned(), inventory, recovered, _lock: lock })
    }

    /// What the inventory of a folder says at this moment, if there is one. Nothing is touched, so this works where
    /// nothing may be written, too.
    pub fn look(folder: &Path) -> Result<Option<Inventory>, StoreError> {
        read(folder)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A path of the inventory as one that can be opened.
    pub fn path(&self, relative: &str) -> PathBuf {
        tidy(&self.folder.join(relative))
    }

    /// As [`Store::path`], for a folder that is not open.
    pub fn shown(folder: &Path, relative: &Path) -> PathBuf {
        tidy(&folder.join(relative))
    }

    /// Takes over from the revocation lists in the folder what `inventory` does not know of (see [`Inventory::recall`]): how
    /// many certificates that were.
    ///
    /// # Errors
    /// If there is a list that cannot be read: the next one would be without what is on it.
    pub fn recall(&self, inventory: &mut Inventory) -> Result<usize, StoreError> {
        let mut count = 0;
        for authority in inventory.authorities.clone() {
            let Some(path) = authority.revocation_list.as_deref().map(|list| self.path(list)) else { continue };
            let list = match fs::read(&path) {
                Ok(list) => list,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(io_error("read", &path)(error)),
            };
            // Without its certificate nothing is issued or revoked; whoever tries is told.
            let Ok(certificate) = self.authority_certificate(&authority) else { continue };
            let list = CertificateRevocationListDer::from_pem_slice(&list).map_or(list, |list| list.to_vec());
            count += inventory.recall(&authority.id, &certificate, &list);
        }
        Ok(count)
    }

    /// Makes a change: `inventory` and `files`, all of it or nothing. Paths of `files` start at the folder, or are
    /// absolute.
    pub fn commit(&mut self, inventory: Inventory, files: Vec<NewFile>) -> Result<(), StoreError> {
        let damaged =
            |error: toml::ser::Error| StoreError::Damaged { path: self.folder.join(FILE), message: error.to_string() };
        let text = toml::to_string_pretty(&inventory).map_err(damaged)?;
        let own = NewFile {
            path: FILE.into(),
            contents: format!("{HEAD}\n{text}").into_bytes(),
            // It names devices, which is nobody else's business.
            access: Access::Private,
        };
        let all: Vec<NewFile> = std::iter::once(own).chain(files).collect();
        transaction::commit(&self.folder, &all)?;
        self.inventory = inventory;
        Ok(())
    }

    /// Which of these files would be replaced, the inventory itself included if `new`.
    pub fn in_the_way(folder: &Path, files: &[NewFile], new: bool) -> Vec<PathBuf> {
        let own = new.then(|| folder.join(FILE));
        let places = files.iter().map(|file| tidy(&folder.join(&file.path)));
        places.chain(own).filter(|place| fs::symlink_metadata(place).is_ok()).collect()
    }

    /// Loads an authority with its key. If that one is encrypted, `passphrase` is asked for how to open it.
    pub fn authority<E: From<StoreError>>(
        &self,
        entry: &AuthorityEntry,
        passphrase: impl FnOnce() -> Result<Zeroizing<String>, E>,
    ) -> Result<Authority, E> {
        let certificate = self.authority_certificate(entry)?;
        let path = self.path(&entry.key);
        let unusable = |source| StoreError::Pki { path: path.clone(), source };
        if !path.exists() {
            return Err(StoreError::KeyAway(path).into());
        }
        let pem = Zeroizing::new(read_file(&path)?);
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
        CertificateDer::from_pem_slice(&read_file(&path)?)
            .map_err(|_| StoreError::Pki { path, source: pki::Error::NotACertificate })
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, StoreError> {
    fs::read(path).map_err(io_error("read", path))
}

fn read(folder: &Path) -> Result<Option<Inventory>, StoreError> {
    let path = folder.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", &path)(error)),
    };
    let damaged = |message: String| StoreError::Damaged { path: path.clone(), message };
    // The version first: what else a newer one says cannot be judged.
    let document: toml::Table = text.parse().map_err(|error: toml::de::Error| damaged(error.to_string()))?;
    match document.get("version").and_then(toml::Value::as_integer) {
        Some(version) if version == i64::from(VERSION) => {}
        Some(version) if version > i64::from(VERSION) => return Err(StoreError::Newer(path)),
        _ => return Err(damaged(format!("it does not begin with version = {VERSION}"))),
    }
    toml::from_str(&text).map(Some).map_err(|error| damaged(error.to_string()))
}

/// Waits for the lock, and finishes what whoever had it before could not. The file stays: a lock that is removed and made
/// again can be held twice.
fn lock(folder: &Path, waiting: impl FnOnce()) -> Result<(File, Recovered), StoreError> {
    let path = folder.join(LOCK);
    let open = || {
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(NO_LINK)
            .open(&path)?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(fs::TryLockError::WouldBlock) => {
                waiting();
                lock.lock()?;
                Ok(lock)
            }
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    };
    let lock = open().map_err(io_error("lock", &path))?;
    let recovered = transaction::recover(folder)?;
    Ok((lock, recovered))
}

fn make_folder(folder: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io_error("create the folder", folder))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::Files(files::Error::Io { action, path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody_waits() {
        panic!("nobody else is here");
    }

    #[test]
    fn what_is_committed_is_read_again() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("pki");
        assert!(matches!(Store::open(&folder, nobody_waits), Err(StoreError::Missing(_))));
        let mut store = Store::open_or_create(&folder, nobody_waits).expect("made");
        store.commit(Inventory::default(), Vec::new()).expect("written");
        drop(store);
        let store = Store::open(&folder, nobody_waits).expect("there");
        assert_eq!(store.inventory, Inventory::default());
        assert_eq!(store.recovered, Recovered::Nothing);
    }

    #[test]
    fn what_is_not_understood_is_not_touched() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join(FILE);
        for (text, newer) in [
            ("version = 2\nwhatever = 3\n", true),
            ("version = 1\nwhatever = 3\n", false),
            ("version = 0\n", false),
            ("", false),
            ("version = 1\n[[certificate]]\nname = 3\n", false),
        ] {
            fs::write(&path, text).expect("written");
            match Store::open(home.path(), nobody_waits) {
                Err(StoreError::Newer(_)) => assert!(newer, "{text}"),
                Err(StoreError::Damaged { .. }) => assert!(!newer, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
            assert_eq!(fs::read_to_string(&path).expect("there"), text);
        }
    }
}
