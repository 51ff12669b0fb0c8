//! Files and folders at places of the system, with owner and mode as asked: for `doorward install`, which runs as root.
//!
//! A folder on the way may belong to a user, who can rename and link in it at any moment (see [`super::folder`]): everything goes
//! by descriptors, entries are made with the rights of their folder's owner, and root changes the attributes of a descriptor that
//! it has just created or opened without following links.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::path::Path;

use rustix::fs::{FileType, Mode, fchmod, fchown};
use rustix::process::{Gid, Uid};

use super::folder::{Actor, Folder, cannot_sync};
use super::{parent, temporary_name};

/// User, group and permission bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// The user's number.
    pub user: u32,
    /// The group's number.
    pub group: u32,
    /// The permission bits, as in `0o644`.
    pub mode: u32,
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// Nothing.
    Nothing,
    /// A regular file.
    File(Attributes),
    /// A folder.
    Folder(Attributes),
    /// A link, a socket, a device.
    Other,
}

/// What is at `path`; a link there is not followed.
pub fn look(path: &Path) -> io::Result<Placed> {
    let folder = match Folder::open(parent(path)) {
        Ok(folder) => folder.with_rights_of(Actor::Myself),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Placed::Nothing),
        Err(error) => return Err(error),
    };
    let Some(there) = folder.stat(name(path)?)? else { return Ok(Placed::Nothing) };
    let attributes = Attributes { user: there.st_uid, group: there.st_gid, mode: there.st_mode & 0o7777 };
    Ok(match FileType::from_raw_mode(there.st_mode) {
        FileType::RegularFile => Placed::File(attributes),
        FileType::Directory => Placed::Folder(attributes),
        _ => Placed::Other,
    })
}

/// The contents of the regular file at `path`, with the rights of this process.
pub fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let folder = Folder::open(parent(path))?.with_rights_of(Actor::Myself);
    let mut contents = Vec::new();
    folder.open_file(Path::new(name(path)?))?.read_to_end(&mut contents)?;
    Ok(contents)
}

/// Writes a file, or replaces what is there, in one step. Its folder must exist.
pub fn place_file(path: &Path, contents: &[u8], attributes: Attributes) -> io::Result<()> {
    let (folder, name) = (Folder::open(parent(path))?, name(path)?);
    if matches!(look(path)?, Placed::Folder(_)) {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let temporary = temporary_name()?;
    let mut file = folder.new_file(&temporary)?;
    let written = (|| {
        // The owner while it is empty. A change of the owner clears bits of the mode, so the mode is last.
        set(&file, attributes)?;
        file.write_all(contents)?;
        match rustix::fs::fsync(&file) {
            Err(error) if !cannot_sync(error) => Err(io::Error::from(error)),
            _ => folder.rename(&temporary, &folder, name),
        }
    })();
    if written.is_err() {
        // The first error is the one to report.
        let _ = folder.remove(&temporary);
    }
    written.and_then(|()| folder.sync())
}

/// Creates a folder, or sets the attributes of the one that is there. The one above it must exist.
pub fn place_folder(path: &Path, attributes: Attributes) -> io::Result<()> {
    let (above, name) = (Folder::open(parent(path))?, name(path)?);
    let text = name.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
    if above.stat(name)?.is_none() {
        above.new_folder(text)?;
    }
    // A link is not followed: `open` would follow one of root.
    let there = above.stat(name)?.map(|there| FileType::from_raw_mode(there.st_mode));
    if there != Some(FileType::Directory) {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    set(&above.below(Path::new(name), None)?, attributes)
}

/// Removes a file or a link, if it is there.
pub fn remove(path: &Path) -> io::Result<()> {
    let folder = match Folder::open(parent(path)) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match folder.remove(name(path)?) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn set(file: &impl std::os::fd::AsFd, Attributes { user, group, mode }: Attributes) -> io::Result<()> {
    fchown(file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
    Ok(fchmod(file, Mode::from_raw_mode(mode))?)
}

fn name(path: &Path) -> io::Result<&OsStr> {
    path.file_name().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn own(mode: u32) -> Attributes {
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Attributes { user, group, mode }
    }

    #[test]
    fn files_and_folders_get_their_attributes_whatever_was_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let (below, file) = (folder.path().join("below"), folder.path().join("below/file"));
        assert_eq!(look(&file).expect("looked at"), Placed::Nothing);
        place_folder(&below, own(0o755)).expect("made");
        assert_eq!(look(&below).expect("looked at"), Placed::Folder(own(0o755)));
        place_file(&file, b"one", own(0o640)).expect("written");
        place_file(&file, b"two", own(0o400)).expect("replaced");
        assert_eq!(look(&file).expect("looked at"), Placed::File(own(0o400)));
        assert_eq!(contents(&file).expect("read"), b"two");
        place_folder(&below, own(0o700)).expect("set");
        assert_eq!(look(&below).expect("looked at"), Placed::Folder(own(0o700)));
        remove(&file).expect("removed");
        remove(&file).expect("nothing to remove");
        assert_eq!(fs::read_dir(&below).expect("a folder").count(), 0);
    }

    #[test]
    fn links_are_replaced_and_never_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, "precious").expect("written");
        symlink(&target, &link).expect("a link");
        assert_eq!(look(&link).expect("looked at"), Placed::Other);
        place_file(&link, b"new", own(0o600)).expect("replaced");
        assert_eq!(fs::read(&target).expect("there"), b"precious");
        assert_eq!(contents(&link).expect("read"), b"new");

        let (real, linked) = (folder.path().join("real"), folder.path().join("linked"));
        fs::create_dir(&real).expect("a folder");
        fs::set_permissions(&real, fs::Permissions::from_mode(0o700)).expect("set");
        symlink(&real, &linked).expect("a link");
        assert!(place_folder(&linked, own(0o755)).is_err());
        assert_eq!(fs::metadata(&real).expect("there").mode() & 0o777, 0o700);
        assert!(place_file(&real, b"x", own(0o600)).is_err(), "a folder is no file");
    }
}
