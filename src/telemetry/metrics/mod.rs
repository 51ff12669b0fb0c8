//! Handles to every series. They are made once, at 0, so that `rate()` sees the first event and a connection never looks a
//! series up by text. Label values come from the configuration or from closed enums and from nowhere else.

mod earlier;
mod in_use;
mod notices;
mod register;
mod renewal_requests;
mod renewals;
mod route;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use time::OffsetDateTime;

use self::earlier::EarlierCounts;
use self::register::{Register, Rejected, describe};
pub use self::route::RouteMetrics;
use super::log::LogSeries;
use super::names::{self, NO_ROUTE};
use crate::config::checked::{Config, Device, RouteMode};
use crate::config::expiries::{Expiry, expiries};
use crate::config::public_certificate::public_certificate;
use crate::config::public_side::PublicSide;
use crate::config::revoked::not_in_force;
use crate::explain::finding::{NotInForce, RefusedConfiguration, Service};
use crate::listener::AcceptError;
use crate::model::close::CloseReason;
use crate::model::issuance::RenewalOutcome;
use crate::model::look_up::HostName;
use crate::model::names::Name;
use crate::model::public_certificate::PublicCertificate;
use crate::model::rejection::Reason;
use crate::model::ticket::TicketOutcome;

/// Handshakes take from under a millisecond on a LAN to seconds on a phone's bad link; the deadline is 10 s.
const HANDSHAKE_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Backends are near; the deadline is 5 s.
const DIAL_BUCKETS: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// A cut is to take effect within a second.
const LAG_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// All metrics of a gate.
pub struct Metrics {
    /// Series that last as long as the gate.
    lasting: PrometheusRecorder,
    handle: PrometheusHandle,
    of_config: ArcSwap<OfConfig>,
    /// `route="none"`.
    active_before_route: Gauge,
    handshake_ok: Histogram,
    handshake_rejected: Histogram,
    /// In the order of [`TicketOutcome::ALL`].
    tickets: [Counter; TicketOutcome::ALL.len()],
    renewals: renewals::Renewals,
    renewal_requests: renewal_requests::RenewalRequests,
    accept_errors: Vec<Counter>,
    notices: notices::Notices,
    descriptors_limit: Gauge,
    /// In the order of [`CloseReason::CUT`].
    cut: Vec<Counter>,
    revocation_lag: Histogram,
    log: LogSeries,
    reloads_ok: Counter,
    reloads_failed: Counter,
    last_reload_successful: Gauge,
    /// Why that gauge is 0.
    not_reloaded: ArcSwapOption<RefusedConfiguration>,
    /// Revocations of the inventory that have no effect.
    not_in_force: ArcSwap<Vec<NotInForce>>,
    /// Certificates of devices that expire soon.
    in_use: in_use::InUse,
    /// The public certificate in use.
    public_certificate: ArcSwapOption<PublicCertificate>,
    /// The warning about the limit of open files.
    too_few_descriptors: ArcSwapOption<String>,
    /// What processes have counted that upgrades have left.
    earlier: Mutex<EarlierCounts>,
}

/// Series that follow the configuration.
struct OfConfig {
    /// Of former configurations as well, as with routes.
    listeners: HashMap<Name, Arc<ListenerMetrics>>,
    /// Of former configurations as well: connections that began under them are counted to their end.
    routes: HashMap<Name, Arc<RouteMetrics>>,
    /// By route; of former configurations as well.
    impostors: HashMap<Name, Counter>,
    /// The routes of this configuration, sorted by name.
    route_names: Vec<Name>,
    /// Gauges of backends, certificates and lists of this configuration only.
    things: PrometheusHandle,
    expiries: Arc<Vec<Expiry>>,
    devices: Arc<Vec<Device>>,
    public_side: Arc<PublicSide>,
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
    /// Connections neither admitted nor rejected yet.
    pub handshakes_in_progress: Gauge,
    rejected: Rejected,
}

