//! Health checks: which of the backends may have connections.
//!
//! Checks are caused by the configuration alone, so they need no [`Authorized`](crate::authorize::Authorized) value. Their
//! connections stay in [`probe`](super::probe) and carry nothing of a client: there is no way from one to a relay.
//!
//! Each backend has one task, however many routes or connections there are, so that checks of one backend never overlap, and
//! none holds up another. What is known belongs to the backend and the way it is checked. It outlives a configuration if the
//! next one has the same.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::debug;

use crate::backend_tls::BackendTls;
use crate::config::checked::{Backend, Health as Settings, Route};
use crate::model::names::ServerNamePattern;
use crate::model::rejection::{CheckFailure, Health};
use crate::proxy_protocol;

/// The checks after a start or a reload are spread over so long, at most.
const SPREAD: Duration = Duration::from_secs(1);

/// A backend, and how it is checked.
#[derive(Clone, Debug)]
pub struct Check {
    /// The backend.
    pub backend: Backend,
    /// How it is checked.
    pub settings: Settings,
    /// The PROXY protocol header that it expects, without a client.
    pub(super) header: &'static [u8],
    /// The server name of the TLS handshake, if it is sent one.
    pub(super) server_name: Option<String>,
    /// TLS with it, if the gate speaks that for clients, and its index among the backends of the route.
    pub(super) tls: Option<(BackendTls, usize)>,
}

impl PartialEq for Check {
    fn eq(&self, other: &Self) -> bool {
        let same_tls = match (&self.tls, &other.tls) {
            (None, None) => true,
            (Some((one, _)), Some((other, _))) => one.has_settings_of(other),
            _ => false,
        };
        let of =
            |check: &Self| (check.backend.clone(), check.settings.clone(), check.header, check.server_name.clone());
        same_tls && of(self) == of(other)
    }
}

impl Check {
    /// The checks of a route, one for each of its backends, to which the gate speaks this TLS; none if they are not checked.
    pub fn of(route: &Route, tls: Option<&BackendTls>) -> Vec<Self> {
        let Some(settings) = &route.health else { return Vec::new() };
        let check = |(index, backend): (usize, &Backend)| Self {
            backend: backend.clone(),
            tls: tls.map(|tls| (tls.clone(), index)),
            settings: settings.clone(),
            header: proxy_protocol::local(route.send_proxy_protocol),
            server_name: if settings.tls { server_name(&route.server_names) } else { None },
        };
        route.backends.iter().enumerate().map(check).collect()
    }
}

/// A name that the route answers to.
fn server_name(patterns: &[ServerNamePattern]) -> Option<String> {
    patterns.iter().find_map(|pattern| match pattern {
        ServerNamePattern::Exact(name) => Some(name.as_str().to_owned()),
        ServerNamePattern::Wildcard(name) => Some(format!("health-check.{}", name.as_str())),
        ServerNamePattern::Default => None,
    })
}

/// A checked backend, and what is known of it.
#[derive(Debug)]
pub struct Checked {
    check: Check,
    unhealthy: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    health: Health,
    /// How many checks in a row said otherwise.
    against: u32,
}

/// What a check has brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It passed, and the backend was not unhealthy.
    Passed,
    /// It failed, or there were too few yet that passed: the backend is what it was.
    None,
    /// The backend is healthy again.
    Up,
    /// The backend is unhealthy.
    Down,
}

/// How a check ended.
#[derive(Debug)]
pub enum Failed {
    /// The backend did not pass.
    Backend(CheckFailure),
    /// This machine was out of descriptors or memory, which says nothing about the backend.
    Gate,
}

impl Checked {
    /// A backend that was not checked yet.
    pub fn new(check: Check) -> Self {
        let state = Mutex::new(State { health: Health::Unchecked, against: 0 });
        Self { check, unhealthy: AtomicBool::new(false), state }
    }

    /// The backend, and how it is checked.
    pub const fn check(&self) -> &Check {
        &self.check
    }

    /// Whether it may have connections.
    pub fn is_healthy(&self) -> bool {
        !self.unhealthy.load(Ordering::Relaxed)
    }

    /// What is known of it.
    pub fn health(&self) -> Health {
        self.state().health.clone()
    }

