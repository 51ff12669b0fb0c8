//! The history of a running gate: what connections note, and the thread that writes it.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use std::{io, mem, thread};

use time::OffsetDateTime;

use super::batch::{BackendNote, Batch, FailedNote, RefusedNote, VisitNote};
use super::counts::Pair;
use super::disk::{Disk, DiskError};
use super::folder::{Folder, day};
use super::load::{load, visits};
use super::overview::{DeviceRefused, Overview, Trouble, Visit};
use super::state::{DEVICES_MAX, State};
use crate::config::checked::{Backend, Config, History as Settings};
use crate::explain::certificate::holder;
use crate::explain::recent::Refusal;
use crate::model::identity::Identity;
use crate::model::names::Name;
use crate::model::rejection::Stage;

/// How long counts of strangers wait to be written.
const PERIOD: Duration = Duration::from_secs(60);
/// How long anything else does.
const PERIOD_OF_DEVICES: Duration = Duration::from_secs(10);
/// How long it does in a process that another one has replaced.
const PERIOD_OF_RETIRED: Duration = Duration::from_secs(1);
/// How often the thread looks.
const TICK: Duration = Duration::from_secs(5);
/// The most messages for the log that wait.
const NEWS_MAX: usize = 8;

/// The history of a gate.
#[derive(Debug)]
pub struct History {
    /// What connections note. Nothing that takes time is done while it is locked.
    hot: Mutex<Hot>,
    kept: Mutex<Kept>,
    /// Locked while files are read or written, before `kept`.
    disk: Mutex<Place>,
    days: AtomicI64,
    /// Ends the thread when it is dropped.
    thread: Mutex<Option<Sender<()>>>,
}

#[derive(Debug, Default)]
struct Hot {
    batch: Batch,
    /// Devices that were admitted before.
    known: HashSet<Box<str>>,
    /// Whether each backend answered last.
    backends: Vec<(Name, Backend, bool)>,
}

#[derive(Debug, Default)]
struct Kept {
    state: State,
    /// Empty unless there is a folder.
    unwritten: Batch,
    has_folder: bool,
    trouble: Option<Trouble>,
    is_kept: bool,
    news: Vec<String>,
}

#[derive(Debug, Default)]
struct Place {
    folder: Option<PathBuf>,
    disk: Option<Disk>,
    written: Option<Instant>,
}

/// What has to be told about the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Why they are not written.
    pub trouble: Option<Trouble>,
    /// What has happened since the last call.
    pub messages: Vec<String>,
}

/// A connection that was admitted.
#[derive(Clone, Copy, Debug)]
pub struct Admitted<'a> {
    /// What its certificate says.
    pub identity: Option<&'a Identity>,
    /// Its route.
    pub route: &'a Name,
    /// The client's address.
    pub address: IpAddr,
    /// When it was admitted.
    pub since: OffsetDateTime,
}

impl Admitted<'_> {
    /// The device, if its certificate was verified: anything else may call itself anything.
    fn device(&self) -> Option<Box<str>> {
        self.identity.filter(|identity| identity.verified).map(holder)
    }

    fn pair(&self, device: Option<Box<str>>) -> Pair {
        let (route, first) = (self.route.clone(), self.address.to_canonical());
        Pair { device, route, connections: 0, to_backend: 0, to_client: 0, first, last: None }
    }

    fn visit(&self, device: Box<str>, until: OffsetDateTime) -> VisitNote {
        VisitNote {
            device,
            route: self.route.clone(),
            address: self.address.to_canonical(),
            since: whole(self.since),
            until: whole(until),
            began: 0,
            ended: 0,
            to_backend: 0,
            to_client: 0,
        }
    }
}

/// Without a fraction of a second, as it is written.
fn whole(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(0).unwrap_or(at)
}

impl Default for History {
    /// In memory only.
    fn default() -> Self {
        Self {
            hot: Mutex::default(),
            kept: Mutex::default(),
            disk: Mutex::default(),
            days: AtomicI64::new(i64::from(Settings::DAYS)),
            thread: Mutex::default(),
        }
    }
}

/// What connections note.
impl History {
    /// A connection was admitted. Whether it is the first one ever of its device.
    pub fn began(&self, admitted: &Admitted<'_>) -> bool {
        let device = admitted.device();
        let pair = Pair { connections: 1, ..admitted.pair(device.clone()) };
        let note = device.clone().map(|device| VisitNote { began: 1, ..admitted.visit(device, admitted.since) });
        let mut hot = self.hot();
        hot.batch.hour(admitted.since).add_pair(pair);
        if let Some(note) = note {
            hot.batch.visit(note);
        }
        device.is_some_and(|device| hot.known.len() < DEVICES_MAX && hot.known.insert(device))
    }

