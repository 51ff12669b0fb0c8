//! Changes several files atomically, even if the process is killed.
//!
//! All new contents are written to the folder `.changes.new`, with a list of their destinations. Renaming that folder to
//! `.changes` commits the change. Then each file is moved to its destination, by the next command if this one is killed. So
//! a killed command has changed all files or none.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, fchmod, fstat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::files::{self, Access, Folder, Made, NewFile, Replaced, Staged, Warning, io_error};

/// The folder in which a change is prepared.
const PREPARING: &str = ".changes.new";
/// The folder of a committed change, whose files have to be moved to their destinations.
const DECIDED: &str = ".changes";
/// The list of destinations, in either folder.
const LIST: &str = "list.json";

/// One file of the change.
#[derive(Debug, Serialize, Deserialize)]
struct Move {
    /// Its name in the folder of the change.
    from: String,
    /// Its destination, relative to the folder of the authorities, so that the whole folder may be moved.
    to: PathBuf,
}

/// The destinations that a list may contain.
#[derive(Debug)]
enum Destination<'a> {
    /// In the folder of the authorities, or below it.
    Inside(&'a Path),
    /// Beside the folder: the configuration, or a file of a device.
    Beside(&'a Path),
}

impl<'a> Destination<'a> {
    fn parse(path: &'a Path) -> Option<Self> {
        let mut parts = path.components();
        let beside = path.components().next() == Some(Component::ParentDir);
        if beside {
            parts.next();
        }
        let rest = parts.as_path();
        let names: Option<Vec<&OsStr>> = parts
            .map(|part| match part {
                Component::Normal(name) if !name.as_encoded_bytes().starts_with(b".") => Some(name),
                _ => None,
            })
            .collect();
        match (beside, names.as_deref()?) {
            (_, []) => None,
            (false, _) => Some(Self::Inside(rest)),
            (true, [file]) if *file == "doorward.toml" => Some(Self::Beside(rest)),
            (true, [folder, _]) if *folder == "devices" => Some(Self::Beside(rest)),
            (true, _) => None,
        }
    }

    /// The folder of the destination, created if necessary, and the file name. Used with the rights of `base`.
    fn open(&self, base: &Folder, made: &mut Vec<Made>) -> io::Result<(Folder, &'a OsStr)> {
        let (start, path) = match self {
            Self::Inside(path) => (None, path),
            Self::Beside(path) => {
                let above = tidy(&base.path().join(".."));
                (Some(Folder::open(&above)?.with_rights_of(base.actor())), path)
            }
        };
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
        Ok((start.as_ref().unwrap_or(base).below(folder, Some(made))?, name))
    }
}

/// A change that was not made, or not completed.
#[derive(Debug)]
pub(super) enum CommitError {
    /// Nothing was changed.
    Unchanged(files::Error),
    /// It is made, but some files are not in place yet.
    Unfinished(files::Error),
}

/// Writes all of `files`, or none if there is an error before the commit. The caller holds the lock.
///
/// The paths of `files` are relative to `folder`, or absolute. A replaced file passes on its owner, group and permissions.
/// Files that the list must not name are written beside their destinations before, and renamed after the commit: with the
/// rights of the owner of `folder`, unless they are in `output`, which the user named.
pub(super) fn commit(
    folder: &Folder,
    files: &[NewFile],
    output: Option<&Path>,
    warnings: &mut Vec<Warning>,
) -> Result<(), CommitError> {
    let (inside, outside): (Vec<&NewFile>, Vec<&NewFile>) =
        files.iter().partition(|file| Destination::parse(&file.path).is_some());
    let (named, unnamed): (Vec<NewFile>, Vec<NewFile>) = outside
        .into_iter()
        .map(|file| NewFile { path: tidy(&folder.path().join(&file.path)), ..file.clone() })
        .partition(|file| output.is_some_and(|output| file.path.starts_with(output)));
    let mut prepare_all = || {
        let staged =
            [Staged::prepare(&named, None, warnings)?, Staged::prepare(&unnamed, Some(folder.actor()), warnings)?];
        folder.remove_folder(PREPARING).map_err(io_error("remove", &folder.path().join(PREPARING)))?;
        let mut made = Vec::new();
        let prepared = prepare(folder, &inside, &mut made, warnings).and_then(|()| {
            let decided = folder.path().join(DECIDED);
            folder.rename(OsStr::new(PREPARING), folder, OsStr::new(DECIDED)).map_err(io_error("write", &decided))
        });
        if let Err(error) = prepared {
            // The first error is the one to report.
            let _ = folder.remove_folder(PREPARING);
            made.iter().rev().for_each(Made::undo);
            return Err(error);
        }
        Ok(staged)
    };
    let staged = prepare_all().map_err(CommitError::Unchanged)?;
    let complete = || {
        folder.sync().map_err(io_error("write to disk", folder.path()))?;
        finish(folder)?;
        staged.into_iter().try_for_each(|staged| staged.place(files::Existing::Replace))
    };
    complete().map_err(CommitError::Unfinished)
}

fn prepare(
    folder: &Folder,
    files: &[&NewFile],
    made: &mut Vec<Made>,
    warnings: &mut Vec<Warning>,
) -> Result<(), files::Error> {
    let preparing_path = folder.path().join(PREPARING);
    let preparing = folder.new_folder(PREPARING).map_err(io_error("create the folder", &preparing_path))?;
    let mut moves = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let shown = tidy(&folder.path().join(&file.path));
        let replaced = check_place(folder, &file.path, made).map_err(io_error("write", &shown))?;
        let from = index.to_string();
        let new = NewFile { path: shown.clone(), ..(*file).clone() };
        files::write(&preparing, OsStr::new(&from), &new, replaced.as_ref(), warnings)
            .map_err(io_error("write", &shown))?;
        moves.push(Move { from, to: file.path.clone() });
    }
    let list = preparing_path.join(LIST);
    let contents = serde_json::to_vec(&moves).map_err(io::Error::from).map_err(io_error("write", &list))?;
    let new = NewFile { path: list.clone(), contents, access: Access::Private };
    files::write(&preparing, OsStr::new(LIST), &new, None, &mut Vec::new()).map_err(io_error("write", &list))?;
    preparing.sync().map_err(io_error("write to disk", &preparing_path))
}

