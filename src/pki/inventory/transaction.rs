//! Changing several files as one, whenever the process may be killed.
//!
//! All new contents are written to the disk in a folder of their own, `.changes.new`, with a list of where they belong.
//! Then that folder is renamed to `.changes`: this one step is the change. What remains is to move each file to its
//! place, which the next command does if this one cannot. So a killed command has changed everything or nothing.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::pki::files::{self, Access, NewFile};

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

/// Makes the change: all of `files`, or none if there is an error before it is decided. Whoever calls holds the lock.
///
/// The paths of `files` are relative to `folder`, or absolute. What is there already is replaced.
pub(super) fn commit(folder: &Path, files: &[NewFile]) -> Result<(), files::Error> {
    let preparing = folder.join(PREPARING);
    discard(&preparing)?;
    let written = prepare(folder, &preparing, files);
    if written.is_err() {
        // What was written so far is worth nothing, and the error says what is to be said.
        let _ = discard(&preparing);
    }
    written?;
    let decided = folder.join(DECIDED);
    fs::rename(&preparing, &decided).map_err(error("write", &decided))?;
    sync(folder)?;
    finish(folder)
}

fn prepare(folder: &Path, preparing: &Path, files: &[NewFile]) -> Result<(), files::Error> {
    DirBuilder::new().mode(0o700).create(preparing).map_err(error("create the folder", preparing))?;
    let mut moves = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let from = index.to_string();
        let place = preparing.join(&from);
        check_place(&tidy(&folder.join(&file.path)))?;
        let replaced = fs::metadata(folder.join(&file.path)).ok();
        write(&place, &file.contents, file.access, replaced.as_ref()).map_err(error("write", &place))?;
        moves.push(Move { from, to: file.path.clone() });
    }
    let list = preparing.join(LIST);
    let text = serde_json::to_vec(&moves).map_err(io::Error::from).map_err(error("write", &list))?;
    write(&list, &text, Access::Private, None).map_err(error("write", &list))?;
    sync(preparing)
}

/// Finds out now what would keep a file from its place when the change is decided, and could not be undone any more.
fn check_place(place: &Path) -> Result<(), files::Error> {
    if place.is_dir() {
        return Err(error("write", place)(io::ErrorKind::IsADirectory.into()));
    }
    let parent = files::parent(place);
    make_folder(parent)?;
    rustix::fs::access(parent, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
        .map_err(|errno| error("write", place)(errno.into()))
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
pub(super) fn recover(folder: &Path) -> Result<Recovered, files::Error> {
    let preparing = folder.join(PREPARING);
    let was_preparing = fs::symlink_metadata(&preparing).is_ok();
    discard(&preparing)?;
    let decided = folder.join(DECIDED);
    let there = fs::symlink_metadata(&decided).ok();
    let was_decided = there.is_some();
    if let Some(there) = there {
        check_own(&decided, &there)?;
    }
    finish(folder)?;
    Ok(match (was_decided, was_preparing) {
        (true, _) => Recovered::Finished,
        (false, true) => Recovered::Discarded,
        (false, false) => Recovered::Nothing,
    })
}

/// What is decided may be brought to any place, so only what this user has decided is: not what somebody has laid there who
/// may write into the folder and nowhere else, to be done by root.
fn check_own(decided: &Path, there: &fs::Metadata) -> Result<(), files::Error> {
    if there.is_dir() && there.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let why = "another user has begun this change: let that user run doorward ca list, or remove it";
    Err(error("finish", decided)(io::Error::new(io::ErrorKind::PermissionDenied, why)))
}

fn finish(folder: &Path) -> Result<(), files::Error> {
    let decided = folder.join(DECIDED);
    let list = decided.join(LIST);
    let moves: Vec<Move> = match fs::read(&list) {
        Ok(text) => serde_json::from_slice(&text).map_err(io::Error::from).map_err(error("read", &list))?,
        // All files are in their places: the list is the first to go.
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return discard(&decided),
        Err(other) => return Err(error("read", &list)(other)),
    };
    let mut folders = Vec::new();
    for Move { from, to } in &moves {
        let (from, to) = (decided.join(from), tidy(&folder.join(to)));
        let parent = files::parent(&to).to_owned();
        if fs::symlink_metadata(&from).is_ok() {
            make_folder(&parent)?;
            move_file(&from, &to).map_err(error("write", &to))?;
        }
        folders.push(parent);
    }
    folders.sort();
    folders.dedup();
    folders.iter().try_for_each(|folder| sync(folder))?;
    fs::remove_file(&list).map_err(error("remove", &list))?;
    discard(&decided)
}

fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
        other => return other,
    }
    // The place is on another file system: a copy beside it, which then takes it in one step.
    let mode = fs::metadata(from)?.mode();
    let mut beside = tempfile::Builder::new().prefix(".doorward-").tempfile_in(files::parent(to))?;
    io::copy(&mut File::open(from)?, &mut beside)?;
    beside.as_file().set_permissions(Permissions::from_mode(mode))?;
    beside.as_file().sync_all()?;
    beside.persist(to).map_err(|error| error.error)?;
    fs::remove_file(from)
}

/// Writes a file to the disk. Its owner is that of the file it is to replace, as far as the system lets us: a gate that
/// runs as a user of its own must still be able to read its key when an administrator has renewed it.
fn write(place: &Path, contents: &[u8], access: Access, replaces: Option<&fs::Metadata>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(place)?;
    file.write_all(contents)?;
    if let Some(old) = replaces {
        let new = file.metadata()?;
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            // Only root may give files away; for everybody else it stays their own.
            let _ = std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()));
        }
    }
    file.set_permissions(Permissions::from_mode(access.mode()))?;
    file.sync_all()
}

fn make_folder(folder: &Path) -> Result<(), files::Error> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = files::parent(folder);
    if above != folder {
        make_folder(above)?;
    }
    DirBuilder::new().mode(0o700).create(folder).map_err(error("create the folder", folder))?;
    sync(above)
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

/// Removes a folder of changes, if it is there.
fn discard(folder: &Path) -> Result<(), files::Error> {
    match fs::remove_dir_all(folder) {
        Err(other) if other.kind() != io::ErrorKind::NotFound => Err(error("remove", folder)(other)),
        _ => Ok(()),
    }
}

fn sync(folder: &Path) -> Result<(), files::Error> {
    File::open(folder).and_then(|open| open.sync_all()).map_err(error("write to disk", folder))
}

fn error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> files::Error + use<> {
    let path = path.to_owned();
    move |source| files::Error::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        prepare(folder, &preparing, &change).expect("prepared");
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
