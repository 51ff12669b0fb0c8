//! A folder as a descriptor, and the rights it is used with.
//!
//! # Threat model
//!
//! The folder of the authorities belongs to one user, and `doorward ca` may be run by another one, mostly root, since only
//! root can reach the gate's control socket. The owner can rename, link and replace anything in the folder at any moment.
//! Root must not be made to read, write, give away or change the mode of anything that the owner could not reach:
//!
//! * A path is resolved once, component by component, from a descriptor (`openat`, `O_NOFOLLOW`), and the descriptor is used
//!   from then on. Files are created, renamed and removed relative to it.
//! * A symbolic link is followed only if the link and its folder belong to this user or to root (or to the owner of `/`,
//!   where a container does not map root). A link of another user is an error that names it.
//! * Root acts with the user and group of the folder's owner ([`crate::sys::credentials`]), and no other rights, for
//!   everything that paths of the folder or of the inventory lead to. New files belong to that owner. Only the descriptor of
//!   a file just created is used as root, to give it the owner of the file that it replaces.
//! * Only regular files are read, without blocking: a FIFO or a device instead of a file is an error.
//! * An interrupted change (see the inventory of [`crate::ca`]) is completed only if it belongs to the folder's owner or to
//!   this user, and only for the names that `doorward ca` writes.
//!
//! A process that may not change its user (a container without `CAP_SETUID`) follows no foreign links, but acts with its own
//! rights.
//!
//! Out of scope: a path on the command line (`--output`, `--passphrase-file`) is used as given, and the owner of a folder
//! can delete or exchange its contents, or hold its lock.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    Access, AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, Stat, accessat, fstat, mkdirat, openat, readlinkat,
    renameat, renameat_with, stat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid, geteuid};

use crate::sys::credentials::act_as;

/// The number of symbolic links that the kernel follows in one path (path_resolution(7)).
const LINKS: u8 = 40;

/// How each component of a path is opened: as a location only, and without following links.
const STEP: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The user whose rights are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Actor {
    /// Those of this process.
    Myself,
    /// Those of the owner of a folder.
    Owner(Uid, Gid),
}

impl Actor {
    fn of(folder: &Stat) -> Self {
        let owner = Uid::from_raw(folder.st_uid);
        if geteuid().is_root() && !owner.is_root() {
            Self::Owner(owner, Gid::from_raw(folder.st_gid))
        } else {
            Self::Myself
        }
    }

    /// Runs `call` with these rights.
    pub(crate) fn act<T>(self, call: impl FnOnce() -> T) -> T {
        match self {
            Self::Myself => call(),
            Self::Owner(user, group) => {
                let mut call = Some(call);
                let done = act_as(user, group, || call.take().map(|call| call()));
                match (done, call) {
                    (Ok(Some(result)), _) => result,
                    // `call` did not run: this process may not change its user.
                    (_, Some(call)) => call(),
                    // Unreachable: it ran and returned a result, or it did not run.
                    (_, None) => std::process::abort(),
                }
            }
        }
    }
}

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    descriptor: OwnedFd,
    path: PathBuf,
    actor: Actor,
}

/// A folder that was created.
#[derive(Debug)]
pub(crate) struct Made {
    above: OwnedFd,
    name: OsString,
    actor: Actor,
}

impl Made {
    /// Removes it, if it is empty.
    pub(crate) fn undo(&self) {
        // The first error is the one to report.
        let _ = self.actor.act(|| unlinkat(&self.above, &self.name, AtFlags::REMOVEDIR));
    }

    /// Writes its name to the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match self.actor.act(|| openat(&self.above, ".", flags, Mode::empty())).and_then(rustix::fs::fsync) {
            // A folder that cannot be listed cannot be synced.
            Err(Errno::ACCESS) => Ok(()),
            Err(error) if cannot_sync(error) => Ok(()),
            other => Ok(other?),
        }
    }
}

