//! Changing several files as one, whenever the process may be killed.
//!
//! All new contents are written to the disk in a folder of their own, `.changes.new`, with a list of where they belong.
//! Then that folder is renamed to `.changes`: this one step is the change. What remains is to move each file to its
//! place, which the next command does if this one cannot. So a killed command has changed everything or nothing.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, fchmod, fstat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::files::{self, Access, Folder, Made, NewFile, Replaced, Staged, Warning, io_error};

/// Where changes are prepared: not there for anybody but who prepares them.
const PREPARING: &str = ".changes.new";
/// Changes that are made, and have to be brought to their places.
const DECIDED: &str = ".changes";
/// The list in either.
const LIST: &str = "list.json";

/// One file of the change.
#[derive(Debug, Serialize, Deserialize)]
struct Move {
    /// What it is called in the folder of changes.
    from: String,
    /// Where it belongs; relative to the folder of the authorities, so that this one may be moved meanwhile.
    to: PathBuf,
}

/// Where a change may bring a file: what a list in the folder may say.
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

    /// The folder it is in, which is made if `made` is given, and its name there. Used with the rights of `base`.
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

/// A change that was not made, or not to its end.
#[derive(Debug)]
pub(super) enum CommitError {
    /// Nothing was changed.
    Unchanged(files::Error),
    /// It is made; some files are not in their places yet.
    Unfinished(files::Error),
}

/// Makes the change: all of `files`, or none if there is an error before it is decided. Whoever calls holds the lock.
///
/// The paths of `files` are relative to `folder`, or absolute. What is there already is replaced, and hands on its owner,
/// group and permissions. Files that the list cannot name are written beside their places before, and renamed when the
/// change is decided; with the rights of the owner of `folder`, unless they are in `output`, which the user has named.
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
            // What was written so far is worth nothing, and the error says what is to be said.
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

/// Finds out now what would keep a file from its place when the change is decided, and could not be undone any more; and what
/// stands there.
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

/// What a command that was killed had left to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// Nothing.
    Nothing,
    /// Its change was decided, and is complete now.
    Finished,
    /// Its change was not decided, and nothing of it is left.
    Discarded,
}

/// Brings what was decided to its place, by this process or by one that was killed, and throws away what was not.
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

/// Opens the folder of what is decided, if there is one. Only the owner of the folder of the authorities and this user decide.
fn decided(folder: &Folder) -> io::Result<Option<Folder>> {
    let Some(there) = folder.stat(OsStr::new(DECIDED))? else { return Ok(None) };
    if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is no folder: remove it"));
    }
    let decided = folder.below(Path::new(DECIDED), None)?;
    let (own, above) = (decided.own_stat()?, folder.own_stat()?);
    let by_us = own.st_uid == rustix::process::geteuid().as_raw() || own.st_uid == above.st_uid;
    // A file system without permissions may let everybody write everywhere.
    let open_to_others = own.st_mode & !above.st_mode & 0o022 != 0;
    if by_us && !open_to_others {
        return Ok(Some(decided));
    }
    let why = "another user has begun this change: let that user run doorward ca list, or remove it";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

fn finish(folder: &Folder) -> Result<(), files::Error> {
    let path = folder.path().join(DECIDED);
    let Some(decided) = decided(folder).map_err(io_error("finish", &path))? else { return Ok(()) };
    let list = path.join(LIST);
    let moves: Vec<Move> = match decided.read(Path::new(LIST)) {
        Ok(text) => serde_json::from_slice(&text).map_err(io::Error::from).map_err(io_error("read", &list))?,
        // All files are in their places: the list is the first to go.
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
            return folder.remove_folder(DECIDED).map_err(io_error("remove", &path));
        }
        Err(other) => return Err(io_error("read", &list)(other)),
    };
    // All of them before any is moved.
    for Move { from, to } in &moves {
        let plain = from.bytes().all(|byte| byte.is_ascii_digit()) && !from.is_empty();
        if !plain || Destination::parse(to).is_none() {
            let why =
                format!("doorward ca writes no file to {to:?}: somebody else has made this list; remove {path:?}");
            return Err(io_error("finish", &list)(io::Error::new(io::ErrorKind::PermissionDenied, why)));
        }
    }
    for Move { from, to } in &moves {
        let shown = tidy(&folder.path().join(to));
        bring(&decided, from, folder, to).map_err(io_error("write", &shown))?;
    }
    decided.remove(OsStr::new(LIST)).map_err(io_error("remove", &list))?;
    folder.remove_folder(DECIDED).map_err(io_error("remove", &path))
}

/// Moves one file to its place, unless it is there already.
fn bring(decided: &Folder, from: &str, folder: &Folder, to: &Path) -> io::Result<()> {
    let destination = Destination::parse(to).ok_or(io::ErrorKind::InvalidInput)?;
    let mut made = Vec::new();
    let (parent, name) = destination.open(folder, &mut made)?;
    made.iter().try_for_each(Made::sync)?;
    let from = OsStr::new(from);
    if decided.stat(from)?.is_some() {
        let mut file = plain_file(decided, from)?;
        match decided.rename(from, &parent, name) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                // The place is on another file system: a copy beside it, which then takes it in one step.
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

/// A file as `doorward ca` makes them: a regular one of one name, without execute permission.
fn plain_file(decided: &Folder, name: &OsStr) -> io::Result<std::fs::File> {
    let file = decided.open_file(Path::new(name))?;
    let there = fstat(&file)?;
    if there.st_nlink != 1 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a link to another file"));
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

/// `pki/../devices/a.pem` as `devices/a.pem`: a folder that is yet to be made has no `..`, and people read it better.
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
    fn files_come_to_their_places_and_nothing_else_is_left() {
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
    fn what_was_decided_is_finished_and_what_was_not_is_thrown_away() {
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
    fn what_cannot_be_prepared_changes_nothing() {
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
    fn paths_are_told_without_detours() {
        for (given, told) in
            [("pki/../devices/a", "devices/a"), ("../devices/a", "../devices/a"), ("/x/./y", "/x/y"), ("a", "a")]
        {
            assert_eq!(tidy(Path::new(given)), Path::new(told));
        }
    }
}
