//! How many certificates are issued without the owner.
//!
//! A device needs one in weeks. Its request may be lost on the way, or the answer, and a gate that was taken over can repeat requests; each
//! certificate that is issued counts, whatever came of it. The process that is started again begins anew: what it issues too much is for
//! keys that have a certificate already.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::identity::Sha256;
use crate::model::rate_limit::{Rate, RateLimiter, nanoseconds};

/// For one device, by the certificate that all of its others descend from: four a day.
const OF_ONE: Rate = Rate { burst: 4, interval: Duration::from_secs(6 * 3600) };
/// For all together.
const OF_ALL: Rate = Rate { burst: 256, interval: Duration::from_secs(60) };
/// The most devices that are kept count of. With more, those that may be renewed again as if they were new are forgotten.
const DEVICES_MAX: usize = 4096;

/// What was issued lately.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    all: RateLimiter,
    devices: HashMap<Sha256, RateLimiter>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { began: Instant::now(), all: RateLimiter::default(), devices: HashMap::new() }
    }
}

impl Pace {
    /// Counts a certificate that is about to be issued; says whether it may be.
    pub(super) fn take(&mut self, origin: &Sha256) -> bool {
        let now = nanoseconds(self.began.elapsed());
        if self.devices.len() >= DEVICES_MAX && !self.devices.contains_key(origin) {
            self.devices.retain(|_, limiter| {
                let mut all = *limiter;
                !(0..OF_ONE.burst).all(|_| all.take(OF_ONE, now))
            });
            if self.devices.len() >= DEVICES_MAX {
                return false;
            }
        }
        let own = self.devices.entry(*origin).or_default();
        own.allows(OF_ONE, now) && self.all.take(OF_ALL, now) && own.take(OF_ONE, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_device_gets_a_few_a_day_and_all_are_bounded() {
        let mut pace = Pace::default();
        let device = |number: usize| Sha256::of(&number.to_be_bytes());
        let count = |pace: &mut Pace, number| (0..10).filter(|_| pace.take(&device(number))).count();
        assert_eq!(count(&mut pace, 0), 4);
        assert_eq!(count(&mut pace, 1), 4);
        tokio::time::advance(Duration::from_secs(6 * 3600 + 1)).await;
        assert_eq!((count(&mut pace, 0), count(&mut pace, 0)), (1, 0));
        let mut pace = Pace::default();
        assert_eq!((0..1000).filter(|number| pace.take(&device(*number))).count(), 256);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let mut pace = Pace::default();
        for number in 0..3 * DEVICES_MAX {
            tokio::time::advance(Duration::from_secs(61)).await;
            pace.take(&Sha256::of(&number.to_be_bytes()));
            assert!(pace.devices.len() <= DEVICES_MAX);
        }
    }
}
