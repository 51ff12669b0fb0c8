//! What signatures that prove wrong may cost.
//!
//! A stranger decides which signatures are checked, so what they cost is bounded. The first is always checked: without it no
//! new device gets in. Two under keys on P-256 cost less than a plain self-signed certificate costs anyway. More, or a second
//! one under a key that is slower, is for real hierarchies that are seldom: an intermediate that was certified anew, or two of
//! one name. These draw on an allowance that all clients share, so that a flood of made-up chains costs no more than that.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::alg_id;
use tokio::time::Instant;

use crate::pki;

/// The most signatures that may prove wrong under the keys of trust anchors, and again under those of intermediates that a
/// trust anchor vouches for.
const WRONG_MAX: usize = 2;
/// The most in all.
const WRONG_IN_ALL_MAX: usize = 3;
/// What wrong signatures may cost before the allowance is drawn on, in units of [`cost`].
const FREE: usize = 8;
/// The most bytes of certificates with which a second signature may prove wrong without the allowance: receiving more costs as
/// much as one.
const SMALL: usize = 12 * 1024;

/// What wrong signatures have cost in one handshake.
#[derive(Debug)]
pub(super) struct Budget<'a> {
    /// How many there were, under the keys of trust anchors and of others.
    wrong: [usize; 2],
    spent: usize,
    free: usize,
    allowance: &'a Allowance,
}

impl<'a> Budget<'a> {
    /// For a client that sent so many bytes of certificates.
    pub(super) const fn new(bytes: usize, allowance: &'a Allowance) -> Self {
        Self { wrong: [0; 2], spent: 0, free: if bytes > SMALL { 0 } else { FREE }, allowance }
    }

    /// Whether a signature may be checked under this key, although it may prove wrong.
    pub(super) fn allows(&self, key: &[u8], of_anchor: bool) -> bool {
        let [anchors, others] = self.wrong;
        anchors + others < WRONG_IN_ALL_MAX
            && (if of_anchor { anchors } else { others }) < WRONG_MAX
            && (!self.is_beyond(key) || self.allowance.has_some())
    }

    /// A signature has proved wrong under this key.
    pub(super) fn charge(&mut self, key: &[u8], of_anchor: bool) {
        if self.is_beyond(key) {
            self.allowance.take();
        }
        self.spent += cost(key);
        let [anchors, others] = &mut self.wrong;
        *if of_anchor { anchors } else { others } += 1;
    }

    fn is_beyond(&self, key: &[u8]) -> bool {
        self.spent > 0 && self.spent + cost(key) > self.free
    }
}

/// What all clients together may have checked beyond what is free for each.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    /// How many are used up, and since when that has not been looked at.
    used: Mutex<Option<(u32, Instant)>>,
}

impl Allowance {
    /// How many wrong signatures it covers at once.
    const MAX: u32 = 16;
    /// One more is covered after so long.
    const EVERY: Duration = Duration::from_secs(1);

    fn has_some(&self) -> bool {
        self.used(Instant::now(), 0) < Self::MAX
    }

    fn take(&self) {
        self.used(Instant::now(), 1);
    }

    /// Adds to what is used up, and gives the sum.
    fn used(&self, now: Instant, more: u32) -> u32 {
        let mut state = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let (used, since) = state.unwrap_or((0, now));
        let passed = now.saturating_duration_since(since).as_secs() / Self::EVERY.as_secs();
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        let used = used.saturating_sub(passed).saturating_add(more).min(Self::MAX);
        *state = Some((used, since.checked_add(Self::EVERY.saturating_mul(passed)).unwrap_or(now)));
        used
    }
}

/// What it takes to find that a signature is wrong under this key, in 10 µs of a small machine.
fn cost(key: &[u8]) -> usize {
    /// The bytes of an RSAPublicKey with 2048, 3072 and 4096 bits.
    const RSA: [(usize, usize); 3] = [(270, 3), (398, 4), (526, 7)];
    const SLOW: usize = 26;
    match pki::public_key(key) {
        Some((kind, _)) if kind == alg_id::ED25519.as_ref() => 3,
        Some((kind, _)) if kind == alg_id::ECDSA_P256.as_ref() => 4,
        Some((kind, _)) if kind == alg_id::ECDSA_P384.as_ref() => 15,
        Some((kind, key)) if kind == alg_id::RSA_ENCRYPTION.as_ref() => {
            RSA.iter().find(|(bytes, _)| key.len() <= *bytes).map_or(SLOW, |(_, cost)| *cost)
        }
        _ => SLOW,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allowance_is_used_up_and_comes_back_with_time() {
        let (allowance, start) = (Allowance::default(), Instant::now());
        for number in 1..=Allowance::MAX {
            assert_eq!(allowance.used(start, 1), number);
        }
        assert_eq!(allowance.used(start, 1), Allowance::MAX, "it does not go into debt");
        assert_eq!(allowance.used(start + Duration::from_millis(999), 0), Allowance::MAX);
        assert_eq!(allowance.used(start + Duration::from_millis(1001), 0), Allowance::MAX - 1);
        // Fractions of a second are not lost, however often it is asked.
        assert_eq!(allowance.used(start + Duration::from_millis(2000), 0), Allowance::MAX - 2);
        assert_eq!(allowance.used(start + Duration::from_secs(1_000_000), 0), 0);
    }
}
