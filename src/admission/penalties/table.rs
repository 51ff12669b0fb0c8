//! The records of sources, in bounded memory.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{LONGEST_BAN, Penalty, SourceRecord, THRESHOLD, Voucher};
use crate::model::identity::{Chain, Identity, Sha256};
use crate::model::rate_limit::{Rate, nanoseconds};
use crate::model::source::Source;

/// Sources are spread over so many buckets...
const BUCKETS: u64 = 4096;

/// ...of so many entries: 65,536 sources in all, in about 5 MiB.
const ENTRIES: usize = 16;

/// What is known about sources, in bounded memory.
///
/// The hash is keyed, so a client cannot choose its bucket. In a full bucket the source that matters least is forgotten
/// first: a flood of sources that each connect once evicts itself, and neither banned nor trusted sources.
#[derive(Debug)]
pub struct Table {
    began: Instant,
    hasher: RandomState,
    buckets: Vec<Bucket>,
}

type Bucket = Mutex<Vec<(Source, SourceRecord)>>;

/// Whether a source may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceStatus {
    /// It is banned, for so long from now on.
    Banned(Duration),
    /// It connects more often than it may.
    RateLimited,
    /// It may.
    Allowed {
        /// Whether a valid certificate came from it not long ago.
        trusted: bool,
    },
}

impl Table {
    /// An empty table.
    pub fn new(now: Instant) -> Self {
        let buckets = (0..BUCKETS).map(|_| Mutex::default()).collect();
        Self { began: now, hasher: RandomState::new(), buckets }
    }

    /// A connection comes from `source`.
    pub fn connects(&self, source: Source, now: Instant, rate: Option<Rate>) -> SourceStatus {
        self.with(source, now, |record, now| {
            let trusted = record.is_trusted(now);
            if let Some(left) = record.banned_for(now) {
                SourceStatus::Banned(left)
            } else if !trusted && rate.is_some_and(|rate| !record.connects(now, rate)) {
                // A trusted source has no rate: strangers behind its address could use it up.
                SourceStatus::RateLimited
            } else {
                SourceStatus::Allowed { trusted }
            }
        })
    }

    /// A connection from `source` was rejected, which costs this.
    pub fn penalize(&self, source: Source, now: Instant, cost: Duration) {
        self.with(source, now, |record, now| record.penalize(now, cost));
    }

    /// A connection from `source` showed a valid certificate. [`Table::leave`] is to be told when it is over.
    pub fn vouch(&self, source: Source, now: Instant, identity: &Arc<Identity>, chain: &Arc<Chain>) {
        self.with(source, now, |record, _| record.vouch(identity, chain));
    }

    /// A connection of this device, for which [`Table::vouch`] was called, is over.
    pub fn leave(&self, source: Source, now: Instant, device: &Sha256) {
        self.with(source, now, |record, now| record.leave(now, device));
    }

    /// The device of this certificate, if it vouches for `source`.
    pub fn voucher(&self, source: Source, now: Instant, device: &Sha256) -> Option<Voucher> {
        self.with(source, now, |record, _| {
            record.vouchers.all().find(|voucher| voucher.identity.fingerprint == *device).cloned()
        })
    }

    /// The devices that vouch for a source, once for each chain that they showed.
    pub fn vouchers(&self) -> Vec<Voucher> {
        let mut found: HashMap<Sha256, Vec<Voucher>> = HashMap::new();
        for bucket in &self.buckets {
            for voucher in lock(bucket).iter().flat_map(|(_, record)| record.vouchers.all()) {
                let of_device = found.entry(voucher.identity.fingerprint).or_default();
                if !of_device.iter().any(|known| known.is(voucher)) {
                    of_device.push(voucher.clone());
                }
            }
        }
        found.into_values().flatten().collect()
    }

    /// Ends the trust that these devices gave their sources.
    pub fn withdraw(&self, devices: &[Voucher]) {
        if devices.is_empty() {
            return;
        }
        let mut refused: HashMap<Sha256, Vec<&Voucher>> = HashMap::new();
        for voucher in devices {
            refused.entry(voucher.identity.fingerprint).or_default().push(voucher);
        }
        for bucket in &self.buckets {
            for (_, record) in lock(bucket).iter_mut() {
                record.vouchers.retain(|voucher| {
                    let of_device = refused.get(&voucher.identity.fingerprint);
                    !of_device.is_some_and(|refused| refused.iter().any(|refused| refused.is(voucher)))
                });
            }
        }
    }

