//! What the history tells: the answers that the status page, `doorward status`, `why`, `history` and notices are made of.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::serde::timestamp;

use super::forms::{self, is_zero};
use crate::model::names::Name;
use crate::model::rejection::Reason;

/// The history at one moment. All of it is bounded, and what a stranger chose in it is escaped and cut; a page must escape it for
/// HTML.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// The oldest hour that is known. `None` before the first connection.
    pub since: Option<OffsetDateTime>,
    /// Why it is not written to its folder; it is complete in memory all the same.
    pub trouble: Option<Trouble>,
    /// Whether it survives a restart: false with `folder = "off"`, and until it could be written once.
    pub is_kept: bool,
    /// Every device that was ever admitted, or refused although an authority in `trust` signed its certificate; by name.
    pub devices: Vec<Device>,
    /// What devices did in the last 24 hours, the latest first. Those that still have open connections are among them.
    pub visits: Vec<Visit>,
    /// Impostors, the latest first.
    pub impostors: Vec<Impostor>,
    /// The backends of the configuration that were dialled, by route and address.
    pub backends: Vec<Backend>,
    /// Connections of strangers that were refused, in the last 24 hours.
    pub day: Noise,
    /// The same in the last 7 days.
    pub week: Noise,
    /// Every hour since [`since`](Self::since), the oldest first; hours without a connection are left out.
    pub hours: Vec<Hour>,
}

/// Why the history is not written to its folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Since when.
    pub since: OffsetDateTime,
    /// The file or folder, the error, and what to do.
    pub error: String,
}

/// A device, by the name in its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The name.
    pub name: Box<str>,
    /// When it was admitted for the first time ever.
    #[serde(default, with = "timestamp::option")]
    pub first_seen: Option<OffsetDateTime>,
    /// When, where to and from where it was admitted last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Seen>,
    /// Its refusals for one reason, the latest. It is over if the device was admitted [later](Device::is_refused).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<DeviceRefused>,
}

/// A connection that was admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// When.
    #[serde(with = "timestamp")]
    pub at: OffsetDateTime,
    /// Where to.
    #[serde(with = "forms::name")]
    pub route: Name,
    /// From where.
    pub address: IpAddr,
}

/// Refusals of one device for one reason, without another reason between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRefused {
    /// Why.
    #[serde(with = "forms::reason")]
    pub reason: Reason,
    /// The route, if it was known by then.
    #[serde(default, with = "forms::name_if_any")]
    pub route: Option<Name>,
    /// The address of the last one.
    pub address: IpAddr,
    /// When the first one was.
    #[serde(with = "timestamp")]
    pub first: OffsetDateTime,
    /// When the last one was.
    #[serde(with = "timestamp")]
    pub last: OffsetDateTime,
    /// How many there were.
    pub times: u64,
}

/// Connections of one device to one route from one address, with no long pause between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visit {
    /// The device.
    #[serde(rename = "d")]
    pub device: Box<str>,
    /// The route.
    #[serde(rename = "r", with = "forms::name")]
    pub route: Name,
    /// The address.
    #[serde(rename = "a")]
    pub address: IpAddr,
    /// When the first connection was admitted.
    #[serde(rename = "s", with = "timestamp")]
    pub since: OffsetDateTime,
    /// When the last one ended; while one is open, what is known of it.
    #[serde(rename = "u", with = "timestamp")]
    pub until: OffsetDateTime,
    /// How many connections.
    #[serde(rename = "n")]
    pub connections: u64,
    /// How many of them are open. Those of a process that an upgrade has replaced are not counted.
    #[serde(skip)]
    pub open: u64,
    /// Payload of those that have ended, in bytes.
    #[serde(rename = "out", default, skip_serializing_if = "is_zero")]
    pub to_backend: u64,
    /// The same from the backend.
    #[serde(rename = "in", default, skip_serializing_if = "is_zero")]
    pub to_client: u64,
}

/// Certificates that carried the name of a device and that its authority did not sign, from one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impostor {
    /// The device's name.
    pub device: Box<str>,
    /// What made it one, as [`Impostor`](crate::model) of the vocabulary labels it.
    pub claim: Box<str>,
    /// The latest address.
    pub address: IpAddr,
    /// The route that was asked for, if it was known by then.
    #[serde(default, with = "forms::name_if_any")]
    pub route: Option<Name>,
    /// Why it was refused.
    #[serde(with = "forms::reason")]
    pub reason: Reason,
    /// When the first attempt was.
    #[serde(with = "timestamp")]
    pub first: OffsetDateTime,
    /// When the last attempt was.
    #[serde(with = "timestamp")]
    pub last: OffsetDateTime,
    /// How many there were.
    pub times: u64,
    /// The issuer that the certificate names, escaped and cut.
    pub issuer: Box<str>,
    /// Seconds since 1970 before which the certificate is not valid: when it claims to have been made.
    pub not_before: i64,
    /// SHA-256 of the certificate, in hexadecimal digits.
    pub fingerprint: Box<str>,
}

/// A backend of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// The route.
    #[serde(with = "forms::name")]
    pub route: Name,
    /// The backend, as in the configuration.
    pub backend: Box<str>,
    /// Whether it answered when it was dialled last.
    pub up: bool,
    /// Since when: of one that was never seen otherwise, since it was dialled first.
    #[serde(with = "timestamp")]
    pub since: OffsetDateTime,
    /// Connections of devices to the route that failed since it is down. 0 while it is up.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed: u64,
}

/// Refused connections, without those of devices, of impostors, and those that a backend failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noise {
    /// How many there were for each reason, the most frequent first; reasons that did not occur are left out.
    pub reasons: Vec<(Reason, u64)>,
    /// From how many sources, with an error of a few percent.
    pub sources: u64,
}

/// What happened in one hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hour {
    /// When it began: full hours of UTC.
    pub start: OffsetDateTime,
    /// Connections that were admitted.
    pub admitted: u64,
    /// Refused connections that are [`Noise`].
    pub noise: u64,
    /// Refused connections of devices.
    pub devices_refused: u64,
    /// Attempts of impostors.
    pub impostors: u64,
}

impl Device {
    /// The refusals that no admission has followed.
    pub fn is_refused(&self) -> Option<&DeviceRefused> {
        let seen = self.last_seen.as_ref().map(|seen| seen.at);
        self.refused.as_ref().filter(|refused| seen.is_none_or(|seen| seen < refused.last))
    }
}

impl Noise {
    /// How many there were.
    pub fn total(&self) -> u64 {
        self.reasons.iter().map(|(_, count)| count).sum()
    }
}
