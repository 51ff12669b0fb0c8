//! Handles to every series. They are made once, at 0, so that `rate()` sees the first event and a connection never looks a
//! series up by text. Label values come from the configuration or from closed enums and from nowhere else.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::expiries::expiries;
use super::names::{self, Kind, NO_ROUTE};
use crate::close::CloseReason;
use crate::config::checked::{Config, RouteMode};
use crate::listener::AcceptError;
use crate::names::Name;
use crate::rejection::{Reason, Stage};
use crate::relay::{Meter, Path};

/// Handshakes take from under a millisecond on a LAN to seconds on a phone's bad link; the deadline is 10 s.
const HANDSHAKE_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Backends are near; the deadline is 5 s.
const DIAL_BUCKETS: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// All metrics of a gate.
pub struct Metrics {
    handle: PrometheusHandle,
    listeners: HashMap<Name, Arc<ListenerMetrics>>,
    routes: HashMap<Name, Arc<RouteMetrics>>,
    /// `route="none"`.
    active_before_route: Gauge,
    handshake_ok: Histogram,
    handshake_rejected: Histogram,
    accept_errors: Vec<Counter>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The series of one listener.
pub struct ListenerMetrics {
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections neither let in nor turned away yet.
    pub handshakes_in_progress: Gauge,
    rejected: Rejected,
}

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
    backend_up: Vec<Gauge>,
    closed: Vec<Counter>,
    relays: Vec<Counter>,
    handshakes: [[Counter; 2]; 2],
    /// By listener.
    rejected: HashMap<Name, Rejected>,
}

/// A counter for each reason that can occur where it stands.
struct Rejected(HashMap<Reason, Counter>);

const METADATA: Metadata<'static> = Metadata::new("doorward", Level::INFO, None);

struct Register<'a>(&'a PrometheusRecorder);

impl Register<'_> {
    fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
        let labels: Vec<Label> = labels.iter().map(|(key, value)| Label::new(*key, (*value).to_owned())).collect();
        Key::from_parts(name, labels)
    }

    fn counter(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        let counter = self.0.register_counter(&Self::key(name, labels), &METADATA);
        counter.increment(0);
        counter
    }

    fn gauge(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        let gauge = self.0.register_gauge(&Self::key(name, labels), &METADATA);
        gauge.set(0);
        gauge
    }

    fn histogram(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Histogram {
        self.0.register_histogram(&Self::key(name, labels), &METADATA)
    }

    fn rejected(&self, listener: &Name, route: &str, can_occur: impl Fn(Reason) -> bool) -> Rejected {
        let reasons = Reason::ALL.iter().copied().filter(|reason| can_occur(*reason));
        Rejected(
            reasons
                .map(|reason| {
                    let labels = [
                        ("listener", listener.as_str()),
                        ("route", route),
                        ("stage", reason.stage().label()),
                        ("reason", reason.label()),
                    ];
                    (reason, self.counter(names::CONNECTIONS_REJECTED, &labels))
                })
                .collect(),
        )
    }
}

