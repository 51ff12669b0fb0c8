//! The thread that writes the history, and what the server does with it.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel, sync_channel};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;
use std::{io, mem, thread};

use time::OffsetDateTime;
use tokio::time::Instant;

use super::batch::Batch;
use super::disk::{Disk, DiskError, append, text};
use super::folder::Folder;
use super::load::load;
use super::overview::Trouble;
use super::recorder::{History, Order, Role};
use super::state::State;
use crate::config::checked::{Backend, Config, Route};
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

/// How long the thread is waited for. It goes on if a disk takes longer.
const WAIT: Duration = Duration::from_secs(5);

/// What the server does with it.
impl History {
    /// Where it is kept, by this configuration; with the error, if the folder could not be made. To be called before it is started.
    pub fn keep(&self, folder: Option<PathBuf>, config: &Config, not_made: Option<&io::Error>) {
        self.follow(config);
        let mut kept = self.kept();
        if let (Some(folder), Some(error)) = (&folder, not_made) {
            let remedy = match error.kind() {
                io::ErrorKind::ReadOnlyFilesystem => "in a container, mount a folder of the gate's user there",
                // Of an image that has nothing but the program.
                io::ErrorKind::NotFound => {
                    "make it for the gate's user; in a container, mount a folder of that user there"
                }
                _ => "make it for the gate's user",
            };
            let error = format!(
                "cannot make the folder {} for the history: {error}\n  it is in memory only, and connections are not affected; \
                 {remedy}, or give history.folder another path or \"off\"",
                folder.display()
            );
            kept.trouble = Some(Trouble { since: OffsetDateTime::now_utc(), error });
        }
        kept.folder = folder;
    }

    /// Follows a configuration: its days, and its backends.
    pub fn follow(&self, config: &Config) {
        let backends = |route: &Route| {
            let named = |backend: &Backend| (route.name.clone(), backend.to_string().into_boxed_str());
            route.backends.iter().map(named).collect::<Vec<_>>()
        };
        let configured: Vec<_> = config.routes.iter().flat_map(backends).collect();
        self.days.store(config.history.days.into(), Ordering::Relaxed);
        self.hot().backends.retain(|(route, backend, _)| is_among(&configured, route, &backend.to_string()));
        let mut kept = self.kept();
        kept.state.now.keep_backends(|route, backend| is_among(&configured, route, backend));
        kept.configured = configured;
    }

    /// Forgets what is too old, where nothing is written.
    pub fn tidy(&self) {
        let mut kept = self.kept();
        self.take_notes(&mut kept);
        if kept.folder.is_none() {
            kept.state.forget(OffsetDateTime::now_utc(), self.days.load(Ordering::Relaxed));
        }
    }

    /// Starts the thread that writes. It reads the folder first; as a `successor`, while another process still writes there.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start(self: &Arc<Self>, successor: bool) -> io::Result<()> {
        let Some(folder) = self.kept().folder.clone() else { return Ok(()) };
        let (sender, orders) = channel();
        let (history, writer) = (Arc::downgrade(self), Writer::new(folder));
        thread::Builder::new().name("history".to_owned()).spawn(move || run(writer, &history, &orders))?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        self.order(if successor { Role::Successor } else { Role::Owner });
        Ok(())
    }

    /// This process writes from now on. The one before appends what its connections still do.
    pub fn own(&self) {
        self.order(Role::Owner);
    }

    /// Another process writes from now on. This one appends what its connections still do.
    pub fn retire(&self) {
        self.order(Role::Retired);
    }

    /// Writes for the last time.
    pub fn finish(&self) {
        self.order(Role::Ended);
    }

    /// Gives the thread another role, and waits until it has written what was noted before.
    fn order(&self, role: Role) {
        let (done, is_done) = sync_channel(1);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if thread.is_some_and(|thread| thread.send(Order { role, done }).is_ok()) {
            let _ = is_done.recv_timeout(WAIT);
        }
    }

    /// Takes what was read, and adds what it does not have yet.
    fn set_state(&self, state: State) {
        let mut kept = self.kept();
        self.take_notes(&mut kept);
        kept.state = state;
        let unwritten = kept.unwritten.clone();
        kept.state.add(&unwritten);
        let configured = mem::take(&mut kept.configured);
        kept.state.now.keep_backends(|route, backend| is_among(&configured, route, backend));
        kept.configured = configured;
        // Nothing is forgotten yet: the visits of the last day are written to its file when another one begins, which may be days
        // later.
        let known = kept.state.now.devices.iter().filter(|device| device.first_seen.is_some());
        let known: Vec<Box<str>> = known.map(|device| device.name.clone()).collect();
        self.hot().known.extend(known);
    }

    /// Takes what was noted and not written yet.
    fn take_unwritten(&self) -> Batch {
        let mut kept = self.kept();
        self.take_notes(&mut kept);
        mem::take(&mut kept.unwritten)
    }

    fn tell(&self, news: Vec<String>) {
        let mut kept = self.kept();
        kept.news.extend(news);
        kept.news.truncate(NEWS_MAX);
    }
}

