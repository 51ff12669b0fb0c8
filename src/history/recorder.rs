//! The history of a running gate: what connections note, and the thread that writes it.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicI64;
use std::sync::mpsc::{Sender, SyncSender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{io, mem};

use time::OffsetDateTime;

use super::batch::{BackendNote, Batch, FailedNote, RefusedNote, VisitNote};
use super::counts::Pair;
use super::folder::Folder;
use super::overview::{DeviceRefused, Impostor, Overview, Trouble, Visit};
use super::state::{DEVICES_MAX, State};
use super::visits;
use crate::config::checked::{Backend, History as Settings};
use crate::explain::certificate::holder;
use crate::explain::recent::Refusal;
use crate::model::identity::Identity;
use crate::model::names::Name;
use crate::model::rejection::{Reason, Stage};

/// The history of a gate.
#[derive(Debug)]
pub struct History {
    /// What connections note. Nothing that takes time is done while it is locked.
    pub(super) hot: Mutex<Hot>,
    pub(super) kept: Mutex<Kept>,
    pub(super) days: AtomicI64,
    /// To the thread that writes, which ends when this is dropped.
    pub(super) thread: Mutex<Option<Sender<Order>>>,
}

#[derive(Debug, Default)]
pub(super) struct Hot {
    pub(super) batch: Batch,
    /// Devices that were admitted before.
    pub(super) known: HashSet<Box<str>>,
    /// Whether each backend answered last.
    pub(super) backends: Vec<(Name, Backend, bool)>,
}

#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) state: State,
    /// Empty unless there is a folder.
    pub(super) unwritten: Batch,
    pub(super) folder: Option<PathBuf>,
    /// The backends of the configuration.
    pub(super) configured: Vec<(Name, Box<str>)>,
    pub(super) trouble: Option<Trouble>,
    pub(super) is_kept: bool,
    pub(super) news: Vec<String>,
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
            days: AtomicI64::new(i64::from(Settings::DAYS)),
            thread: Mutex::default(),
        }
    }
}

/// What the thread is told to do.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) role: Role,
    /// Sent to when it is done.
    pub(super) done: SyncSender<()>,
}

/// What this process is for the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Another process writes, which this one will replace.
    Successor,
    /// The one that writes files anew.
    Owner,
    /// Another process has replaced this one, which appends what its connections still do.
    Retired,
    /// This process ends.
    Ended,
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

    /// An admitted connection has moved so much payload since this was called last.
    pub fn moved(&self, admitted: &Admitted<'_>, to_backend: u64, to_client: u64) {
        self.note(admitted, 0, to_backend, to_client);
    }

    /// An admitted connection has ended, and has moved so much payload since [`History::moved`].
    pub fn ended(&self, admitted: &Admitted<'_>, to_backend: u64, to_client: u64) {
        self.note(admitted, 1, to_backend, to_client);
    }

    fn note(&self, admitted: &Admitted<'_>, ended: u64, to_backend: u64, to_client: u64) {
        let (device, now) = (admitted.device(), OffsetDateTime::now_utc());
        let pair = Pair { to_backend, to_client, ..admitted.pair(device.clone()) };
        let note = device.map(|device| VisitNote { ended, to_backend, to_client, ..admitted.visit(device, now) });
        let mut hot = self.hot();
        hot.batch.hour(now).add_pair(pair);
        if let Some(note) = note {
            hot.batch.visit(note);
        }
    }

    /// A connection was refused.
    pub fn refused(&self, refusal: &Refusal) {
        let reason = refusal.reason();
        // With another key than the device's, it was not the device that showed its certificate.
        let is_device = reason != Reason::BadSignature;
        let device = refusal.certificate.as_ref().filter(|shown| shown.anchored && is_device);
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

    /// A connection was refused that pretended to be this device, by this claim: in place of [`refused`](Self::refused).
    pub fn pretended(&self, refusal: &Refusal, device: &str, claim: &str) {
        let (reason, at, shown) = (refusal.reason(), whole(refusal.at), refusal.certificate.as_ref());
        let impostor = Impostor {
            device: device.into(),
            claim: claim.into(),
            address: refusal.source.ip().to_canonical(),
            route: refusal.route.clone(),
            reason,
            first: at,
            last: at,
            times: 1,
            issuer: shown.map(|shown| shown.issuer.clone()).unwrap_or_default(),
            not_before: shown.map_or(0, |shown| shown.not_before),
            fingerprint: shown.map(|shown| shown.fingerprint.to_string().into_boxed_str()).unwrap_or_default(),
        };
        let mut hot = self.hot();
        hot.batch.hour(at).impostors.add(reason, 1);
        hot.batch.impostor(impostor);
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

    pub(super) fn hot(&self) -> MutexGuard<'_, Hot> {
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
        let (in_memory, folder) = {
            let mut kept = self.kept();
            self.take_notes(&mut kept);
            (kept.state.now.visits.clone(), kept.folder.as_deref().filter(|_| kept.is_kept).map(Folder::new))
        };
        visits::all(folder.as_ref(), in_memory, since)
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
    pub(super) fn take_notes(&self, kept: &mut Kept) {
        let batch = mem::take(&mut self.hot().batch);
        if !batch.is_empty() {
            kept.state.add(&batch);
            if kept.folder.is_some() {
                kept.unwritten.add(batch);
            }
        }
    }

    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
