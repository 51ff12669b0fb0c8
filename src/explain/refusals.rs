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
use crate::model::rejection::{Alert, Reason, Rejection};
use crate::model::source::Source;

/// Refusals kept of anchored certificates, as many of other certificates, and as many of connections that showed none.
pub const KEPT_OF_EACH: usize = 512;

/// The longest text of a stranger's in an entry, in bytes.
const STRANGER_MAX: usize = 128;

/// The longest detail, in bytes.
const DETAIL_MAX: usize = 256;

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
    /// Why; tells the stage as well.
    pub reason: Reason,
    /// More about it, in words.
    pub detail: Box<str>,
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
            reason: rejection.reason,
            detail: cut(visible(&rejection.detail, DETAIL_MAX), DETAIL_MAX),
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
    fn device_key(&self) -> Option<DeviceKey> {
        let shown = self.certificate.as_ref().filter(|shown| shown.anchored)?;
        Some((shown.fingerprint, shown.verified, self.reason))
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
mod tests {
    use super::*;
    use crate::model::identity::{Serial, Twins};
    use crate::model::source::Prefixes;

    fn identity(name: &str) -> Identity {
        Identity {
            verified: false,
            anchored: false,
            emails: Vec::new(),
            uris: Vec::new(),
            dns_names: Vec::new(),
            ips: Vec::new(),
            common_name: Some(name.to_owned()),
            organizational_units: Vec::new(),
            name_constrained: false,
            fingerprint: Sha256::of(name.as_bytes()),
            twins: Twins::known(Vec::new()),
            unsupported_key: None,
            spki: Sha256([2; 32]),
            serial: Serial::from_be_bytes(&[3]),
            issuer: "CN=test".into(),
            not_before: 0,
            not_after: i64::MAX,
        }
    }

    fn refusal(id: u64, source: &str, identity: Option<&Identity>) -> Refusal {
        counted(id, source, Prefixes::default(), identity)
    }

    fn counted(id: u64, source: &str, prefixes: Prefixes, identity: Option<&Identity>) -> Refusal {
        let listener = Name::parse("public").expect("a name");
        let source = SocketAddr::new(source.parse().expect("an address"), 4711);
        let counted_as = Source::of(source.ip(), prefixes);
        let circumstances =
            Circumstances { id, source, counted_as, listener: &listener, server_name: None, route: None, identity };
        Refusal::new(&circumstances, &Rejection::silent(Reason::NotTls, "http"))
    }

    fn ids(found: &[Arc<Refusal>]) -> Vec<u64> {
        found.iter().map(|refusal| refusal.id).collect()
    }

    #[test]
    fn the_newest_come_first_and_are_found_by_address_fingerprint_and_name() {
        let refusals = Refusals::default();
        let alice = identity("Alice-phone");
        refusals.remember(refusal(1, "192.0.2.7", None));
        refusals.remember(refusal(2, "2001:db8:0:1::5", Some(&alice)));
        refusals.remember(refusal(3, "::ffff:192.0.2.7", None));
        refusals.remember(refusal(4, "2001:db8:0:2::5", None));
        assert_eq!(ids(&refusals.latest(9)), [4, 3, 2, 1]);
        assert_eq!(ids(&refusals.latest(1)), [4]);
        let digits = alice.fingerprint.to_string();
        for (text, expected) in [
            ("last", vec![4, 3, 2, 1]),
            ("192.0.2.7", vec![3, 1]),
            ("192.0.2.7:443", vec![3, 1]),
            ("192.0.2.8", vec![]),
            ("2001:db8:0:1:ffff::1", vec![2]),
            ("alice-phone", vec![2]),
            ("alice", vec![]),
            (&format!("sha256:{digits}"), vec![2]),
            (&format!("sha256:{}:{}", &digits[..2], &digits[2..6].to_uppercase()), vec![2]),
            (&digits, vec![2]),
            ("sha256:00000000", vec![]),
        ] {
            let (found, known) = refusals.find(&Wanted::parse(text).expect(text), 9);
            assert_eq!((ids(&found), known), (expected.clone(), expected.len()), "{text}");
        }
        assert_eq!(refusals.find(&Wanted::Last, 2).1, 4);
        for wrong in ["", "  ", "sha256:12", "sha256:xyzxyz", &"x".repeat(300)] {
            assert!(Wanted::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn who_was_counted_as_one_source_is_found_as_one() {
        let refusals = Refusals::default();
        let wide = Prefixes { v4: 24, v6: 48 };
        for (id, source) in [(1, "192.0.2.7"), (2, "192.0.3.7"), (3, "2001:db8:0:1::5"), (4, "2001:db8:1:1::5")] {
            refusals.remember(counted(id, source, wide, None));
        }
        for (text, expected) in [("192.0.2.200", 1), ("192.0.3.1", 2), ("2001:db8:0:ffff::1", 3), ("2001:db8:1::", 4)] {
            let (found, known) = refusals.find(&Wanted::parse(text).expect(text), 9);
            assert_eq!((ids(&found), known), (vec![expected], 1), "{text}");
        }
    }

    #[test]
    fn a_flood_of_strangers_does_not_push_out_what_happened_to_a_device() {
        let refusals = Refusals::default();
        let alice = identity("alice-phone");
        refusals.remember(refusal(1, "192.0.2.7", Some(&alice)));
        for id in 2..10_000 {
            refusals.remember(refusal(id, "203.0.113.9", None));
        }
        assert_eq!(refusals.latest(usize::MAX).len(), KEPT_OF_EACH + 1);
        assert_eq!(refusals.total(), 9_999);
        let (found, _) = refusals.find(&Wanted::parse("alice-phone").expect("a name"), 1);
        assert_eq!(ids(&found), [1]);
        assert_eq!(ids(&refusals.latest(1)), [9_999]);
    }

    #[test]
    fn refusals_of_a_device_outlast_any_number_of_self_made_ones() {
        let refusals = Refusals::default();
        let alice = Identity { anchored: true, ..identity("alice-phone") };
        let forged = Identity { fingerprint: Sha256([9; 32]), ..identity("alice-phone") };
        refusals.remember(refusal(1, "192.0.2.7", Some(&alice)));
        for id in 2..2000 {
            refusals.remember(refusal(id, "203.0.113.9", Some(&forged)));
        }
        let (found, known) = refusals.find(&Wanted::parse("alice-phone").expect("a name"), 2);
        assert_eq!((ids(&found), known), (vec![1, 1999], 1 + KEPT_OF_EACH), "its own come first");
        assert_eq!(ids(&refusals.latest(1)), [1999]);
    }

    #[test]
    fn a_device_that_tries_again_has_one_entry_for_each_reason() {
        let refusals = Refusals::default();
        let (alice, bob) = ("alice-phone", "bob-phone");
        let device = |name: &str| Identity { anchored: true, ..identity(name) };
        refusals.remember(refusal(1, "192.0.2.7", Some(&device(bob))));
        for id in 2..2000 {
            refusals.remember(refusal(id, "192.0.2.8", Some(&device(alice))));
        }
        let proved = Identity { verified: true, ..device(alice) };
        refusals.remember(refusal(2000, "192.0.2.9", Some(&proved)));
        refusals.remember(Refusal { reason: Reason::Revoked, ..refusal(2001, "192.0.2.9", Some(&device(alice))) });
        let all = refusals.latest(usize::MAX);
        assert_eq!(ids(&all), [2001, 2000, 1999, 1]);
        assert_eq!(all.iter().map(|refusal| refusal.times).collect::<Vec<_>>(), [1, 1, 1998, 1]);
        assert_eq!(refusals.total(), 2001);
        // Other devices may push it out, but no more than there is room for are kept.
        for number in 0..KEPT_OF_EACH {
            refusals.remember(refusal(3000, "192.0.2.9", Some(&device(&format!("device-{number}")))));
        }
        assert_eq!(refusals.latest(usize::MAX).len(), KEPT_OF_EACH);
    }

    /// The bytes of an entry, on the heap and off it.
    fn size(refusal: &Refusal) -> usize {
        let shown = refusal.certificate.as_ref().map_or(0, |shown| {
            let names: usize = shown.names.iter().map(|name| name.len()).sum();
            names + shown.names.capacity() * size_of::<Box<str>>() + shown.serial.len() + shown.issuer.len()
        });
        // The counters of Arc stand before the value.
        size_of::<Refusal>()
            + 16
            + refusal.detail.len()
            + refusal.server_name.as_ref().map_or(0, |name| name.len())
            + shown
    }

    #[test]
    fn three_megabytes_are_enough_for_any_refusals() {
        let refusals = Refusals::default();
        // Ten bytes each when they are escaped.
        let long = "\u{e0001}".repeat(1000);
        let certificate = Identity {
            emails: vec![long.clone(); 50],
            uris: vec![long.clone(); 50],
            dns_names: vec![long.clone(); 50],
            common_name: Some(long.clone()),
            issuer: long.clone(),
            serial: Serial::from_be_bytes(&[7; 200]),
            ..identity("")
        };
        let name = Name::parse(&"x".repeat(Name::MAX)).expect("a name");
        let source = SocketAddr::from(([192, 0, 2, 7], 1));
        let rejection = Rejection::silent(Reason::UnknownCa, long.clone());
        for id in 0..2 * KEPT_OF_EACH as u64 {
            let fingerprint = Sha256::of(&id.to_be_bytes());
            let device = Identity { anchored: true, fingerprint, ..certificate.clone() };
            for identity in [None, Some(&certificate), Some(&device)] {
                let circumstances = Circumstances {
                    id,
                    source,
                    counted_as: Source::of(source.ip(), Prefixes::default()),
                    listener: &name,
                    server_name: Some(&long),
                    route: Some(&name),
                    identity,
                };
                refusals.remember(Refusal::new(&circumstances, &rejection));
            }
        }
        let all = refusals.latest(usize::MAX);
        assert_eq!(all.len(), 3 * KEPT_OF_EACH);
        let (rings, entries) = {
            let kept = refusals.lock();
            let places = kept.with_certificate.capacity() + kept.without.capacity();
            let of_devices = kept.of_devices.capacity() * size_of::<(DeviceKey, u64, Arc<Refusal>)>();
            (
                of_devices + places * size_of::<(u64, Arc<Refusal>)>(),
                all.iter().map(|refusal| size(refusal)).sum::<usize>(),
            )
        };
        eprintln!("{} bytes for {} refusals", rings + entries, all.len());
        assert!(rings + entries < 3 * 1024 * 1024, "{} bytes", rings + entries);
    }

    #[test]
    fn what_a_stranger_chose_is_escaped() {
        let nasty = identity("<b>\u{1b}[31m\n\u{202e}");
        let shown = Shown::from(&nasty);
        assert_eq!(shown.name(), "<b>\\u{1b}[31m\\n\\u{202e}");
        // And is found again by what stands in the log.
        assert!(Wanted::parse(shown.name()).expect("a name").means(&refusal(1, "192.0.2.7", Some(&nasty))));
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(&*cut("ä".repeat(10), 9), "äää…");
        assert_eq!(&*cut("ä".repeat(4), 8), "ääää");
    }
}
