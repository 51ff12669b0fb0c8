//! The series of one route.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use metrics::{Counter, Gauge, Histogram};
use time::OffsetDateTime;

use super::register::{Register, Rejected};
use crate::config::checked::{self, Backend, Route, RouteMode};
use crate::explain::finding::{self, BackendState, Service};
use crate::model::close::CloseReason;
use crate::model::names::Name;
use crate::model::rejection::{Health, Reason, Stage};
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
    handshakes: [[Counter; 2]; 2],
    /// By listener.
    rejected: HashMap<Name, Rejected>,
}

struct BackendMetrics {
    backend: Backend,
    gauge: Gauge,
    healthy: Option<Gauge>,
    state: Mutex<State>,
}

/// What is known of a backend.
#[derive(Clone)]
struct State {
    /// By its last dial.
    dialled: BackendState,
    /// By its health checks, if it is checked.
    health: Option<Health>,
}

impl State {
    const fn is_down(&self) -> bool {
        matches!(self.dialled, BackendState::Down { .. }) || matches!(self.health, Some(Health::Unhealthy { .. }))
    }
}

impl BackendMetrics {
    /// Registers its series. What is known of one that stays, stays known.
    fn new(
        things: &Register<'_>,
        route: &str,
        backend: &Backend,
        health: Option<&checked::Health>,
        former: Option<&Self>,
    ) -> Self {
        let labels = [("route", route), ("backend", &backend.to_string())];
        let gauge = things.gauge(names::BACKEND_UP, &labels);
        let dialled = former.map_or(BackendState::Untried, |former| former.state().dialled);
        gauge.set(if matches!(dialled, BackendState::Down { .. }) { 0 } else { 1 });
        let known = former.and_then(|former| former.state().health.clone()).unwrap_or(Health::Unchecked);
        let health = health.map(|_| known);
        let healthy = health.as_ref().map(|health| {
            let gauge = things.gauge(names::BACKEND_HEALTHY, &labels);
            gauge.set(if matches!(health, Health::Unhealthy { .. }) { 0 } else { 1 });
            gauge
        });
        Self { backend: backend.clone(), gauge, healthy, state: Mutex::new(State { dialled, health }) }
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
                    let former = former.and_then(|former| former.of(backend));
                    BackendMetrics::new(things, name, backend, route.health.as_ref(), former)
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
        state.dialled = state.dialled.after(answered, OffsetDateTime::now_utc());
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
        self.of(backend).is_some_and(|metrics| matches!(metrics.state().dialled, BackendState::Down { .. }))
    }

    /// What it leads to, and whether that answers.
    pub fn service(&self, name: &Name) -> Service {
        let backend = |metrics: &BackendMetrics| {
            let State { dialled, health } = metrics.state().clone();
            finding::Backend { address: metrics.backend.to_string(), state: dialled, health }
        };
        Service { route: name.to_string(), backends: self.backends.iter().map(backend).collect() }
    }

    fn of(&self, backend: &Backend) -> Option<&BackendMetrics> {
        self.backends.iter().find(|metrics| metrics.backend == *backend)
    }
}