impl Folder {
    /// Opens the folder at `path`. Root acts in it as its owner.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut walk = Walk::begin(path, None)?;
        walk.descend(path)?;
        walk.folder(path, None)
    }

    /// As [`Folder::open`], and creates missing folders with mode 0700. They are added to `made`.
    pub(crate) fn create(path: &Path, made: &mut Vec<Made>) -> io::Result<Self> {
        let mut walk = Walk::begin(path, Some(made))?;
        walk.descend(path)?;
        walk.folder(path, None)
    }

    /// A folder below this one, used with the same rights. Created if `made` is given.
    pub(crate) fn below(&self, path: &Path, made: Option<&mut Vec<Made>>) -> io::Result<Self> {
        let mut walk = Walk { at: self.descriptor.try_clone()?, links: 0, made, actor: Some(self.actor) };
        self.actor.act(|| walk.descend(path))?;
        walk.folder(&self.path.join(path), Some(self.actor))
    }

    /// Its path, as it was given.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The user whose rights are used in it.
    pub(crate) const fn actor(&self) -> Actor {
        self.actor
    }

    /// The same folder, used with other rights.
    pub(crate) fn with_rights_of(self, actor: Actor) -> Self {
        Self { actor, ..self }
    }

    /// Owner and mode of the folder itself.
    pub(crate) fn own_stat(&self) -> io::Result<Stat> {
        Ok(fstat(&self.descriptor)?)
    }

    /// Owner, type and mode of an entry, without following links; `None` if there is none.
    pub(crate) fn stat(&self, name: &OsStr) -> io::Result<Option<Stat>> {
        match self.actor.act(|| statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW)) {
            Ok(there) => Ok(Some(there)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a regular file for reading. `path` is relative to the folder, or absolute.
    pub(crate) fn open_file(&self, path: &Path) -> io::Result<File> {
        let mut walk = Walk { at: self.descriptor.try_clone()?, links: 0, made: None, actor: Some(self.actor) };
        self.actor.act(|| walk.open_file(path))
    }

    /// The contents of a regular file. `path` is relative to the folder, or absolute.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut contents = Vec::new();
        self.open_file(path)?.read_to_end(&mut contents)?;
        Ok(contents)
    }

    /// The contents of the regular file at `path`. Root reads it with the rights of the owner of `folder`.
    pub fn read_beside(folder: &Path, path: &Path) -> io::Result<Vec<u8>> {
        let opened = Self::open(folder)?;
        let inside = path.strip_prefix(folder).map(Path::to_owned);
        opened.read(&inside.or_else(|_| std::path::absolute(path))?)
    }

    /// Creates a file with mode 0600. Fails if it exists.
    pub(crate) fn new_file(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        Ok(self.actor.act(|| openat(&self.descriptor, name, flags, mode))?.into())
    }

    /// Opens the lock file, and creates it if necessary.
    pub(crate) fn lock_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = self.actor.act(|| openat(&self.descriptor, name, flags, Mode::from_raw_mode(0o600)))?;
        regular(file)
    }

    /// Moves a file into another folder, and replaces what is there.
    pub(crate) fn rename(&self, from: &OsStr, to: &Self, name: &OsStr) -> io::Result<()> {
        Ok(self.actor.act(|| renameat(&self.descriptor, from, &to.descriptor, name))?)
    }

    /// As [`Folder::rename`], but fails if something is there.
    pub(crate) fn rename_new(&self, from: &OsStr, to: &Self, name: &OsStr) -> io::Result<()> {
        let renamed = || renameat_with(&self.descriptor, from, &to.descriptor, name, RenameFlags::NOREPLACE);
        match self.actor.act(renamed) {
            // File systems without RENAME_NOREPLACE (FUSE, CIFS).
            Err(Errno::INVAL | Errno::NOSYS) if to.stat(name)?.is_none() => self.rename(from, to, name),
            Err(Errno::INVAL | Errno::NOSYS) => Err(Errno::EXIST.into()),
            other => Ok(other?),
        }
    }

    /// Removes a file or a link.
    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(self.actor.act(|| unlinkat(&self.descriptor, name, AtFlags::empty()))?)
    }

    /// Creates a folder in it with mode 0700. Fails if it exists.
    pub(crate) fn new_folder(&self, name: &str) -> io::Result<Self> {
        self.actor.act(|| mkdirat(&self.descriptor, name, Mode::from_raw_mode(0o700)))?;
        self.below(Path::new(name), None)
    }

    /// Removes a folder with the files in it, if it exists.
    pub(crate) fn remove_folder(&self, name: &str) -> io::Result<()> {
        match self.stat(OsStr::new(name))? {
            None => return Ok(()),
            Some(there) if FileType::from_raw_mode(there.st_mode) != FileType::Directory => {
                return self.remove(OsStr::new(name));
            }
            Some(_) => {}
        }
        let folder = self.below(Path::new(name), None)?;
        for entry in folder.actor.act(|| Dir::read_from(&folder.descriptor))? {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                folder.actor.act(|| match unlinkat(&folder.descriptor, name, AtFlags::empty()) {
                    Err(Errno::ISDIR | Errno::PERM) => unlinkat(&folder.descriptor, name, AtFlags::REMOVEDIR),
                    other => other,
                })?;
            }
        }
        Ok(self.actor.act(|| unlinkat(&self.descriptor, name, AtFlags::REMOVEDIR))?)
    }

    /// Fails if files cannot be created and removed in it.
    pub(crate) fn check_writable(&self) -> io::Result<()> {
        let wanted = Access::WRITE_OK | Access::EXEC_OK;
        match self.actor.act(|| accessat(&self.descriptor, ".", wanted, AtFlags::EACCESS)) {
            // Before Linux 5.8 this can only be asked for the real user.
            Err(Errno::NOSYS | Errno::INVAL) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Writes the names in it to the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match rustix::fs::fsync(&self.descriptor) {
            Err(error) if cannot_sync(error) || error == Errno::BADF => Ok(()),
            other => Ok(other?),
        }
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Whether the file system does not support fsync.
pub(crate) fn cannot_sync(error: Errno) -> bool {
    matches!(error, Errno::INVAL | Errno::NOSYS | Errno::NOTSUP | Errno::ROFS)
}

/// This file, if it is regular.
fn regular(file: OwnedFd) -> io::Result<File> {
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file.into())
}

/// A path that is resolved component by component.
struct Walk<'a> {
    at: OwnedFd,
    links: u8,
    /// Missing folders are created, and added here.
    made: Option<&'a mut Vec<Made>>,
    /// The user whose rights create them; `None` for the owner of the folder above.
    actor: Option<Actor>,
}