    /// Takes the result of a check into account.
    ///
    /// A backend that was not checked yet counts as healthy: a gate that starts before its backends is no reason to refuse
    /// devices, and a dial that fails is told anyway.
    pub fn ended(&self, result: Result<(), Failed>, now: OffsetDateTime) -> Change {
        let Settings { rise, fall, .. } = self.check.settings;
        let mut state = self.state();
        let change = match (result, &state.health) {
            (Err(Failed::Gate), _) => return Change::None,
            (Ok(()), Health::Unhealthy { .. }) => {
                state.against += 1;
                if state.against < rise {
                    return Change::None;
                }
                state.health = Health::Healthy { since: now };
                Change::Up
            }
            (Ok(()), health) => {
                if *health == Health::Unchecked {
                    state.health = Health::Healthy { since: now };
                }
                Change::Passed
            }
            (Err(Failed::Backend(failure)), Health::Unhealthy { since, .. }) => {
                state.health = Health::Unhealthy { since: *since, checked: now, failure };
                Change::None
            }
            (Err(Failed::Backend(failure)), _) => {
                state.against += 1;
                if state.against < fall {
                    return Change::None;
                }
                state.health = Health::Unhealthy { since: now, checked: now, failure };
                Change::Down
            }
        };
        state.against = 0;
        self.unhealthy.store(matches!(state.health, Health::Unhealthy { .. }), Ordering::Relaxed);
        change
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that checks a backend.
struct Running {
    checked: Arc<Checked>,
    task: AbortHandle,
}

/// Checks the backends that `wanted` names, each with a task of its own, until its sender is gone or the future is dropped.
/// `probe` does one check, in bounded time; `ended` is told how it ended.
pub async fn run<F>(
    mut wanted: watch::Receiver<Vec<Arc<Checked>>>,
    probe: impl Fn(Arc<Checked>) -> F + Clone + Send + 'static,
    ended: impl Fn(&Arc<Checked>, Change) + Clone + Send + 'static,
) where
    F: Future<Output = Result<(), Failed>> + Send + 'static,
{
    // Dropping the set ends all of them.
    let (mut tasks, mut running): (JoinSet<()>, Vec<Running>) = (JoinSet::new(), Vec::new());
    loop {
        let checks = wanted.borrow_and_update().clone();
        running.retain(|running| {
            let stays = checks.iter().any(|checked| Arc::ptr_eq(checked, &running.checked));
            if !stays {
                running.task.abort();
            }
            stays
        });
        for checked in checks {
            let former = running.iter_mut().find(|running| Arc::ptr_eq(&running.checked, &checked));
            let mut start = |first| {
                let task = repeat(Arc::clone(&checked), first, probe.clone(), ended.clone());
                Running { checked: Arc::clone(&checked), task: tasks.spawn(task) }
            };
            let every = checked.check.settings.every;
            match former {
                None => running.push(start(portion(every.min(SPREAD), random()))),
                // A panic: not again at once.
                Some(former) if former.task.is_finished() => *former = start(every),
                Some(_) => {}
            }
        }
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// Checks one backend again and again. A check begins when the one before has ended, and not earlier than is configured.
async fn repeat<F: Future<Output = Result<(), Failed>>>(
    checked: Arc<Checked>,
    first: Duration,
    probe: impl Fn(Arc<Checked>) -> F,
    ended: impl Fn(&Arc<Checked>, Change),
) {
    let Check { backend, settings, .. } = &checked.check;
    sleep(first).await;
    loop {
        let begun = Instant::now();
        let result = probe(Arc::clone(&checked)).await;
        debug!(%backend, ?result, took = ?begun.elapsed(), "checked");
        ended(&checked, checked.ended(result, OffsetDateTime::now_utc()));
        sleep_until(begun + jittered(settings.every, random())).await;
    }
}

/// Between 90 % and 110 % of `every`, so that checks of several backends, and of several gates, do not fall into step.
fn jittered(every: Duration, random: u32) -> Duration {
    every * 9 / 10 + portion(every / 5, random)
}

/// From nothing to all of `whole`.
fn portion(whole: Duration, random: u32) -> Duration {
    whole.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// A random number; without one, the middle.
fn random() -> u32 {
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes).map_or(u32::MAX / 2, |()| u32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests;
