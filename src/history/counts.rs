//! Counts of one hour.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::forms::{self, is_zero};
use super::sources::Sources;
use crate::model::names::Name;
use crate::model::rejection::Reason;

/// The most pairs of device and route in one hour.
pub(super) const PAIRS_MAX: usize = 128;

/// Seconds.
pub(super) const HOUR: i64 = 3600;
/// Hours.
pub(super) const DAY: i64 = 24;

/// What was counted in one hour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct HourCounts {
    /// Full hours since 1970.
    pub(super) hour: i64,
    /// Refused strangers.
    #[serde(skip_serializing_if = "Reasons::is_empty")]
    pub(super) noise: Reasons,
    /// Refused devices.
    #[serde(skip_serializing_if = "Reasons::is_empty")]
    pub(super) devices: Reasons,
    /// Refused impostors.
    #[serde(skip_serializing_if = "Reasons::is_empty")]
    pub(super) impostors: Reasons,
    /// Connections that a backend failed.
    #[serde(skip_serializing_if = "Reasons::is_empty")]
    pub(super) backends: Reasons,
    /// The sources of `noise`.
    #[serde(skip_serializing_if = "Sources::is_empty")]
    pub(super) sources: Sources,
    /// Admitted connections; at most [`PAIRS_MAX`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) admitted: Vec<Pair>,
    /// Admitted connections of more pairs than that.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) others: u64,
}

/// Connections of one device, or of clients without one, to one route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pair {
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub(super) device: Option<Box<str>>,
    #[serde(rename = "r", with = "forms::name")]
    pub(super) route: Name,
    /// How many were admitted.
    #[serde(rename = "n", default, skip_serializing_if = "is_zero")]
    pub(super) connections: u64,
    /// Payload of those that ended in this hour.
    #[serde(rename = "out", default, skip_serializing_if = "is_zero")]
    pub(super) to_backend: u64,
    #[serde(rename = "in", default, skip_serializing_if = "is_zero")]
    pub(super) to_client: u64,
    /// The address of the first connection.
    #[serde(rename = "a")]
    pub(super) first: IpAddr,
    /// That of the last one, if it is another one.
    #[serde(rename = "z", default, skip_serializing_if = "Option::is_none")]
    pub(super) last: Option<IpAddr>,
}

impl HourCounts {
    pub(super) fn of(hour: i64) -> Self {
        Self { hour, ..Self::default() }
    }

    /// The day that it belongs to, since 1970.
    pub(super) const fn day(&self) -> i64 {
        self.hour.div_euclid(DAY)
    }

    /// How many connections were admitted.
    pub(super) fn connections(&self) -> u64 {
        self.admitted.iter().fold(self.others, |sum, pair| sum.saturating_add(pair.connections))
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.noise.add_all(&other.noise);
        self.devices.add_all(&other.devices);
        self.impostors.add_all(&other.impostors);
        self.backends.add_all(&other.backends);
        self.sources.add_all(&other.sources);
        self.others = self.others.saturating_add(other.others);
        for pair in &other.admitted {
            self.add_pair(pair.clone());
        }
    }

    pub(super) fn add_pair(&mut self, pair: Pair) {
        let same = |known: &Pair| known.route == pair.route && known.device == pair.device;
        let Some(known) = self.admitted.iter().position(same).and_then(|index| self.admitted.get_mut(index)) else {
            if self.admitted.len() < PAIRS_MAX {
                self.admitted.push(pair);
            } else {
                self.others = self.others.saturating_add(pair.connections);
            }
            return;
        };
        known.connections = known.connections.saturating_add(pair.connections);
        known.to_backend = known.to_backend.saturating_add(pair.to_backend);
        known.to_client = known.to_client.saturating_add(pair.to_client);
        let last = pair.last.unwrap_or(pair.first);
        known.last = (last != known.first).then_some(last);
    }
}

/// How often each reason occurred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reasons(Vec<(Reason, u64)>);

impl Reasons {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, reason: Reason, count: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, known)) => *known = known.saturating_add(count),
            None => self.0.push((reason, count)),
        }
    }

    pub(super) fn add_all(&mut self, other: &Self) {
        other.0.iter().for_each(|(reason, count)| self.add(*reason, *count));
    }

    pub(super) fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// The most frequent first.
    pub(super) fn ranked(mut self) -> Vec<(Reason, u64)> {
        self.0.sort_by_key(|(reason, count)| (std::cmp::Reverse(*count), *reason));
        self.0
    }
}

/// By the labels, which stay when reasons are added.
impl Serialize for Reasons {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(reason, count)| (forms::reason::label(*reason), count)))
    }
}

/// A reason that this release does not know is left out.
impl<'de> Deserialize<'de> for Reasons {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = std::collections::BTreeMap::<String, u64>::deserialize(deserializer)?;
        let mut reasons = Self::default();
        for (label, count) in map {
            if let Some(reason) = forms::reason::find(&label) {
                reasons.add(reason, count);
            }
        }
        Ok(reasons)
    }
}

/// What remains in memory of an hour that is long over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Summary {
    /// Full hours since 1970.
    #[serde(rename = "h")]
    pub(super) hour: i64,
    #[serde(rename = "a", default, skip_serializing_if = "is_zero")]
    pub(super) admitted: u64,
    #[serde(rename = "n", default, skip_serializing_if = "is_zero")]
    pub(super) noise: u64,
    #[serde(rename = "d", default, skip_serializing_if = "is_zero")]
    pub(super) devices_refused: u64,
    #[serde(rename = "i", default, skip_serializing_if = "is_zero")]
    pub(super) impostors: u64,
}

impl From<&HourCounts> for Summary {
    fn from(counts: &HourCounts) -> Self {
        Self {
            hour: counts.hour,
            admitted: counts.connections(),
            noise: counts.noise.total(),
            devices_refused: counts.devices.total(),
            impostors: counts.impostors.total(),
        }
    }
}
