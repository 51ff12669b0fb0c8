//! How long each step of a connection took.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

use crate::telemetry::log::Durations;

/// The steps of a connection, in the order of the journey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Admission,
    Hello,
    Handshake,
    Dial,
    Relay,
}

/// How long each step took. One ends where the next one begins, so that together they are the whole time.
#[derive(Debug)]
pub(super) struct Steps {
    /// The step of this moment.
    pub(super) now: Step,
    since: Instant,
    admission: Option<Took>,
    hello: Option<Took>,
    handshake: Option<Took>,
    dial: Option<Took>,
}

/// A time in nanoseconds. It is kept as long as its connection, so it is half the size of an `Option<Duration>`.
#[derive(Clone, Copy, Debug)]
struct Took(NonZeroU64);

impl Took {
    fn new(time: Duration) -> Self {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self(NonZeroU64::new(nanoseconds).unwrap_or(NonZeroU64::MIN))
    }

    const fn time(self) -> Duration {
        Duration::from_nanos(self.0.get())
    }
}

impl Steps {
    pub(super) fn begin(at: Instant) -> Self {
        Self { now: Step::Admission, since: at, admission: None, hello: None, handshake: None, dial: None }
    }

    /// Begins the next step and returns the time.
    pub(super) fn next(&mut self, step: Step) -> Instant {
        let now = Instant::now();
        let took = Some(Took::new(now.saturating_duration_since(self.since)));
        match self.now {
            Step::Admission => self.admission = took,
            Step::Hello => self.hello = took,
            Step::Handshake => self.handshake = took,
            Step::Dial => self.dial = took,
            // The last one.
            Step::Relay => return now,
        }
        (self.now, self.since) = (step, now);
        now
    }

    /// The time from accept until now.
    pub(super) fn whole(&self, now: Instant) -> Duration {
        let took = [self.admission, self.hello, self.handshake, self.dial].into_iter().flatten();
        took.fold(now.saturating_duration_since(self.since), |sum, step| sum.saturating_add(step.time()))
    }

    /// The fields of a log line; the current step ends now.
    pub(super) fn durations(&self, now: Instant) -> Durations {
        let seconds = |step, took: Option<Took>| {
            let last = (self.now == step).then(|| Took::new(now.saturating_duration_since(self.since)));
            took.or(last).map(|took| took.time().as_secs_f64())
        };
        Durations {
            admission: seconds(Step::Admission, self.admission),
            hello: seconds(Step::Hello, self.hello),
            handshake: seconds(Step::Handshake, self.handshake),
            dial: seconds(Step::Dial, self.dial),
            relay: seconds(Step::Relay, None),
        }
    }
}
