//! What signatures that prove wrong may cost.
//!
//! A stranger decides which signatures are checked, so what they cost is bounded. The first is always checked: without it no
//! new device gets in. Two under keys on P-256 cost less than a plain self-signed certificate costs anyway. More, or a
//! second one under a key that is slower, is for real hierarchies that are seldom: an intermediate that was certified anew,
//! or two of one name. These draw on an allowance that all clients share, so that a flood of made-up chains costs no more
//! than that.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::pki_types::alg_id;
use tokio::time::Instant;

use crate::model::rate_limit::{Rate, RateLimiter, nanoseconds};
use crate::pki;

/// The most signatures that may prove wrong under the keys of trust anchors, and again under those of intermediates that a
/// trust anchor vouches for.
const WRONG_MAX: usize = 2;
/// The most in all.
const WRONG_IN_ALL_MAX: usize = 3;
/// What wrong signatures may cost before the allowance is drawn on, in units of [`cost`].
const FREE: usize = 8;
/// The most bytes of certificates with which a second signature may prove wrong without the allowance: receiving more costs
/// as much as one.
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
#[derive(Debug)]
pub(super) struct Allowance {
    /// The limiter counts the time from here.
    began: Instant,
    limiter: Mutex<RateLimiter>,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { began: Instant::now(), limiter: Mutex::default() }
    }
}

impl Allowance {
    /// Wrong signatures that it covers.
    const RATE: Rate = Rate { burst: 16, interval: Duration::from_secs(1) };

    fn has_some(&self) -> bool {
        self.limiter().allows(Self::RATE, self.now())
    }

    /// Takes one; says whether there was one. At the limit nothing is counted: the allowance does not go into debt.
    pub(super) fn take(&self) -> bool {
        let now = self.now();
        self.limiter().take(Self::RATE, now)
    }

    fn now(&self) -> u64 {
        nanoseconds(self.began.elapsed())
    }

    fn limiter(&self) -> MutexGuard<'_, RateLimiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[tokio::test(start_paused = true)]
    async fn allowance_is_used_up_and_comes_back_with_time() {
        let allowance = Allowance::default();
        let take_all = || {
            let mut count = 0;
            while allowance.has_some() {
                allowance.take();
                count += 1;
            }
            count
        };
        assert_eq!(take_all(), 16);
        // It does not go into debt.
        allowance.take();
        tokio::time::advance(Duration::from_millis(999)).await;
        assert_eq!(take_all(), 0);
        tokio::time::advance(Duration::from_millis(2)).await;
        assert_eq!(take_all(), 1);
        tokio::time::advance(Duration::from_millis(999)).await;
        assert_eq!(take_all(), 1);
        tokio::time::advance(Duration::from_secs(1_000_000)).await;
        assert_eq!(take_all(), 16);
    }
}
