//! The latest refusals, kept in memory for those who ask why: `doorward why`, the status page.
//!
//! A fixed number of them, each of bounded size, so that a flood costs nothing but older entries. There are places of their
//! own for certificates that a trust anchor signed, for other certificates, and for connections without one: strangers cannot
//! push out what happened to a device, and a device that tries again and again has one entry for each reason.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;

use crate::model::identity::{Identity, Sha256};
use crate::model::names::{Name, printable, visible};
use crate::model::rejection::{Alert, Cause, Reason, Rejection};
use crate::model::source::Source;

/// Refusals kept of anchored certificates, as many of other certificates, and as many of connections that showed none.
pub const KEPT_OF_EACH: usize = 512;

/// The longest text of a stranger's in an entry, in bytes.
const STRANGER_MAX: usize = 128;

/// The most names of one certificate.
const NAMES_MAX: usize = 4;

/// One connection that was turned away. What a stranger chose in it is escaped for a terminal, and bounded; a page must
/// escape it once more, in its own way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// When.
    pub at: OffsetDateTime,
    /// The connection's number, as in the log.
    pub id: u64,
    /// Who connected.
    pub source: SocketAddr,
    /// With whom it was counted.
    pub counted_as: Source,
    /// Where it arrived.
    pub listener: Name,
    /// The server name that was asked for.
    pub server_name: Option<Box<str>>,
    /// The route, if it was known by then.
    pub route: Option<Name>,
    /// What happened; tells the reason and the stage as well.
    pub cause: Cause,
    /// The alert that the client was sent.
    pub alert: Option<Alert>,
    /// The certificate that was shown.
    pub certificate: Option<Shown>,
    /// How many refusals this entry stands for: of an anchored certificate only the latest for each reason is kept.
    pub times: u64,
}

/// A certificate that was shown, as far as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// What its holder is called, by the names in it; the first is the one to use, and there always is one.
    pub names: Vec<Box<str>>,
    /// SHA-256 of the certificate.
    pub fingerprint: Sha256,
    /// Its serial number.
    pub serial: Box<str>,
    /// Who issued it, or so it says.
    pub issuer: Box<str>,
    /// Seconds since 1970 before which it is not valid.
    pub not_before: i64,
    /// Seconds since 1970 after which it is not valid.
    pub not_after: i64,
    /// An authority in `trust` vouches for it, and the client has proved to hold its key. Otherwise all of this is only
    /// what was shown.
    pub verified: bool,
    /// An authority in `trust` signed it, whether or not the client has its key: see [`Identity::anchored`].
    pub anchored: bool,
}

impl Shown {
    /// What its holder is called.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", |name| name)
    }
}

impl From<&Identity> for Shown {
    fn from(identity: &Identity) -> Self {
        let first = identity.display_name();
        let others = [&identity.emails, &identity.uris, &identity.dns_names].into_iter().flatten();
        let mut names: Vec<Box<str>> = vec![stranger(&first)];
        for name in others.chain(&identity.common_name) {
            if names.len() < NAMES_MAX && *name != first {
                names.push(stranger(name));
            }
        }
        Self {
            names,
            fingerprint: identity.fingerprint,
            serial: stranger(&identity.serial.to_string()),
            issuer: stranger(&identity.issuer),
            not_before: identity.not_before,
            not_after: identity.not_after,
            verified: identity.verified,
            anchored: identity.anchored,
        }
    }
}

/// What is known about a connection when it is turned away.
#[derive(Debug)]
pub struct Circumstances<'a> {
    /// The connection's number.
    pub id: u64,
    /// Who connected.
    pub source: SocketAddr,
    /// With whom it was counted.
    pub counted_as: Source,
    /// Where it arrived.
    pub listener: &'a Name,
    /// The server name that was asked for, escaped already.
    pub server_name: Option<&'a str>,
    /// The route, if it is known.
    pub route: Option<&'a Name>,
    /// The certificate that was shown.
    pub identity: Option<&'a Identity>,
}

impl Refusal {
    /// Takes down what is to be remembered, at this moment.
    pub fn new(circumstances: &Circumstances<'_>, rejection: &Rejection) -> Self {
        Self {
            at: OffsetDateTime::now_utc(),
            id: circumstances.id,
            source: circumstances.source,
            counted_as: circumstances.counted_as,
            listener: circumstances.listener.clone(),
            server_name: circumstances.server_name.map(|name| cut(visible(name, STRANGER_MAX), STRANGER_MAX)),
            route: circumstances.route.cloned(),
            cause: rejection.cause.clone(),
            alert: rejection.alert,
            certificate: circumstances.identity.map(Shown::from),
            times: 1,
        }
    }
}

/// What entries of anchored certificates are told apart by. Of what the client has proved and what it has not there are
/// two entries: a copy of a certificate must not hide what happens to the device itself.
type DeviceKey = (Sha256, bool, Reason);

impl Refusal {
    /// Why it was turned away, as it is counted.
    pub const fn reason(&self) -> Reason {
        self.cause.reason()
    }

    fn device_key(&self) -> Option<DeviceKey> {
        let shown = self.certificate.as_ref().filter(|shown| shown.anchored)?;
        Some((shown.fingerprint, shown.verified, self.reason()))
    }
}

fn stranger(text: &str) -> Box<str> {
    cut(printable(text, STRANGER_MAX), STRANGER_MAX)
}

/// Cuts text to so many bytes: what is escaped is longer than it was.
fn cut(mut text: String, max: usize) -> Box<str> {
    if text.len() > max {
        let end = (0..=max.saturating_sub('…'.len_utf8())).rev().find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text.into_boxed_str()
}

/// Whom or what somebody asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Whoever was the last.
    Last,
    /// An address, and whoever was counted as one source with it.
    Source(IpAddr),
    /// A certificate, by the first digits of its fingerprint.
    Fingerprint(String),
    /// A certificate, by a name in it.
    Name(String),
}

