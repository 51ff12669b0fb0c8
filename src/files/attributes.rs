//! Owner, group, mode and access control list of a file that replaces another one.
//!
//! A gate that runs as its own user must still be able to read its key after root has renewed it, so the new file gets the
//! attributes of the old one. A key never becomes readable by more users than before, nor by every user.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, Stat, XattrFlags, fchmod, fchown, fgetxattr, fsetxattr, fstat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid, geteuid};

use super::Access;
use super::folder::{Actor, Folder};

/// The extended attribute of the access control list (acl(5)).
const ACL: &str = "system.posix_acl_access";

/// The longest list that is copied: about 500 entries.
const ACL_MAX: usize = 4096;

const GROUP: u32 = 0o070;
const OTHERS: u32 = 0o007;

/// A file was written, but not with the attributes that it should have.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// The file system does not support permissions.
    NoPermissions {
        /// The folder.
        folder: PathBuf,
        /// The mode that its files have instead.
        mode: u32,
        /// The error of the system.
        error: String,
    },
    /// Others can read a key, because the file system does not support permissions.
    KeyReadable {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Every user could read a key that was replaced. The new file has stricter permissions.
    KeyWasReadable {
        /// The file.
        path: PathBuf,
        /// The new permissions.
        mode: u32,
    },
    /// Owner or group of the replaced file could not be kept.
    OwnerLost {
        /// The file.
        path: PathBuf,
        /// Its user and group before.
        owner: (u32, u32),
        /// Its permissions before.
        mode: u32,
    },
    /// The access control list of the replaced file could not be kept.
    AclLost {
        /// The file.
        path: PathBuf,
    },
    /// The file system does not support locks.
    NoLocks {
        /// The folder.
        folder: PathBuf,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPermissions { folder, mode, error } => write!(
                f,
                "the file system of {} does not support permissions ({error}); files there have mode {mode:04o}, which {}",
                folder.display(),
                match mode {
                    mode if mode & OTHERS != 0 => "lets every user of this machine read them",
                    mode if mode & GROUP != 0 => "lets the owner and the group read them",
                    _ => "lets only the owner read them",
                }
            ),
            Self::KeyReadable { path, mode } => write!(
                f,
                "{} holds a key that {} can read (mode {mode:04o}): the file system does not support permissions\n  move \
                 the keys to one that does, or mount this one with umask=077",
                path.display(),
                if mode & OTHERS == 0 { "its group" } else { "every user of this machine" },
            ),
            Self::KeyWasReadable { path, mode } => write!(
                f,
                "{} holds a key that every user of this machine could read; it has mode {mode:04o} now\n  if the old key \
                 may have been read, make a new one",
                path.display()
            ),
            Self::OwnerLost { path, owner: (user, group), mode } => write!(
                f,
                "{path} belonged to user {user} and group {group}, which only root can restore; a gate that runs as one of \
                 them cannot read it now\n  sudo chown {user}:{group} {path} && sudo chmod {mode:o} {path}",
                path = path.display()
            ),
            Self::AclLost { path } => write!(
                f,
                "{} lost its access control list\n  set it again with setfacl; to show it: getfacl {0}",
                path.display()
            ),
            Self::NoLocks { folder } => write!(
                f,
                "the file system of {} does not support locks: do not run two commands there at once",
                folder.display()
            ),
        }
    }
}

/// The attributes of a file that is to be replaced.
#[derive(Debug)]
pub(crate) struct Replaced {
    there: Stat,
    acl: Option<Vec<u8>>,
}

impl Replaced {
    /// Those of the regular file of this name, if it exists. One with several hard links may be another user's, and is
    /// ignored.
    pub(crate) fn look(folder: &Folder, name: &OsStr) -> io::Result<Option<Self>> {
        let there = folder
            .stat(name)?
            .filter(|there| FileType::from_raw_mode(there.st_mode) == FileType::RegularFile && there.st_nlink == 1);
        let Some(there) = there else { return Ok(None) };
        // A user that cannot read it cannot keep its list, and gets the warning about the owner.
        let open = folder.open_file(Path::new(name)).ok();
        let acl = open.and_then(|file| {
            let mut list = vec![0; ACL_MAX];
            let length = fgetxattr(&file, ACL, &mut list).ok()?;
            list.truncate(length);
            Some(list)
        });
        Ok(Some(Self { there, acl }))
    }
}

/// Sets the attributes of a new, empty file: those of the replaced file, or what `access` says. `path` is its final path.
pub(crate) fn apply(
    file: &File,
    access: Access,
    replaced: Option<&Replaced>,
    actor: Actor,
    path: &Path,
    warnings: &mut Vec<Warning>,
) -> io::Result<()> {
    let mut mode = access.mode();
    let mut given_away = false;
    if let Some(Replaced { there, acl }) = replaced {
        let before = there.st_mode & 0o777;
        mode = before & access.mask() | 0o400;
        if access == Access::Private && before & OTHERS != 0 {
            warnings.push(Warning::KeyWasReadable { path: path.to_owned(), mode });
        }
        let new = fstat(file)?;
        let (user, group) = (Uid::from_raw(there.st_uid), Gid::from_raw(there.st_gid));
        let differs = (new.st_uid != there.st_uid, new.st_gid != there.st_gid);
        given_away = differs != (false, false) && geteuid().is_root() && fchown(file, Some(user), Some(group)).is_ok();
        if !given_away && differs != (false, false) {
            // Without root, only a group of this user can be kept.
            let group_kept = !differs.1 || actor.act(|| fchown(file, None, Some(group))).is_ok();
            if !group_kept {
                mode &= !GROUP;
            }
            if !group_kept || differs.0 {
                let owner = (there.st_uid, there.st_gid);
                warnings.push(Warning::OwnerLost { path: path.to_owned(), owner, mode: before & access.mask() });
            }
        }
        if let Some(acl) = acl
            && fsetxattr(file, ACL, acl, XattrFlags::empty()).is_err()
        {
            warnings.push(Warning::AclLost { path: path.to_owned() });
        }
    }
    let change = || fchmod(file, Mode::from_raw_mode(mode));
    let changed = if given_away { change() } else { actor.act(change) };
    let now = fstat(file)?.st_mode & 0o777;
    match changed {
        Err(error) if !refuses_permissions(error) => return Err(error.into()),
        Ok(()) if now == mode => return Ok(()),
        _ => {}
    }
    if access == Access::Private && now & (GROUP | OTHERS) & !mode != 0 {
        warnings.push(Warning::KeyReadable { path: path.to_owned(), mode: now });
    } else {
        let error = changed.err().map_or_else(|| "chmod has no effect".to_owned(), |error| format!("chmod: {error}"));
        let folder = super::parent(path).to_owned();
        let warning = Warning::NoPermissions { folder, mode: now, error };
        // Once: the folders of one command are mostly on one file system.
        if !warnings.iter().any(|there| matches!(there, Warning::NoPermissions { .. })) {
            warnings.push(warning);
        }
    }
    Ok(())
}

/// FAT, exFAT, CIFS and FUSE report one of these.
fn refuses_permissions(error: Errno) -> bool {
    matches!(error, Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::INVAL | Errno::ACCESS)
}
