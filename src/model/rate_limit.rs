//! A rate limit in eight bytes: the generic cell rate algorithm (ITU-T I.371 appendix A).
//!
//! Tables of many sources keep one limiter for each entry, so a limiter is one number. The caller gives the time, in
//! nanoseconds since a moment of its choice.

use std::time::Duration;

/// How many events are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// One more each time this has passed.
    pub interval: Duration,
}

impl Rate {
    /// `count` events in each `period`, all of them at once if need be. `None` for a count of 0.
    pub fn new(count: u32, period: Duration) -> Option<Self> {
        Some(Self { burst: count, interval: period.checked_div(count)? })
    }
}

/// The state of one limit: the theoretical arrival time. The default is a limit that has not been used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimiter(u64);

impl RateLimiter {
    /// Whether an event is allowed at `now`.
    pub fn allows(self, rate: Rate, now: u64) -> bool {
        let Some(others) = rate.burst.checked_sub(1) else { return false };
        self.0.saturating_sub(now) <= nanoseconds(rate.interval.saturating_mul(others))
    }

    /// Counts an event, allowed or not.
    pub fn count(&mut self, rate: Rate, now: u64) {
        self.0 = self.0.max(now).saturating_add(nanoseconds(rate.interval));
    }

    /// Whether an event is allowed at `now`; counts it if so.
    pub fn take(&mut self, rate: Rate, now: u64) -> bool {
        let allowed = self.allows(rate, now);
        if allowed {
            self.count(rate, now);
        }
        allowed
    }

    /// From when on the limiter is as good as new, so that it can be forgotten.
    pub const fn unused_from(self) -> u64 {
        self.0
    }
}

/// A duration in nanoseconds; the longest is 584 years.
pub fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn burst_is_allowed_then_one_each_interval() {
        let rate = Rate { burst: 3, interval: Duration::from_secs(20) };
        let mut limiter = RateLimiter::default();
        let mut at = |second: u64| limiter.take(rate, second * SECOND);
        assert_eq!(
            [0, 0, 0, 0, 19, 20, 20, 39, 40].map(&mut at),
            [true, true, true, false, false, true, false, false, true]
        );
        // A long rest saves no more than the burst.
        assert_eq!([1000, 1000, 1000, 1000].map(&mut at), [true, true, true, false]);
    }

    #[test]
    fn rate_of_a_count_per_period_has_the_count_as_burst() {
        let rate = Rate::new(60, Duration::from_secs(60)).expect("a rate");
        assert_eq!(rate, Rate { burst: 60, interval: Duration::from_secs(1) });
        let mut limiter = RateLimiter::default();
        assert_eq!((0..100).filter(|_| limiter.take(rate, 0)).count(), 60);
        assert_eq!(Rate::new(0, Duration::from_secs(60)), None);
    }

    #[test]
    fn refused_event_is_not_counted() {
        let rate = Rate { burst: 1, interval: Duration::from_secs(1) };
        let mut limiter = RateLimiter::default();
        assert!(limiter.take(rate, 0));
        let used = limiter;
        assert!(!limiter.take(rate, SECOND - 1));
        assert_eq!(limiter, used);
        assert_eq!(limiter.unused_from(), SECOND);
        assert!(limiter.take(rate, SECOND));
    }

    #[test]
    fn time_beyond_584_years_saturates() {
        let rate = Rate { burst: 1, interval: Duration::MAX };
        let mut limiter = RateLimiter::default();
        assert!(limiter.take(rate, 1));
        assert!(!limiter.take(rate, u64::MAX - 1));
        assert!(!RateLimiter::default().allows(Rate { burst: 0, interval: Duration::ZERO }, 0));
    }
}
