//! What a source has done lately, and what follows from it: who has to wait, and who is trusted.
//!
//! The model is OpenSSH's `PerSourcePenalties` (sshd_config(5)): what fails costs seconds, seconds pass, and whoever
//! owes too many of them at once is not listened to for a while. Here a source that comes back to it waits twice as long
//! each time, and one from which a valid certificate came is never made to wait, whatever strangers behind the same
//! address do, for as long as the device that showed it has the right to. Everything here takes the time as a parameter.

mod table;
mod vouchers;

use std::sync::Arc;
use std::time::Duration;

use crate::model::identity::{Chain, Identity, Sha256};

pub use table::{Reception, Table};
pub use vouchers::Voucher;
use vouchers::Vouchers;
#[cfg(test)]
pub(crate) use vouchers::testing;

/// Who owes so much is banned. A device with a problem that tries again once a second never does.
const THRESHOLD: Duration = Duration::from_secs(60);

/// The first ban; each one after it is twice as long.
const FIRST_BAN: Duration = Duration::from_secs(60);

/// No ban is longer.
const LONGEST_BAN: Duration = Duration::from_secs(10 * 60);

/// Without a ban for so long, the next one is a first one again.
const MEMORY: Duration = Duration::from_secs(60 * 60);

/// New connections that a source may make.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// So much time for each...
    pub each: Duration,
    /// ...and so much saved at most, to be spent at once.
    pub saved: Duration,
}

/// What is known about one source. Moments are nanoseconds since the table began.
#[derive(Clone, Debug, Default)]
struct Standing {
    /// When all that it owes for rejections will have passed.
    settled: u64,
    /// Until when it is not listened to.
    banned: u64,
    /// How often it was banned, without [`MEMORY`] passing between.
    bans: u8,
    /// The devices that showed a valid certificate there.
    vouchers: Vouchers,
    /// When the time that its connections take will have passed (the theoretical arrival time of ITU-T I.371's GCRA).
    paced: u64,
}

impl Standing {
    fn is_trusted(&self, now: u64) -> bool {
        now < self.vouchers.until()
    }

    /// How long it is banned from now on.
    fn banned_for(&self, now: u64) -> Option<Duration> {
        self.banned.checked_sub(now).filter(|left| *left > 0).map(Duration::from_nanos)
    }

    /// Takes a connection into account, unless it comes too soon.
    fn connects(&mut self, now: u64, quota: Quota) -> bool {
        let paced = self.paced.max(now).saturating_add(nanoseconds(quota.each));
        let in_time = paced - now <= nanoseconds(quota.saved);
        if in_time {
            self.paced = paced;
        }
        in_time
    }

    /// A connection of it was rejected. Whoever is banned already is not banned for longer.
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

    /// A valid certificate came from it: all is forgiven.
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

    /// What would be lost if it were forgotten: the larger, the more. `None`: nothing.
    fn worth(&self, now: u64) -> Option<(u8, u64)> {
        let trusted = self.vouchers.until();
        let (rank, until) = if now < trusted {
            (2, trusted)
        } else if now < self.remembered() {
            (1, self.remembered())
        } else {
            (0, self.settled.max(self.paced))
        };
        (now < until).then_some((rank, until))
    }
}

