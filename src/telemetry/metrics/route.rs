//! The series of one route.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Counter, Gauge, Histogram};
use time::OffsetDateTime;

use super::register::{Register, Rejected};
use crate::config::checked::{Backend, Route, RouteMode};
use crate::explain::finding::{self, BackendState, Service};
use crate::model::close::CloseReason;
use crate::model::look_up::HostName;
use crate::model::names::Name;
use crate::model::rejection::{Health, Reason, Stage};
use crate::model::wake::WakeOutcome;
use crate::relay::{Meter, Path};
use crate::telemetry::names;

/// The series of one route.
pub struct RouteMetrics {
    /// Connections open.
    pub active: Gauge,
    /// Payload.
    pub meter: Meter,
    /// Time to reach a backend that answered.
    pub dial_ok: Histogram,
    /// Time until it was clear that none answers.
    pub dial_failed: Histogram,
    /// Handshakes are made here, or were under a former configuration.
    terminates: bool,
    backends: Vec<BackendMetrics>,
    closed: Vec<Counter>,
    relays: Vec<Counter>,
    /// In the order of [`WakeOutcome::ALL`]; empty if the route wakes no machine, and did not under a former configuration.
    wakes: Vec<Counter>,
    handshakes: [[Counter; 2]; 2],
    /// By listener.
    rejected: HashMap<Name, Rejected>,
}

struct BackendMetrics {
    backend: Backend,
    gauge: Gauge,
    /// How many addresses its host name has; of one that has no host name, no series.
    resolved: Gauge,
    /// Whether its health checks pass, if it is checked.
    healthy: Option<Gauge>,
    /// Its machine sleeps at times.
    sleeps: bool,
    /// The same under all configurations: what is known of one that stays, stays known.
    state: Arc<Mutex<State>>,
}

/// Whether a backend answers.
#[derive(Clone)]
struct State {
    /// By the last dial that was not about waking it.
    answers: BackendState,
    /// Since when it is being woken.
    waking: Option<OffsetDateTime>,
    /// By its health checks, if it is checked.
    health: Option<Health>,
}

impl State {
    const fn is_down(&self) -> bool {
        matches!(self.answers, BackendState::Down { .. }) || matches!(self.health, Some(Health::Unhealthy { .. }))
    }
}

