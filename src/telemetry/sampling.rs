//! Which verdicts on strangers are logged under a flood, and how many were left out.
//!
//! Each source and reason has a quota, and so has each stage, so that a million sources cannot fill a disk and a flood at
//! one stage does not hide refusals at another. Lines that are left out are counted, and the count is logged. Metrics count
//! everything. A connection that was admitted for its certificate always has its line.
//!
//! Refusals of certificates that a trust anchor signed have quotas of their own, one for each certificate and reason:
//! strangers cannot make such certificates. A stranger may show a copied one without its key (under TLS 1.3 a client is
//! refused before it proves that it has the key): that uses up the quota of this one certificate.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::close::CloseReason;
use crate::model::identity::Sha256;
use crate::model::rate_limit::{Rate, RateLimiter, nanoseconds};
use crate::model::rejection::Reason;
use crate::model::source::Source;

/// Of one source and reason.
const PER_SOURCE: Rate = Rate { burst: 10, interval: Duration::from_secs(60) };

/// The same for admitted connections: users connect more often than scanners.
const PER_ADMITTED_SOURCE: Rate = Rate { burst: 60, interval: Duration::from_secs(10) };

/// Of one stage, whatever the source and the reason.
const PER_STAGE: Rate = Rate { burst: 30, interval: Duration::from_secs(1) };

/// How many sources and reasons are told apart. Further sources share the quota of the stage and are counted by reason.
const TRACKED_MAX: usize = 4096;

/// How many anchored certificates and reasons are told apart.
const DEVICES_MAX: usize = 1024;

/// How often the count of lines left out is logged.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// How many sources and reasons are reported one by one each time; the rest is reported by reason.
const REPORTED_MAX: usize = 32;

/// A kind of verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Rejected.
    Rejected(Reason),
    /// Admitted without a verified certificate, for example to a passthrough route, and closed.
    Closed(CloseReason),
}

impl From<Reason> for Kind {
    fn from(reason: Reason) -> Self {
        Self::Rejected(reason)
    }
}

impl From<CloseReason> for Kind {
    fn from(reason: CloseReason) -> Self {
        Self::Closed(reason)
    }
}

impl Kind {
    const fn rate(self) -> Rate {
        match self {
            Self::Rejected(_) => PER_SOURCE,
            Self::Closed(_) => PER_ADMITTED_SOURCE,
        }
    }

    /// The stage, as in the log.
    pub(super) const fn stage(self) -> &'static str {
        match self {
            Self::Rejected(reason) => reason.stage().label(),
            Self::Closed(_) => "relay",
        }
    }

    /// The reason, as in the log.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Rejected(reason) => reason.label(),
            Self::Closed(reason) => reason.label(),
        }
    }
}

/// Decides which verdicts are logged, in bounded memory.
#[derive(Debug)]
pub(super) struct Sampler {
    /// Limiters count the time from here.
    began: Instant,
    state: Mutex<State>,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { began: Instant::now(), state: Mutex::default() }
    }
}

#[derive(Debug, Default)]
struct State {
    tracked: HashMap<(Source, Kind), Tracked>,
    /// Of anchored certificates.
    devices: HashMap<(Sha256, Kind), Tracked>,
    /// Of anchored certificates that are not tracked, all together.
    other_devices: Option<RateLimiter>,
    stages: BTreeMap<&'static str, RateLimiter>,
    /// Left out of those that are not tracked.
    others: BTreeMap<Kind, u64>,
    /// When the first line was left out since the last report.
    first_left_out: Option<Instant>,
}

/// What is kept of one source or certificate and reason.
#[derive(Debug, Default)]
struct Tracked {
    limiter: RateLimiter,
    left_out: u64,
}

/// Verdicts that were not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Of which source; `None` if of several.
    pub(super) source: Option<Source>,
    /// Of which anchored certificate, if of one.
    pub(super) fingerprint: Option<Sha256>,
    /// Which.
    pub(super) kind: Kind,
    /// How many, at least 1.
    pub(super) count: u64,
}

impl Sampler {
    /// Whether the verdict of this moment is to be written; counts it if not.
    pub(super) fn takes(&self, source: Source, kind: impl Into<Kind>, now: Instant) -> bool {
        let (kind, at) = (kind.into(), self.since_began(now));
        let mut state = self.lock();
        let State { tracked, stages, others, .. } = &mut *state;
        let has_room = tracked.len() < TRACKED_MAX;
        let tracked =
            if has_room { Some(tracked.entry((source, kind)).or_default()) } else { tracked.get_mut(&(source, kind)) };
        let stage = stages.entry(kind.stage()).or_default();
        let taken = stage.allows(PER_STAGE, at)
            && tracked.as_ref().is_none_or(|tracked| tracked.limiter.allows(kind.rate(), at));
        match (taken, tracked) {
            (true, Some(tracked)) => tracked.limiter.count(kind.rate(), at),
            (true, None) => {}
            (false, Some(tracked)) => tracked.left_out += 1,
            (false, None) => *others.entry(kind).or_insert(0) += 1,
        }
        if taken {
            stage.count(PER_STAGE, at);
        } else {
            state.first_left_out.get_or_insert(now);
        }
        taken
    }

