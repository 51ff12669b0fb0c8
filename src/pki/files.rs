//! Writing keys and certificates to disk: the whole set or nothing, and never half a file.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

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
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// These are there already. Nothing was written.
    Exists(Vec<PathBuf>),
    /// The system refused something.
    Io {
        /// What was tried, as in "failed to … `path`".
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(paths) => {
                f.write_str("would overwrite ")?;
                for (i, path) in paths.iter().take(SHOWN).enumerate() {
                    write!(f, "{}{}", if i > 0 { ", " } else { "" }, path.display())?;
                }
                match paths.len().saturating_sub(SHOWN) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::Io { action, path, .. } => write!(f, "failed to {action} {}", path.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Exists(_) => None,
            Self::Io { source, .. } => Some(source),
        }
    }
}

/// Writes one file, as [`write_all`] does.
pub fn write_new(path: &Path, contents: &[u8], access: Access, existing: Existing) -> Result<(), Error> {
    write_all(&[NewFile { path: path.to_owned(), contents: contents.to_vec(), access }], existing)
}

/// Writes `files`, and the folders they need with mode 0700.
///
/// Every file is written to the disk under another name beside its place, and only when all of them are there are
/// they renamed, so that no reader ever sees half a file and a full disk leaves everything as it was. Permissions
/// are as [`Access`] says, whatever the umask. With [`Existing::Keep`] the files appear all or none. With
/// [`Existing::Replace`] each is replaced in one step; should the system refuse one of these renames, the error names
/// the file, and those before it in `files` are the new ones.
pub fn write_all(files: &[NewFile], existing: Existing) -> Result<(), Error> {
    check_places(files, existing)?;
    let mut folders = Folders::default();
    for file in files {
        folders.create(parent(&file.path))?;
    }
    let staged = files.iter().map(stage).collect::<Result<Vec<_>, _>>()?;
    let mut placed = Placed::default();
    for (file, temporary) in files.iter().zip(staged) {
        let renamed = match existing {
            // Refuses even a file that has appeared since it was looked for.
            Existing::Keep => temporary.persist_noclobber(&file.path),
            Existing::Replace => temporary.persist(&file.path),
        };
        match renamed {
            Ok(_) if existing == Existing::Keep => placed.0.push(&file.path),
            Ok(_) => {}
            Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::Exists(vec![file.path.clone()]));
            }
            Err(refused) => return Err(io_error("write", &file.path)(refused.error)),
        }
    }
    placed.0.clear();
    let changed = files.iter().map(|file| parent(&file.path)).chain(folders.created.iter().map(|path| parent(path)));
    // A rename is on the disk when its folder is.
    let changed: BTreeSet<PathBuf> = changed.map(Path::to_owned).collect();
    folders.created.clear();
    changed.iter().try_for_each(|folder| {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("write to disk", folder))
    })
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

/// Writes the file to the disk under another name beside its place.
fn stage(file: &NewFile) -> Result<NamedTempFile, Error> {
    let write = || {
        let mut temporary = Builder::new().prefix(".doorward-").tempfile_in(parent(&file.path))?;
        temporary.write_all(&file.contents)?;
        temporary.as_file().set_permissions(Permissions::from_mode(file.access.mode()))?;
        temporary.as_file().sync_all()?;
        Ok(temporary)
    };
    write().map_err(io_error("write", &file.path))
}

/// Folders made on the way; removed again if still empty when this is dropped.
#[derive(Default)]
struct Folders {
    created: Vec<PathBuf>,
}

impl Folders {
    fn create(&mut self, folder: &Path) -> Result<(), Error> {
        if folder.is_dir() {
            return Ok(());
        }
        self.create(parent(folder))?;
        match DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => {
                self.created.push(folder.to_owned());
                Ok(())
            }
            Err(error) => Err(io_error("create the folder", folder)(error)),
        }
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        for folder in self.created.iter().rev() {
            // The error that brought us here is the one to tell.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Files that have appeared at their places; removed again when this is dropped.
#[derive(Default)]
struct Placed<'a>(Vec<&'a Path>);

impl Drop for Placed<'_> {
    fn drop(&mut self) {
        for path in &self.0 {
            // The error that brought us here is the one to tell.
            let _ = fs::remove_file(path);
        }
    }
}

/// The folder a file is in.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_replaced_file_gets_the_contents_and_mode_of_the_new_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("key");
        fs::write(&key, "old").expect("written");
        fs::set_permissions(&key, Permissions::from_mode(0o666)).expect("set");
        let held = File::open(&key).expect("open");
        write_new(&key, b"new", Access::Private, Existing::Replace).expect("written");
        assert_eq!((fs::read_to_string(&key).expect("there").as_str(), mode(&key)), ("new", 0o600));
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
