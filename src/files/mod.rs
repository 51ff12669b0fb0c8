//! Writes sets of files atomically, with the rights of the folder's owner.

mod attributes;
mod folder;
pub mod placed;
pub(crate) mod state;

pub use attributes::Warning;
pub use folder::Folder;

pub(crate) use attributes::Replaced;
pub(crate) use folder::{Actor, Made};

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use self::folder::cannot_sync;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The owner (0600): keys, and archives with keys.
    Private,
    /// Every user (0644): certificates.
    Public,
}

impl Access {
    /// The permission bits.
    pub const fn mode(self) -> u32 {
        match self {
            Self::Private => 0o600,
            Self::Public => 0o644,
        }
    }

    /// The permission bits that a file may keep of one that it replaces.
    const fn mask(self) -> u32 {
        match self {
            Self::Private => 0o660,
            Self::Public => 0o666,
        }
    }
}

/// What to do about a file that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Keep it, and write no file.
    Keep,
    /// Replace it.
    Replace,
}

/// A file to be written.
#[derive(Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Its path.
    pub path: PathBuf,
    /// Its contents.
    pub contents: Vec<u8>,
    /// Who may read it.
    pub access: Access,
}

impl fmt::Debug for NewFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewFile").field("path", &self.path).field("access", &self.access).finish_non_exhaustive()
    }
}

/// What temporary names begin with.
const TEMPORARY: &str = ".doorward-";

/// The number of existing files that an error names.
const SHOWN: usize = 3;

/// Files could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// These files exist. Nothing was written.
    #[error("would overwrite {}", shorten(.0))]
    Exists(Vec<PathBuf>),
    /// A system call failed.
    #[error("failed to {action} {path}")]
    Io {
        /// What was attempted, as in "failed to … `path`".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The first of `paths`, and how many more there are.
fn shorten(paths: &[PathBuf]) -> String {
    let shown: Vec<_> = paths.iter().take(SHOWN).map(|path| path.display().to_string()).collect();
    let shown = shown.join(", ");
    match paths.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Writes `files`, and the folders they need with mode 0700. Returns what the file system did not do as asked.
///
/// Every file is written under a temporary name beside its destination. Only when all are on the disk are they renamed, so
/// no reader sees a partial file, and a full disk changes nothing. A new file has the permissions of [`Access`], whatever
/// the umask; one that replaces another keeps its owner, group, permissions and access control list. With
/// [`Existing::Keep`] all files appear or none. With [`Existing::Replace`] each is replaced in one step; if one of these
/// renames fails, the error names the file, and those before it in `files` are replaced.
///
/// Root writes with the rights of the owner of each folder, see [`folder`].
pub fn write_all(files: &[NewFile], existing: Existing) -> Result<Vec<Warning>, Error> {
    check_places(files, existing)?;
    let mut warnings = Vec::new();
    Staged::prepare(files, None, &mut warnings)?.place(existing)?;
    Ok(warnings)
}

/// Removes what processes have left in `folder` that were killed while they wrote. No other process may be writing there.
pub(crate) fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
            placed::remove(&entry.path())?;
        }
    }
    Ok(())
}

fn check_places(files: &[NewFile], existing: Existing) -> Result<(), Error> {
    let mut taken = Vec::new();
    for file in files {
        match fs::symlink_metadata(&file.path) {
            Ok(there) if existing == Existing::Replace && !there.is_dir() => {}
            Ok(_) => taken.push(file.path.clone()),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => {}
            Err(error) => return Err(io_error("look at", &file.path)(error)),
        }
    }
    if taken.is_empty() { Ok(()) } else { Err(Error::Exists(taken)) }
}

/// Files on the disk under temporary names beside their destinations. Those not renamed are removed on drop.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    files: Vec<StagedFile>,
    made: Vec<Made>,
}

#[derive(Debug)]
struct StagedFile {
    folder: Rc<Folder>,
    temporary: OsString,
    name: OsString,
    path: PathBuf,
    /// It was renamed to its destination.
    placed: bool,
}