impl Metrics {
    /// Registers every series that `config` can bring about.
    pub fn new(config: &Config) -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(names::HANDSHAKE_DURATION.to_owned()), HANDSHAKE_BUCKETS)?
            .set_buckets_for_metric(Matcher::Full(names::BACKEND_DIAL_DURATION.to_owned()), DIAL_BUCKETS)?
            .build_recorder();
        for (name, kind, help) in names::ALL {
            match kind {
                Kind::Counter => recorder.describe_counter((*name).into(), None, (*help).into()),
                Kind::Gauge => recorder.describe_gauge((*name).into(), None, (*help).into()),
                Kind::Histogram => recorder.describe_histogram((*name).into(), None, (*help).into()),
            }
        }
        let register = Register(&recorder);
        let listeners = config
            .listeners
            .iter()
            .map(|listener| {
                let label = [("listener", listener.name.as_str())];
                let metrics = ListenerMetrics {
                    accepted: register.counter(names::CONNECTIONS_ACCEPTED, &label),
                    handshakes_in_progress: register.gauge(names::HANDSHAKES_IN_PROGRESS, &label),
                    rejected: register.rejected(&listener.name, NO_ROUTE, |reason| {
                        // What a client speaks at most is sometimes seen before the name it asks for.
                        reason.stage().is_before_route() || matches!(reason, Reason::ProtocolVersion | Reason::Internal)
                    }),
                };
                (listener.name.clone(), Arc::new(metrics))
            })
            .collect();
        let routes = config
            .routes
            .iter()
            .map(|route| (route.name.clone(), Arc::new(RouteMetrics::new(&register, config, route))))
            .collect();
        let accept_errors = AcceptError::ALL
            .iter()
            .map(|kind| register.counter(names::ACCEPT_ERRORS, &[("kind", kind.label())]))
            .collect();
        for expiry in expiries(config) {
            let gauge =
                register.gauge(names::CERTIFICATE_EXPIRY, &[("kind", expiry.kind.label()), ("name", &expiry.name)]);
            // Seconds since 1970 are exact in a double for the next 285 million years.
            #[expect(clippy::cast_precision_loss, reason = "exact below 2^53")]
            gauge.set(expiry.at as f64);
        }
        let version = env!("CARGO_PKG_VERSION");
        let revision = option_env!("DOORWARD_REVISION").unwrap_or("unknown");
        register.gauge(names::BUILD_INFO, &[("version", version), ("revision", revision)]).set(1);
        Ok(Self {
            handle: recorder.handle(),
            listeners,
            routes,
            active_before_route: register.gauge(names::CONNECTIONS_ACTIVE, &[("route", NO_ROUTE)]),
            handshake_ok: register.histogram(names::HANDSHAKE_DURATION, &[("outcome", "ok")]),
            handshake_rejected: register.histogram(names::HANDSHAKE_DURATION, &[("outcome", "rejected")]),
            accept_errors,
        })
    }

    /// The series of a listener of the configuration.
    pub fn listener(&self, name: &Name) -> Option<&Arc<ListenerMetrics>> {
        self.listeners.get(name)
    }

    /// The series of a route of the configuration.
    pub fn route(&self, name: &Name) -> Option<&Arc<RouteMetrics>> {
        self.routes.get(name)
    }

    /// The routes of the configuration, in the order of their names.
    pub fn route_names(&self) -> Vec<&Name> {
        let mut names: Vec<&Name> = self.routes.keys().collect();
        names.sort_unstable();
        names
    }

    /// Connections open whose route is not known yet.
    pub const fn active_before_route(&self) -> &Gauge {
        &self.active_before_route
    }

    /// A handshake took so long and was completed, or was not.
    pub fn handshake_took(&self, time: Duration, completed: bool) {
        if completed { &self.handshake_ok } else { &self.handshake_rejected }.record(time);
    }

    /// An accept failed.
    pub fn accept_failed(&self, error: AcceptError) {
        let index = AcceptError::ALL.iter().position(|kind| *kind == error);
        if let Some(counter) = index.and_then(|index| self.accept_errors.get(index)) {
            counter.increment(1);
        }
    }

    /// All series in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Sorts observations into their buckets. To be called every few seconds: they pile up until then.
    pub fn tidy(&self) {
        self.handle.run_upkeep();
    }
}

impl ListenerMetrics {
    /// Counts a rejection before the route was known.
    pub fn rejected(&self, reason: Reason) {
        self.rejected.count(reason);
    }
}

impl RouteMetrics {
    fn new(register: &Register<'_>, config: &Config, route: &crate::config::checked::Route) -> Self {
        let name = route.name.as_str();
        let label = [("route", name)];
        let terminates = matches!(route.mode, RouteMode::Terminate(_));
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
            backend_up: route
                .backends
                .iter()
                .map(|backend| {
                    let backend = backend.to_string();
                    let gauge = register.gauge(names::BACKEND_UP, &[("route", name), ("backend", &backend)]);
                    gauge.set(1);
                    gauge
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
            rejected: config
                .listeners
                .iter()
                .map(|listener| {
                    let can_occur = |reason: Reason| match reason.stage() {
                        Stage::Handshake | Stage::Certificate | Stage::Policy => terminates,
                        Stage::Backend | Stage::Internal => true,
                        // Between the route and the relay a shutdown can still end the wait, and until the handshake
                        // is over the place in it can be needed for somebody else; after it, there may be none for those
                        // without a certificate.
                        Stage::Admission => matches!(
                            reason,
                            Reason::Draining | Reason::HandshakeLimit | Reason::ConnectionLimit | Reason::SourceLimit
                        ),
                        Stage::ClientHello | Stage::Route => false,
                    };
                    (listener.name.clone(), register.rejected(&listener.name, name, can_occur))
                })
                .collect(),
        }
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

    /// Notes whether a backend answered.
    pub fn backend(&self, index: usize, up: bool) {
        if let Some(gauge) = self.backend_up.get(index) {
            gauge.set(if up { 1 } else { 0 });
        }
    }
}

impl Rejected {
    fn count(&self, reason: Reason) {
        // Which reasons can occur where is known, and a test provokes each; one that is missed all the same is still
        // counted, as a fault of the gate.
        if let Some(counter) = self.0.get(&reason).or_else(|| self.0.get(&Reason::Internal)) {
            counter.increment(1);
        }
    }
}