impl Metrics {
    /// Registers every series that can occur with `config`.
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
        // The gate runs, so the first load succeeded.
        last_reload_successful.set(1);
        let version = env!("CARGO_PKG_VERSION");
        let revision = option_env!("DOORWARD_REVISION").unwrap_or("unknown");
        register.gauge(names::BUILD_INFO, &[("version", version), ("revision", revision)]).set(1);
        Ok(Self {
            of_config: ArcSwap::from_pointee(OfConfig::new(config, &register, None)),
            active_before_route: register.gauge(names::CONNECTIONS_ACTIVE, &[("route", NO_ROUTE)]),
            handshake_ok: register.histogram(names::HANDSHAKE_DURATION, &[("outcome", "ok")]),
            handshake_rejected: register.histogram(names::HANDSHAKE_DURATION, &[("outcome", "rejected")]),
            tickets: TicketOutcome::ALL
                .map(|outcome| register.counter(names::TICKETS, &[("outcome", outcome.label())])),
            renewals: renewals::Renewals::new(&register),
            renewal_requests: renewal_requests::RenewalRequests::new(&register),
            revocation_lag: register.histogram(names::REVOCATION_LAG, &[]),
            log: LogSeries {
                writable: register.gauge(names::LOG_WRITABLE, &[]),
                lost: register.counter(names::LOG_LINES_LOST, &[]),
            },
            reloads_ok: reloads("ok"),
            reloads_failed: reloads("failed"),
            last_reload_successful,
            not_reloaded: ArcSwapOption::empty(),
            not_in_force: ArcSwap::from_pointee(not_in_force(config)),
            in_use: in_use::InUse::default(),
            public_certificate: ArcSwapOption::new(public_certificate(config).map(Arc::new)),
            too_few_descriptors: ArcSwapOption::empty(),
            earlier: Mutex::default(),
            handle: lasting.handle(),
            descriptors_limit: register.gauge(names::DESCRIPTORS_LIMIT, &[]),
            accept_errors,
            notices: notices::Notices::new(&register),
            cut,
            lasting,
        })
    }

    /// Follows a new configuration. Counters go on; gauges of backends, certificates and lists that are gone disappear.
    pub fn follow(&self, config: &Config) {
        let former = self.of_config.load();
        let new = OfConfig::new(config, &Register(&self.lasting), Some(&former));
        self.of_config.store(Arc::new(new));
        self.public_certificate.store(public_certificate(config).map(Arc::new));
        self.follow_revocations(config);
    }

    /// Follows the revocation lists and the `deny` of a configuration.
    pub fn follow_revocations(&self, config: &Config) {
        self.not_in_force.store(Arc::new(not_in_force(config)));
    }

    /// The series of a listener of this configuration or of a former one.
    pub fn listener(&self, name: &Name) -> Option<Arc<ListenerMetrics>> {
        self.of_config.load().listeners.get(name).cloned()
    }

    /// The series of a route of this configuration or of a former one.
    pub fn route(&self, name: &Name) -> Option<Arc<RouteMetrics>> {
        self.of_config.load().routes.get(name).cloned()
    }

    /// Counts a client that pretended to be a device on this route, or asked for the name of a canary.
    pub fn impostor(&self, route: &Name) {
        if let Some(counter) = self.of_config.load().impostors.get(route) {
            counter.increment(1);
        }
    }

    /// The routes of the configuration, sorted by name.
    pub fn route_names(&self) -> Vec<Name> {
        self.of_config.load().route_names.clone()
    }

    /// The public certificate, if the configuration wants one.
    pub fn public_certificate(&self) -> Option<Arc<PublicCertificate>> {
        self.public_certificate.load_full()
    }

    /// This is the public certificate, whatever the configuration says.
    #[cfg(test)]
    pub(crate) fn set_public_certificate(&self, certificate: Option<PublicCertificate>) {
        self.public_certificate.store(certificate.map(Arc::new));
    }

    /// What the routes of the configuration lead to, and whether that answers.
    pub fn services(&self) -> Vec<Service> {
        let config = self.of_config.load();
        let service = |name: &Name| config.routes.get(name).map(|route| route.service(name));
        config.route_names.iter().filter_map(service).collect()
    }

    /// So much is known of a host name.
    pub fn resolved(&self, host: &HostName) {
        self.of_config.load().routes.values().for_each(|route| route.resolved(host));
    }

    /// The devices of the inventory.
    pub fn devices(&self) -> Arc<Vec<Device>> {
        Arc::clone(&self.of_config.load().devices)
    }

    /// Where the gate is reached.
    pub fn public_side(&self) -> Arc<PublicSide> {
        Arc::clone(&self.of_config.load().public_side)
    }

    /// Revocations of the inventory that have no effect.
    pub fn revocations_not_in_force(&self) -> Arc<Vec<NotInForce>> {
        self.not_in_force.load_full()
    }

    /// The limit of open files is too low, or is not.
    pub fn descriptors_warning(&self, warning: Option<String>) {
        self.too_few_descriptors.store(warning.map(Arc::new));
    }

    /// The warning about the limit of open files.
    pub fn too_few_descriptors(&self) -> Option<Arc<String>> {
        self.too_few_descriptors.load_full()
    }

    /// What the log reports to.
    pub fn log(&self) -> LogSeries {
        self.log.clone()
    }

    /// A new configuration is in force.
    pub fn reloaded(&self) {
        self.reloads_ok.increment(1);
        self.last_reload_successful.set(1);
        self.not_reloaded.store(None);
    }

    /// A new configuration was refused, for these errors.
    pub fn not_reloaded(&self, errors: Vec<String>) {
        self.reloads_failed.increment(1);
        self.last_reload_successful.set(0);
        self.not_reloaded.store(Some(Arc::new(RefusedConfiguration { at: OffsetDateTime::now_utc(), errors })));
    }

    /// The refused configuration, if the last reload failed.
    pub fn refused_configuration(&self) -> Option<Arc<RefusedConfiguration>> {
        self.not_reloaded.load_full()
    }

    /// A session was cut for this reason, and ended so long after the order.
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

    /// A handshake took so long; `completed` if it succeeded.
    pub fn handshake_took(&self, time: Duration, completed: bool) {
        if completed { &self.handshake_ok } else { &self.handshake_rejected }.record(time);
    }

    /// A client has presented a session ticket.
    pub fn ticket(&self, outcome: TicketOutcome) {
        let index = TicketOutcome::ALL.iter().position(|other| *other == outcome);
        if let Some(counter) = index.and_then(|index| self.tickets.get(index)) {
            counter.increment(1);
        }
    }

    /// So many orders for the public certificate have ended like this.
    pub fn acme_renewals(&self, outcome: RenewalOutcome, count: u64) {
        self.renewals.count(outcome, count);
    }

    /// The process may have so many files open.
    pub fn descriptors(&self, limit: usize) {
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

    /// All series in the text format of Prometheus, with what earlier processes of the gate have counted.
    pub fn render(&self) -> String {
        let mut text = self.handle.render();
        text.push_str(&self.of_config.load().things.render());
        self.earlier().added_to(text)
    }

    /// An earlier process of the gate, which runs, has counted so much: its own [`render`](Self::render).
    pub fn count_earlier(&self, process: u32, counters: &str) {
        self.earlier().count(process, counters);
    }

    /// The same, unless the process has ended meanwhile.
    pub fn count_earlier_if_running(&self, process: u32, counters: &str) {
        self.earlier().count_if_running(process, counters);
    }

    /// An earlier process has ended, with these counters; `None` if it could not tell.
    pub fn earlier_ended(&self, process: u32, counters: Option<&str>) {
        self.earlier().end(process, counters);
    }

    /// How many connections are open in earlier processes of the gate.
    pub fn active_in_earlier(&self) -> u64 {
        self.earlier().active()
    }

    /// Takes what ended processes have counted, and what those that run had counted last, by process id: for another process
    /// that answers from now on.
    pub fn take_earlier(&self) -> (String, Vec<(u32, String)>) {
        self.earlier().take()
    }

    /// Adds what ended processes have counted, as [`take_earlier`](Self::take_earlier) gave it in another process.
    pub fn put_earlier(&self, counters: &str) {
        self.earlier().put(counters);
    }

    fn earlier(&self) -> MutexGuard<'_, EarlierCounts> {
        self.earlier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sorts observations into their buckets. To be called every few seconds: they accumulate until then.
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
                // The version can be refused before the server name is read.
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
        for route in config.served() {
            let former = former.and_then(|former| former.routes.get(&route.name)).map(AsRef::as_ref);
            let metrics = RouteMetrics::new(lasting, &things, listeners.keys(), route, former);
            routes.insert(route.name.clone(), Arc::new(metrics));
        }
        let mut impostors = former.map(|former| former.impostors.clone()).unwrap_or_default();
        let verifying = config.served().filter(|route| matches!(route.mode, RouteMode::Terminate(_)));
        for name in verifying.map(|route| &route.name).chain(config.canaries.iter().map(|canary| &canary.name)) {
            let new = || lasting.counter(names::IMPOSTORS, &[("route", name.as_str())]);
            impostors.entry(name.clone()).or_insert_with(new);
        }
        let expiries = expiries(config);
        for expiry in &expiries {
            let labels = [("kind", expiry.kind.label()), ("name", expiry.name.as_str())];
            for (gauge, at) in
                [(names::CERTIFICATE_EXPIRY, expiry.at), (names::CERTIFICATE_EXPIRY_WARNING, expiry.soon())]
            {
                #[expect(clippy::cast_precision_loss, reason = "exact below 2^53")]
                things.gauge(gauge, &labels).set(at as f64);
            }
        }
        let mut route_names: Vec<Name> = config.routes.iter().map(|route| route.name.clone()).collect();
        route_names.sort_unstable();
        let devices = config.metrics.inventory.iter().flat_map(|inventory| inventory.devices.iter().cloned()).collect();
        Self {
            listeners,
            routes,
            impostors,
            route_names,
            things: recorder.handle(),
            expiries: Arc::new(expiries),
            devices: Arc::new(devices),
            public_side: Arc::new(PublicSide::of(config)),
        }
    }
}