/// As many as fit: 584 years.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
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
    fn fail_until_banned(standing: &mut Standing, now: u64, cost: Duration) -> (usize, Duration) {
        for count in 1..1000 {
            standing.penalize(now, cost);
            if let Some(left) = standing.banned_for(now) {
                return (count, left);
            }
        }
        panic!("never banned: {standing:?}");
    }

    #[test]
    fn below_the_threshold_nothing_happens_and_what_is_owed_passes() {
        let mut standing = Standing::default();
        for _ in 0..59 {
            standing.penalize(0, seconds(1));
        }
        assert_eq!(standing.banned_for(0), None);
        assert_eq!(standing.worth(0), Some((0, 59 * SECOND)));
        // Half of it has passed.
        for _ in 0..30 {
            standing.penalize(30 * SECOND, seconds(1));
        }
        assert_eq!(standing.banned_for(30 * SECOND), None);
        standing.penalize(30 * SECOND, seconds(1));
        assert_eq!(standing.banned_for(30 * SECOND), Some(seconds(60)));
        assert_eq!(standing.banned_for(90 * SECOND - 1), Some(Duration::from_nanos(1)));
        assert_eq!(standing.banned_for(90 * SECOND), None);
    }

    #[test]
    fn a_device_that_tries_again_every_second_is_never_banned() {
        for reason in [
            Reason::Expired,
            Reason::CertificateRequired,
            Reason::UnsupportedKey,
            Reason::CertificateInvalid,
            Reason::IdentityNotAllowed,
            Reason::PeerAlert,
        ] {
            let mut standing = Standing::default();
            for second in 0..100_000 {
                standing.penalize(second * SECOND, reason.cost());
                assert_eq!(standing.banned_for(second * SECOND), None, "{reason} after {second} s");
            }
        }
    }

    #[test]
    fn what_costs_more_leads_to_a_ban_sooner() {
        let needed = |reason: Reason| fail_until_banned(&mut Standing::default(), 0, reason.cost()).0;
        assert_eq!(needed(Reason::ClientHelloTimeout), 60);
        assert_eq!(needed(Reason::UnknownCa), 30);
        assert_eq!(needed(Reason::BadSignature), 12);
    }

    #[test]
    fn a_browser_that_hangs_up_and_what_is_nobodys_fault_cost_nothing() {
        use crate::model::rejection::{Side, Stage};
        for reason in Reason::ALL.iter().copied() {
            let free = reason.stage() == Stage::Admission
                || reason.side() != Side::Client
                || matches!(reason, Reason::ClientHelloClosedEarly | Reason::HandshakeClosedEarly);
            assert_eq!(reason.cost().is_zero(), free, "{reason}");
        }
    }

    #[test]
    fn bans_grow_up_to_a_limit_and_are_forgotten() {
        let mut standing = Standing::default();
        let mut now = 0;
        for minutes in [1, 2, 4, 8, 10, 10, 10] {
            let (_, ban) = fail_until_banned(&mut standing, now, seconds(5));
            assert_eq!(ban, seconds(minutes * 60));
            now += nanoseconds(ban);
        }
        // So many that a shift would have no bits left.
        for _ in 0..300 {
            now += nanoseconds(fail_until_banned(&mut standing, now, seconds(5)).1);
        }
        assert_eq!(fail_until_banned(&mut standing, now, seconds(5)).1, LONGEST_BAN);
        now += nanoseconds(LONGEST_BAN + MEMORY);
        assert_eq!(standing.worth(now), None);
        assert_eq!(fail_until_banned(&mut standing, now, seconds(5)).1, FIRST_BAN);
    }

    #[test]
    fn a_ban_is_not_extended_by_what_happens_during_it() {
        let mut standing = Standing::default();
        fail_until_banned(&mut standing, 0, seconds(5));
        for second in 0..60 {
            for _ in 0..100 {
                standing.penalize(second * SECOND, seconds(5));
            }
        }
        assert_eq!(standing.banned_for(60 * SECOND - 1), Some(Duration::from_nanos(1)));
        assert_eq!(standing.banned_for(60 * SECOND), None);
        standing.penalize(60 * SECOND, seconds(5));
        assert_eq!(standing.banned_for(60 * SECOND), None, "it starts from nothing again");
    }

    #[test]
    fn a_valid_certificate_forgives_and_protects_for_twelve_hours_after_the_last_connection() {
        let (mut standing, phone) = (Standing::default(), testing::device(1));
        fail_until_banned(&mut standing, 0, seconds(5));
        standing.vouch(&phone.identity, &phone.chain);
        assert_eq!(standing.banned_for(0), None);
        standing.vouch(&phone.identity, &phone.chain);
        standing.leave(0, &phone.identity.fingerprint);
        // One connection lasts for a week, and strangers do what they can.
        let week = 7 * 24 * 3600;
        for now in [0, SECOND, week * SECOND] {
            for _ in 0..1000 {
                standing.penalize(now, seconds(5));
            }
            assert!(standing.is_trusted(now) && standing.banned_for(now).is_none());
        }
        standing.leave(week * SECOND, &phone.identity.fingerprint);
        let last = (week + 12 * 3600) * SECOND - 1;
        standing.penalize(last, seconds(500));
        assert!(standing.is_trusted(last) && standing.banned_for(last).is_none());
        assert!(!standing.is_trusted(last + 1));
        assert_eq!(fail_until_banned(&mut standing, last + 1, seconds(5)).1, FIRST_BAN);
    }

    #[test]
    fn connections_are_counted_out_as_the_quota_says() {
        let quota = Quota { each: seconds(20), saved: seconds(60) };
        let mut standing = Standing::default();
        let mut at = |second: u64| standing.connects(second * SECOND, quota);
        assert_eq!(
            [0, 0, 0, 0, 19, 20, 20, 39, 40].map(&mut at),
            [true, true, true, false, false, true, false, false, true]
        );
        // A long rest saves no more than the quota says.
        assert_eq!([1000, 1000, 1000, 1000].map(&mut at), [true, true, true, false]);
    }
}
