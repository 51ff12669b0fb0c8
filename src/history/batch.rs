//! What was noted since the last write: counts and notes that are added to what is known. One line of a file.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::serde::timestamp;

use super::counts::{HOUR, HourCounts};
use super::forms::{self, is_zero};
use super::overview::{DeviceRefused, Impostor};
use crate::model::names::Name;

/// The most hours. More than one only where the folder cannot be written, or the clock jumps.
const HOURS_MAX: usize = 200;
/// The most visits, refused devices and backends.
const NOTES_MAX: usize = 512;
/// The most impostors. Their number is counted in any case.
pub(super) const IMPOSTORS_MAX: usize = 8;

/// What was noted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Batch {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) hours: Vec<HourCounts>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) visits: Vec<VisitNote>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) refused: Vec<RefusedNote>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) impostors: Vec<Impostor>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) backends: Vec<BackendNote>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) failed: Vec<FailedNote>,
}

/// Admitted connections of one device to one route from one address, that began or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VisitNote {
    #[serde(rename = "d")]
    pub(super) device: Box<str>,
    #[serde(rename = "r", with = "forms::name")]
    pub(super) route: Name,
    #[serde(rename = "a")]
    pub(super) address: IpAddr,
    /// When the first of them began.
    #[serde(rename = "s", with = "timestamp")]
    pub(super) since: OffsetDateTime,
    /// When the last of them began or ended.
    #[serde(rename = "u", with = "timestamp")]
    pub(super) until: OffsetDateTime,
    #[serde(rename = "b", default, skip_serializing_if = "is_zero")]
    pub(super) began: u64,
    #[serde(rename = "e", default, skip_serializing_if = "is_zero")]
    pub(super) ended: u64,
    #[serde(rename = "out", default, skip_serializing_if = "is_zero")]
    pub(super) to_backend: u64,
    #[serde(rename = "in", default, skip_serializing_if = "is_zero")]
    pub(super) to_client: u64,
}

/// Refusals of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RefusedNote {
    pub(super) device: Box<str>,
    #[serde(flatten)]
    pub(super) refused: DeviceRefused,
}

/// A backend that was up and is down, or the other way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BackendNote {
    #[serde(with = "forms::name")]
    pub(super) route: Name,
    pub(super) backend: Box<str>,
    pub(super) up: bool,
    #[serde(with = "timestamp")]
    pub(super) at: OffsetDateTime,
}

/// Connections of devices that the backends of a route failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FailedNote {
    #[serde(with = "forms::name")]
    pub(super) route: Name,
    pub(super) count: u64,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        let Self { hours, visits, refused, impostors, backends, failed } = self;
        hours.is_empty()
            && visits.is_empty()
            && refused.is_empty()
            && impostors.is_empty()
            && backends.is_empty()
            && failed.is_empty()
    }

    /// The counts of the hour of `at`.
    pub(super) fn hour(&mut self, at: OffsetDateTime) -> &mut HourCounts {
        self.hour_of(at.unix_timestamp().div_euclid(HOUR))
    }

    fn hour_of(&mut self, hour: i64) -> &mut HourCounts {
        let known = self.hours.iter().rposition(|counts| counts.hour == hour);
        let index = known.unwrap_or_else(|| {
            if self.hours.len() >= HOURS_MAX {
                self.hours.remove(0);
            }
            self.hours.push(HourCounts::of(hour));
            self.hours.len() - 1
        });
        // There is one: `index` is within.
        &mut self.hours[index]
    }

    pub(super) fn visit(&mut self, note: VisitNote) {
        let same = |known: &&mut VisitNote| {
            known.route == note.route && known.address == note.address && known.device == note.device
        };
        match self.visits.iter_mut().rev().find(same) {
            Some(known) => {
                known.since = known.since.min(note.since);
                known.until = known.until.max(note.until);
                known.began = known.began.saturating_add(note.began);
                known.ended = known.ended.saturating_add(note.ended);
                known.to_backend = known.to_backend.saturating_add(note.to_backend);
                known.to_client = known.to_client.saturating_add(note.to_client);
            }
            None => push(&mut self.visits, note),
        }
    }

    pub(super) fn refusal(&mut self, note: RefusedNote) {
        // Only the latest: one with another reason in between begins anew.
        let latest = self.refused.iter_mut().rev().find(|known| known.device == note.device);
        match latest {
            Some(known) if known.refused.reason == note.refused.reason => known.refused.add(note.refused),
            _ => push(&mut self.refused, note),
        }
    }

    pub(super) fn impostor(&mut self, impostor: Impostor) {
        add_impostor(&mut self.impostors, impostor);
        if self.impostors.len() > IMPOSTORS_MAX {
            self.impostors.remove(0);
        }
    }

    pub(super) fn backend(&mut self, note: BackendNote) {
        push(&mut self.backends, note);
    }

    pub(super) fn failed(&mut self, note: FailedNote) {
        match self.failed.iter_mut().find(|known| known.route == note.route) {
            Some(known) => known.count = known.count.saturating_add(note.count),
            None => push(&mut self.failed, note),
        }
    }

    /// Adds a later batch.
    pub(super) fn add(&mut self, other: Self) {
        other.hours.iter().for_each(|counts| self.hour_of(counts.hour).add(counts));
        other.visits.into_iter().for_each(|note| self.visit(note));
        other.refused.into_iter().for_each(|note| self.refusal(note));
        other.impostors.into_iter().for_each(|impostor| self.impostor(impostor));
        other.backends.into_iter().for_each(|note| self.backend(note));
        other.failed.into_iter().for_each(|note| self.failed(note));
    }
}

/// Adds a note. Of too many, the oldest is forgotten.
fn push<T>(notes: &mut Vec<T>, note: T) {
    if notes.len() >= NOTES_MAX {
        notes.remove(0);
    }
    notes.push(note);
}

impl DeviceRefused {
    /// Adds later refusals for the same reason.
    pub(super) fn add(&mut self, later: Self) {
        let (first, times) = (self.first.min(later.first), self.times.saturating_add(later.times));
        *self = Self { first, times, ..later };
    }
}

/// Adds an impostor, as the last one. One that is known already is not listed twice.
pub(super) fn add_impostor(impostors: &mut Vec<Impostor>, mut impostor: Impostor) {
    let same = |known: &Impostor| {
        known.device == impostor.device && known.address == impostor.address && known.claim == impostor.claim
    };
    if let Some(index) = impostors.iter().position(same) {
        let known = impostors.remove(index);
        impostor.first = impostor.first.min(known.first);
        impostor.last = impostor.last.max(known.last);
        impostor.times = impostor.times.saturating_add(known.times);
    }
    impostors.push(impostor);
}
