//! What is known: the sum of all batches, in bounded memory.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::batch::{Batch, RefusedNote, VisitNote, add_impostor};
use super::counts::{DAY, HourCounts, Summary};
use super::overview::{Backend, Device, Impostor, Seen, Visit};
use crate::model::names::Name;

/// Days of which each hour is kept with its reasons and devices; of older ones, the totals.
pub(super) const DETAILED_DAYS: i64 = 8;
/// A longer pause between the connections of a device begins a new visit.
const PAUSE: Duration = Duration::minutes(30);
/// How long visits are kept in memory, and the most of them.
const VISITS_KEPT: Duration = Duration::hours(48);
const VISITS_MAX: usize = 512;
/// The most devices. A trust anchor that issues certificates to others may name any number.
pub(super) const DEVICES_MAX: usize = 256;
/// The most impostors, and of one device: attempts with one name do not displace those with another.
const IMPOSTORS_MAX: usize = 64;
const IMPOSTORS_OF_ONE: usize = 8;
/// The most backends.
const BACKENDS_MAX: usize = 256;

/// What is known.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Those of the last days, the oldest first.
    pub(super) hours: VecDeque<HourCounts>,
    /// Those before, the oldest first.
    pub(super) older: VecDeque<Summary>,
    /// All but the counts of hours.
    pub(super) now: Checkpoint,
}

/// What is known apart from the counts of hours. Each file begins with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Checkpoint {
    pub(super) devices: Vec<Device>,
    /// The latest last.
    pub(super) visits: Vec<Visit>,
    /// The latest last.
    pub(super) impostors: Vec<Impostor>,
    pub(super) backends: Vec<Backend>,
}

impl State {
    /// Adds what was noted.
    pub(super) fn add(&mut self, batch: &Batch) {
        batch.hours.iter().for_each(|counts| self.hour(counts.hour).add(counts));
        self.now.add(batch);
    }

    fn hour(&mut self, hour: i64) -> &mut HourCounts {
        let index = self.hours.partition_point(|counts| counts.hour < hour);
        if self.hours.get(index).is_none_or(|counts| counts.hour != hour) {
            self.hours.insert(index, HourCounts::of(hour));
        }
        &mut self.hours[index]
    }

    /// Adds the totals of a day that is long over.
    pub(super) fn add_older(&mut self, summaries: &[Summary]) {
        for summary in summaries {
            let index = self.older.partition_point(|known| known.hour < summary.hour);
            if self.older.get(index).is_none_or(|known| known.hour != summary.hour) {
                self.older.insert(index, *summary);
            }
        }
    }

    /// Forgets what is too old at this hour.
    pub(super) fn forget(&mut self, now: OffsetDateTime, days: i64) {
        self.forget_hours(now, days);
        self.now.visits.retain(|visit| visit.open > 0 || visit.until > now - VISITS_KEPT);
    }

    /// Forgets hours that are too old.
    pub(super) fn forget_hours(&mut self, now: OffsetDateTime, days: i64) {
        let today = now.unix_timestamp().div_euclid(86_400);
        while let Some(counts) = self.hours.front()
            && (counts.day() <= today - DETAILED_DAYS || self.hours.len() > hours(DETAILED_DAYS))
        {
            let summary = Summary::from(counts);
            self.hours.pop_front();
            self.add_older(&[summary]);
        }
        while let Some(summary) = self.older.front()
            && (summary.hour.div_euclid(DAY) <= today - days || self.older.len() > hours(days))
        {
            self.older.pop_front();
        }
    }

    /// The hours of a day.
    pub(super) fn of_day(&self, day: i64) -> impl Iterator<Item = &HourCounts> {
        self.hours.iter().filter(move |counts| counts.day() == day)
    }
}

fn hours(days: i64) -> usize {
    usize::try_from(days.saturating_mul(DAY)).unwrap_or(0)
}

impl Checkpoint {
    pub(super) fn add(&mut self, batch: &Batch) {
        for note in &batch.backends {
            let known = self.backends.iter_mut().find(|one| one.route == note.route && one.backend == note.backend);
            match known {
                Some(known) if known.up == note.up => {}
                Some(known) => (known.up, known.since, known.failed) = (note.up, note.at, 0),
                None => {
                    if self.backends.len() >= BACKENDS_MAX {
                        self.backends.remove(0);
                    }
                    let (route, backend) = (note.route.clone(), note.backend.clone());
                    self.backends.push(Backend { route, backend, up: note.up, since: note.at, failed: 0 });
                }
            }
        }
        for failed in &batch.failed {
            for backend in self.backends.iter_mut().filter(|one| one.route == failed.route && !one.up) {
                backend.failed = backend.failed.saturating_add(failed.count);
            }
        }
        batch.visits.iter().for_each(|note| self.visit(note));
        batch.refused.iter().for_each(|note| self.refusal(note));
        batch.impostors.iter().for_each(|impostor| self.impostor(impostor));
    }