    /// The sources that are banned or owe something, for another table. Those that a device vouches for are not among them.
    pub fn penalties(&self, now: Instant) -> Vec<Penalty> {
        let now = self.since_began(now);
        let mut found = Vec::new();
        for bucket in &self.buckets {
            for (source, record) in lock(bucket).iter().filter(|(_, record)| !record.is_trusted(now)) {
                let bans = if now < record.remembered() { record.bans } else { 0 };
                let [settled, banned] = [record.settled, record.banned].map(|at| at.saturating_sub(now));
                if bans > 0 || settled > 0 {
                    let (settled, banned) = (Duration::from_nanos(settled), Duration::from_nanos(banned));
                    found.push(Penalty { source: *source, settled, banned, bans });
                }
            }
        }
        found
    }

    /// Adds what another table has given. No ban is made longer than it can be here.
    pub fn add(&self, now: Instant, penalties: impl IntoIterator<Item = Penalty>) {
        for Penalty { source, settled, banned, bans } in penalties {
            self.with(source, now, |record, now| {
                record.settled = now.saturating_add(nanoseconds(settled.min(THRESHOLD)));
                record.banned = now.saturating_add(nanoseconds(banned.min(LONGEST_BAN)));
                record.bans = bans;
            });
        }
    }

    /// Forgets sources whose records no longer matter. To be called now and then.
    pub fn tidy(&self, now: Instant) {
        let now = self.since_began(now);
        for bucket in &self.buckets {
            let mut bucket = lock(bucket);
            bucket.retain(|(_, record)| record.worth(now).is_some());
            bucket.shrink_to(ENTRIES / 4);
            if bucket.is_empty() {
                *bucket = Vec::new();
            }
        }
    }

    /// How many sources something is known about.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| lock(bucket).len()).sum()
    }

    fn since_began(&self, now: Instant) -> u64 {
        nanoseconds(now.saturating_duration_since(self.began))
    }

    /// Applies `act` to the record of `source`, and keeps the record if it matters more than the one that would be evicted.
    fn with<T>(&self, source: Source, now: Instant, act: impl FnOnce(&mut SourceRecord, u64) -> T) -> T {
        let now = self.since_began(now);
        let index = usize::try_from(self.hasher.hash_one(source) % BUCKETS).unwrap_or_default();
        let mut bucket = lock(&self.buckets[index]);
        if let Some((_, record)) = bucket.iter_mut().find(|(known, _)| *known == source) {
            return act(record, now);
        }
        let mut record = SourceRecord::default();
        let result = act(&mut record, now);
        if let Some(worth) = record.worth(now) {
            if bucket.len() < ENTRIES {
                bucket.push((source, record));
            } else if let Some(least) = bucket.iter_mut().min_by_key(|(_, record)| record.worth(now))
                && least.1.worth(now) <= Some(worth)
            {
                *least = (source, record);
            }
        }
        result
    }
}