fn is_among(configured: &[(Name, Box<str>)], route: &Name, backend: &str) -> bool {
    configured.iter().any(|(of, known)| of == route && **known == *backend)
}

/// The thread's own. No lock is held while it reads or writes files.
#[derive(Debug)]
struct Writer {
    folder: PathBuf,
    role: Role,
    disk: Option<Disk>,
    written: Instant,
}

impl Writer {
    fn new(folder: PathBuf) -> Self {
        Self { folder, role: Role::Successor, disk: None, written: Instant::now() }
    }

    /// Takes another role, after what was noted in the one before is written.
    fn take_role(&mut self, role: Role, history: &History) {
        if matches!(role, Role::Retired | Role::Ended) {
            self.write(history);
            // Frees the folder for the other process.
            self.disk = None;
        }
        self.role = role;
        match role {
            Role::Successor => {
                if let Ok(loaded) = load(&Folder::new(&self.folder), OffsetDateTime::now_utc()) {
                    history.set_state(loaded.state);
                }
            }
            Role::Owner => self.write(history),
            Role::Retired | Role::Ended => {}
        }
    }

    /// Writes what was noted.
    fn write(&mut self, history: &History) {
        self.written = Instant::now();
        let now = OffsetDateTime::now_utc();
        let result = match self.role {
            Role::Successor | Role::Ended => return,
            Role::Owner => self.write_as_owner(history, now),
            Role::Retired => self.append(history),
        };
        let mut kept = history.kept();
        match result {
            Ok(()) => (kept.trouble, kept.is_kept) = (None, true),
            // What was told at the start says why it is not there.
            Err(_) if kept.trouble.is_some() && !self.folder.is_dir() => {}
            Err(error) => {
                let since = kept.trouble.as_ref().map_or(now, |trouble| trouble.since);
                kept.trouble = Some(Trouble { since, error: error.to_string() });
            }
        }
    }

    fn write_as_owner(&mut self, history: &History, now: OffsetDateTime) -> Result<(), DiskError> {
        let days = history.days.load(Ordering::Relaxed);
        let disk = match &mut self.disk {
            Some(disk) => disk,
            none => {
                let (disk, state, news) = Disk::open(&self.folder, now)?;
                history.set_state(state);
                history.tell(news);
                none.insert(disk)
            }
        };
        let _locked = disk.lock()?;
        if disk.is_of_another_time(now)? {
            let (state, news) = disk.reload(now)?;
            history.set_state(state);
            history.tell(news);
        }
        for batch in disk.others() {
            history.kept().state.add(&batch);
        }
        // After an error, all is written anew from what is known.
        let batch = history.take_unwritten();
        let written = disk.write(&batch, now, |day, current| {
            let mut kept = history.kept();
            if day == current {
                // What has been noted meanwhile is in the text, but for hours of days before.
                history.take_notes(&mut kept);
                let mut hours = mem::take(&mut kept.unwritten).hours;
                hours.retain(|counts| counts.day() < current);
                kept.unwritten.hours = hours;
            }
            text(&kept.state, day, current)
        });
        match written {
            Ok(()) => history.kept().state.forget(now, days),
            // Visits wait until they can be written; they are few.
            Err(_) => history.kept().state.forget_hours(now, days),
        }
        written?;
        disk.trim(days)
    }

    fn append(&self, history: &History) -> Result<(), DiskError> {
        let batch = history.take_unwritten();
        if batch.is_empty() {
            return Ok(());
        }
        append(&self.folder, &batch).inspect_err(|_| {
            // Tried again with what is noted until then.
            let mut kept = history.kept();
            let later = mem::replace(&mut kept.unwritten, batch);
            kept.unwritten.add(later);
        })
    }

    /// Whether it is time to write.
    fn is_due(&self, history: &History) -> bool {
        if self.disk.as_ref().is_some_and(Disk::has_others) {
            return true;
        }
        let mut kept = history.kept();
        history.take_notes(&mut kept);
        let Batch { visits, refused, impostors, backends, .. } = &kept.unwritten;
        let only_counts = visits.is_empty() && refused.is_empty() && impostors.is_empty() && backends.is_empty();
        let period = match self.role {
            Role::Retired => PERIOD_OF_RETIRED,
            _ if only_counts && kept.trouble.is_none() => PERIOD,
            _ => PERIOD_OF_DEVICES,
        };
        self.written.elapsed() >= period
    }
}

fn run(mut writer: Writer, history: &Weak<History>, orders: &Receiver<Order>) {
    loop {
        let tick = if writer.role == Role::Retired { PERIOD_OF_RETIRED } else { TICK };
        let order = orders.recv_timeout(tick);
        let Some(history) = history.upgrade() else { return };
        match order {
            Ok(Order { role, done }) => {
                writer.take_role(role, &history);
                let _ = done.send(());
                if role == Role::Ended {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                if writer.is_due(&history) {
                    writer.write(&history);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
