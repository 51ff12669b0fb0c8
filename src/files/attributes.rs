//! Owner, group, mode and access control list of a file that takes the place of another one.
//!
//! A gate that runs as a user of its own must still be able to read its key when an administrator has renewed it, so a
//! replaced file hands these on. A key is never readable by more users than before, nor by every user.

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

/// Where Linux keeps the access control list of a file (acl(5)).
const ACL: &str = "system.posix_acl_access";

/// The longest list that is handed on: some 500 entries.
const ACL_MAX: usize = 4096;

const GROUP: u32 = 0o070;
const OTHERS: u32 = 0o007;

/// Something about a written file is not as it should be, and the user can mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// The file system does not take permissions.
    NoPermissions {
        /// The folder.
        folder: PathBuf,
        /// What its files have instead.
        mode: u32,
        /// What the system said.
        error: String,
    },
    /// Others can read a key, because the file system does not take permissions.
    KeyReadable {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Every user could read a key that was replaced; the new one cannot be read so.
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
        /// Who owned it.
        owner: (u32, u32),
        /// Its permissions before.
        mode: u32,
    },
    /// The access control list of the replaced file could not be kept.
    AclLost {
        /// The file.
        path: PathBuf,
    },
    /// The file system knows no locks.
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
                "the file system of {} does not take permissions ({error}); files there have mode {mode:04o}, which {}",
                folder.display(),
                match mode {
                    mode if mode & OTHERS != 0 => "lets every user of this machine read them",
                    mode if mode & GROUP != 0 => "lets the owner and the group read them",
                    _ => "lets only the owner read them",
                }
            ),
            Self::KeyReadable { path, mode } => write!(
                f,
                "{} holds a key, and {} can read it (mode {mode:04o}), for the file system does not take permissions\n  move \
                 the keys to one that does, or mount this one with umask=077",
                path.display(),
                if mode & OTHERS == 0 { "its group" } else { "every user of this machine" },
            ),
            Self::KeyWasReadable { path, mode } => write!(
                f,
                "{} holds a key, and every user of this machine could read it; it has mode {mode:04o} now\n  if somebody \
                 else may have read the old one, make a new key",
                path.display()
            ),
            Self::OwnerLost { path, owner: (user, group), mode } => write!(
                f,
                "{path} belonged to user {user} and group {group}, which only root can keep; if the gate reads it as one of \
                 them, it cannot now\n  sudo chown {user}:{group} {path} && sudo chmod {mode:o} {path}",
                path = path.display()
            ),
            Self::AclLost { path } => write!(
                f,
                "{} had an access control list, which could not be kept\n  set it again with setfacl; see what it has: \
                 getfacl {0}",
                path.display()
            ),
            Self::NoLocks { folder } => write!(
                f,
                "the file system of {} knows no locks: do not run two commands there at once",
                folder.display()
            ),
        }
    }
}

/// What a file has that is to be replaced.
#[derive(Debug)]
pub(crate) struct Replaced {
    there: Stat,
    acl: Option<Vec<u8>>,
}

impl Replaced {
    /// Of the regular file of this name, if there is one. A file of several names may be another user's, linked here.
    pub(crate) fn look(folder: &Folder, name: &OsStr) -> io::Result<Option<Self>> {
        let there = folder
            .stat(name)?
            .filter(|there| FileType::from_raw_mode(there.st_mode) == FileType::RegularFile && there.st_nlink == 1);
        let Some(there) = there else { return Ok(None) };
        // Who cannot read it cannot keep its list, and is told by the owner's warning.
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

/// Gives a file that was just made, and is still empty, what it is to have: as `access` says if it is new, otherwise what the
/// replaced one had. `path` is where it will stand.
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
        mode = before & access.most() | 0o400;
        if access == Access::Private && before & OTHERS != 0 {
            warnings.push(Warning::KeyWasReadable { path: path.to_owned(), mode });
        }
        let new = fstat(file)?;
        let (user, group) = (Uid::from_raw(there.st_uid), Gid::from_raw(there.st_gid));
        let differs = (new.st_uid != there.st_uid, new.st_gid != there.st_gid);
        given_away = differs != (false, false) && geteuid().is_root() && fchown(file, Some(user), Some(group)).is_ok();
        if !given_away && differs != (false, false) {
            // An ordinary user can keep a group of its own.
            let group_kept = !differs.1 || actor.act(|| fchown(file, None, Some(group))).is_ok();
            if !group_kept {
                mode &= !GROUP;
            }
            if !group_kept || differs.0 {
                let owner = (there.st_uid, there.st_gid);
                warnings.push(Warning::OwnerLost { path: path.to_owned(), owner, mode: before & access.most() });
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
        // One is enough: the folders of one command are on one file system, mostly.
        if !warnings.iter().any(|there| matches!(there, Warning::NoPermissions { .. })) {
            warnings.push(warning);
        }
    }
    Ok(())
}

/// FAT, exFAT, CIFS and FUSE refuse in one of these ways.
fn refuses_permissions(error: Errno) -> bool {
    matches!(error, Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::INVAL | Errno::ACCESS)
}
