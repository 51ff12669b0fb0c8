//! The thread that writes the history, and what the server does with it.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};
use std::{io, mem, thread};

use time::OffsetDateTime;

use super::batch::Batch;
use super::disk::{Disk, DiskError};
use super::folder::Folder;
use super::load::load;
use super::overview::Trouble;
use super::recorder::{History, Place};
use super::state::State;
use crate::config::checked::{Backend, Config};
use crate::model::names::Name;

/// How long counts of strangers wait to be written.
const PERIOD: Duration = Duration::from_secs(60);
/// How long anything else does, and after an error.
const PERIOD_OF_DEVICES: Duration = Duration::from_secs(5);
/// How long it does in a process that another one has replaced.
const PERIOD_OF_RETIRED: Duration = Duration::from_secs(1);
/// How often the thread looks.
const TICK: Duration = Duration::from_secs(2);
/// The most messages for the log that wait.
const NEWS_MAX: usize = 8;

/// What the server does with it.
impl History {
    /// Where it is kept, and for how many days. To be called before it is started.
    pub fn keep(&self, folder: Option<PathBuf>, days: u16) {
        self.set_days(days);
        self.kept().has_folder = folder.is_some();
        self.disk().folder = folder;
    }

    /// For how many days it is kept.
    fn set_days(&self, days: u16) {
        self.days.store(days.into(), Ordering::Relaxed);
    }

    /// Forgets what is too old, where nothing is written.
    pub fn tidy(&self) {
        let mut kept = self.kept();
        self.take_notes(&mut kept);
        if !kept.has_folder {
            kept.state.forget(OffsetDateTime::now_utc(), self.days.load(Ordering::Relaxed));
        }
    }

    /// Follows another configuration: its days, and its backends.
    pub fn follow(&self, config: &Config) {
        let has = |route: &Name, is_backend: &dyn Fn(&Backend) -> bool| {
            config.routes.iter().any(|of| of.name == *route && of.backends.iter().any(is_backend))
        };
        self.set_days(config.history.days);
        self.hot().backends.retain(|(route, backend, _)| has(route, &|one| one == backend));
        let mut kept = self.kept();
        kept.state.now.keep_backends(|route, backend| has(route, &|one| one.to_string() == backend));
    }

    /// Reads what another process has written that still does so.
    pub fn read(&self) {
        let Some(folder) = self.disk().folder.clone() else { return };
        if let Ok(loaded) = load(&Folder::new(&folder), OffsetDateTime::now_utc()) {
            self.set_state(loaded.state);
        }
    }

    /// Begins to write, with a thread of its own.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        if self.disk().folder.is_none() {
            return Ok(());
        }
        self.write();
        let (sender, receiver) = channel();
        let history = Arc::downgrade(self);
        thread::Builder::new().name("history".to_owned()).spawn(move || run(&history, &receiver))?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        Ok(())
    }

    /// Another process writes from now on. This one appends what its connections still do.
    pub fn retire(&self) {
        self.write();
        if let Some(disk) = &mut self.disk().disk {
            disk.retire();
        }
    }

    /// Writes for the last time.
    pub fn finish(&self) {
        drop(self.thread.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.write();
    }

    /// Writes what was noted.
    fn write(&self) {
        let mut place = self.disk();
        let Some(folder) = place.folder.clone() else { return };
        place.written = Some(Instant::now());
        let now = OffsetDateTime::now_utc();
        let result = self.write_to(&mut place, &folder, now);
        let mut kept = self.kept();
        match result {
            Ok(()) => (kept.trouble, kept.is_kept) = (None, true),
            Err(error) => {
                let since = kept.trouble.as_ref().map_or(now, |trouble| trouble.since);
                kept.trouble = Some(Trouble { since, error: error.to_string() });
            }
        }
    }

    fn write_to(&self, place: &mut Place, folder: &Path, now: OffsetDateTime) -> Result<(), DiskError> {
        let days = self.days.load(Ordering::Relaxed);
        let disk = match &mut place.disk {
            Some(disk) => disk,
            none => {
                let (disk, state, news) = Disk::open(folder, now)?;
                self.set_state(state);
                self.tell(news);
                none.insert(disk)
            }
        };
        if disk.is_retired() {
            let batch = {
                let mut kept = self.kept();
                self.take_notes(&mut kept);
                mem::take(&mut kept.unwritten)
            };
            if batch.is_empty() {
                return Ok(());
            }
            return disk.append(&batch).inspect_err(|_| {
                // Tried again with what is noted until then.
                let mut kept = self.kept();
                let later = mem::replace(&mut kept.unwritten, batch);
                kept.unwritten.add(later);
            });
        }
        let _locked = disk.lock()?;
        if disk.is_of_another_time(now)? {
            let (state, news) = disk.reload(now)?;
            self.set_state(state);
            self.tell(news);
        }
        let others = disk.others();
        let mut kept = self.kept();
        others.iter().for_each(|batch| kept.state.add(batch));
        self.take_notes(&mut kept);
        let batch = mem::take(&mut kept.unwritten);
        // After an error, all is written anew from what is known.
        disk.write(&batch, &kept.state, now)?;
        kept.state.forget(now, days);
        drop(kept);
        disk.trim(days)
    }

    /// Takes what was read, and adds what it does not have yet.
    fn set_state(&self, state: State) {
        let mut kept = self.kept();
        self.take_notes(&mut kept);
        kept.state = state;
        let unwritten = kept.unwritten.clone();
        kept.state.add(&unwritten);
        kept.state.forget(OffsetDateTime::now_utc(), self.days.load(Ordering::Relaxed));
        let known = kept.state.now.devices.iter().filter(|device| device.first_seen.is_some());
        let known: Vec<Box<str>> = known.map(|device| device.name.clone()).collect();
        self.hot().known.extend(known);
    }

    fn tell(&self, news: Vec<String>) {
        let mut kept = self.kept();
        kept.news.extend(news);
        kept.news.truncate(NEWS_MAX);
    }

    /// Whether it is time to write.
    fn is_due(&self) -> bool {
        let place = self.disk();
        if place.disk.as_ref().is_some_and(Disk::has_others) {
            return true;
        }
        let waited = place.written.map_or(Duration::MAX, |written| written.elapsed());
        let retired = place.disk.as_ref().is_some_and(Disk::is_retired);
        let mut kept = self.kept();
        let failed = kept.trouble.is_some();
        self.take_notes(&mut kept);
        let Batch { visits, refused, impostors, backends, .. } = &kept.unwritten;
        let only_counts = visits.is_empty() && refused.is_empty() && impostors.is_empty() && backends.is_empty();
        waited
            >= if retired {
                PERIOD_OF_RETIRED
            } else if only_counts && !failed {
                PERIOD
            } else {
                PERIOD_OF_DEVICES
            }
    }
}

fn run(history: &Weak<History>, ends: &Receiver<()>) {
    let mut tick = TICK;
    while ends.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
        let Some(history) = history.upgrade() else { return };
        if history.is_due() {
            history.write();
        }
        let retired = history.disk().disk.as_ref().is_some_and(Disk::is_retired);
        tick = if retired { PERIOD_OF_RETIRED } else { TICK };
    }
}