    /// Whether the refusal of an anchored certificate is to be written; counts it if not.
    pub(super) fn takes_device(&self, fingerprint: Sha256, kind: impl Into<Kind>, now: Instant) -> bool {
        let (kind, at) = (kind.into(), self.since_began(now));
        let mut state = self.lock();
        let State { devices, other_devices, others, .. } = &mut *state;
        let has_room = devices.len() < DEVICES_MAX || devices.contains_key(&(fingerprint, kind));
        let taken = if has_room {
            let device = devices.entry((fingerprint, kind)).or_default();
            let taken = device.limiter.take(PER_SOURCE, at);
            device.left_out += u64::from(!taken);
            taken
        } else {
            let limiter = other_devices.get_or_insert_default();
            let taken = limiter.take(PER_STAGE, at);
            if !taken {
                *others.entry(kind).or_insert(0) += 1;
            }
            taken
        };
        if !taken {
            state.first_left_out.get_or_insert(now);
        }
        taken
    }

    /// What was left out since the last report, if another report is due. Forgets sources that have been quiet for a while.
    /// To be called now and then.
    pub(super) fn due(&self, now: Instant) -> Vec<LeftOut> {
        let at = self.since_began(now);
        let mut state = self.lock();
        let due = state.first_left_out.is_some_and(|first| now.saturating_duration_since(first) >= REPORT_INTERVAL);
        let left_out = if due { state.report() } else { Vec::new() };
        state.tracked.retain(|_, tracked| tracked.left_out > 0 || tracked.limiter.unused_from() > at);
        state.devices.retain(|_, device| device.left_out > 0 || device.limiter.unused_from() > at);
        if state.devices.len() < DEVICES_MAX / 4 {
            state.devices.shrink_to(DEVICES_MAX / 4);
        }
        if state.tracked.len() < TRACKED_MAX / 4 {
            state.tracked.shrink_to(TRACKED_MAX / 4);
        }
        left_out
    }

    /// What was left out since the last report.
    pub(super) fn rest(&self) -> Vec<LeftOut> {
        self.lock().report()
    }