fn lock(bucket: &Bucket) -> MutexGuard<'_, Vec<(Source, SourceRecord)>> {
    bucket.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use super::*;
    use crate::admission::penalties::testing::device;
    use crate::model::source::Prefixes;

    /// The sources of a provider, one after the other.
    fn source(number: u64) -> Source {
        let address = (0x2001_0db8_u128 << 96) + (u128::from(number) << 64);
        Source::of(IpAddr::V6(Ipv6Addr::from_bits(address)), Prefixes::default())
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn is_banned(table: &Table, source: Source, now: Instant) -> bool {
        matches!(table.connects(source, now, None), SourceStatus::Banned(_))
    }

    #[test]
    fn flood_of_sources_evicts_no_banned_or_trusted_source() {
        let now = Instant::now();
        let table = Table::new(now);
        let (banned, trusted) = (|number: u64| source(2_000_000 + number), |number: u64| source(3_000_000 + number));
        let rate = Some(Rate { burst: 50, interval: Duration::from_millis(20) });
        let phone = device(1);
        for number in 0..100 {
            for _ in 0..12 {
                table.penalize(banned(number), now, seconds(5));
            }
            table.vouch(trusted(number), now, &phone.identity, &phone.chain);
            table.leave(trusted(number), now, &phone.identity.fingerprint);
        }
        for number in 0..1_000_000 {
            assert_eq!(table.connects(source(number), now, rate), SourceStatus::Allowed { trusted: false });
            table.penalize(source(number), now, seconds(5));
        }
        let most = usize::try_from(BUCKETS).expect("a few") * ENTRIES;
        assert!((most * 9 / 10..=most).contains(&table.len()), "{} of {most}", table.len());
        for number in 0..100 {
            assert!(is_banned(&table, banned(number), now), "{number} was forgotten");
            let status = table.connects(trusted(number), now, rate);
            assert_eq!(status, SourceStatus::Allowed { trusted: true }, "{number} was forgotten");
        }

        // What has passed takes no room.
        let later = now + seconds(10);
        table.tidy(later);
        assert_eq!(table.len(), 200);
        assert!(is_banned(&table, banned(0), later));
        table.tidy(now + seconds(24 * 60 * 60));
        assert_eq!(table.len(), 0);
        assert!(table.buckets.iter().all(|bucket| lock(bucket).capacity() == 0));
    }

    #[test]
    fn trusted_source_has_no_connection_rate() {
        let now = Instant::now();
        let table = Table::new(now);
        let rate = Some(Rate { burst: 1, interval: seconds(1) });
        let takes = |at| table.connects(source(1), at, rate) != SourceStatus::RateLimited;
        assert_eq!([takes(now), takes(now)], [true, false]);
        let phone = device(1);
        table.vouch(source(1), now, &phone.identity, &phone.chain);
        assert!((0..100).all(|_| takes(now)));
        table.leave(source(1), now, &phone.identity.fingerprint);
        let last = now + seconds(12 * 60 * 60 - 1);
        assert!((0..100).all(|_| takes(last)));
        let over = last + seconds(1);
        assert_eq!([takes(over), takes(over)], [true, false]);
    }

    #[test]
    fn trust_ends_with_its_device_unless_another_vouches() {
        let now = Instant::now();
        let table = Table::new(now);
        let trusted = |number| table.connects(source(number), now, None) == SourceStatus::Allowed { trusted: true };
        let (lost, mine) = (device(1), device(2));
        // At home both, elsewhere only the one that is lost: once in a connection that is still open.
        for (number, devices) in [(1, &[&lost, &mine][..]), (2, &[&lost]), (3, &[&mine])] {
            for device in devices {
                table.vouch(source(number), now, &device.identity, &device.chain);
            }
        }
        table.leave(source(2), now, &lost.identity.fingerprint);
        table.vouch(source(4), now, &lost.identity, &lost.chain);
        assert_eq!(table.vouchers().len(), 2, "each device is judged once");
        table.withdraw(std::slice::from_ref(&lost));
        assert_eq!([1, 2, 3, 4].map(trusted), [true, false, true, false]);
        // The end of its connection does not bring it back.
        table.leave(source(4), now, &lost.identity.fingerprint);
        assert!(!trusted(4));
        for _ in 0..12 {
            table.penalize(source(2), now, seconds(5));
        }
        assert!(is_banned(&table, source(2), now));
    }

    #[test]
    fn bans_and_costs_are_the_same_in_another_table() {
        let now = Instant::now();
        let table = Table::new(now - seconds(1000));
        let phone = device(1);
        for _ in 0..12 {
            table.penalize(source(1), now, seconds(5));
            table.penalize(source(3), now, seconds(5));
        }
        table.penalize(source(2), now, seconds(59));
        table.vouch(source(3), now, &phone.identity, &phone.chain);
        let other = Table::new(now);
        let penalties = table.penalties(now + seconds(10));
        assert_eq!(penalties.len(), 2, "{penalties:?}");
        other.add(now + seconds(10), penalties);
        let status = |number, at| other.connects(source(number), at, None);
        assert_eq!(status(1, now + seconds(10)), SourceStatus::Banned(seconds(50)));
        assert_eq!(status(1, now + seconds(60)), SourceStatus::Allowed { trusted: false });
        // What it owes counts, and so does its first ban.
        other.penalize(source(2), now + seconds(10), seconds(11));
        assert!(is_banned(&other, source(2), now + seconds(10)));
        for _ in 0..12 {
            other.penalize(source(1), now + seconds(60), seconds(5));
        }
        assert_eq!(status(1, now + seconds(60)), SourceStatus::Banned(seconds(120)));
        // Whatever another process sends.
        let forged = Penalty { source: source(4), settled: Duration::MAX, banned: Duration::MAX, bans: u8::MAX };
        other.add(now, [forged]);
        assert_eq!(status(4, now), SourceStatus::Banned(LONGEST_BAN));
    }

    #[test]
    fn source_that_did_nothing_has_no_record() {
        let now = Instant::now();
        let table = Table::new(now);
        for number in 0..1000 {
            assert_eq!(table.connects(source(number), now, None), SourceStatus::Allowed { trusted: false });
            table.penalize(source(number), now, Duration::ZERO);
        }
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn full_bucket_keeps_sources_with_the_highest_costs() {
        let now = Instant::now();
        let table = Table::new(now);
        // As many as there is room for twice over, each owing something else.
        let owed = |number: u64| seconds(1 + number % 50);
        for number in 0..2 * BUCKETS * 16 {
            table.penalize(source(number), now, owed(number));
        }
        let kept: Vec<Duration> = table
            .buckets
            .iter()
            .flat_map(|bucket| lock(bucket).iter().map(|(_, record)| record.settled).collect::<Vec<_>>())
            .map(Duration::from_nanos)
            .collect();
        let heavy = kept.iter().filter(|owed| **owed > seconds(25)).count();
        assert!(heavy * 100 > kept.len() * 80, "{heavy} of {}", kept.len());
    }
}
