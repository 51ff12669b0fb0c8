//! The answer about which devices were admitted.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::answers::rfc3339;
use super::{Answer, VISITS_MAX};
use crate::gate::Gate;
use crate::history;

/// Which devices were admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// How many visits are known of the time that was asked for.
    pub known: usize,
    /// The latest of them, the latest first.
    pub visits: Vec<Visit>,
}

/// Connections of one device to one route from one address, with no long pause between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visit {
    /// The device.
    pub device: String,
    /// The route.
    pub route: String,
    /// The client's address.
    pub address: String,
    /// When the first connection was admitted (RFC 3339).
    pub since: String,
    /// When the last one ended (RFC 3339); if one is open, what is known of it.
    pub until: String,
    /// How many connections.
    pub connections: u64,
    /// How many of them are open.
    pub open: u64,
    /// Payload from the client to the backend of those that have ended, in bytes.
    pub bytes_to_backend: u64,
    /// Payload from the backend to the client of those that have ended, in bytes.
    pub bytes_to_client: u64,
}

pub(super) fn answer(gate: &Gate, since: OffsetDateTime, device: Option<&str>, count: usize) -> Answer {
    match gate.history.visits(since) {
        Ok(visits) => Answer::History(history_of(visits, device, count)),
        Err(error) => Answer::Error(format!("cannot read the history: {error}")),
    }
}

/// An answer of these visits.
pub(crate) fn history_of(mut visits: Vec<history::Visit>, device: Option<&str>, count: usize) -> History {
    visits.retain(|visit| device.is_none_or(|device| visit.device.eq_ignore_ascii_case(device)));
    let known = visits.len();
    let shown = visits.into_iter().take(count.min(VISITS_MAX)).map(|visit| Visit {
        device: visit.device.into(),
        route: visit.route.to_string(),
        address: visit.address.to_string(),
        since: rfc3339(visit.since),
        until: rfc3339(visit.until),
        connections: visit.connections,
        open: visit.open,
        bytes_to_backend: visit.to_backend,
        bytes_to_client: visit.to_client,
    });
    History { known, visits: shown.collect() }
}

/// A moment of an answer.
pub(crate) fn moment_of(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}