/// Fails now if the file could not be moved to its destination after the commit, when nothing can be undone. Returns the
/// attributes of the file to be replaced.
fn check_place(folder: &Folder, path: &Path, made: &mut Vec<Made>) -> io::Result<Option<Replaced>> {
    let destination = Destination::parse(path).ok_or(io::ErrorKind::InvalidInput)?;
    let before = made.len();
    let (parent, name) = destination.open(folder, made)?;
    made.iter().skip(before).try_for_each(Made::sync)?;
    if parent.stat(name)?.is_some_and(|there| FileType::from_raw_mode(there.st_mode) == FileType::Directory) {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    parent.check_writable()?;
    Replaced::look(&parent, name)
}

/// What was done about an earlier command that was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// Nothing.
    Nothing,
    /// Its change was committed, and is complete now.
    Finished,
    /// Its change was not committed, and was removed.
    Discarded,
}

/// Completes a committed change of an earlier process, and removes one that was not committed.
pub(super) fn recover(folder: &Folder) -> Result<Recovered, files::Error> {
    let there = |name: &str| {
        let there = folder.stat(OsStr::new(name)).map_err(io_error("look at", &folder.path().join(name)))?;
        Ok::<bool, files::Error>(there.is_some())
    };
    let was_preparing = there(PREPARING)?;
    folder.remove_folder(PREPARING).map_err(io_error("remove", &folder.path().join(PREPARING)))?;
    let was_decided = there(DECIDED)?;
    finish(folder)?;
    Ok(match (was_decided, was_preparing) {
        (true, _) => Recovered::Finished,
        (false, true) => Recovered::Discarded,
        (false, false) => Recovered::Nothing,
    })
}

