//! The history: which devices were admitted and what was refused, for each hour, kept across restarts.
//!
//! Bounded in memory and in its folder, whatever strangers send: they change counters of reasons and a bounded number of
//! impostors. Names that they choose are no keys.

mod overview;

use std::net::IpAddr;

use time::OffsetDateTime;

pub use self::overview::{Backend, Device, DeviceRefused, Hour, Impostor, Noise, Overview, Seen, Trouble, Visit};
use crate::explain::recent::Refusal;
use crate::model::identity::Identity;
use crate::model::names::Name;

/// The history of a gate.
#[derive(Debug, Default)]
pub struct History;

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

impl History {
    /// A connection was admitted. Whether it is the first one ever of its device.
    pub fn began(&self, _admitted: &Admitted<'_>) -> bool {
        false
    }

    /// An admitted connection has ended, and has moved so much payload.
    pub fn ended(&self, _admitted: &Admitted<'_>, _to_backend: u64, _to_client: u64) {}

    /// A connection was refused.
    pub fn refused(&self, _refusal: &Refusal) {}

    /// A backend was dialled; `up` if it answered.
    pub fn dialled(&self, _route: &Name, _backend: &str, _up: bool) {}

    /// What is known now.
    pub fn overview(&self, _now: OffsetDateTime) -> Overview {
        Overview::default()
    }
}
