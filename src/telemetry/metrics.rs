//! Handles to every series. They are made once, at 0, so that `rate()` sees the first event and a connection never looks a
//! series up by text. Label values come from the configuration or from closed enums and from nowhere else.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use time::OffsetDateTime;

use super::expiries::{Expiry, expiries};
use super::log::LogSeries;
use super::names::{self, Kind, NO_ROUTE};
use crate::config::checked::{Backend, Config, Route, RouteMode};
use crate::listener::AcceptError;
use crate::model::close::CloseReason;
use crate::model::names::Name;
use crate::model::rejection::{Reason, Stage};
use crate::relay::{Meter, Path};

/// Handshakes take from under a millisecond on a LAN to seconds on a phone's bad link; the deadline is 10 s.
const HANDSHAKE_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Backends are near; the deadline is 5 s.
const DIAL_BUCKETS: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// Seconds are too many.
const LAG_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// All metrics of a gate.
pub struct Metrics {
    /// What lasts as long as the gate: whatever is counted.
    lasting: PrometheusRecorder,
    handle: PrometheusHandle,
    of_config: ArcSwap<OfConfig>,
    /// `route="none"`.
    active_before_route: Gauge,
    handshake_ok: Histogram,
    handshake_rejected: Histogram,
    accept_errors: Vec<Counter>,
    descriptors_limit: Gauge,
    /// In the order of [`CloseReason::CUT`].
    cut: Vec<Counter>,
    revocation_lag: Histogram,
    log: LogSeries,
    reloads_ok: Counter,
    reloads_failed: Counter,
    last_reload_successful: Gauge,
    /// What that gauge says, in words.
    not_reloaded: ArcSwapOption<NotReloaded>,
}

/// A configuration that could not be taken over.
#[derive(Debug)]
pub struct NotReloaded {
    /// When that was tried.
    pub at: OffsetDateTime,
    /// What is wrong with it, or the first few mistakes.
    pub errors: Vec<String>,
}