    fn visit(&mut self, note: &VisitNote) {
        if let Some(device) = self.device(&note.device, note.until) {
            device.first_seen = Some(device.first_seen.map_or(note.since, |first| first.min(note.since)));
            if device.last_seen.as_ref().is_none_or(|seen| seen.at <= note.until) {
                device.last_seen = Some(Seen { at: note.until, route: note.route.clone(), address: note.address });
            }
        }
        let same = |known: &&mut Visit| {
            known.route == note.route && known.address == note.address && known.device == note.device
        };
        let known = self.visits.iter_mut().rev().find(same);
        match known {
            Some(known) if known.open > 0 || note.since <= known.until.saturating_add(PAUSE) => {
                known.since = known.since.min(note.since);
                known.until = known.until.max(note.until);
                known.connections = known.connections.saturating_add(note.began);
                known.open = known.open.saturating_add(note.began).saturating_sub(note.ended);
                known.to_backend = known.to_backend.saturating_add(note.to_backend);
                known.to_client = known.to_client.saturating_add(note.to_client);
            }
            _ => {
                if self.visits.len() >= VISITS_MAX {
                    self.visits.remove(0);
                }
                self.visits.push(Visit {
                    device: note.device.clone(),
                    route: note.route.clone(),
                    address: note.address,
                    since: note.since,
                    until: note.until,
                    // The visit that they began may be forgotten.
                    connections: note.began.max(note.ended),
                    open: note.began.saturating_sub(note.ended),
                    to_backend: note.to_backend,
                    to_client: note.to_client,
                });
            }
        }
    }

    fn refusal(&mut self, note: &RefusedNote) {
        let Some(device) = self.device(&note.device, note.refused.last) else { return };
        let seen = device.last_seen.as_ref().map(|seen| seen.at);
        match &mut device.refused {
            // An admission in between ends it.
            Some(known) if known.reason == note.refused.reason && seen.is_none_or(|seen| seen < known.last) => {
                known.add(note.refused.clone());
            }
            refused => *refused = Some(note.refused.clone()),
        }
    }

    fn impostor(&mut self, impostor: &Impostor) {
        add_impostor(&mut self.impostors, impostor.clone());
        let of_one = |known: &Impostor| known.device == impostor.device;
        let count = self.impostors.iter().filter(|known| of_one(known)).count();
        let oldest = if count > IMPOSTORS_OF_ONE { self.impostors.iter().position(of_one) } else { None };
        if let Some(index) = oldest.or_else(|| (self.impostors.len() > IMPOSTORS_MAX).then_some(0)) {
            self.impostors.remove(index);
        }
    }

    /// The device of that name. `None` if there are too many that were there as lately.
    fn device(&mut self, name: &str, at: OffsetDateTime) -> Option<&mut Device> {
        let known = self.devices.binary_search_by(|device| (*device.name).cmp(name));
        let index = match known {
            Ok(index) => index,
            Err(mut index) => {
                if self.devices.len() >= DEVICES_MAX {
                    let (oldest, latest) =
                        self.devices.iter().map(Device::latest).enumerate().min_by_key(|(_, latest)| *latest)?;
                    if latest.is_some_and(|latest| latest >= at - VISITS_KEPT) {
                        return None;
                    }
                    self.devices.remove(oldest);
                    index -= usize::from(oldest < index);
                }
                let new = Device { name: name.into(), first_seen: None, last_seen: None, refused: None };
                self.devices.insert(index, new);
                index
            }
        };
        self.devices.get_mut(index)
    }

    /// Puts in order what a file has, and enforces the bounds.
    pub(super) fn checked(mut self) -> Self {
        let by_name: BTreeMap<Box<str>, Device> =
            self.devices.into_iter().map(|device| (device.name.clone(), device)).collect();
        self.devices = by_name.into_values().take(DEVICES_MAX).collect();
        keep_last(&mut self.visits, VISITS_MAX);
        keep_last(&mut self.impostors, IMPOSTORS_MAX);
        keep_last(&mut self.backends, BACKENDS_MAX);
        self
    }

    /// Forgets backends that the configuration does not have.
    pub(super) fn keep_backends(&mut self, keep: impl Fn(&Name, &str) -> bool) {
        self.backends.retain(|backend| keep(&backend.route, &backend.backend));
    }
}

impl Device {
    fn latest(&self) -> Option<OffsetDateTime> {
        let seen = self.last_seen.as_ref().map(|seen| seen.at);
        seen.max(self.refused.as_ref().map(|refused| refused.last))
    }
}

fn keep_last<T>(items: &mut Vec<T>, count: usize) {
    items.drain(..items.len().saturating_sub(count));
}
