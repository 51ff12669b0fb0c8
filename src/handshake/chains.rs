//! Chains that were followed to their trust anchor once, and need not be followed again as long as nothing can have changed.
//!
//! A memory belongs to the authorities of one `[client_auth]` of one snapshot: other trust anchors or revocation lists mean
//! another memory. That the client holds the key of its certificate is proved by its CertificateVerify, in every
//! handshake, and whether the route lets it in is asked every time; neither is remembered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use rustls::pki_types::{CertificateDer, UnixTime};

use crate::identity::{Chain, Identity, Sha256};

/// How many chains each of the two generations holds. A household has a few dozen devices; each chain takes about 2 KiB.
const GENERATION: usize = 512;

/// Chains that were followed, by the hash of all their certificates.
#[derive(Debug, Default)]
pub(super) struct Chains {
    generations: Mutex<Generations>,
}

/// What was used lately is in `young`; when that is full, it becomes `old`, and what was old is forgotten.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Sha256, Followed>,
    old: HashMap<Sha256, Followed>,
}

/// A chain that leads to a trust anchor.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    pub(super) identity: Arc<Identity>,
    /// One for all connections that show it.
    pub(super) chain: Arc<Chain>,
    pub(super) validity: Validity,
    /// A revocation list has a certificate of it.
    pub(super) revoked: bool,
}

/// When a chain is good, in seconds since 1970, as far as anybody can tell now: when all its certificates are valid and no
/// revocation list has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    /// From this second on. A clock can go back.
    pub(super) from: u64,
    /// Up to this second, which is the first that counts as later.
    pub(super) until: u64,
}

impl Validity {
    const fn holds(self, now: UnixTime) -> bool {
        self.from <= now.as_secs() && now.as_secs() < self.until
    }
}

/// A chain to be kept.
pub(super) fn kept(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    good_until: u64,
) -> Arc<Chain> {
    let certificates = [end_entity].into_iter().chain(intermediates).map(|one| one.clone().into_owned()).collect();
    Arc::new(Chain { certificates, good_until })
}

/// What a chain is remembered by: every byte of it counts.
pub(super) fn key(end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Sha256 {
    let mut hash = Context::new(&SHA256);
    for certificate in [end_entity].into_iter().chain(intermediates) {
        // With its length, so that two chains cannot be cut from the same bytes in different places.
        hash.update(&certificate.len().to_be_bytes());
        hash.update(certificate);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    Sha256(digest)
}

impl Chains {
    /// What is known of a chain that was followed before, if it holds `now`.
    pub(super) fn recall(&self, key: &Sha256, now: UnixTime) -> Option<Followed> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(followed) = generations.young.get(key) {
            return Some(followed.clone()).filter(|followed| followed.validity.holds(now));
        }
        let followed = generations.old.remove(key)?;
        generations.keep(*key, followed.clone());
        Some(followed).filter(|followed| followed.validity.holds(now))
    }

    /// Remembers a chain that has just been followed.
    pub(super) fn remember(&self, key: Sha256, followed: Followed) {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner).keep(key, followed);
    }
}

impl Generations {
    fn keep(&mut self, key: Sha256, followed: Followed) {
        if self.young.len() >= GENERATION && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, followed);
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

    fn followed(certificate: &CertificateDer<'_>) -> Followed {
        let identity = Arc::new(Identity::from_certificate(certificate, true).expect("an identity"));
        let chain = Arc::new(Chain { certificates: vec![certificate.clone().into_owned()], good_until: 200 });
        Followed { identity, chain, validity: Validity { from: 100, until: 200 }, revoked: false }
    }

    const fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn a_chain_is_recalled_while_it_holds_whichever_way_the_clock_goes() {
        let (chains, alice) = (Chains::default(), certificate("phone.alice"));
        let key = key(&alice, &[]);
        chains.remember(key, followed(&alice));
        for (now, recalled) in [(150, true), (200, false), (u64::MAX, false), (99, false), (0, false), (100, true)] {
            assert_eq!(chains.recall(&key, at(now)).is_some(), recalled, "at {now}");
        }
    }

    #[test]
    fn every_byte_and_every_border_of_a_chain_counts() {
        let (alice, authority) = (certificate("phone.alice"), certificate("authority"));
        let whole = key(&alice, std::slice::from_ref(&authority));
        let mut changed = alice.to_vec();
        *changed.last_mut().expect("a byte") ^= 1;
        let (head, tail) = authority.split_at(authority.len() / 2);
        let parts = [CertificateDer::from(head.to_vec()), CertificateDer::from(tail.to_vec())];
        let others = [
            key(&alice, &[]),
            key(&authority, std::slice::from_ref(&alice)),
            key(&CertificateDer::from(changed), std::slice::from_ref(&authority)),
            key(&alice, &parts),
            key(&CertificateDer::from([&alice[..], &authority[..]].concat()), &[]),
        ];
        assert!(others.iter().all(|other| *other != whole));
    }

    #[test]
    fn memory_is_bounded_and_what_is_in_use_stays() {
        let (chains, alice) = (Chains::default(), certificate("phone.alice"));
        let often = key(&alice, &[]);
        chains.remember(often, followed(&alice));
        for number in 0..u64::try_from(10 * GENERATION).expect("small") {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            chains.remember(Sha256(key), followed(&alice));
            assert!(chains.recall(&often, at(150)).is_some(), "after {number} others");
        }
        let generations = chains.generations.lock().expect("the generations");
        assert!(generations.young.len() <= GENERATION && generations.old.len() <= GENERATION);
    }
}
