//! Wakes the machine of a backend that sleeps (Wake-on-LAN), and holds connections until it answers.
//!
//! Only a connection with the permit of a verified device has a packet sent. However many connections wait for a machine, there is
//! one attempt to wake it, which ends for all of them at the same time; it is given up as soon as none of them is left. Whatever
//! they do, a machine is sent a packet every [`RESEND`] at most.

mod attempt;
mod packet;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::dial::{self, Dialed, Directory, First};
use super::pool::Backends;
use crate::authorize::Authorized;
use crate::backend_tls::BackendTls;
use crate::config::checked::{Backend, Mac, Wake};
use crate::model::names::Name;
use crate::model::rejection::{Cause, Reason, Rejection, Stage, Text};
use crate::model::wake::WakeOutcome;

/// How long a backend has to accept before its machine is sent a packet. One that is awake does so in milliseconds, and takes no
/// notice of the packet.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long after a packet the next one is sent to the same machine: datagrams get lost.
const RESEND: Duration = Duration::from_secs(5);

/// A backend whose machine sleeps at times, as a route describes it.
#[derive(Clone, Debug)]
pub struct Sleeper<'a> {
    /// The route.
    pub route: &'a Name,
    /// How the machine is woken; `None` if it is not.
    pub wake: Option<&'a Wake>,
    /// The machines that are woken.
    pub wakes: &'a Wakes,
}

/// What has happened to a machine.
#[derive(Debug)]
pub struct News<'a> {
    /// The route of the connection that it was to be woken for first.
    pub route: &'a Name,
    /// The backend.
    pub backend: &'a Backend,
    /// How it is woken.
    pub wake: &'a Wake,
    /// How the attempt ended; `None` if it begins.
    pub ended: Option<Ended<'a>>,
}

/// How an attempt to wake a machine ended.
#[derive(Debug)]
pub struct Ended<'a> {
    /// How.
    pub outcome: WakeOutcome,
    /// How long it took.
    pub after: Duration,
    /// Whether the machine was found to be on at the end.
    pub is_on: bool,
    /// Why no packet could be sent.
    pub error: Option<&'a io::Error>,
}

type Report = dyn Fn(&News<'_>) + Send + Sync;

/// The machines that are woken. Outlives configurations.
#[derive(Clone, Default)]
pub struct Wakes(Arc<Inner>);

#[derive(Default)]
struct Inner {
    machines: Mutex<HashMap<(Backend, Wake), Arc<Machine>>>,
    /// When each network card was last sent a packet: several backends may be on one machine.
    sent: Mutex<HashMap<Mac, Instant>>,
    report: Mutex<Option<Box<Report>>>,
}

impl fmt::Debug for Wakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wakes").finish_non_exhaustive()
    }
}

/// A backend on a machine that sleeps at times.
#[derive(Default)]
struct Machine {
    /// It did not answer the last time.
    is_dark: AtomicBool,
    /// The latest attempt to wake it.
    attempt: Mutex<Option<Attempt>>,
}

/// An attempt to wake a machine.
struct Attempt {
    /// Each connection that waits for it has one; without any it is given up.
    waiting: Weak<()>,
    result: watch::Receiver<Option<Woken>>,
}

/// The result of an attempt.
#[derive(Clone, Debug)]
enum Woken {
    /// The backend answers, since then.
    Answers(Instant),
    /// It does not.
    StaysDark,
    /// Its machine is on, and refuses connections to it.
    Refuses,
    /// No packet could be sent.
    NotSent(Arc<io::Error>),
}

/// A connection's place among those that wait for an attempt.
struct Waiting {
    _counted: Arc<()>,
    result: watch::Receiver<Option<Woken>>,
}

impl Waiting {
    async fn result(&mut self) -> Woken {
        let ended = self.result.wait_for(Option::is_some).await;
        // It ends with a result, unless its task has panicked.
        ended.ok().and_then(|result| result.clone()).unwrap_or(Woken::StaysDark)
    }
}

