//! Reads and writes the files of homes.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::{Home, Homes, HomesError, Joined};
use crate::bundle::{BYTES_MAX, Bundle, BundleError, BundleKey, EXTENSION};
use crate::connector::platform;
use crate::model::names::Name;

/// The text of a file, which is not read beyond what a bundle may have.
pub fn read_text(path: &Path) -> Result<Zeroizing<String>, HomesError> {
    let failed = |source| HomesError::Io { action: "read", path: path.to_owned(), source };
    text_of(File::open(path).map_err(failed)?, path)
}

fn text_of(file: File, path: &Path) -> Result<Zeroizing<String>, HomesError> {
    let io = |source| HomesError::Io { action: "read", path: path.to_owned(), source };
    let is_folder = file.metadata().map_err(io)?.is_dir();
    if is_folder {
        return Err(io(io::ErrorKind::IsADirectory.into()));
    }
    text_from(file, path)
}

/// `path` is what messages call it.
fn text_from(file: impl io::Read, path: &Path) -> Result<Zeroizing<String>, HomesError> {
    let io = |source| HomesError::Io { action: "read", path: path.to_owned(), source };
    let damaged = |source| HomesError::Damaged { path: path.to_owned(), source };
    // One more than is allowed, so that more is noticed. The buffer does not grow, which would leave copies of a key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(BYTES_MAX + 1));
    file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() > BYTES_MAX {
        return Err(damaged(BundleError::TooLarge));
    }
    match str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(damaged(BundleError::NotABundle)),
    }
}

/// Reads the file that a device was given, or that of a home.
pub fn read_bundle(path: &Path) -> Result<Bundle, HomesError> {
    parsed(&read_text(path)?, path)
}

/// Reads the file that a device was given from a stream, which messages call `path`.
pub fn read_bundle_from(stream: impl io::Read, path: &Path) -> Result<Bundle, HomesError> {
    parsed(&text_from(stream, path)?, path)
}

fn parsed(text: &str, path: &Path) -> Result<Bundle, HomesError> {
    Bundle::parse(text).map_err(|source| HomesError::Damaged { path: path.to_owned(), source })
}

impl Homes {
    /// All homes, by name.
    pub fn joined(&self) -> Result<Joined, HomesError> {
        let failed = |source| HomesError::Io { action: "list", path: self.folder.clone(), source };
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Joined::default()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let file = entry.map_err(failed)?.file_name();
            // Files of other names, as editors leave them, are none of ours.
            let name = file.to_str().and_then(|file| file.strip_suffix(EXTENSION));
            names.extend(name.filter(|name| Name::parse(name).is_ok()).map(str::to_owned));
        }
        names.sort_unstable();
        let mut joined = Joined::default();
        for name in names {
            match self.read(&name) {
                Ok(home) => joined.homes.push(home),
                Err(error) => joined.broken.push(error),
            }
        }
        Ok(joined)
    }

    /// The home of this name; `None` if there is none.
    pub fn get(&self, name: &str) -> Result<Option<Home>, HomesError> {
        match self.read(name) {
            Ok(home) => Ok(Some(home)),
            Err(HomesError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The file of a home.
    pub fn file(&self, name: &str) -> Result<PathBuf, HomesError> {
        match Name::parse(name) {
            Ok(name) => Ok(self.folder.join(format!("{name}{EXTENSION}"))),
            Err(_) => Err(HomesError::Name(name.to_owned())),
        }
    }

    fn read(&self, name: &str) -> Result<Home, HomesError> {
        let file = self.file(name)?;
        let failed = |source| HomesError::Io { action: "read", path: file.clone(), source };
        let open = File::open(&file).map_err(failed)?;
        let exposed = platform::others_can_read(&open).map_err(failed)?;
        // It says which authority to trust, and which library of a token to run.
        if platform::others_can_write(&open).map_err(failed)? {
            return Err(HomesError::Writable { path: file });
        }
        let bundle = Bundle::parse(&text_of(open, &file)?)
            .map_err(|source| HomesError::Damaged { path: file.clone(), source })?;
        if exposed && matches!(bundle.key, BundleKey::Plain(_)) {
            return Err(HomesError::Exposed { path: file });
        }
        Ok(Home { name: name.to_owned(), bundle, file })
    }

    /// Writes a home: a reader, and this machine after a power failure, has the earlier file or the new one.
    pub fn keep(&self, name: &str, bundle: &Bundle) -> Result<Home, HomesError> {
        let file = self.file(name)?;
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| HomesError::Io { action, path, source }
        };
        platform::create_private(&self.folder).map_err(failed("create", &self.folder))?;
        // Readable by this user only, from the start.
        let write = || {
            let mut new = NamedTempFile::with_prefix_in(".new-", &self.folder)?;
            new.write_all(bundle.to_text().as_bytes())?;
            new.as_file().sync_all()?;
            new.persist(&file).map_err(|error| error.error)?;
            platform::sync(&self.folder)
        };
        write().map_err(failed("write", &file))?;
        Ok(Home { name: name.to_owned(), bundle: bundle.clone(), file })
    }

    /// Removes a home, with its key.
    pub fn remove(&self, name: &str) -> Result<(), HomesError> {
        let file = self.file(name)?;
        match fs::remove_file(&file) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(HomesError::Unknown(name.to_owned())),
            Err(source) => Err(HomesError::Io { action: "remove", path: file, source }),
        }
    }
}
