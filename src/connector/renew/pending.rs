//! What is kept beside a home: the key that a certificate is waited for, and when the gate was last asked.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rcgen::KeyPair;
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use crate::connector::homes::{Homes, HomesError, read_text};
use crate::connector::platform;
use crate::pki::keys;

/// Behind the name of the home.
const KEY: &str = ".next-key";
const ASKED: &str = ".asked";

/// A gate is asked no more often than this by programs that renew without being told to.
const EVERY: Duration = Duration::from_secs(3600);

fn file(homes: &Homes, home: &str, ending: &str) -> Result<PathBuf, HomesError> {
    Ok(homes.file(home)?.with_extension("").with_file_name(format!("{home}{ending}")))
}

/// The key that a certificate is waited for.
pub(super) fn read(homes: &Homes, home: &str) -> Result<Option<KeyPair>, HomesError> {
    match read_text(&file(homes, home, KEY)?) {
        // A file that is no key is like none: it is replaced.
        Ok(text) => Ok(keys::read(text.as_bytes()).ok()),
        Err(HomesError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Keeps the key, readable by this user only.
pub(super) fn keep(homes: &Homes, home: &str, key: &KeyPair) -> Result<(), HomesError> {
    let path = file(homes, home, KEY)?;
    let write = || {
        platform::create_private(homes.folder())?;
        let mut new = NamedTempFile::with_prefix_in(".new-", homes.folder())?;
        new.write_all(Zeroizing::new(key.serialize_pem()).as_bytes())?;
        new.as_file().sync_all()?;
        new.persist(&path).map_err(|error| error.error)?;
        platform::sync(homes.folder())
    };
    write().map_err(|source| HomesError::Io { action: "write", path: path.clone(), source })
}

/// Removes it.
pub(super) fn remove(homes: &Homes, home: &str) -> Result<(), HomesError> {
    let path = file(homes, home, KEY)?;
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(HomesError::Io { action: "remove", path, source })
        }
        _ => Ok(()),
    }
}

/// Removes all that is kept beside a home.
pub fn forget(homes: &Homes, home: &str) -> Result<(), HomesError> {
    remove(homes, home)?;
    // It is empty.
    let _ = fs::remove_file(file(homes, home, ASKED)?);
    Ok(())
}

/// Whether the last attempt of a program was long ago; notes that one begins now. Without a note, as in a folder that cannot be written,
/// nothing may be asked.
pub(super) fn may_ask(homes: &Homes, home: &str) -> Result<bool, HomesError> {
    let path = file(homes, home, ASKED)?;
    let last = fs::metadata(&path).and_then(|metadata| metadata.modified());
    let is_recent = last.is_ok_and(|last| SystemTime::now().duration_since(last).is_ok_and(|since| since < EVERY));
    if is_recent {
        return Ok(false);
    }
    match fs::write(&path, "") {
        Ok(()) => Ok(true),
        Err(source) => Err(HomesError::Io { action: "write", path, source }),
    }
}