impl BackendMetrics {
    /// Follows the configuration: without checks, what they said last says nothing any more.
    fn is_checked(&self, checked: bool) {
        let mut state = self.state();
        state.health = checked.then(|| state.health.take().unwrap_or(Health::Unchecked));
        if let Some(healthy) = &self.healthy {
            healthy.set(if matches!(state.health, Some(Health::Unhealthy { .. })) { 0 } else { 1 });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RouteMetrics {
    pub(super) fn new<'a>(
        register: &Register<'_>,
        things: &Register<'_>,
        listeners: impl Iterator<Item = &'a Name>,
        route: &Route,
        former: Option<&Self>,
    ) -> Self {
        let name = route.name.as_str();
        let label = [("route", name)];
        let terminates =
            matches!(route.mode, RouteMode::Terminate(_)) || former.is_some_and(|former| former.terminates);
        let bytes = |direction| register.counter(names::RELAY_BYTES, &[("route", name), ("direction", direction)]);
        let dial = |outcome| register.histogram(names::BACKEND_DIAL_DURATION, &[("route", name), ("outcome", outcome)]);
        let handshakes = |version| {
            ["false", "true"].map(|resumed| {
                let labels = [("route", name), ("version", version), ("resumed", resumed)];
                // A passthrough route makes no handshakes, so it has no such series.
                if terminates { register.counter(names::HANDSHAKES, &labels) } else { Counter::noop() }
            })
        };
        Self {
            active: register.gauge(names::CONNECTIONS_ACTIVE, &label),
            meter: Meter { to_backend: bytes("client_to_backend"), to_client: bytes("backend_to_client") },
            dial_ok: dial("ok"),
            dial_failed: dial("failed"),
            terminates,
            backends: route
                .backends
                .iter()
                .map(|backend| {
                    let labels = [("route", name), ("backend", &backend.to_string())];
                    let gauge = things.gauge(names::BACKEND_UP, &labels);
                    let former = former.and_then(|former| former.of(backend)).map(|former| Arc::clone(&former.state));
                    let new = State { answers: BackendState::Untried, waking: None, health: None };
                    let state = former.unwrap_or_else(|| Arc::new(Mutex::new(new)));
                    let resolved = match backend {
                        Backend::Host(..) => things.gauge(names::BACKEND_RESOLVED_ADDRESSES, &labels),
                        Backend::Address(_) | Backend::Unix(_) => Gauge::noop(),
                    };
                    let sleeps = route.wake.is_some();
                    let healthy = route.health.is_some().then(|| things.gauge(names::BACKEND_HEALTHY, &labels));
                    let backend = backend.clone();
                    let metrics = BackendMetrics { backend, gauge, resolved, healthy, sleeps, state };
                    metrics.is_checked(route.health.is_some());
                    let is_down = matches!(metrics.state().answers, BackendState::Down { .. });
                    metrics.gauge.set(if is_down { 0 } else { 1 });
                    metrics
                })
                .collect(),
            closed: CloseReason::ALL
                .iter()
                .map(|reason| {
                    register.counter(names::CONNECTIONS_CLOSED, &[("route", name), ("reason", reason.label())])
                })
                .collect(),
            relays: Path::ALL
                .iter()
                .map(|path| register.counter(names::RELAYS, &[("route", name), ("path", path.label())]))
                .collect(),
            wakes: if route.wake.is_some() || former.is_some_and(|former| !former.wakes.is_empty()) {
                let counter = |outcome: &WakeOutcome| {
                    register.counter(names::WAKES, &[("route", name), ("outcome", outcome.label())])
                };
                WakeOutcome::ALL.iter().map(counter).collect()
            } else {
                Vec::new()
            },
            handshakes: ["TLSv1.2", "TLSv1.3"].map(handshakes),
            rejected: listeners
                .map(|listener| {
                    let can_occur = |reason: Reason| match reason.stage() {
                        Stage::Handshake | Stage::Certificate | Stage::Policy => terminates,
                        Stage::Backend | Stage::Internal => true,
                        // Behind the route: draining, an eviction during the handshake, and the limits for connections
                        // without a certificate.
                        Stage::Admission => matches!(
                            reason,
                            Reason::Draining | Reason::HandshakeLimit | Reason::ConnectionLimit | Reason::SourceLimit
                        ),
                        Stage::ClientHello | Stage::Route => false,
                    };
                    (listener.clone(), register.rejected(listener, name, can_occur))
                })
                .collect(),
        }
    }

    /// Whether a connection that arrived at `listener` and has this route can be rejected for this reason.
    pub fn rejects(&self, listener: &Name, reason: Reason) -> bool {
        self.rejected.get(listener).is_some_and(|rejected| rejected.has(reason))
    }

    /// Counts a rejection of a connection that arrived at `listener`.
    pub fn rejected(&self, listener: &Name, reason: Reason) {
        if let Some(rejected) = self.rejected.get(listener) {
            rejected.count(reason);
        }
    }

    /// Counts the end of an admitted connection.
    pub fn closed(&self, reason: CloseReason) {
        let index = CloseReason::ALL.iter().position(|other| *other == reason);
        if let Some(counter) = index.and_then(|index| self.closed.get(index)) {
            counter.increment(1);
        }
    }

    /// Counts a relay that begins.
    pub fn relay_begins(&self, path: Path) {
        let index = Path::ALL.iter().position(|other| *other == path);
        if let Some(counter) = index.and_then(|index| self.relays.get(index)) {
            counter.increment(1);
        }
    }

    /// Counts a completed handshake.
    pub fn handshake(&self, tls13: bool, resumed: bool) {
        let [[full_12, resumed_12], [full_13, resumed_13]] = &self.handshakes;
        match (tls13, resumed) {
            (false, false) => full_12,
            (false, true) => resumed_12,
            (true, false) => full_13,
            (true, true) => resumed_13,
        }
        .increment(1);
    }

    /// Notes whether a backend answered, or why it did not. Returns whether it has gone down or come back.
    pub fn backend(&self, backend: &Backend, answered: Result<(), Reason>) -> bool {
        let Some(metrics) = self.of(backend) else { return false };
        metrics.gauge.set(if answered.is_ok() { 1 } else { 0 });
        let mut state = metrics.state();
        let was_down = state.is_down();
        state.answers = state.answers.after(answered, OffsetDateTime::now_utc());
        was_down != state.is_down()
    }

    /// Notes what the health checks of a backend say. Returns whether it has gone down or come back.
    pub fn health(&self, backend: &Backend, health: Health) -> bool {
        let Some(metrics) = self.of(backend) else { return false };
        if let Some(gauge) = &metrics.healthy {
            gauge.set(if matches!(health, Health::Unhealthy { .. }) { 0 } else { 1 });
        }
        let mut state = metrics.state();
        let was_down = state.is_down();
        state.health = Some(health);
        was_down != state.is_down()
    }

    /// Whether the last dial of a backend failed.
    pub fn did_not_answer(&self, backend: &Backend) -> bool {
        self.of(backend).is_some_and(|metrics| matches!(metrics.state().answers, BackendState::Down { .. }))
    }

    /// Whether a backend that did not answer for this reason may just sleep, as its machine does at times. That it cannot be woken
    /// is another reason, and stays one until it answers.
    pub fn sleeps(&self, backend: &Backend, seen: Reason) -> bool {
        let dark = matches!(seen, Reason::BackendTimeout | Reason::BackendUnreachable | Reason::BackendUnresolved);
        let Some(metrics) = self.of(backend).filter(|metrics| metrics.sleeps && dark) else { return false };
        let mut state = metrics.state();
        state.answers = match state.answers {
            same @ (BackendState::Asleep { .. } | BackendState::Down { .. }) => same,
            _ => BackendState::Asleep { since: OffsetDateTime::now_utc() },
        };
        true
    }

    /// The machine of a backend is being woken, or is not any more.
    pub fn waking(&self, backend: &Backend, waking: bool) {
        if let Some(metrics) = self.of(backend) {
            metrics.state().waking = waking.then(OffsetDateTime::now_utc);
        }
    }

    /// The host name has so many addresses.
    pub(super) fn resolved(&self, host: &HostName) {
        let named =
            |metrics: &&BackendMetrics| matches!(&metrics.backend, Backend::Host(name, _) if *name == host.name);
        for metrics in self.backends.iter().filter(named) {
            #[expect(clippy::cast_precision_loss, reason = "at most 16")]
            metrics.resolved.set(host.addresses.len() as f64);
        }
    }

    /// Counts an attempt to wake the machine of a backend, which has ended.
    pub fn woke(&self, outcome: WakeOutcome) {
        let index = WakeOutcome::ALL.iter().position(|other| *other == outcome);
        if let Some(counter) = index.and_then(|index| self.wakes.get(index)) {
            counter.increment(1);
        }
    }

    /// What it leads to, and whether that answers.
    pub fn service(&self, name: &Name) -> Service {
        let backend = |metrics: &BackendMetrics| {
            let State { answers, waking, health } = metrics.state().clone();
            let state = waking.map_or(answers, |since| BackendState::Waking { since });
            finding::Backend { address: metrics.backend.to_string(), state, health }
        };
        Service { route: name.to_string(), backends: self.backends.iter().map(backend).collect() }
    }

    fn of(&self, backend: &Backend) -> Option<&BackendMetrics> {
        self.backends.iter().find(|metrics| metrics.backend == *backend)
    }
}
