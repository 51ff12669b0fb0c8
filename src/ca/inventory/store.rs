//! The folder of the authorities: one command at a time, and all of a change or nothing.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use zeroize::Zeroizing;

use super::transaction::{self, CommitError, Recovered, tidy};
use super::{AuthorityEntry, Inventory, VERSION};
use crate::ca::files::{self, Access, Folder, NewFile, Warning, io_error as file_error};
use crate::model::shell;
use crate::pki::Authority;
use crate::pki::{self, keys};

/// What the inventory is called in the folder.
pub const FILE: &str = "inventory.toml";
/// What whoever changes anything holds.
const LOCK: &str = ".lock";

/// What `doorward init` calls the device authority's certificate.
const AUTHORITY: &str = "clients.pem";

/// What stands at the top of the file.
const HEAD: &str = "\
# What was issued, renewed and revoked here. `doorward ca` keeps this file; it holds no secrets, and without it nobody
# can say which certificates there are. `doorward ca list` shows it.
";

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no inventory in it.
    #[error(fmt = missing)]
    Missing(PathBuf),
    /// The inventory cannot be understood.
    #[error(
        "{path} cannot be understood; nothing was changed\n  put back a copy from before, or correct it by hand: {message}"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it cannot be understood.
        message: String,
    },
    /// A newer program has written the inventory, in a form that this one does not know.
    #[error("{0} was written by a newer doorward; nothing was changed\n  use that one")]
    Newer(PathBuf),
    /// The key of an authority is not where the inventory says.
    #[error(
        "{0} is not here, and only who has the key of an authority can issue and revoke\n  bring it back for this. To shut a \
         device out without it: deny = [\"sha256:FINGERPRINT\"] in the gate's configuration"
    )]
    KeyAway(PathBuf),
    /// The system refused something.
    #[error("{}", with_cause(.0))]
    Files(#[from] files::Error),
    /// A change could not be made; everything is as it was.
    #[error("{}; nothing was changed", with_cause(.0))]
    Unchanged(#[source] files::Error),
    /// A change is made, and some of its files are not in their places yet.
    #[error(
        "the change is made, but not every file is in its place: {}\n  when this is mended, let it be finished: doorward ca \
         list --folder {}",
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

/// There is no inventory: whether there are authorities says what to do.
fn missing(folder: &Path, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if folder.join(AUTHORITY).exists() {
        write!(
            f,
            "there are authorities in {folder}, but no {FILE} that says what they have issued\n  put back a copy of that \
             file; without one this folder is of no use to doorward ca",
            folder = folder.display()
        )
    } else {
        write!(
            f,
            "there is no inventory in {}\n  name the folder of your authorities with --folder, or have them made: \
             doorward ca init --help",
            folder.display()
        )
    }
}

/// A failure and what the system said.
fn with_cause(error: &files::Error) -> String {
    match error {
        files::Error::Io { source, .. } => format!("{error}: {source}"),
        files::Error::Exists(_) => error.to_string(),
    }
}

/// What there is to tell while the folder is used.
#[derive(Clone, Copy, Debug)]
pub enum Notice<'a> {
    /// Another command has the folder, and is waited for.
    Waiting,
    /// Something about a file is not as it should be.
    Warning(&'a Warning),
}

/// The folder of the authorities, which no other command changes as long as this is there. Root uses it with the rights of
/// its owner, see [`Folder`].
#[derive(Debug)]
pub struct Store {
    folder: Folder,
    /// Where the user wants files written to, beside the folder.
    output: Option<PathBuf>,
    tell: fn(Notice<'_>),
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

    /// Opens the folder, and waits if another command changes it. `tell` is called with what there is to say.
    pub fn open(folder: &Path, tell: fn(Notice<'_>)) -> Result<Self, StoreError> {
        if !Self::is_in(folder) {
            return Err(StoreError::Missing(folder.to_owned()));
        }
        let opened = open_folder(folder)?;
        Self::lock(opened, tell, |folder| read(folder)?.ok_or_else(|| StoreError::Missing(folder.path().to_owned())))
    }

    /// Opens the folder, makes it if it is not there, and begins with an empty inventory if there is none.
    pub fn open_or_create(folder: &Path, tell: fn(Notice<'_>)) -> Result<Self, StoreError> {
        let opened = Folder::create(folder, &mut Vec::new()).map_err(io_error("create the folder", folder))?;
        Self::lock(opened, tell, |folder| Ok(read(folder)?.unwrap_or_default()))
    }

    /// Waits for the lock, and finishes what the holder before could not.
    fn lock(
        folder: Folder,
        tell: fn(Notice<'_>),
        inventory: impl FnOnce(&Folder) -> Result<Inventory, StoreError>,
    ) -> Result<Self, StoreError> {
        let lock = lock(&folder, tell).map_err(io_error("lock", &folder.path().join(LOCK)))?;
        let recovered = transaction::recover(&folder)?;
        Ok(Self { inventory: inventory(&folder)?, folder, recovered, output: None, tell, _lock: lock })
    }

    /// What the inventory of a folder says at this moment, if there is one. Nothing is touched, so this works where
    /// nothing may be written, too.
    pub fn look(folder: &Path) -> Result<Option<Inventory>, StoreError> {
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

    /// Files of a change may be written below this folder, too, which the user has named: with the rights of its owner, not
    /// those of the owner of the folder of the authorities.
    pub fn set_output(&mut self, folder: Option<PathBuf>) {
        self.output = folder;
    }

    /// Does it with the rights that the folder is used with.
    pub fn as_owner<T>(&self, call: impl FnOnce() -> T) -> T {
        self.folder.actor().act(call)
    }

    /// The contents of a file: of a path that the inventory has, or one relative to the folder. Nothing if it is not there.
    ///
    /// # Errors
    /// If it is there and cannot be read, or is not a regular file.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Option<Vec<u8>>, StoreError> {
        let path = tidy(&self.folder.path().join(path));
        match self.read_path(&path) {
            Ok(contents) => Ok(Some(contents)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }

    /// Reads a path as it is shown, with the rights that the folder is used with.
    fn read_path(&self, path: &Path) -> io::Result<Vec<u8>> {
        if let Ok(inside) = path.strip_prefix(self.folder.path()) {
            return self.folder.read(inside);
        }
        let parent = Folder::open(files::parent(path))?.with_rights_of(self.folder.actor());
        parent.read(Path::new(path.file_name().unwrap_or_default()))
    }

    /// A path of the inventory as one that can be opened.
    pub fn path(&self, relative: &str) -> PathBuf {
        tidy(&self.folder().join(relative))
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
            let Some(path) = authority.revocation_list.as_deref() else { continue };
            let Some(list) = self.read(path)? else { continue };
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
            |error: toml::ser::Error| StoreError::Damaged { path: self.path(FILE), message: error.to_string() };
        let text = toml::to_string_pretty(&inventory).map_err(damaged)?;
        let own = NewFile {
            path: FILE.into(),
            contents: format!("{HEAD}\n{text}").into_bytes(),
            // It names devices, which is nobody else's business.
            access: Access::Private,
        };
        let all: Vec<NewFile> = std::iter::once(own).chain(files).collect();
        let mut warnings = Vec::new();
        let done = transaction::commit(&self.folder, &all, self.output.as_deref(), &mut warnings);
        warnings.iter().for_each(|warning| (self.tell)(Notice::Warning(warning)));
        done.map_err(|error| match error {
            CommitError::Unchanged(error) => StoreError::Unchanged(error),
            CommitError::Unfinished(source) => StoreError::Unfinished { folder: self.folder().to_owned(), source },
        })?;
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
    let path = folder.path().join(FILE);
    let text = match folder.read(Path::new(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", &path)(error)),
    };
    let damaged = |message: String| StoreError::Damaged { path: path.clone(), message };
    let text = String::from_utf8(text).map_err(|error| damaged(error.to_string()))?;
    // The version first: what else a newer one says cannot be judged.
    let document: toml::Table = text.parse().map_err(|error: toml::de::Error| damaged(error.to_string()))?;
    match document.get("version").and_then(toml::Value::as_integer) {
        Some(version) if version == i64::from(VERSION) => {}
        Some(version) if version > i64::from(VERSION) => return Err(StoreError::Newer(path)),
        _ => return Err(damaged(format!("it does not begin with version = {VERSION}"))),
    }
    toml::from_str(&text).map(Some).map_err(|error| damaged(error.to_string()))
}

/// Waits for the lock. The file stays: a lock that is removed and made again can be held twice.
fn lock(folder: &Folder, tell: fn(Notice<'_>)) -> io::Result<File> {
    let lock = folder.lock_file(LOCK)?;
    let locked = match lock.try_lock() {
        Ok(()) => Ok(()),
        Err(fs::TryLockError::WouldBlock) => {
            tell(Notice::Waiting);
            lock.lock()
        }
        Err(fs::TryLockError::Error(error)) => Err(error),
    };
    match locked {
        // CIFS and FUSE may know none.
        Err(error) if knows_no_locks(&error) => {
            tell(Notice::Warning(&Warning::NoLocks { folder: folder.path().to_owned() }));
        }
        other => other?,
    }
    Ok(lock)
}

fn knows_no_locks(error: &io::Error) -> bool {
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

    fn nobody_waits(notice: Notice<'_>) {
        panic!("nothing to say: {notice:?}");
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
