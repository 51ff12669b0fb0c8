//! Files of what outlives a process, in a folder of the process's own user. The sandbox may keep it from anything but these files.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

/// Folder and files are the user's alone.
const FOLDER_MODE: u32 = 0o700;
/// See [`FOLDER_MODE`].
pub(crate) const FILE_MODE: u32 = 0o600;

/// Makes a folder, unless it is there.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    // In the sandbox no folder can be made, and the error does not say that it is there.
    if fs::metadata(path).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// How such a file is opened: neither a link nor a FIFO is followed or waited for.
pub(crate) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
    options
}

/// Opens a file to read it.
///
/// # Errors
/// `InvalidData` if it is no file, or has more than `most` bytes.
pub(crate) fn open(path: &Path, most: u64) -> io::Result<File> {
    let file = options().read(true).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > most {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(file)
}

/// Replaces a file, or makes it: afterwards it is the old one or the new one, whole. It is written under the name `temporary` first,
/// which another process may have left.
pub(crate) fn replace(path: &Path, temporary: &Path, contents: &[u8]) -> io::Result<File> {
    let _ = fs::remove_file(temporary);
    let written = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(temporary)?;
        file.write_all(contents)?;
        match file.sync_data() {
            // Some file systems cannot.
            Err(error) if error.kind() != io::ErrorKind::InvalidInput => return Err(error),
            _ => {}
        }
        fs::rename(temporary, path)?;
        Ok(file)
    };
    let replaced = written();
    if replaced.is_err() {
        let _ = fs::remove_file(temporary);
    }
    replaced
}