impl<'a> Walk<'a> {
    fn begin(path: &Path, made: Option<&'a mut Vec<Made>>) -> io::Result<Self> {
        let start = if path.is_absolute() { "/" } else { "." };
        let at = openat(CWD, start, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { at, links: 0, made, actor: None })
    }

    fn descend(&mut self, path: &Path) -> io::Result<()> {
        for component in path.components() {
            match component {
                Component::RootDir => self.at = openat(CWD, "/", STEP, Mode::empty())?,
                Component::ParentDir => self.at = openat(&self.at, "..", STEP, Mode::empty())?,
                Component::Normal(name) => self.step(name)?,
                Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Ok(())
    }

    fn step(&mut self, name: &OsStr) -> io::Result<()> {
        match openat(&self.at, name, STEP, Mode::empty()) {
            Ok(below) => self.at = below,
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let target = self.link(name)?.ok_or(Errno::NOTDIR)?;
                self.descend(&target)?;
            }
            Err(Errno::NOENT) if self.made.is_some() => self.make(name)?,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn make(&mut self, name: &OsStr) -> io::Result<()> {
        let actor = match self.actor {
            Some(actor) => actor,
            None => Actor::of(&fstat(&self.at)?),
        };
        actor.act(|| mkdirat(&self.at, name, Mode::from_raw_mode(0o700)))?;
        let below = openat(&self.at, name, STEP, Mode::empty())?;
        let above = std::mem::replace(&mut self.at, below);
        if let Some(made) = &mut self.made {
            made.push(Made { above, name: name.to_owned(), actor });
        }
        Ok(())
    }

    /// The target of a symbolic link. `None` if it is no link.
    fn link(&mut self, name: &OsStr) -> io::Result<Option<PathBuf>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let link = openat(&self.at, name, flags, Mode::empty())?;
        let (there, folder) = (fstat(&link)?, fstat(&self.at)?);
        if FileType::from_raw_mode(there.st_mode) != FileType::Symlink {
            return Ok(None);
        }
        self.links += 1;
        if self.links > LINKS {
            return Err(Errno::LOOP.into());
        }
        if !may_follow(&there, &folder) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{name:?} is a symbolic link of another user, which is not followed: name its target instead"),
            ));
        }
        let target = readlinkat(&link, "", Vec::new())?.into_bytes();
        Ok(Some(OsString::from_vec(target).into()))
    }

    fn open_file(&mut self, path: &Path) -> io::Result<File> {
        let name = path.file_name().ok_or(Errno::ISDIR)?;
        if let Some(parent) = path.parent() {
            self.descend(parent)?;
        }
        // Non-blocking: opening a FIFO waits for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match openat(&self.at, name, flags, Mode::empty()) {
            Ok(file) => regular(file),
            Err(Errno::LOOP) => {
                let target = self.link(name)?.ok_or(Errno::LOOP)?;
                self.open_file(&target)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The folder that the path led to.
    fn folder(self, path: &Path, actor: Option<Actor>) -> io::Result<Folder> {
        let actor = match actor {
            Some(actor) => actor,
            None => Actor::of(&fstat(&self.at)?),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // If it cannot be listed, its location is enough.
        let descriptor = actor.act(|| openat(&self.at, ".", flags, Mode::empty())).unwrap_or(self.at);
        Ok(Folder { descriptor, path: path.to_owned(), actor })
    }
}

/// Whether a link in this folder may be followed.
fn may_follow(link: &Stat, folder: &Stat) -> bool {
    const OTHERS_WRITE: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    let owner_of_root = stat("/").map(|root| root.st_uid).unwrap_or_default();
    let real = rustix::process::getuid();
    let trusted = |owner: u32| owner == 0 || owner == real.as_raw() || owner == owner_of_root;
    let open_to_others = folder.st_mode & OTHERS_WRITE != 0 && folder.st_mode & STICKY == 0;
    trusted(link.st_uid) && trusted(folder.st_uid) && !open_to_others
}
