//! Writing keys and certificates to disk: the whole set or nothing, and never half a file.

mod attributes;
mod folder;

pub use attributes::Warning;
pub use folder::Folder;

pub(super) use attributes::Replaced;
pub(super) use folder::{Actor, Made};

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
    /// Its owner alone (0600): keys, and archives with keys.
    Private,
    /// Everybody (0644): certificates.
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

    /// What a file may keep of the permissions of one that it replaces.
    const fn most(self) -> u32 {
        match self {
            Self::Private => 0o660,
            Self::Public => 0o666,
        }
    }
}

/// What to do about a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Keep it and write nothing at all.
    Keep,
    /// Replace it.
    Replace,
}

/// A file to be written.
#[derive(Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub contents: Vec<u8>,
    /// For whose eyes.
    pub access: Access,
}

impl fmt::Debug for NewFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewFile").field("path", &self.path).field("access", &self.access).finish_non_exhaustive()
    }
}

/// How many of the files in the way are named.
const SHOWN: usize = 3;

/// Files could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// These are there already. Nothing was written.
    #[error("would overwrite {}", in_the_way(.0))]
    Exists(Vec<PathBuf>),
    /// The system refused something.
    #[error("failed to {action} {path}")]
    Io {
        /// What was tried, as in "failed to … `path`".
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The first of `paths`, and how many more there are.
fn in_the_way(paths: &[PathBuf]) -> String {
    let shown: Vec<_> = paths.iter().take(SHOWN).map(|path| path.display().to_string()).collect();
    let shown = shown.join(", ");
    match paths.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Writes `files`, and the folders they need with mode 0700. Says what the file systems did not do as they were asked.
///
/// Every file is written to the disk under another name beside its place, and only when all of them are there are
/// they renamed, so that no reader ever sees half a file and a full disk leaves everything as it was. A new file has the
/// permissions that [`Access`] says, whatever the umask; one that replaces another keeps owner, group, permissions and
/// access control list of that one. With [`Existing::Keep`] the files appear all or none. With
/// [`Existing::Replace`] each is replaced in one step; should the system refuse one of these renames, the error names
/// the file, and those before it in `files` are the new ones.
///
/// Root writes with the rights of the owner of each folder, see [`folder`].
pub fn write_all(files: &[NewFile], existing: Existing) -> Result<Vec<Warning>, Error> {
    check_places(files, existing)?;
    let mut warnings = Vec::new();
    Staged::prepare(files, None, &mut warnings)?.place(existing)?;
    Ok(warnings)
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

/// Files that are on the disk under other names beside their places. What is not placed is removed when this is dropped.
#[derive(Debug, Default)]
pub(in crate::ca) struct Staged {
    files: Vec<StagedFile>,
    made: Vec<Made>,
}

#[derive(Debug)]
struct StagedFile {
    folder: Rc<Folder>,
    temporary: OsString,
    name: OsString,
    path: PathBuf,
    /// It stands under its own name now.
    placed: bool,
}

impl Staged {
    /// Writes the files to the disk. With the rights of `actor`, if one is given, instead of those of the owner of each folder.
    pub(in crate::ca) fn prepare(
        files: &[NewFile],
        actor: Option<Actor>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, Error> {
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

    /// Gives the files their names.
    pub(in crate::ca) fn place(mut self, existing: Existing) -> Result<(), Error> {
        for file in &mut self.files {
            let renamed = match existing {
                // Refuses even a file that has appeared since it was looked for.
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
        // A rename is on the disk when its folder is.
        for file in &self.files {
            file.folder.sync().map_err(io_error("write to disk", parent(&file.path)))?;
        }
        self.made.clear();
        Ok(())
    }

    /// With [`Existing::Keep`] what has appeared already goes again.
    fn undo(&self, existing: Existing) {
        for file in self.files.iter().filter(|file| file.placed && existing == Existing::Keep) {
            // The error that brought us here is the one to tell.
            let _ = file.folder.remove(&file.name);
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for file in self.files.iter().filter(|file| !file.placed) {
            // The error that brought us here is the one to tell.
            let _ = file.folder.remove(&file.temporary);
        }
        for made in self.made.iter().rev() {
            made.undo();
        }
    }
}

/// A name that no file has.
fn temporary_name() -> io::Result<OsString> {
    let random = crate::pki::random::<8>().map_err(io::Error::other)?;
    Ok(format!(".doorward-{:016x}", u64::from_be_bytes(random)).into())
}

/// Writes a file to the disk under `name`; `file.path` is where it will stand.
pub(in crate::ca) fn write(
    folder: &Folder,
    name: &OsStr,
    file: &NewFile,
    replaced: Option<&Replaced>,
    warnings: &mut Vec<Warning>,
) -> io::Result<()> {
    let mut new = folder.new_file(name)?;
    // Before there is anything in it to be read.
    attributes::apply(&new, file.access, replaced, folder.actor(), &file.path, warnings)?;
    new.write_all(&file.contents)?;
    match rustix::fs::fsync(&new) {
        Err(error) if cannot_sync(error) => Ok(()),
        other => Ok(other?),
    }
}

/// The folder a file is in.
pub(in crate::ca) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

pub(in crate::ca) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
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
    fn keys_are_private_certificates_public_and_folders_closed() {
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
    fn one_file_in_the_way_and_nothing_is_written() {
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
    fn the_files_in_the_way_are_named_but_not_pages_of_them() {
        let exists = |n: usize| Error::Exists((0..n).map(|i| PathBuf::from(i.to_string())).collect()).to_string();
        assert_eq!(exists(1), "would overwrite 0");
        assert_eq!(exists(3), "would overwrite 0, 1, 2");
        assert_eq!(exists(11), "would overwrite 0, 1, 2 and 8 more");
    }

    #[test]
    fn a_dangling_link_is_a_file_in_the_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("nowhere"), &link).expect("a link");
        assert!(matches!(write_new(&link, b"n", Access::Private, Existing::Keep), Err(Error::Exists(_))));
        write_new(&link, b"n", Access::Private, Existing::Replace).expect("written");
        assert!(fs::symlink_metadata(&link).expect("there").is_file(), "the link is replaced, not followed");
        assert_eq!(names(folder.path()), ["link"]);
    }

    #[test]
    fn a_replaced_key_keeps_its_mode_but_is_not_for_every_user() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("key");
        fs::write(&key, "old").expect("written");
        fs::set_permissions(&key, Permissions::from_mode(0o666)).expect("set");
        let held = File::open(&key).expect("open");
        let warnings = write_new(&key, b"new", Access::Private, Existing::Replace).expect("written");
        assert_eq!(warnings, [Warning::KeyWasReadable { path: key.clone(), mode: 0o660 }]);
        assert_eq!((fs::read_to_string(&key).expect("there").as_str(), mode(&key)), ("new", 0o660));
        // Whoever had it open still reads the old one to its end: it was replaced, not rewritten.
        assert_eq!(io::read_to_string(held).expect("readable"), "old");
        assert_eq!(names(folder.path()), ["key"]);
    }

    #[test]
    fn what_cannot_be_finished_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("file"), "").expect("written");
        let good = folder.path().join("a/b/good");
        let impossible = folder.path().join("file/below");
        let files = [file(&good, "g", Access::Public), file(&impossible, "i", Access::Public)];
        assert!(matches!(write_all(&files, Existing::Keep), Err(Error::Io { .. })));
        assert_eq!(names(folder.path()), ["file"]);

        // The same place twice: the second rename is refused when the first file has appeared already.
        assert!(matches!(write_all(&[files[0].clone(), files[0].clone()], Existing::Keep), Err(Error::Exists(_))));
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn a_folder_in_the_place_of_a_file_is_never_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("key");
        fs::create_dir(&place).expect("a folder");
        let file = file(&place, "k", Access::Private);
        assert!(matches!(write_all(&[file], Existing::Replace), Err(Error::Exists(_))));
    }
}
