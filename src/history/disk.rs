//! Writes the folder.
//!
//! What is noted is appended to the file of the day, a line at a time. The file is written anew, in its shortest form, when it has
//! grown, when the day is over, and after an error: what is in memory is complete then. Processes of one gate append to one file;
//! only the one that accepts connections writes files anew, and it reads what the others have appended.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;

use time::OffsetDateTime;

use super::batch::Batch;
use super::counts::Summary;
use super::folder::{Folder, Place, day};
use super::lines::{self, FORMAT, Header, Line};
use super::load::{Fault, LoadError, Loaded, load};
use super::state::{DETAILED_DAYS, State};

/// Files written anew grow by so much before that is done again.
const GROWTH_MAX: u64 = 256 << 10;
/// All files together, without what the file of the day and its successor may have.
pub(super) const BYTES_MAX: u64 = 7_500_000;

/// The folder, and what is known of its files.
#[derive(Debug)]
pub(super) struct Disk {
    folder: Folder,
    /// Held while this process is the one that writes files anew.
    _owner: File,
    /// The day whose file is appended to.
    current: i64,
    /// That file, after what has been read or written.
    known: Place,
    /// Its length when it was written anew.
    compact: u64,
    /// Days whose files are to be written anew.
    dirty: BTreeSet<i64>,
}

/// Why nothing is written.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("another gate writes its history to {0}\n  give each gate a folder of its own: history.folder")]
    Owned(String),
    #[error(
        "cannot write the history to {folder}: {error}\n  connections are not affected; the history is complete in memory"
    )]
    Write { folder: String, error: io::Error },
}

/// A file that was set aside, in words.
pub(super) type News = String;

impl Disk {
    /// Makes this process the one that writes to the folder, and reads what is there.
    pub(super) fn open(path: &Path, now: OffsetDateTime) -> Result<(Self, State, Vec<News>), DiskError> {
        let folder = Folder::new(path);
        let failed = |error| DiskError::Write { folder: path.display().to_string(), error };
        // The sandbox lets no folder be made.
        if !path.is_dir() {
            return Err(failed(io::ErrorKind::NotFound.into()));
        }
        let owner = folder.own().map_err(failed)?.ok_or_else(|| DiskError::Owned(path.display().to_string()))?;
        let locked = folder.lock().map_err(failed)?;
        let mut disk = Self {
            folder,
            _owner: owner,
            current: day(now),
            known: Place::default(),
            compact: 0,
            dirty: BTreeSet::new(),
        };
        let (state, news) = disk.load(now)?;
        drop(locked);
        Ok((disk, state, news))
    }

    /// Reads everything, and sets aside what is damaged.
    fn load(&mut self, now: OffsetDateTime) -> Result<(State, Vec<News>), DiskError> {
        let Loaded { state, current, faults } = load(&self.folder, now)?;
        self.dirty.clear();
        let today = day(now);
        match current.filter(|(day, _)| *day > today - DETAILED_DAYS) {
            Some((day, place)) => (self.current, self.known, self.compact) = (day, place, place.bytes),
            None => self.begin(today),
        }
        let mut news = Vec::new();
        for (day, fault) in faults {
            if day > today - DETAILED_DAYS {
                // This drops the rest of a line.
                self.dirty.insert(day);
            }
            if fault == Fault::Damaged {
                let aside = self.folder.set_aside(day).map_err(|error| self.failed(error))?;
                news.push(format!("a file of the history is damaged, and was renamed to {}", aside.display()));
            }
        }
        // Tells at once whether the folder can be written.
        self.dirty.insert(self.current);
        Ok((state, news))
    }

    fn begin(&mut self, day: i64) {
        (self.current, self.known, self.compact) = (day, Place::default(), 0);
        self.dirty.insert(day);
    }

    fn failed(&self, error: io::Error) -> DiskError {
        DiskError::Write { folder: self.folder.path().display().to_string(), error }
    }

    /// Whether other processes have appended something.
    pub(super) fn has_others(&self) -> bool {
        self.folder.place(self.current).is_ok_and(|place| place != self.known)
    }

    /// Reads what other processes have appended. It is to be added to what is known before anything is written.
    pub(super) fn others(&mut self) -> Vec<Batch> {
        let Ok(place) = self.folder.place(self.current) else {
            self.dirty.insert(self.current);
            return Vec::new();
        };
        if place == self.known {
            return Vec::new();
        }
        let read = self.folder.read(self.current, self.known.bytes, u64::MAX);
        let (true, true, Ok((place, text))) = (place.inode == self.known.inode, place.bytes > self.known.bytes, read)
        else {
            self.dirty.insert(self.current);
            return Vec::new();
        };
        self.known = place;
        let lines = lines::read(&text).lines.into_iter();
        let batches = lines.filter_map(|line| if let Line::Add(batch) = line { Some(batch) } else { None });
        batches.inspect(|batch| mark(&mut self.dirty, self.current, batch)).collect()
    }

    /// Keeps other processes from writing until the result is dropped.
    pub(super) fn lock(&self) -> Result<File, DiskError> {
        self.folder.lock().map_err(|error| self.failed(error))
    }