impl Staged {
    /// Writes the files under temporary names, with the rights of `actor` or of the owner of each folder.
    pub(crate) fn prepare(files: &[NewFile], actor: Option<Actor>, warnings: &mut Vec<Warning>) -> Result<Self, Error> {
        let mut staged = Self::default();
        for file in files {
            let name = file.path.file_name().ok_or(io::ErrorKind::IsADirectory);
            let name = name.map_err(io::Error::from).map_err(io_error("write", &file.path))?;
            let above = parent(&file.path);
            let known = staged.files.iter().find(|other| parent(&other.path) == above);
            let folder = match known.map(|other| Rc::clone(&other.folder)) {
                Some(folder) => folder,
                None => {
                    let folder = Folder::create(above, &mut staged.made).map_err(io_error("open the folder", above))?;
                    Rc::new(match actor {
                        Some(actor) => folder.with_rights_of(actor),
                        None => folder,
                    })
                }
            };
            let temporary = temporary_name().map_err(io_error("write", &file.path))?;
            let staged_file = StagedFile {
                folder: Rc::clone(&folder),
                temporary: temporary.clone(),
                name: name.to_owned(),
                path: file.path.clone(),
                placed: false,
            };
            let replaced = Replaced::look(&folder, name).map_err(io_error("look at", &file.path))?;
            staged.files.push(staged_file);
            write(&folder, &temporary, file, replaced.as_ref(), warnings).map_err(io_error("write", &file.path))?;
        }
        Ok(staged)
    }

    /// Renames the files to their destinations.
    pub(crate) fn place(mut self, existing: Existing) -> Result<(), Error> {
        for file in &mut self.files {
            let renamed = match existing {
                // Also fails for a file that appeared since the check.
                Existing::Keep => file.folder.rename_new(&file.temporary, &file.folder, &file.name),
                Existing::Replace => file.folder.rename(&file.temporary, &file.folder, &file.name),
            };
            match renamed {
                Ok(()) => file.placed = true,
                Err(refused) if refused.kind() == io::ErrorKind::AlreadyExists => {
                    let error = Error::Exists(vec![file.path.clone()]);
                    self.undo(existing);
                    return Err(error);
                }
                Err(refused) => {
                    let error = io_error("write", &file.path)(refused);
                    self.undo(existing);
                    return Err(error);
                }
            }
        }
        // A rename is durable once its folder is synced.
        for file in &self.files {
            file.folder.sync().map_err(io_error("write to disk", parent(&file.path)))?;
        }
        self.made.clear();
        Ok(())
    }

    /// With [`Existing::Keep`], removes the files that were renamed.
    fn undo(&self, existing: Existing) {
        for file in self.files.iter().filter(|file| file.placed && existing == Existing::Keep) {
            // The first error is the one to report.
            let _ = file.folder.remove(&file.name);
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for file in self.files.iter().filter(|file| !file.placed) {
            // The first error is the one to report.
            let _ = file.folder.remove(&file.temporary);
        }
        for made in self.made.iter().rev() {
            made.undo();
        }
    }
}

/// An unused file name.
pub(crate) fn temporary_name() -> io::Result<OsString> {
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random bytes from the system"))?;
    Ok(format!("{TEMPORARY}{:016x}", u64::from_be_bytes(random)).into())
}

/// Writes a file to the disk under `name`; `file.path` is its destination.
pub(crate) fn write(
    folder: &Folder,
    name: &OsStr,
    file: &NewFile,
    replaced: Option<&Replaced>,
    warnings: &mut Vec<Warning>,
) -> io::Result<()> {
    let mut new = folder.new_file(name)?;
    // Before it has contents that could be read.
    attributes::apply(&new, file.access, replaced, folder.actor(), &file.path, warnings)?;
    new.write_all(&file.contents)?;
    match rustix::fs::fsync(&new) {
        Err(error) if cannot_sync(error) => Ok(()),
        other => Ok(other?),
    }
}

/// The folder of a file.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn write_new(path: &Path, contents: &[u8], access: Access, existing: Existing) -> Result<Vec<Warning>, Error> {
        write_all(&[NewFile { path: path.to_owned(), contents: contents.to_vec(), access }], existing)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn file(path: &Path, contents: &str, access: Access) -> NewFile {
        NewFile { path: path.to_owned(), contents: contents.into(), access }
    }

