//! Penalties: which sources are banned for what they did lately, and which are trusted.
//!
//! The model is OpenSSH's `PerSourcePenalties` (sshd_config(5)): a rejection costs seconds, seconds pass, and a source that
//! owes too many of them at once is banned for a while, each time twice as long as before. A source from which a valid
//! certificate came is not banned, whatever other clients behind the same address do, as long as that certificate is
//! authorized. Everything here takes the time as a parameter.

mod table;
mod vouchers;

use std::sync::Arc;
use std::time::Duration;

use crate::model::identity::{Chain, Identity, Sha256};
use crate::model::rate_limit::{Rate, RateLimiter, nanoseconds};
use crate::model::source::Source;

pub use table::{SourceStatus, Table};
pub use vouchers::Voucher;
use vouchers::Vouchers;
#[cfg(test)]
pub(crate) use vouchers::testing;

/// A source that owes so much is banned. A device with a problem that tries again once a second never owes so much.
const THRESHOLD: Duration = Duration::from_secs(60);

/// The cost of what is banned at once.
pub const AT_ONCE: Duration = THRESHOLD;

/// The first ban; each one after it is twice as long.
const FIRST_BAN: Duration = Duration::from_secs(60);

/// No ban is longer.
const LONGEST_BAN: Duration = Duration::from_secs(10 * 60);

/// After so long without a ban, the next one is a first one again.
const MEMORY: Duration = Duration::from_secs(60 * 60);

/// What a source owes, for the table of another process. Durations are from now on; what has passed is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Penalty {
    /// The source.
    pub source: Source,
    /// Until the cost of its rejections has passed.
    pub settled: Duration,
    /// Until its ban ends.
    pub banned: Duration,
    /// How often it was banned.
    pub bans: u8,
}

/// What is known about one source. Times are nanoseconds since the table was made.
#[derive(Clone, Debug, Default)]
struct SourceRecord {
    /// When the cost of all its rejections will have passed.
    settled: u64,
    /// Until when it is banned.
    banned: u64,
    /// How often it was banned, without [`MEMORY`] passing between.
    bans: u8,
    /// The devices that showed a valid certificate there.
    vouchers: Vouchers,
    /// How often it connects.
    connections: RateLimiter,
}

impl SourceRecord {
    fn is_trusted(&self, now: u64) -> bool {
        now < self.vouchers.until()
    }

    /// How long it is still banned.
    fn banned_for(&self, now: u64) -> Option<Duration> {
        self.banned.checked_sub(now).filter(|left| *left > 0).map(Duration::from_nanos)
    }

    /// Counts a connection, unless it comes too soon.
    fn connects(&mut self, now: u64, rate: Rate) -> bool {
        self.connections.take(rate, now)
    }

    /// A connection of it was rejected. A ban in force is not extended.
    fn penalize(&mut self, now: u64, cost: Duration) {
        if self.is_trusted(now) || now < self.banned {
            return;
        }
        if now >= self.remembered() {
            self.bans = 0;
        }
        self.settled = self.settled.max(now).saturating_add(nanoseconds(cost));
        if self.settled - now >= nanoseconds(THRESHOLD) {
            let ban =
                FIRST_BAN.saturating_mul(1_u32.checked_shl(self.bans.into()).unwrap_or(u32::MAX)).min(LONGEST_BAN);
            self.banned = now.saturating_add(nanoseconds(ban));
            self.bans = self.bans.saturating_add(1);
            self.settled = now;
        }
    }

    /// A valid certificate came from it: its ban and its costs are gone.
    fn vouch(&mut self, identity: &Arc<Identity>, chain: &Arc<Chain>) {
        self.vouchers.enter(identity, chain);
        (self.settled, self.banned, self.bans) = (0, 0, 0);
    }

    /// A connection with this valid certificate is over.
    fn leave(&mut self, now: u64, device: &Sha256) {
        self.vouchers.leave(now, device);
    }

    /// Until when its bans count.
    fn remembered(&self) -> u64 {
        if self.bans == 0 { 0 } else { self.banned.saturating_add(nanoseconds(MEMORY)) }
    }