    /// Writes a batch. After an error everything is written anew at the next call. `text` makes the file of a day in its shortest
    /// form, by the current day, of what is known: with the batch.
    pub(super) fn write(
        &mut self,
        batch: &Batch,
        now: OffsetDateTime,
        text: impl Fn(i64, i64) -> Vec<u8>,
    ) -> Result<(), DiskError> {
        mark(&mut self.dirty, self.current, batch);
        if !self.dirty.contains(&self.current) && !batch.is_empty() {
            match self.folder.append(self.current, &text_of(batch)) {
                Ok(place) => self.known = place,
                Err(error) => {
                    self.dirty.insert(self.current);
                    return Err(self.failed(error));
                }
            }
        }
        let (today, before) = (day(now), self.current);
        if today > before {
            self.begin(today);
            self.dirty.insert(before);
        }
        if self.known.bytes.saturating_sub(self.compact) > GROWTH_MAX {
            self.dirty.insert(self.current);
        }
        // The current one first: the others no longer have what it has then.
        while let Some(day) = self.dirty.last().copied() {
            // Of days before, memory has no more than the totals.
            if day > today - DETAILED_DAYS {
                let replaced = self.folder.replace(day, &text(day, self.current));
                let place = replaced.map_err(|error| self.failed(error))?;
                if day == self.current {
                    (self.known, self.compact) = (place, place.bytes);
                }
            }
            self.dirty.remove(&day);
        }
        Ok(())
    }

    /// Whether the clock was set back or forth since everything was read, so that other files are those of the last days.
    pub(super) fn is_of_another_time(&self, now: OffsetDateTime) -> Result<bool, DiskError> {
        let today = day(now);
        if self.current > today + 1 {
            return Ok(true);
        }
        let days = self.folder.days().map_err(|error| self.failed(error))?;
        Ok(days.iter().any(|(day, _)| (self.current + 1..=today).contains(day)))
    }

    /// Reads everything again.
    pub(super) fn reload(&mut self, now: OffsetDateTime) -> Result<(State, Vec<News>), DiskError> {
        self.load(now)
    }

    /// Removes files of days that are too old, and the oldest while there are too many bytes.
    pub(super) fn trim(&self, days: i64) -> Result<(), DiskError> {
        let trim = || {
            let with_files = self.folder.days()?;
            let mut bytes = self.folder.bytes()?;
            // By the day that was over last: if the clock is wrong for a moment, that removes nothing.
            let last = with_files.iter().rev().map(|(day, _)| *day).find(|day| *day < self.current);
            for (day, of_this) in with_files.into_iter().filter(|(day, _)| *day < self.current) {
                let too_old = last.is_some_and(|last| day <= last.saturating_add(1).saturating_sub(days));
                if !too_old && bytes.saturating_sub(self.known.bytes) <= BYTES_MAX {
                    break;
                }
                self.folder.remove(day)?;
                bytes = bytes.saturating_sub(of_this);
            }
            Ok(())
        };
        trim().map_err(|error| self.failed(error))
    }
}

/// Appends a batch, as a process that an upgrade has left. The day's file is that which the newer process appends to.
pub(super) fn append(folder: &Path, batch: &Batch) -> Result<(), DiskError> {
    let folder = Folder::new(folder);
    let append = || {
        let _locked = folder.lock()?;
        let (day, _) = folder.days()?.pop().ok_or(io::ErrorKind::NotFound)?;
        folder.append(day, &text_of(batch)).map(drop)
    };
    append().map_err(|error| DiskError::Write { folder: folder.path().display().to_string(), error })
}

/// Marks the days before the current one that a batch changes.
fn mark(dirty: &mut BTreeSet<i64>, current: i64, batch: &Batch) {
    dirty.extend(batch.hours.iter().map(super::counts::HourCounts::day).filter(|day| *day < current));
}

fn text_of(batch: &Batch) -> Vec<u8> {
    let mut text = Vec::new();
    lines::write(&Line::Add(batch.clone()), &mut text);
    text
}

/// The file of a day in its shortest form.
pub(super) fn text(state: &State, day: i64, current: i64) -> Vec<u8> {
    let mut text = Vec::new();
    let is_over = day < current;
    let hours = is_over.then(|| state.of_day(day).map(Summary::from).collect());
    lines::write(&Line::Header(Header { format: FORMAT, hours }), &mut text);
    if is_over {
        let ended = |visit: &&super::overview::Visit| visit.open == 0 && super::folder::day(visit.until) == day;
        let visits: Vec<_> = state.now.visits.iter().filter(ended).cloned().collect();
        lines::write(&Line::Visits(visits), &mut text);
    } else {
        lines::write(&Line::State(state.now.clone()), &mut text);
    }
    // Of a day that has not begun as well: the clock may be set back by minutes.
    for hour in state.hours.iter().filter(|hour| hour.day() == day || !is_over && hour.day() > day) {
        let hours = vec![hour.clone()];
        lines::write(&Line::Add(Batch { hours, ..Batch::default() }), &mut text);
    }
    text
}