    fn since_began(&self, now: Instant) -> u64 {
        nanoseconds(now.saturating_duration_since(self.began))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn report(&mut self) -> Vec<LeftOut> {
        self.first_left_out = None;
        let mut others = std::mem::take(&mut self.others);
        let of_tracked = self.tracked.iter_mut().filter(|(_, tracked)| tracked.left_out > 0);
        let mut told: Vec<LeftOut> = of_tracked
            .map(|(&(source, kind), tracked)| LeftOut {
                source: Some(source),
                fingerprint: None,
                kind,
                count: std::mem::take(&mut tracked.left_out),
            })
            .collect();
        let of_devices = self.devices.iter_mut().filter(|(_, device)| device.left_out > 0);
        let mut devices: Vec<LeftOut> = of_devices
            .map(|(&(fingerprint, kind), device)| LeftOut {
                source: None,
                fingerprint: Some(fingerprint),
                kind,
                count: std::mem::take(&mut device.left_out),
            })
            .collect();
        // Each has its own room, so that strangers do not displace devices.
        for all in [&mut told, &mut devices] {
            all.sort_by_key(|left_out| Reverse(left_out.count));
            for left_out in all.drain(all.len().min(REPORTED_MAX)..) {
                *others.entry(left_out.kind).or_insert(0) += left_out.count;
            }
        }
        told.extend(devices);
        told.extend(others.into_iter().map(|(kind, count)| LeftOut { source: None, fingerprint: None, kind, count }));
        told
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn source(number: u32) -> Source {
        Source::of(IpAddr::V4(Ipv4Addr::from(number)), crate::model::source::Prefixes::default())
    }

    fn count(left_out: &[LeftOut]) -> u64 {
        left_out.iter().map(|left_out| left_out.count).sum()
    }

    #[test]
    fn source_and_reason_have_ten_lines_then_one_a_minute() {
        let (sampler, begin) = (Sampler::default(), Instant::now());
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let takes = |from, reason, seconds| sampler.takes(source(from), reason, at(seconds));
        assert_eq!((0..25).filter(|_| takes(1, Reason::NotTls, 0)).count(), 10);
        assert!(takes(1, Reason::Malformed, 0), "another reason");
        assert!(takes(2, Reason::NotTls, 0), "another source");
        assert_eq!((1..=59).filter(|second| takes(1, Reason::NotTls, *second)).count(), 0);
        assert_eq!((60..240).filter(|second| takes(1, Reason::NotTls, *second)).count(), 3);

        let kind = Kind::Rejected(Reason::NotTls);
        let told = LeftOut { source: Some(source(1)), fingerprint: None, kind, count: 15 + 59 + 177 };
        assert_eq!(sampler.rest(), [told]);
        assert_eq!(sampler.rest(), [], "told once");
    }

    #[test]
    fn admitted_sources_have_more_lines_within_the_stage_quota() {
        let (sampler, begin) = (Sampler::default(), Instant::now());
        let closed = |from, second| {
            let now = begin + Duration::from_secs(second);
            u64::from(sampler.takes(source(from), CloseReason::ClientClosed, now))
        };
        // One every five seconds, as programs that look for mail do: for five minutes each has its line.
        assert_eq!((0..60).map(|turn| closed(1, 5 * turn)).sum::<u64>(), 60);
        // 50 a second from each of 20 addresses for an hour.
        let written: u64 =
            (300..3900).map(|second| (2..22).map(|from| 50.min(closed(from, second))).sum::<u64>()).sum();
        assert!((3600..3700).contains(&written), "{written}");
        assert!(sampler.takes(source(1), Reason::Expired, begin + Duration::from_secs(3900)), "hides no refusal");
    }

    #[test]
    fn each_device_has_log_lines_of_its_own() {
        let (sampler, begin) = (Sampler::default(), Instant::now());
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        for number in 0..10_000 {
            sampler.takes(source(number), Reason::Revoked, begin);
        }
        let device = |number: u32| Sha256::of(&number.to_be_bytes());
        let takes = |number, seconds| sampler.takes_device(device(number), Reason::Revoked, at(seconds));
        assert_eq!((0..1000).filter(|_| takes(0, 0)).count(), 10, "of one device, as of one source");
        assert_eq!((1..1000).filter(|number| takes(*number, 0)).count(), 999, "each has its own");
        assert_eq!((1..=600).filter(|second| takes(0, *second)).count(), 10, "and then one a minute");
        let told = sampler.rest();
        let kind = Kind::Rejected(Reason::Revoked);
        let own = LeftOut { source: None, fingerprint: Some(device(0)), kind, count: 990 + 590 };
        assert!(told.contains(&own), "{told:?}");
        assert!(sampler.takes(source(1), Reason::Expired, at(100)), "strangers are not told less for it");
    }

    #[test]
    fn any_number_of_devices_takes_bounded_memory() {
        let (sampler, begin) = (Sampler::default(), Instant::now());
        let takes = |number: u32| sampler.takes_device(Sha256::of(&number.to_be_bytes()), Reason::Expired, begin);
        let written = (0..100_000).filter(|number| takes(*number)).count();
        assert_eq!(written, DEVICES_MAX + 30);
        assert_eq!(sampler.lock().devices.len(), DEVICES_MAX);
        assert_eq!(count(&sampler.rest()), 100_000 - written as u64);
        sampler.due(begin + Duration::from_secs(61));
        assert!(sampler.lock().devices.is_empty());
    }

    #[test]
    fn report_is_due_a_minute_after_the_first_line_left_out() {
        let (sampler, begin) = (Sampler::default(), Instant::now());
        let mut told = Vec::new();
        for second in 0..=300 {
            let now = begin + Duration::from_secs(second);
            if second < 150 {
                for _ in 0..20 {
                    sampler.takes(source(1), Reason::NotTls, now);
                }
            }
            let due = sampler.due(now);
            if !due.is_empty() {
                told.push((second, count(&due)));
            }
        }
        // 3,000 less the 12 that were written.
        assert_eq!(told.iter().map(|(second, _)| *second).collect::<Vec<_>>(), [60, 121, 182]);
        assert_eq!(told.iter().map(|(_, count)| *count).sum::<u64>(), 3000 - 12);
    }

    #[test]
    fn million_sources_take_bounded_memory_and_are_counted() {
        let (sampler, begin) = (Sampler::default(), Instant::now());
        let mut written = 0;
        for number in 0..1_000_000 {
            // In 100 s.
            let now = begin + Duration::from_micros(u64::from(number) * 100);
            written += u64::from(sampler.takes(source(number), Reason::CertificateRequired, now));
        }
        assert_eq!(written, 30 + 99, "the quota of the stage");
        {
            let state = sampler.lock();
            assert_eq!(state.tracked.len(), TRACKED_MAX);
            let room = state.tracked.capacity() * (size_of::<((Source, Kind), Tracked)>() + 1);
            assert!(room < 512 * 1024, "{room} bytes");
        }
        let told = sampler.rest();
        assert_eq!(count(&told), 1_000_000 - written);
        let merged = told.iter().filter(|left_out| left_out.source.is_none()).count();
        assert_eq!((told.len(), merged), (REPORTED_MAX + 1, 1));

        // Once their quota is unused again, nothing is kept of them.
        assert_eq!(sampler.due(begin + Duration::from_secs(100 + 60)), []);
        let state = sampler.lock();
        assert!(state.tracked.is_empty() && state.tracked.capacity() < TRACKED_MAX);
    }

    #[test]
    fn flood_at_one_stage_hides_nothing_at_another() {
        let (sampler, now) = (Sampler::default(), Instant::now());
        for number in 0..10_000 {
            sampler.takes(source(number), Reason::NotTls, now);
        }
        assert!(!sampler.takes(source(20_000), Reason::NotTls, now));
        assert!(sampler.takes(source(20_000), Reason::Expired, now));
    }
}