/// Why a text is no [`Wanted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWanted {
    /// Nothing at all.
    #[error("write an address, a fingerprint, the name of a device, or the word last")]
    Empty,
    /// `sha256:` and then something else than hexadecimal digits, or fewer than four.
    #[error("a fingerprint is \"sha256:\" and its 64 hexadecimal digits, or at least the first four of them")]
    Fingerprint,
    /// Longer than anything that is kept.
    #[error("no address, fingerprint or name is so long")]
    TooLong,
}

impl Wanted {
    /// Reads `last`, an IP address, `sha256:…` (colons between the digits do not matter), or the name of a device.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, InvalidWanted> {
        let text = text.trim();
        if text.is_empty() {
            return Err(InvalidWanted::Empty);
        }
        if text.len() > 2 * STRANGER_MAX {
            return Err(InvalidWanted::TooLong);
        }
        if text == "last" {
            return Ok(Self::Last);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Source(address));
        }
        // As it stands in the log, port included.
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Source(address.ip()));
        }
        let lower = text.to_ascii_lowercase();
        if let Some(digits) = lower.strip_prefix("sha256:") {
            let digits: String = digits.chars().filter(|&c| c != ':').collect();
            let right = (4..=64).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            return if right { Ok(Self::Fingerprint(digits)) } else { Err(InvalidWanted::Fingerprint) };
        }
        if Sha256::parse(&lower).is_some() {
            return Ok(Self::Fingerprint(lower.chars().filter(|&c| c != ':').collect()));
        }
        // As it stands in the log, where it may be escaped already.
        Ok(Self::Name(cut(visible(text, STRANGER_MAX), STRANGER_MAX).into_string()))
    }

    /// Whether it means this refusal.
    pub fn means(&self, refusal: &Refusal) -> bool {
        self.means_one(refusal.counted_as, refusal.certificate.as_ref())
    }

    /// Whether it means somebody who is counted as this source and showed this certificate.
    pub fn means_one(&self, counted_as: Source, shown: Option<&Shown>) -> bool {
        match self {
            Self::Last => true,
            Self::Source(address) => counted_as.contains(*address),
            Self::Fingerprint(digits) => {
                shown.is_some_and(|shown| shown.fingerprint.to_string().starts_with(digits.as_str()))
            }
            Self::Name(name) => shown.is_some_and(|shown| shown.names.iter().any(|one| one.eq_ignore_ascii_case(name))),
        }
    }
}

/// The latest refusals, and how many there were.
#[derive(Debug, Default)]
pub struct Refusals {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The number of the next one.
    next: u64,
    of_devices: VecDeque<(DeviceKey, u64, Arc<Refusal>)>,
    with_certificate: VecDeque<(u64, Arc<Refusal>)>,
    without: VecDeque<(u64, Arc<Refusal>)>,
}

impl Refusals {
    /// Remembers one. The oldest of its kind may have to go.
    pub fn remember(&self, mut refusal: Refusal) {
        let device = refusal.device_key();
        let mut kept = self.lock();
        let number = kept.next;
        kept.next += 1;
        if let Some(key) = device {
            let before = kept.of_devices.iter().position(|(other, ..)| *other == key);
            let full = kept.of_devices.len() == KEPT_OF_EACH;
            let gone = before.or_else(|| full.then_some(0)).and_then(|index| kept.of_devices.remove(index));
            if let (Some(_), Some((.., earlier))) = (before, &gone) {
                refusal.times = earlier.times.saturating_add(1);
            }
            kept.of_devices.push_back((key, number, Arc::new(refusal)));
            drop(kept);
            drop(gone);
            return;
        }
        let refusal = Arc::new(refusal);
        let ring = if refusal.certificate.is_some() { &mut kept.with_certificate } else { &mut kept.without };
        let gone = if ring.len() == KEPT_OF_EACH { ring.pop_front() } else { None };
        ring.push_back((number, refusal));
        drop(kept);
        // Freed when the lock is no longer held.
        drop(gone);
    }

    /// The latest `n`, the newest first.
    pub fn latest(&self, n: usize) -> Vec<Arc<Refusal>> {
        let mut all = self.all();
        all.truncate(n);
        all
    }

    /// The latest `n` that are meant, the newest first, and how many are known in all. By a name, those of certificates that a
    /// trust anchor signed come before those of others: anything can call itself by it.
    pub fn find(&self, wanted: &Wanted, n: usize) -> (Vec<Arc<Refusal>>, usize) {
        let mut found = self.all();
        found.retain(|refusal| wanted.means(refusal));
        if let Wanted::Name(_) = wanted {
            found.sort_by_key(|refusal| refusal.device_key().is_none());
        }
        let known = found.len();
        found.truncate(n);
        (found, known)
    }

    /// How many there were since the start of the gate, those that are forgotten included.
    pub fn total(&self) -> u64 {
        self.lock().next
    }

    /// All that are kept, the newest first. Nothing is looked at while the lock is held.
    fn all(&self) -> Vec<Arc<Refusal>> {
        let mut all: Vec<(u64, Arc<Refusal>)> = {
            let kept = self.lock();
            let of_devices = kept.of_devices.iter().map(|(_, number, refusal)| (*number, Arc::clone(refusal)));
            of_devices.chain(kept.with_certificate.iter().chain(&kept.without).cloned()).collect()
        };
        all.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
        all.into_iter().map(|(_, refusal)| refusal).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
