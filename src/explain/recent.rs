//! The latest refusals, kept in memory for `doorward why` and the status page.
//!
//! A fixed number of entries, each of bounded size, so that a flood costs only older entries. Certificates that a trust
//! anchor signed, impostors, other certificates, and connections without one have rings of their own: strangers cannot
//! displace the refusals of a device, and a device that retries has one entry for each reason. So has an impostor for each
//! source and device.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;

use super::certificate::Certificate;
use super::fragments::{STRANGER_MAX, cut};
use crate::model::identity::{Identity, Sha256};
use crate::model::impostor::{Claim, Impostor};
use crate::model::names::{Name, visible};
use crate::model::rejection::{Alert, Cause, Reason, Rejection};
use crate::model::source::Source;
use crate::model::unicode::{is_same, nfc};

/// Refusals kept of anchored certificates, as many of other certificates, and as many of connections that showed none.
pub const KEPT_OF_EACH: usize = 512;

/// One rejected connection. What a stranger chose in it is escaped for a terminal and bounded; a page must escape it for
/// HTML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// When.
    pub at: OffsetDateTime,
    /// The connection's number, as in the log.
    pub id: u64,
    /// Who connected.
    pub source: SocketAddr,
    /// The source that it was counted as.
    pub counted_as: Source,
    /// Where it arrived.
    pub listener: Name,
    /// The server name that was asked for.
    pub server_name: Option<Box<str>>,
    /// The route, if it was known by then.
    pub route: Option<Name>,
    /// What happened; it gives the reason and the stage.
    pub cause: Cause,
    /// The alert that the client was sent.
    pub alert: Option<Alert>,
    /// The certificate that was shown.
    pub certificate: Option<Certificate>,
    /// What the client pretended to be.
    pub impostor: Option<Impostor>,
    /// How many refusals this entry stands for: of an anchored certificate only the latest for each reason is kept.
    pub times: u64,
}

/// What is known about a connection when it is rejected.
#[derive(Debug)]
pub struct Circumstances<'a> {
    /// The connection's number.
    pub id: u64,
    /// Who connected.
    pub source: SocketAddr,
    /// The source that it was counted as.
    pub counted_as: Source,
    /// Where it arrived.
    pub listener: &'a Name,
    /// The server name that was asked for, escaped already.
    pub server_name: Option<&'a str>,
    /// The route, if it is known.
    pub route: Option<&'a Name>,
    /// The certificate that was shown.
    pub identity: Option<&'a Identity>,
    /// What the client pretended to be.
    pub impostor: Option<&'a Impostor>,
}

impl Refusal {
    /// Takes what is to be remembered, with the time of now.
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
            certificate: circumstances.identity.map(Certificate::from),
            impostor: circumstances.impostor.cloned(),
            times: 1,
        }
    }
}

/// Impostors kept: sources and the devices that they pretended to be.
pub const IMPOSTORS_KEPT: usize = 128;

/// The key of entries of impostors.
type ImpostorKey = (Source, Box<str>, Claim);

/// The key of entries of anchored certificates. With and without proof of the key are two entries: a copied certificate must
/// not hide the refusals of the device.
type DeviceKey = (Sha256, bool, Reason);

impl Refusal {
    /// The reason, as it is counted.
    pub const fn reason(&self) -> Reason {
        self.cause.reason()
    }

    fn device_key(&self) -> Option<DeviceKey> {
        let shown = self.certificate.as_ref().filter(|shown| shown.anchored)?;
        Some((shown.fingerprint, shown.verified, self.reason()))
    }

    /// Whether its certificate is a device's own, and nothing says that another client used it.
    pub fn is_of_device(&self) -> bool {
        let own = |shown: &Certificate| shown.anchored || shown.of_other_authority;
        self.certificate.as_ref().is_some_and(own) && self.impostor.is_none() && self.reason() != Reason::BadSignature
    }

    fn impostor_key(&self) -> Option<ImpostorKey> {
        self.impostor.as_ref().map(|impostor| (self.counted_as, impostor.name.clone(), impostor.claim))
    }
}

