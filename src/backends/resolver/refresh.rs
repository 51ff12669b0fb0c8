//! Keeps the answers for the names of the configuration fresh in the background, so that no client pays for it.
//!
//! A name that connections ask for is looked up before its answer is too old to be used at once. One that is not in use is looked
//! up every few minutes, so that a gate that was idle for a night has an answer even if its name server has none.

use std::collections::HashSet;
use std::future::pending;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Entry, HostName, REFRESH_AFTER, Resolver, State};

/// How long after its last connection a name counts as in use.
const IN_USE_FOR: Duration = Duration::from_secs(10 * 60);
/// How often a name is looked up that is not in use.
const IDLE: Duration = Duration::from_secs(5 * 60);
/// How long after a failure a name is looked up again; twice as long after each further one, until the usual time is reached.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// The pause if no thread could be started.
const NO_THREAD: Duration = Duration::from_secs(1);

/// When a name of the configuration is looked up in the background.
pub(super) struct Schedule {
    next: Instant,
    /// When a connection asked for it last.
    asked: Option<Instant>,
    /// How many look-ups have failed since the last answer.
    failures: u32,
}

impl Schedule {
    fn is_in_use(&self, now: Instant) -> bool {
        self.asked.is_some_and(|asked| now.saturating_duration_since(asked) < IN_USE_FOR)
    }

    /// The pause after a look-up, without what is added at random.
    fn pause(&self, now: Instant) -> Duration {
        let usual = if self.is_in_use(now) { REFRESH_AFTER } else { IDLE };
        match self.failures {
            0 => usual,
            failures => (FIRST_RETRY * 2_u32.saturating_pow((failures - 1).min(16))).min(usual),
        }
    }
}

/// Up to a quarter more, so that the names of a gate, and the gates of a network, do not ask all at once.
fn jittered(pause: Duration, name: &str) -> Duration {
    const PARTS: u32 = 1024;
    let part = u32::try_from(RandomState::new().hash_one(name) % u64::from(PARTS)).unwrap_or(0);
    pause + pause / 4 * part / PARTS
}

impl Entry {
    /// Plans the next look-up after one that has ended.
    pub(super) fn plan(&mut self, name: &str, now: Instant) {
        let failed = self.failure.is_some();
        if let Some(schedule) = &mut self.schedule {
            schedule.failures = if failed { schedule.failures.saturating_add(1) } else { 0 };
            schedule.next = now + jittered(schedule.pause(now), name);
        }
    }

    /// A connection asks for the name. Returns whether it is looked up sooner because of that.
    pub(super) fn is_wanted(&mut self, now: Instant) -> bool {
        let Some(schedule) = &mut self.schedule else { return false };
        let was_in_use = schedule.is_in_use(now);
        schedule.asked = Some(now);
        let soon = now + schedule.pause(now);
        let sooner = !was_in_use && soon < schedule.next;
        if sooner {
            schedule.next = soon;
        }
        sooner
    }
}

impl Resolver {
    /// Calls `told` after each look-up of a name of the configuration, and when a configuration names it.
    pub fn report_to(&self, told: impl Fn(&HostName) + Send + Sync + 'static) {
        *self.0.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(told));
    }

    /// These are the names of the configuration from now on. What is known of those that stay is kept.
    pub fn follow<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        let names: HashSet<&str> = names.into_iter().collect();
        let now = Instant::now();
        {
            let mut state = self.state();
            for (name, entry) in &mut state.names {
                if !names.contains(&**name) {
                    entry.schedule = None;
                }
            }
            // A connection of the former configuration may wait for a look-up.
            state.names.retain(|_, entry| entry.schedule.is_some() || entry.lookup.is_some());
            for name in names {
                let entry = state.names.entry(Arc::from(name)).or_default();
                entry.schedule.get_or_insert(Schedule { next: now, asked: None, failures: 0 });
            }
        }
        self.0.planned.notify_one();
        self.tell(&self.names());
    }

    /// Looks the names of the configuration up again and again, until it is dropped.
    pub async fn refresh(self) {
        loop {
            let next = self.look_up_due(Instant::now());
            let due = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.0.planned.notified() => {}
            }
        }
    }

    /// Queues the look-ups that are due, and returns when the next ones are.
    pub(super) fn look_up_due(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        let State { names, queue, .. } = &mut *state;
        let mut next: Option<Instant> = None;
        for (name, entry) in names {
            // One that is looked up is planned when that ends.
            let Some(schedule) = entry.schedule.as_ref().filter(|_| entry.lookup.is_none()) else { continue };
            if schedule.next <= now {
                entry.begin_look_up(name, queue, now);
            } else {
                next = Some(next.map_or(schedule.next, |next| next.min(schedule.next)));
            }
        }
        self.start_thread(&mut state);
        if state.queue.is_empty() || state.threads > 0 { next } else { Some(now + NO_THREAD) }
    }
}
