//! The folder of the history: a file for each day.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

use crate::files::state;

/// No file of ours is longer.
const FILE_MAX: u64 = 8 << 20;
/// Behind the date.
const ENDING: &str = ".history";
/// Of a file that is being written.
const TEMPORARY: &str = "next.tmp";
/// Before the name of a file that is set aside.
const ASIDE: &str = "damaged-";
/// The most of them. More replace the last one.
const ASIDE_MAX: usize = 4;
/// What the one gate that writes here holds locked.
const OWNER: &str = "lock";

/// The folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folder(PathBuf);

/// Which file a name leads to, and how long it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) inode: u64,
    pub(super) bytes: u64,
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it, unless it is there.
    pub(super) fn make(&self) -> io::Result<()> {
        state::make_folder(&self.0)
    }

    /// The days that have a file, since 1970, the oldest first, with the length of each file.
    pub(super) fn days(&self) -> io::Result<Vec<(i64, u64)>> {
        let mut days = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            if let Some(day) = entry.file_name().to_str().and_then(day_of) {
                days.push((day, entry.metadata().map_or(0, |metadata| metadata.len())));
            }
        }
        days.sort_unstable();
        Ok(days)
    }

    /// How many bytes its files of any name have.
    pub(super) fn bytes(&self) -> io::Result<u64> {
        fs::read_dir(&self.0)?.try_fold(0, |sum, entry| Ok(sum + entry?.metadata()?.len()))
    }

    fn file(&self, day: i64) -> PathBuf {
        self.0.join(format!("{}{ENDING}", date(day)))
    }

    /// The file of a day from `offset` on, at most `most` bytes.
    pub(super) fn read(&self, day: i64, offset: u64, most: u64) -> io::Result<(Place, Vec<u8>)> {
        let mut file = state::open(&self.file(day), FILE_MAX)?;
        let inode = file.metadata()?.ino();
        file.seek(SeekFrom::Start(offset))?;
        let mut text = Vec::new();
        file.take(most).read_to_end(&mut text)?;
        Ok((Place { inode, bytes: offset + text.len() as u64 }, text))
    }

    /// Where the file of a day is.
    pub(super) fn place(&self, day: i64) -> io::Result<Place> {
        let metadata = fs::symlink_metadata(self.file(day))?;
        Ok(Place { inode: metadata.ino(), bytes: metadata.len() })
    }

    /// Adds text to the file of a day, which is there.
    pub(super) fn append(&self, day: i64, text: &[u8]) -> io::Result<Place> {
        let mut file = state::options().read(true).append(true).open(self.file(day))?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // What another process left unfinished must not spoil this.
        let mut last = [b'\n'];
        if let Some(at) = metadata.len().checked_sub(1) {
            file.read_exact_at(&mut last, at)?;
        }
        let parted = [b"\n", text].concat();
        let text = if last == *b"\n" { text } else { &parted };
        file.write_all(text)?;
        Ok(Place { inode: metadata.ino(), bytes: metadata.len() + text.len() as u64 })
    }

    /// Replaces the file of a day, or makes it: afterwards it is the old one or the new one, whole.
    pub(super) fn replace(&self, day: i64, text: &[u8]) -> io::Result<Place> {
        let file = state::replace(&self.file(day), &self.0.join(TEMPORARY), text)?;
        Ok(Place { inode: file.metadata()?.ino(), bytes: text.len() as u64 })
    }

    /// Removes the file of a day.
    pub(super) fn remove(&self, day: i64) -> io::Result<()> {
        fs::remove_file(self.file(day))
    }

    /// Gives the file of a day another name. Returns that.
    pub(super) fn set_aside(&self, day: i64) -> io::Result<PathBuf> {
        let name = |n: usize| self.0.join(format!("{ASIDE}{n}-{}", date(day)));
        let taken: Vec<String> = fs::read_dir(&self.0)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(ASIDE))
            .collect();
        let free = (1..ASIDE_MAX).find(|n| !taken.iter().any(|name| name.starts_with(&format!("{ASIDE}{n}-"))));
        let number = free.unwrap_or(ASIDE_MAX);
        if free.is_none() {
            for name in taken.iter().filter(|name| name.starts_with(&format!("{ASIDE}{number}-"))) {
                fs::remove_file(self.0.join(name))?;
            }
        }
        fs::rename(self.file(day), name(number))?;
        Ok(name(number))
    }

    /// Makes this process the only one that writes here until the result is dropped. `None` if another one is that.
    pub(super) fn own(&self) -> io::Result<Option<File>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(state::FILE_MODE)
            .open(self.0.join(OWNER))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Ok(None),
            locked => locked.or_else(without_locks).map(|()| Some(file)),
        }
    }

    /// Keeps other processes of this gate from writing until the result is dropped.
    pub(super) fn lock(&self) -> io::Result<File> {
        let folder = File::open(&self.0)?;
        flock(&folder, FlockOperation::LockExclusive).or_else(without_locks)?;
        Ok(folder)
    }
}

/// Some file systems have no locks.
fn without_locks(error: Errno) -> io::Result<()> {
    if matches!(error, Errno::OPNOTSUPP | Errno::INVAL | Errno::NOLCK) { Ok(()) } else { Err(error.into()) }
}

/// The day of a moment, since 1970.
pub(super) const fn day(at: OffsetDateTime) -> i64 {
    at.unix_timestamp().div_euclid(86_400)
}

fn date(day: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(day.saturating_mul(86_400));
    at.map_or_else(|_| day.to_string(), |at| at.date().to_string())
}

fn day_of(name: &str) -> Option<i64> {
    let text = name.strip_suffix(ENDING)?;
    let date = Date::parse(text, format_description!("[year]-[month]-[day]")).ok()?;
    Some(day(date.midnight().assume_utc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_files_with_their_dates() {
        assert_eq!((date(0), date(20_784)), ("1970-01-01".to_owned(), "2026-11-27".to_owned()));
        for day in [0, 20_784, 30_000] {
            assert_eq!(day_of(&format!("{}{ENDING}", date(day))), Some(day));
        }
        for foreign in ["2026-11-27", "lock", "damaged-1-2026-11-27", "x.history", "2026-13-27.history"] {
            assert_eq!(day_of(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn files_set_aside_are_kept_but_not_any_number() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = Folder::new(folder.path());
        for day in 0..9 {
            folder.replace(day, b"foreign").expect("a file");
            folder.set_aside(day).expect("renamed");
        }
        let count = || fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!((folder.days().expect("days"), count()), (Vec::new(), ASIDE_MAX));
    }

    #[test]
    fn links_and_pipes_are_no_files_of_ours() {
        let folder = tempfile::tempdir().expect("a folder");
        let (elsewhere, folder) = (folder.path().join("elsewhere"), Folder::new(folder.path()));
        fs::write(&elsewhere, "x\n").expect("a file");
        std::os::unix::fs::symlink(&elsewhere, folder.file(1)).expect("a link");
        rustix::fs::mknodat(rustix::fs::CWD, folder.file(2), rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .expect("a FIFO");
        for day in [1, 2] {
            assert!(folder.read(day, 0, 9).is_err() && folder.append(day, b"y\n").is_err(), "{day}");
        }
        assert_eq!(fs::read(&elsewhere).expect("a file"), b"x\n");
    }

    #[test]
    fn one_gate_owns_a_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = Folder::new(folder.path());
        let owner = folder.own().expect("a lock").expect("it is free");
        assert!(folder.own().expect("a lock").is_none());
        drop(owner);
        assert!(folder.own().expect("a lock").is_some());
    }
}