/// What a question is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The last refusal.
    Last,
    /// An address, and all that are counted as one source with it.
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
        // As in the log, with the port.
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
        // As in the log, where it may be escaped already.
        Ok(Self::Name(cut(visible(&nfc(text), STRANGER_MAX), STRANGER_MAX).into_string()))
    }

    /// Whether it means this refusal: by a name also those of clients that pretended to be that device.
    pub fn means(&self, refusal: &Refusal) -> bool {
        let pretended = || match (self, &refusal.impostor) {
            (Self::Name(name), Some(impostor)) => is_same(&impostor.name, name),
            _ => false,
        };
        self.means_one(refusal.counted_as, refusal.certificate.as_ref()) || pretended()
    }

    /// Whether it means a client that is counted as this source and showed this certificate.
    pub fn means_one(&self, counted_as: Source, shown: Option<&Certificate>) -> bool {
        match self {
            Self::Last => true,
            Self::Source(address) => counted_as.contains(*address),
            Self::Fingerprint(digits) => {
                shown.is_some_and(|shown| shown.fingerprint.to_string().starts_with(digits.as_str()))
            }
            Self::Name(name) => shown.is_some_and(|shown| shown.names.iter().any(|one| is_same(one, name))),
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
    of_devices: Latest<DeviceKey>,
    of_impostors: Latest<ImpostorKey>,
    with_certificate: VecDeque<(u64, Arc<Refusal>)>,
    without: VecDeque<(u64, Arc<Refusal>)>,
}

/// The latest refusal for each key, the oldest first.
#[derive(Debug)]
struct Latest<K>(VecDeque<(K, u64, Arc<Refusal>)>);

impl<K> Default for Latest<K> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<K: PartialEq> Latest<K> {
    /// Replaces the entry of the same key, which the new one stands for from now on. In a full ring, the oldest is dropped.
    /// Returns what is to be freed.
    fn remember(&mut self, key: K, number: u64, mut refusal: Refusal, most: usize) -> Option<Arc<Refusal>> {
        let before = self.0.iter().position(|(other, ..)| *other == key);
        let full = self.0.len() == most;
        let gone = before.or_else(|| full.then_some(0)).and_then(|index| self.0.remove(index));
        if let (Some(_), Some((.., earlier))) = (before, &gone) {
            refusal.times = earlier.times.saturating_add(1);
        }
        self.0.push_back((key, number, Arc::new(refusal)));
        gone.map(|(.., refusal)| refusal)
    }

    fn all(&self) -> impl Iterator<Item = (u64, Arc<Refusal>)> {
        self.0.iter().map(|(_, number, refusal)| (*number, Arc::clone(refusal)))
    }
}

impl Refusals {
    /// Remembers one; in a full ring, the oldest is dropped.
    pub fn remember(&self, refusal: Refusal) {
        let (device, impostor) = (refusal.device_key(), refusal.impostor_key());
        let mut kept = self.lock();
        let number = kept.next;
        kept.next += 1;
        let gone = match (impostor, device) {
            (Some(key), _) => kept.of_impostors.remember(key, number, refusal, IMPOSTORS_KEPT),
            (None, Some(key)) => kept.of_devices.remember(key, number, refusal, KEPT_OF_EACH),
            (None, None) => {
                let ring = if refusal.certificate.is_some() { &mut kept.with_certificate } else { &mut kept.without };
                let gone = if ring.len() == KEPT_OF_EACH { ring.pop_front() } else { None };
                ring.push_back((number, Arc::new(refusal)));
                gone.map(|(_, refusal)| refusal)
            }
        };
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

    /// The first `n` that are meant, by their rank and then the newest first, and how many are known in all. By a name, those of
    /// the device's own certificate come first, and then those of impostors: anything can call itself by it.
    pub fn find(&self, wanted: &Wanted, n: usize, rank: impl Fn(&Refusal) -> u8) -> (Vec<Arc<Refusal>>, usize) {
        let mut found = self.all();
        found.retain(|refusal| wanted.means(refusal));
        found.sort_by_key(|refusal| rank(refusal));
        if let Wanted::Name(_) = wanted {
            found.sort_by_key(|refusal| (!refusal.is_of_device(), refusal.impostor.is_none()));
        }
        let known = found.len();
        found.truncate(n);
        (found, known)
    }

    /// How many there were since the start of the gate, with those that are forgotten.
    pub fn total(&self) -> u64 {
        self.lock().next
    }

    /// All that are kept, the newest first. Nothing is looked at while the lock is held.
    fn all(&self) -> Vec<Arc<Refusal>> {
        let mut all: Vec<(u64, Arc<Refusal>)> = {
            let kept = self.lock();
            let others = kept.with_certificate.iter().chain(&kept.without).cloned();
            kept.of_devices.all().chain(kept.of_impostors.all()).chain(others).collect()
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