/// What follows the configuration.
struct OfConfig {
    /// Those of former configurations as well, as with routes.
    listeners: HashMap<Name, Arc<ListenerMetrics>>,
    /// Those of former configurations as well: connections that began under them are counted to their end.
    routes: HashMap<Name, Arc<RouteMetrics>>,
    /// The routes of this one, in the order of their names.
    route_names: Vec<Name>,
    /// The gauges of things that stand in the configuration. What is there no more has none.
    things: PrometheusHandle,
    expiries: Arc<Vec<Expiry>>,
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
    up: AtomicBool,
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
        // One that is there already keeps what it shows.
        gauge.increment(0);
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
        let lasting = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(names::HANDSHAKE_DURATION.to_owned()), HANDSHAKE_BUCKETS)?
            .set_buckets_for_metric(Matcher::Full(names::BACKEND_DIAL_DURATION.to_owned()), DIAL_BUCKETS)?
            .set_buckets_for_metric(Matcher::Full(names::REVOCATION_LAG.to_owned()), LAG_BUCKETS)?
            .build_recorder();
        describe(&lasting);
        let register = Register(&lasting);
        let accept_errors = AcceptError::ALL
            .iter()
            .map(|kind| register.counter(names::ACCEPT_ERRORS, &[("kind", kind.label())]))
            .collect();
        let cut = CloseReason::CUT
            .iter()
            .map(|reason| register.counter(names::SESSIONS_CUT, &[("reason", reason.label())]))
            .collect();
        let reloads = |outcome| register.counter(names::CONFIG_RELOADS, &[("outcome", outcome)]);
        let last_reload_successful = register.gauge(names::CONFIG_LAST_RELOAD_SUCCESSFUL, &[]);
        // The gate runs, so it was loaded once.
        last_reload_successful.set(1);
        let version = env!("CARGO_PKG_VERSION");
        let revision = option_env!("DOORWARD_REVISION").unwrap_or("unknown");
        register.gauge(names::BUILD_INFO, &[("version", version), ("revision", revision)]).set(1);
        Ok(Self {
            of_config: ArcSwap::from_pointee(OfConfig::new(config, &register, None)),
            active_before_route: register.gauge(names::CONNECTIONS_ACTIVE, &[("route", NO_ROUTE)]),
            handshake_ok: register.histogram(names::HANDSHAKE_DURATION, &[("outcome", "ok")]),
            handshake_rejected: register.histogram(names::HANDSHAKE_DURATION, &[("outcome", "rejected")]),
            revocation_lag: register.histogram(names::REVOCATION_LAG, &[]),
            log: LogSeries {
                writable: register.gauge(names::LOG_WRITABLE, &[]),
                lost: register.counter(names::LOG_LINES_LOST, &[]),
            },
            reloads_ok: reloads("ok"),
            reloads_failed: reloads("failed"),
            last_reload_successful,
            not_reloaded: ArcSwapOption::empty(),
            handle: lasting.handle(),
            descriptors_limit: register.gauge(names::DESCRIPTORS_LIMIT, &[]),
            accept_errors,
            cut,
            lasting,
        })
    }

    /// Follows a new configuration. Whatever is counted goes on; gauges of backends, certificates and lists that are gone
    /// disappear.
    pub fn follow(&self, config: &Config) {
        let former = self.of_config.load();
        let new = OfConfig::new(config, &Register(&self.lasting), Some(&former));
        self.of_config.store(Arc::new(new));
    }

    /// The series of a listener of this configuration or of a former one.
    pub fn listener(&self, name: &Name) -> Option<Arc<ListenerMetrics>> {
        self.of_config.load().listeners.get(name).cloned()
    }

    /// The series of a route of this configuration or of a former one.
    pub fn route(&self, name: &Name) -> Option<Arc<RouteMetrics>> {
        self.of_config.load().routes.get(name).cloned()
    }

    /// The routes of the configuration, in the order of their names.
    pub fn route_names(&self) -> Vec<Name> {
        self.of_config.load().route_names.clone()
    }

    /// All that expires, the next first.
    pub fn expiries(&self) -> Arc<Vec<Expiry>> {
        Arc::clone(&self.of_config.load().expiries)
    }

    /// What the log reports to.
    pub fn log(&self) -> LogSeries {
        self.log.clone()
    }

    /// A new configuration was taken over.
    pub fn reloaded(&self) {
        self.reloads_ok.increment(1);
        self.last_reload_successful.set(1);
        self.not_reloaded.store(None);
    }

    /// A new configuration was refused, for these mistakes.
    pub fn not_reloaded(&self, errors: Vec<String>) {
        self.reloads_failed.increment(1);
        self.last_reload_successful.set(0);
        self.not_reloaded.store(Some(Arc::new(NotReloaded { at: OffsetDateTime::now_utc(), errors })));
    }

    /// The configuration that was refused since one was taken over.
    pub fn refused_configuration(&self) -> Option<Arc<NotReloaded>> {
        self.not_reloaded.load_full()
    }

    /// A session was cut for this reason, and ended so long after somebody wanted it.
    pub fn cut(&self, reason: CloseReason, lag: Duration) {
        let index = CloseReason::CUT.iter().position(|other| *other == reason);
        if let Some(counter) = index.and_then(|index| self.cut.get(index)) {
            counter.increment(1);
            self.revocation_lag.record(lag);
        }
    }

    /// Connections open whose route is not known yet.
    pub const fn active_before_route(&self) -> &Gauge {
        &self.active_before_route
    }

    /// A handshake took so long and was completed, or was not.
    pub fn handshake_took(&self, time: Duration, completed: bool) {
        if completed { &self.handshake_ok } else { &self.handshake_rejected }.record(time);
    }

    /// The process may have so many files open.
    pub fn descriptors(&self, limit: usize) {
        // Exact, as there are never 2^53 of them.
        #[expect(clippy::cast_precision_loss, reason = "exact below 2^53")]
        self.descriptors_limit.set(limit as f64);
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
        let mut text = self.handle.render();
        text.push_str(&self.of_config.load().things.render());
        text
    }

    /// Sorts observations into their buckets. To be called every few seconds: they pile up until then.
    pub fn tidy(&self) {
        self.handle.run_upkeep();
    }
}