    /// What would be lost if it were forgotten: the larger, the more. `None` if nothing.
    fn worth(&self, now: u64) -> Option<(u8, u64)> {
        let trusted = self.vouchers.until();
        let (rank, until) = if now < trusted {
            (2, trusted)
        } else if now < self.remembered() {
            (1, self.remembered())
        } else {
            (0, self.settled.max(self.connections.unused_from()))
        };
        (now < until).then_some((rank, until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rejection::Reason;

    const SECOND: u64 = 1_000_000_000;
    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Lets a source fail until it is banned, and says after how often and for how long.
    fn fail_until_banned(record: &mut SourceRecord, now: u64, cost: Duration) -> (usize, Duration) {
        for count in 1..1000 {
            record.penalize(now, cost);
            if let Some(left) = record.banned_for(now) {
                return (count, left);
            }
        }
        panic!("never banned: {record:?}");
    }

    #[test]
    fn costs_below_the_threshold_pass_without_a_ban() {
        let mut record = SourceRecord::default();
        for _ in 0..59 {
            record.penalize(0, seconds(1));
        }
        assert_eq!(record.banned_for(0), None);
        assert_eq!(record.worth(0), Some((0, 59 * SECOND)));
        // Half of it has passed.
        for _ in 0..30 {
            record.penalize(30 * SECOND, seconds(1));
        }
        assert_eq!(record.banned_for(30 * SECOND), None);
        record.penalize(30 * SECOND, seconds(1));
        assert_eq!(record.banned_for(30 * SECOND), Some(seconds(60)));
        assert_eq!(record.banned_for(90 * SECOND - 1), Some(Duration::from_nanos(1)));
        assert_eq!(record.banned_for(90 * SECOND), None);
    }

    #[test]
    fn device_that_retries_every_second_is_not_banned() {
        for reason in [
            Reason::Expired,
            Reason::CertificateRequired,
            Reason::UnsupportedKey,
            Reason::CertificateInvalid,
            Reason::IdentityNotAllowed,
            Reason::PeerAlert,
        ] {
            let mut record = SourceRecord::default();
            for second in 0..100_000 {
                record.penalize(second * SECOND, reason.cost());
                assert_eq!(record.banned_for(second * SECOND), None, "{reason} after {second} s");
            }
        }
    }

    #[test]
    fn higher_cost_leads_to_a_ban_sooner() {
        let needed = |reason: Reason| fail_until_banned(&mut SourceRecord::default(), 0, reason.cost()).0;
        assert_eq!(needed(Reason::ClientHelloTimeout), 60);
        assert_eq!(needed(Reason::UnknownCa), 30);
        assert_eq!(needed(Reason::BadSignature), 12);
    }

    #[test]
    fn faults_of_others_and_early_closes_cost_nothing() {
        use crate::model::rejection::{Side, Stage};
        for reason in Reason::ALL.iter().copied() {
            let free = reason.stage() == Stage::Admission
                || reason.side() != Side::Client
                || matches!(reason, Reason::ClientHelloClosedEarly | Reason::HandshakeClosedEarly);
            assert_eq!(reason.cost().is_zero(), free, "{reason}");
        }
    }

    #[test]
    fn bans_double_up_to_ten_minutes_and_are_forgotten() {
        let mut record = SourceRecord::default();
        let mut now = 0;
        for minutes in [1, 2, 4, 8, 10, 10, 10] {
            let (_, ban) = fail_until_banned(&mut record, now, seconds(5));
            assert_eq!(ban, seconds(minutes * 60));
            now += nanoseconds(ban);
        }
        // So many that a shift would have no bits left.
        for _ in 0..300 {
            now += nanoseconds(fail_until_banned(&mut record, now, seconds(5)).1);
        }
        assert_eq!(fail_until_banned(&mut record, now, seconds(5)).1, LONGEST_BAN);
        now += nanoseconds(LONGEST_BAN + MEMORY);
        assert_eq!(record.worth(now), None);
        assert_eq!(fail_until_banned(&mut record, now, seconds(5)).1, FIRST_BAN);
    }

    #[test]
    fn ban_is_not_extended_by_rejections_during_it() {
        let mut record = SourceRecord::default();
        fail_until_banned(&mut record, 0, seconds(5));
        for second in 0..60 {
            for _ in 0..100 {
                record.penalize(second * SECOND, seconds(5));
            }
        }
        assert_eq!(record.banned_for(60 * SECOND - 1), Some(Duration::from_nanos(1)));
        assert_eq!(record.banned_for(60 * SECOND), None);
        record.penalize(60 * SECOND, seconds(5));
        assert_eq!(record.banned_for(60 * SECOND), None, "it starts from nothing again");
    }

    #[test]
    fn valid_certificate_protects_its_source_for_twelve_hours() {
        let (mut record, phone) = (SourceRecord::default(), testing::device(1));
        fail_until_banned(&mut record, 0, seconds(5));
        record.vouch(&phone.identity, &phone.chain);
        assert_eq!(record.banned_for(0), None);
        record.vouch(&phone.identity, &phone.chain);
        record.leave(0, &phone.identity.fingerprint);
        // One connection lasts for a week, while other clients fail.
        let week = 7 * 24 * 3600;
        for now in [0, SECOND, week * SECOND] {
            for _ in 0..1000 {
                record.penalize(now, seconds(5));
            }
            assert!(record.is_trusted(now) && record.banned_for(now).is_none());
        }
        record.leave(week * SECOND, &phone.identity.fingerprint);
        let last = (week + 12 * 3600) * SECOND - 1;
        record.penalize(last, seconds(500));
        assert!(record.is_trusted(last) && record.banned_for(last).is_none());
        assert!(!record.is_trusted(last + 1));
        assert_eq!(fail_until_banned(&mut record, last + 1, seconds(5)).1, FIRST_BAN);
    }
}