/// Opens the folder of a committed change, if there is one. It must belong to the owner of the folder of the authorities, or
/// to this user.
fn decided(folder: &Folder) -> io::Result<Option<Folder>> {
    let Some(there) = folder.stat(OsStr::new(DECIDED))? else { return Ok(None) };
    if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a folder: remove it"));
    }
    let decided = folder.below(Path::new(DECIDED), None)?;
    let (own, above) = (decided.own_stat()?, folder.own_stat()?);
    let by_us = own.st_uid == rustix::process::geteuid().as_raw() || own.st_uid == above.st_uid;
    // On a file system without permissions, every folder may be writable by all users.
    let open_to_others = own.st_mode & !above.st_mode & 0o022 != 0;
    if by_us && !open_to_others {
        return Ok(Some(decided));
    }
    let why = "another user has started this change: run doorward ca list as that user, or remove it";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

fn finish(folder: &Folder) -> Result<(), files::Error> {
    let path = folder.path().join(DECIDED);
    let Some(decided) = decided(folder).map_err(io_error("finish", &path))? else { return Ok(()) };
    let list = path.join(LIST);
    let moves: Vec<Move> = match decided.read(Path::new(LIST)) {
        Ok(text) => serde_json::from_slice(&text).map_err(io::Error::from).map_err(io_error("read", &list))?,
        // All files are in place: the list is removed first.
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
            return folder.remove_folder(DECIDED).map_err(io_error("remove", &path));
        }
        Err(other) => return Err(io_error("read", &list)(other)),
    };
    // Check all of them before one is moved.
    for Move { from, to } in &moves {
        let plain = from.bytes().all(|byte| byte.is_ascii_digit()) && !from.is_empty();
        if !plain || Destination::parse(to).is_none() {
            let why =
                format!("doorward ca writes no file to {to:?}, so another program made this list: remove {path:?}");
            return Err(io_error("finish", &list)(io::Error::new(io::ErrorKind::PermissionDenied, why)));
        }
    }
    for Move { from, to } in &moves {
        let shown = tidy(&folder.path().join(to));
        move_to_destination(&decided, from, folder, to).map_err(io_error("write", &shown))?;
    }
    decided.remove(OsStr::new(LIST)).map_err(io_error("remove", &list))?;
    folder.remove_folder(DECIDED).map_err(io_error("remove", &path))
}

/// Moves one file to its destination, unless that is done.
fn move_to_destination(decided: &Folder, from: &str, folder: &Folder, to: &Path) -> io::Result<()> {
    let destination = Destination::parse(to).ok_or(io::ErrorKind::InvalidInput)?;
    let mut made = Vec::new();
    let (parent, name) = destination.open(folder, &mut made)?;
    made.iter().try_for_each(Made::sync)?;
    let from = OsStr::new(from);
    if decided.stat(from)?.is_some() {
        let mut file = plain_file(decided, from)?;
        match decided.rename(from, &parent, name) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                // Another file system: copy the file beside its destination, and rename the copy.
                let mut contents = Vec::new();
                file.read_to_end(&mut contents)?;
                let private = fstat(&file)?.st_mode & 0o004 == 0;
                let access = if private { Access::Private } else { Access::Public };
                let copy = NewFile { path: parent.path().join(name), contents, access };
                let staged = Staged::prepare(&[copy], Some(parent.actor()), &mut Vec::new());
                staged.and_then(|staged| staged.place(files::Existing::Replace)).map_err(|error| match error {
                    files::Error::Io { source, .. } => source,
                    files::Error::Exists(_) => io::ErrorKind::AlreadyExists.into(),
                })?;
                decided.remove(from)?;
            }
            other => other?,
        }
    }
    parent.sync()
}

/// A file as `doorward ca` creates it: regular, with one name, without execute permission.
fn plain_file(decided: &Folder, name: &OsStr) -> io::Result<std::fs::File> {
    let file = decided.open_file(Path::new(name))?;
    let there = fstat(&file)?;
    if there.st_nlink != 1 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a hard link to another file"));
    }
    if there.st_mode & 0o7111 != 0 {
        let masked = decided.actor().act(|| fchmod(&file, Mode::from_raw_mode(there.st_mode & 0o666)));
        match masked {
            // Every file is executable on a file system without permissions.
            Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) if there.st_mode & 0o7000 == 0 => {}
            other => other?,
        }
    }
    Ok(file)
}