impl ListenerMetrics {
    fn new(register: &Register<'_>, name: &Name) -> Self {
        let label = [("listener", name.as_str())];
        Self {
            accepted: register.counter(names::CONNECTIONS_ACCEPTED, &label),
            handshakes_in_progress: register.gauge(names::HANDSHAKES_IN_PROGRESS, &label),
            rejected: register.rejected(name, NO_ROUTE, |reason| {
                // What a client speaks at most is sometimes seen before the name it asks for.
                reason.stage().is_before_route() || matches!(reason, Reason::ProtocolVersion | Reason::Internal)
            }),
        }
    }

    /// Counts a rejection before the route was known.
    pub fn rejected(&self, reason: Reason) {
        self.rejected.count(reason);
    }
}

impl OfConfig {
    fn new(config: &Config, lasting: &Register<'_>, former: Option<&Self>) -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        describe(&recorder);
        let things = Register(&recorder);
        let mut listeners = former.map(|former| former.listeners.clone()).unwrap_or_default();
        for listener in &config.listeners {
            let new = || Arc::new(ListenerMetrics::new(lasting, &listener.name));
            listeners.entry(listener.name.clone()).or_insert_with(new);
        }
        let mut routes = former.map(|former| former.routes.clone()).unwrap_or_default();
        for route in &config.routes {
            let former = former.and_then(|former| former.routes.get(&route.name)).map(AsRef::as_ref);
            let metrics = RouteMetrics::new(lasting, &things, listeners.keys(), route, former);
            routes.insert(route.name.clone(), Arc::new(metrics));
        }
        let expiries = expiries(config);
        for expiry in &expiries {
            let gauge =
                things.gauge(names::CERTIFICATE_EXPIRY, &[("kind", expiry.kind.label()), ("name", &expiry.name)]);
            // Seconds since 1970 are exact in a double for the next 285 million years.
            #[expect(clippy::cast_precision_loss, reason = "exact below 2^53")]
            gauge.set(expiry.at as f64);
        }
        let mut route_names: Vec<Name> = config.routes.iter().map(|route| route.name.clone()).collect();
        route_names.sort_unstable();
        Self { listeners, routes, route_names, things: recorder.handle(), expiries: Arc::new(expiries) }
    }
}

fn describe(recorder: &PrometheusRecorder) {
    for (name, kind, help) in names::ALL {
        match kind {
            Kind::Counter => recorder.describe_counter((*name).into(), None, (*help).into()),
            Kind::Gauge => recorder.describe_gauge((*name).into(), None, (*help).into()),
            Kind::Histogram => recorder.describe_histogram((*name).into(), None, (*help).into()),
        }
    }
}

impl RouteMetrics {
    fn new<'a>(
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
                    // What is known of one that stays, stays known.
                    let up =
                        former.and_then(|former| former.of(backend)).is_none_or(|was| was.up.load(Ordering::Relaxed));
                    gauge.set(if up { 1 } else { 0 });
                    BackendMetrics { backend: backend.clone(), gauge, up: AtomicBool::new(up) }
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
                        // Between the route and the relay a shutdown can still end the wait, and until the handshake
                        // is over the place in it can be needed for somebody else; after it, there may be none for those
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
        self.rejected.get(listener).is_some_and(|rejected| rejected.0.contains_key(&reason))
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
    pub fn backend(&self, backend: &Backend, up: bool) {
        if let Some(metrics) = self.of(backend) {
            metrics.gauge.set(if up { 1 } else { 0 });
            metrics.up.store(up, Ordering::Relaxed);
        }
    }

    fn of(&self, backend: &Backend) -> Option<&BackendMetrics> {
        self.backends.iter().find(|metrics| metrics.backend == *backend)
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
