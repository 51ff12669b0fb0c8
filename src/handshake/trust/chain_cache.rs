//! Verified chains, so that a known device costs no signature.
//!
//! A cache belongs to the authorities of one `[client_auth]` of one snapshot: other trust anchors mean another cache. The
//! proof of the key, revocation and the route's policy are checked in every handshake; none of these is cached.
//!
//! Only the verified path is kept, and only certificates that a trust anchor vouches for: a stranger cannot fill the cache,
//! nor can a device with certificates of its own making.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::{CertificateDer, UnixTime};

use crate::model::identity::{Chain, Identity, Sha256};

/// How many devices each of the two generations holds. A household has a few dozen; each takes about 2 KiB.
const GENERATION: usize = 512;
/// The most chains of one device: it may have several where authorities vouch for each other.
const CHAINS_MAX: usize = 4;

/// Chains that were verified, by the fingerprint of the client's own certificate.
#[derive(Debug, Default)]
pub(super) struct ChainCache {
    generations: Mutex<Generations>,
}

/// Recently used chains are in `young`; when that is full, it becomes `old`, and the former `old` is dropped.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Sha256, Vec<Verified>>,
    old: HashMap<Sha256, Vec<Verified>>,
}

/// A chain that leads to a trust anchor.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    /// The identity in its first certificate.
    pub(crate) identity: Arc<Identity>,
    /// One for all connections that show it.
    pub(crate) chain: Arc<Chain>,
    /// When all its certificates are valid.
    pub(crate) validity: Validity,
}

/// A time, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    /// From this second on: a clock can go back.
    pub(crate) from: u64,
    /// Up to and including this second.
    pub(crate) until: u64,
}

impl Validity {
    /// At any time.
    pub(crate) const ALWAYS: Self = Self { from: 0, until: u64::MAX };
    /// At no time.
    pub(crate) const NEVER: Self = Self { from: u64::MAX, until: 0 };

    const fn holds(self, now: UnixTime) -> bool {
        self.from <= now.as_secs() && now.as_secs() <= self.until
    }

    /// The time in both.
    pub(super) fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), until: self.until.min(other.until) }
    }
}

impl Verified {
    /// Whether `sent` has all the intermediates of it.
    fn is_among(&self, sent: &[CertificateDer<'_>]) -> bool {
        self.chain.certificates.iter().skip(1).all(|one| sent.contains(one))
    }
}

impl ChainCache {
    /// The cached chain of the certificate with this fingerprint, if it is valid `now` and the client sent its
    /// intermediates.
    pub(super) fn recall(&self, leaf: &Sha256, sent: &[CertificateDer<'_>], now: UnixTime) -> Option<Verified> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if !generations.young.contains_key(leaf) {
            let chains = generations.old.remove(leaf)?;
            generations.make_room();
            generations.young.insert(*leaf, chains);
        }
        let chains = generations.young.get(leaf)?;
        chains.iter().find(|one| one.validity.holds(now) && one.is_among(sent)).cloned()
    }

    /// Adds a chain that has just been verified. Returns it as it is kept: equal chains are shared.
    pub(super) fn remember(&self, verified: Verified) -> Verified {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let leaf = verified.identity.fingerprint;
        if !generations.young.contains_key(&leaf) {
            generations.make_room();
        }
        let chains = generations.young.entry(leaf).or_default();
        if let Some(known) = chains.iter().find(|one| one.chain.digest == verified.chain.digest) {
            return known.clone();
        }
        if chains.len() == CHAINS_MAX {
            chains.remove(0);
        }
        chains.push(verified.clone());
        verified
    }
}

impl Generations {
    fn make_room(&mut self) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn certificate(name: &str) -> CertificateDer<'static> {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.self_signed(&key).expect("a certificate").der().clone()
    }

    /// A chain of the first certificate with the others as intermediates.
    fn verified(certificates: &[CertificateDer<'static>]) -> Verified {
        let identity = Arc::new(Identity::from_certificate(&certificates[0], true).expect("an identity"));
        let chain = Arc::new(Chain::new(certificates.to_vec(), Vec::new(), 200));
        Verified { identity, chain, validity: Validity { from: 100, until: 200 } }
    }

    const fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn known_chain_is_found_only_while_it_is_valid() {
        let (cache, alice) = (ChainCache::default(), certificate("phone.alice"));
        let leaf = cache.remember(verified(std::slice::from_ref(&alice))).identity.fingerprint;
        for (now, recalled) in [(150, true), (200, true), (201, false), (u64::MAX, false), (99, false), (100, true)] {
            assert_eq!(cache.recall(&leaf, &[], at(now)).is_some(), recalled, "at {now}");
        }
    }

    #[test]
    fn known_chain_is_found_if_its_intermediates_are_sent() {
        let (cache, alice, between, other) =
            (ChainCache::default(), certificate("phone.alice"), certificate("between"), certificate("other"));
        let leaf = cache.remember(verified(&[alice, between.clone()])).identity.fingerprint;
        for (sent, recalled) in [
            (vec![], false),
            (vec![other.clone()], false),
            (vec![between.clone()], true),
            (vec![other.clone(), between.clone()], true),
            (vec![between, other], true),
        ] {
            assert_eq!(cache.recall(&leaf, &sent, at(150)).is_some(), recalled, "{} sent", sent.len());
        }
    }

    #[test]
    fn equal_chains_are_one_and_a_device_has_few() {
        let (cache, alice) = (ChainCache::default(), certificate("phone.alice"));
        let first = cache.remember(verified(std::slice::from_ref(&alice)));
        let second = cache.remember(verified(std::slice::from_ref(&alice)));
        assert!(Arc::ptr_eq(&first.chain, &second.chain));
        for number in 0..3 * CHAINS_MAX {
            cache.remember(verified(&[alice.clone(), certificate(&format!("between-{number}"))]));
        }
        let generations = cache.generations.lock().expect("the generations");
        assert_eq!(generations.young[&first.identity.fingerprint].len(), CHAINS_MAX);
    }

    #[test]
    fn memory_is_bounded_and_what_is_in_use_stays() {
        let (cache, alice) = (ChainCache::default(), certificate("phone.alice"));
        let often = cache.remember(verified(std::slice::from_ref(&alice))).identity.fingerprint;
        for number in 0..u64::try_from(10 * GENERATION).expect("small") {
            let mut other = verified(std::slice::from_ref(&alice));
            let mut identity = Identity::clone(&other.identity);
            identity.fingerprint.0[..8].copy_from_slice(&number.to_be_bytes());
            other.identity = Arc::new(identity);
            cache.remember(other);
            assert!(cache.recall(&often, &[], at(150)).is_some(), "after {number} others");
        }
        let generations = cache.generations.lock().expect("the generations");
        assert!(generations.young.len() <= GENERATION && generations.old.len() <= GENERATION);
    }
}