    /// An admitted connection has ended, and has moved so much payload.
    pub fn ended(&self, admitted: &Admitted<'_>, to_backend: u64, to_client: u64) {
        let (device, now) = (admitted.device(), OffsetDateTime::now_utc());
        let pair = Pair { to_backend, to_client, ..admitted.pair(device.clone()) };
        let note = device.map(|device| VisitNote { ended: 1, to_backend, to_client, ..admitted.visit(device, now) });
        let mut hot = self.hot();
        hot.batch.hour(now).add_pair(pair);
        if let Some(note) = note {
            hot.batch.visit(note);
        }
    }

    /// A connection was refused.
    pub fn refused(&self, refusal: &Refusal) {
        let reason = refusal.reason();
        let device = refusal.certificate.as_ref().filter(|shown| shown.anchored);
        let mut hot = self.hot();
        let counts = hot.batch.hour(refusal.at);
        if reason.stage() == Stage::Backend {
            counts.backends.add(reason, 1);
            if let Some(route) = &refusal.route {
                hot.batch.failed(FailedNote { route: route.clone(), count: 1 });
            }
            return;
        }
        let Some(device) = device else {
            counts.noise.add(reason, 1);
            counts.sources.add(refusal.counted_as);
            return;
        };
        counts.devices.add(reason, 1);
        let at = whole(refusal.at);
        let (route, address) = (refusal.route.clone(), refusal.source.ip().to_canonical());
        let refused = DeviceRefused { reason, route, address, first: at, last: at, times: 1 };
        hot.batch.refusal(RefusedNote { device: device.name().into(), refused });
    }

    /// A backend was dialled; `up` if it answered.
    pub fn dialled(&self, route: &Name, backend: &Backend, up: bool) {
        let mut hot = self.hot();
        match hot.backends.iter_mut().find(|(known, of, _)| known == route && of == backend) {
            Some((.., was)) if *was == up => return,
            Some((.., was)) => *was = up,
            None => hot.backends.push((route.clone(), backend.clone(), up)),
        }
        let at = whole(OffsetDateTime::now_utc());
        let backend = backend.to_string().into_boxed_str();
        hot.batch.backend(BackendNote { route: route.clone(), backend, up, at });
    }

    fn hot(&self) -> MutexGuard<'_, Hot> {
        self.hot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is asked.
impl History {
    /// What is known now.
    pub fn overview(&self, now: OffsetDateTime) -> Overview {
        let mut kept = self.kept();
        self.take_notes(&mut kept);
        let overview = kept.state.overview(now);
        Overview { trouble: kept.trouble.clone(), is_kept: kept.is_kept, ..overview }
    }

    /// The visits since then, the latest first.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn visits(&self, since: OffsetDateTime) -> io::Result<Vec<Visit>> {
        let in_memory = {
            let mut kept = self.kept();
            self.take_notes(&mut kept);
            kept.state.now.visits.clone()
        };
        let folder = self.disk().disk.as_ref().map(|disk| Folder::new(disk.path()));
        all_visits(folder.as_ref(), in_memory, since)
    }

    /// Why the history is not written.
    pub fn trouble(&self) -> Option<Trouble> {
        self.kept().trouble.clone()
    }

    /// What has to be told about the files.
    pub fn news(&self) -> News {
        let mut kept = self.kept();
        News { trouble: kept.trouble.clone(), messages: mem::take(&mut kept.news) }
    }

    /// Adds what connections have noted to what is known.
    fn take_notes(&self, kept: &mut Kept) {
        let batch = mem::take(&mut self.hot().batch);
        if !batch.is_empty() {
            kept.state.add(&batch);
            if kept.has_folder {
                kept.unwritten.add(batch);
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk(&self) -> MutexGuard<'_, Place> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The visits of memory, and those before them that the files of days that are over have.
fn all_visits(folder: Option<&Folder>, mut found: Vec<Visit>, since: OffsetDateTime) -> io::Result<Vec<Visit>> {
    let oldest = found.iter().map(|visit| visit.until).min();
    if let Some(folder) = folder {
        let to = oldest.map_or(i64::MAX, day);
        let earlier = visits(folder, day(since), to)?;
        found.extend(earlier.into_iter().filter(|visit| oldest.is_none_or(|oldest| visit.until < oldest)));
    }
    found.retain(|visit| visit.open > 0 || visit.until >= since);
    found.sort_by_key(|visit| std::cmp::Reverse(visit.until));
    Ok(found)
}

/// Reads the visits since then from the folder of a gate that does not run.
///
/// # Errors
/// Why that is not possible.
pub fn visits_of_folder(
    folder: &std::path::Path,
    since: OffsetDateTime,
    now: OffsetDateTime,
) -> io::Result<Vec<Visit>> {
    let folder = Folder::new(folder);
    let loaded = load(&folder, now).map_err(io::Error::other)?;
    all_visits(Some(&folder), loaded.state.now.visits, since)
}

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

    fn write_to(&self, place: &mut Place, folder: &std::path::Path, now: OffsetDateTime) -> Result<(), DiskError> {
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
        if disk.is_ahead_of(now) {
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
            } else if only_counts || failed {
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