impl Wakes {
    /// Calls `report` when an attempt to wake a machine begins, and when it has ended.
    pub fn report_to(&self, report: impl Fn(&News<'_>) + Send + Sync + 'static) {
        *lock(&self.0.report) = Some(Box::new(report));
    }

    /// Forgets machines that no configuration names.
    pub fn keep(&self, mut is_named: impl FnMut(&Backend, &Wake) -> bool) {
        let mut machines = lock(&self.0.machines);
        machines.retain(|(backend, wake), _| is_named(backend, wake));
        let is_left = |mac: &Mac| machines.keys().any(|(_, wake)| wake.mac == *mac);
        lock(&self.0.sent).retain(|mac, at| is_left(mac) || at.elapsed() < RESEND);
    }

    fn machine(&self, backend: &Backend, wake: &Wake) -> Arc<Machine> {
        Arc::clone(lock(&self.0.machines).entry((backend.clone(), wake.clone())).or_default())
    }

    /// Whether the network card is due for a packet, which is sent then.
    fn takes_turn(&self, mac: Mac) -> bool {
        let (mut sent, now) = (lock(&self.0.sent), Instant::now());
        let due = sent.get(&mac).is_none_or(|at| now.saturating_duration_since(*at) >= RESEND);
        if due {
            sent.insert(mac, now);
        }
        due
    }

    /// Whether a machine may be starting: it was sent a packet, and its services come up one after the other.
    fn is_starting(&self, wake: &Wake) -> bool {
        lock(&self.0.sent).get(&wake.mac).is_some_and(|at| at.elapsed() < wake.timeout)
    }

    fn report(&self, news: &News<'_>) {
        if let Some(report) = &*lock(&self.0.report) {
            report(news);
        }
    }

    /// Joins the attempt to wake the machine, or begins one, for the holder of this permit. One that has succeeded since
    /// `dialed_at` is joined as well. A machine that `is_on` is sent no packet.
    fn join(
        &self,
        _permit: &Authorized,
        (dialed_at, is_on): (Instant, bool),
        machine: &Arc<Machine>,
        sleeper: (&Name, &Backend, &Wake),
        tls: Option<&BackendTls>,
        directory: &Directory,
    ) -> Waiting {
        let mut attempt = lock(&machine.attempt);
        if let Some(current) = &*attempt {
            let counted = match &*current.result.borrow() {
                None => current.waiting.upgrade(),
                Some(Woken::Answers(at)) if *at >= dialed_at => Some(Arc::default()),
                Some(_) => None,
            };
            if let Some(counted) = counted {
                return Waiting { _counted: counted, result: current.result.clone() };
            }
        }
        let (counted, (tell, result)) = (Arc::new(()), watch::channel(None));
        let (route, backend, wake) = sleeper;
        let deadline = Instant::now() + wake.timeout;
        *attempt = Some(Attempt { waiting: Arc::downgrade(&counted), result: result.clone() });
        let task = attempt::Task {
            wakes: self.clone(),
            machine: Arc::clone(machine),
            route: route.clone(),
            backend: backend.clone(),
            wake: wake.clone(),
            tls: tls.map(|tls| (tls.clone(), 0)),
            resolver: directory.resolver.clone(),
            waiting: Arc::downgrade(&counted),
            deadline,
            is_on,
            tell,
        };
        tokio::spawn(task.run());
        Waiting { _counted: counted, result }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`dial`](dial::dial), within `limit`. If the route wakes the machine of its backend, and that does not answer the device that
/// this permit is for, the machine is woken, and dialled again once it answers. Failures on the way are not reported, only the last
/// one.
#[expect(clippy::too_many_arguments, reason = "those of dial, and the route")]
pub async fn dial(
    authorized: Authorized,
    sleeper: Sleeper<'_>,
    backends: &Backends,
    first: First<'_>,
    limit: Duration,
    directory: &Directory,
    allowed: impl Fn() -> Result<(), Rejection>,
    mut report: impl FnMut(usize, Result<(), Reason>),
) -> Result<Dialed, Rejection> {
    let Sleeper { route, wake, wakes } = sleeper;
    let is_device = authorized.identity().is_some_and(|identity| identity.verified);
    let (Some(wake), [backend]) = (wake.filter(|_| is_device), &**backends) else {
        return dial::dial(authorized, backends, first, Instant::now() + limit, directory, allowed, report).await;
    };
    let machine = wakes.machine(backend, wake);
    let join = |dialed_at, is_on| {
        allowed()?;
        let (since, sleeper) = ((dialed_at, is_on), (route, backend, wake));
        Ok::<_, Rejection>(wakes.join(&authorized, since, &machine, sleeper, backends.tls(), directory))
    };
    let begun = Instant::now();
    let try_once = || {
        let deadline = Instant::now() + limit;
        Box::pin(dial::connect(&authorized, backends, first, deadline, directory, &allowed, |_, _| {}))
    };
    // The machine may be awake. A dial that is under way is waited for, whatever the packet does.
    let mut result = None;
    let mut waiting = None;
    if machine.is_dark.load(Ordering::Relaxed) {
        waiting = Some(join(begun, false)?);
    } else {
        let mut dialing = try_once();
        tokio::select! {
            biased;
            dialed = &mut dialing => result = Some(dialed),
            () = sleep(PATIENCE) => {
                let mut place = join(begun, false)?;
                tokio::select! {
                    biased;
                    dialed = &mut dialing => result = Some(dialed),
                    woken = place.result() => match woken {
                        // A dial from before has to wait until its next packet is due, which may take seconds.
                        Woken::Answers(_) => {}
                        Woken::StaysDark | Woken::Refuses | Woken::NotSent(_) => result = Some(dialing.await),
                    },
                }
                waiting = Some(place);
            }
        }
    }
    // Whether it may be woken, and whether its machine is on.
    let (sleeps, is_on) = match &result {
        None => (true, false),
        Some(Ok(_)) => (false, true),
        Some(Err(rejection)) => match rejection.reason() {
            Reason::BackendTimeout | Reason::BackendUnreachable | Reason::BackendUnresolved => (true, false),
            Reason::BackendRefused => (waiting.is_some() || wakes.is_starting(wake), true),
            _ => (false, true),
        },
    };
    if sleeps {
        let mut place = match waiting {
            Some(place) => place,
            // If its machine is on, it has refused this one: that it accepted another one before says nothing.
            None => join(if is_on { Instant::now() } else { begun }, is_on)?,
        };
        result = Some(match place.result().await {
            Woken::Answers(_) | Woken::Refuses => try_once().await,
            Woken::StaysDark => {
                let seconds = wake.timeout.as_secs();
                Err(Cause::WakeTimeout { backend: Text::new(backend), seconds }.into())
            }
            Woken::NotSent(error) => {
                Err(Cause::WakeNotSent { backend: Text::new(backend), error: Box::new((&*error).into()) }.into())
            }
        });
    }
    match result.unwrap_or_else(|| Err(Cause::NoBackends.into())) {
        Ok((connection, index, slot)) => {
            machine.is_dark.store(false, Ordering::Relaxed);
            report(index, Ok(()));
            Ok(Dialed { authorized, connection, backend: index, slot })
        }
        Err(rejection) => {
            // A right that was lost is no failure of the backend.
            if rejection.reason().stage() == Stage::Backend && rejection.cause != Cause::RouteChanged {
                report(0, Err(rejection.reason()));
            }
            Err(rejection)
        }
    }
}

#[cfg(test)]
mod tests;