/// `pki/../devices/a.pem` as `devices/a.pem`: a folder that does not exist yet has no `..`.
pub(super) fn tidy(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        let after_name = matches!(out.components().next_back(), Some(Component::Normal(_)));
        if part == Component::ParentDir && after_name {
            out.pop();
        } else {
            out.push(part);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn open(folder: &Path) -> Folder {
        Folder::open(folder).expect("a folder")
    }

    fn commit(folder: &Path, files: &[NewFile]) -> Result<(), CommitError> {
        super::commit(&open(folder), files, None, &mut Vec::new())
    }

    fn recover(folder: &Path) -> Result<Recovered, files::Error> {
        super::recover(&open(folder))
    }

    fn file(path: &str, contents: &str, access: Access) -> NewFile {
        NewFile { path: path.into(), contents: contents.into(), access }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    #[test]
    fn committed_files_are_in_place_and_nothing_else_is_left() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("pki");
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("old"), "old").expect("written");
        let change = [file("old", "new", Access::Public), file("../devices/key", "k", Access::Private)];
        commit(&folder, &change).expect("made");
        assert_eq!(names(&folder), ["old"]);
        assert_eq!(fs::read_to_string(folder.join("old")).expect("there"), "new");
        let mode = |path: PathBuf| fs::metadata(path).expect("there").mode() & 0o7777;
        assert_eq!(mode(home.path().join("devices/key")), 0o600);
        assert_eq!(mode(home.path().join("devices")), 0o700);
        assert_eq!(mode(folder.join("old")), 0o644);
        assert_eq!(recover(&folder).expect("nothing to do"), Recovered::Nothing);
    }

    #[test]
    fn committed_change_is_completed_and_uncommitted_is_removed() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path();
        fs::create_dir(folder.join(PREPARING)).expect("a folder");
        fs::write(folder.join(PREPARING).join("0"), "half").expect("written");
        assert_eq!(recover(folder).expect("thrown away"), Recovered::Discarded);
        assert_eq!(names(folder), [] as [&str; 0]);

        let preparing = folder.join(PREPARING);
        let change = [file("a", "1", Access::Public), file("b", "2", Access::Public)];
        let change: Vec<&NewFile> = change.iter().collect();
        prepare(&open(folder), &change, &mut Vec::new(), &mut Vec::new()).expect("prepared");
        fs::rename(&preparing, folder.join(DECIDED)).expect("decided");
        // One file had been moved when the power failed.
        fs::rename(folder.join(DECIDED).join("0"), folder.join("a")).expect("moved");
        assert_eq!(recover(folder).expect("finished"), Recovered::Finished);
        assert_eq!(names(folder), ["a", "b"]);
        assert_eq!(fs::read_to_string(folder.join("b")).expect("there"), "2");

        // Everything was in place, the list gone, the folder not.
        fs::create_dir(folder.join(DECIDED)).expect("a folder");
        assert_eq!(recover(folder).expect("cleaned up"), Recovered::Finished);
        assert_eq!(names(folder), ["a", "b"]);
    }

    #[test]
    fn change_that_cannot_be_prepared_changes_nothing() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path();
        fs::write(folder.join("a"), "old").expect("written");
        fs::create_dir(folder.join("taken")).expect("a folder");
        for impossible in ["a/below", "taken"] {
            let change = [file("a", "new", Access::Public), file(impossible, "new", Access::Public)];
            assert!(commit(folder, &change).is_err(), "{impossible}");
        }
        assert_eq!(names(folder), ["a", "taken"]);
        assert_eq!(fs::read_to_string(folder.join("a")).expect("there"), "old");
    }

    #[test]
    fn paths_are_shown_without_parent_components() {
        for (given, told) in
            [("pki/../devices/a", "devices/a"), ("../devices/a", "../devices/a"), ("/x/./y", "/x/y"), ("a", "a")]
        {
            assert_eq!(tidy(Path::new(given)), Path::new(told));
        }
    }
}