    #[test]
    fn new_files_and_folders_have_their_modes() {
        let folder = tempfile::tempdir().expect("a folder");
        let (key, certificate) = (folder.path().join("a/b/key.pem"), folder.path().join("a/c/certificate.pem"));
        write_all(&[file(&key, "k", Access::Private), file(&certificate, "c", Access::Public)], Existing::Keep)
            .expect("written");
        assert_eq!((mode(&key), mode(&certificate)), (0o600, 0o644));
        for made in ["a", "a/b", "a/c"] {
            assert_eq!(mode(&folder.path().join(made)), 0o700, "{made}");
        }
        assert_eq!(names(&folder.path().join("a/b")), ["key.pem"], "no temporary file is left");
    }

    #[test]
    fn one_existing_file_prevents_all_writes() {
        let folder = tempfile::tempdir().expect("a folder");
        let taken = folder.path().join("taken");
        fs::write(&taken, "old").expect("written");
        let new = folder.path().join("new/file");
        let files = [file(&new, "n", Access::Public), file(&taken, "n", Access::Public)];
        match write_all(&files, Existing::Keep) {
            Err(Error::Exists(paths)) => assert_eq!(paths, std::slice::from_ref(&taken)),
            other => panic!("{other:?}"),
        }
        assert_eq!(names(folder.path()), ["taken"]);
        assert_eq!(fs::read_to_string(&taken).expect("there"), "old");
    }

    #[test]
    fn error_names_few_of_many_existing_files() {
        let exists = |n: usize| Error::Exists((0..n).map(|i| PathBuf::from(i.to_string())).collect()).to_string();
        assert_eq!(exists(1), "would overwrite 0");
        assert_eq!(exists(3), "would overwrite 0, 1, 2");
        assert_eq!(exists(11), "would overwrite 0, 1, 2 and 8 more");
    }

    #[test]
    fn dangling_link_counts_as_existing_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("nowhere"), &link).expect("a link");
        assert!(matches!(write_new(&link, b"n", Access::Private, Existing::Keep), Err(Error::Exists(_))));
        write_new(&link, b"n", Access::Private, Existing::Replace).expect("written");
        assert!(fs::symlink_metadata(&link).expect("there").is_file(), "the link is replaced, not followed");
        assert_eq!(names(folder.path()), ["link"]);
    }

    #[test]
    fn replaced_key_keeps_its_mode_without_other_users() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("key");
        fs::write(&key, "old").expect("written");
        fs::set_permissions(&key, Permissions::from_mode(0o666)).expect("set");
        let held = File::open(&key).expect("open");
        let warnings = write_new(&key, b"new", Access::Private, Existing::Replace).expect("written");
        assert_eq!(warnings, [Warning::KeyWasReadable { path: key.clone(), mode: 0o660 }]);
        assert_eq!((fs::read_to_string(&key).expect("there").as_str(), mode(&key)), ("new", 0o660));
        // An open descriptor still reads the old contents: the file was replaced, not rewritten.
        assert_eq!(io::read_to_string(held).expect("readable"), "old");
        assert_eq!(names(folder.path()), ["key"]);
    }

    #[test]
    fn failed_write_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("file"), "").expect("written");
        let good = folder.path().join("a/b/good");
        let impossible = folder.path().join("file/below");
        let files = [file(&good, "g", Access::Public), file(&impossible, "i", Access::Public)];
        assert!(matches!(write_all(&files, Existing::Keep), Err(Error::Io { .. })));
        assert_eq!(names(folder.path()), ["file"]);

        // The same path twice: the second rename fails, since the first file exists.
        assert!(matches!(write_all(&[files[0].clone(), files[0].clone()], Existing::Keep), Err(Error::Exists(_))));
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn folder_is_never_replaced_by_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("key");
        fs::create_dir(&place).expect("a folder");
        let file = file(&place, "k", Access::Private);
        assert!(matches!(write_all(&[file], Existing::Replace), Err(Error::Exists(_))));
    }
}
