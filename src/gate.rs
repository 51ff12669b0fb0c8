//! What all connections of a running gate share.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rustls::pki_types::UnixTime;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::admission::descriptors::Descriptors;
use crate::admission::penalties::Voucher;
use crate::backends::dial::Directory;
use crate::backends::health::{Change, Checked};
use crate::config::checked::Backend;
use crate::explain;
use crate::explain::recent::Refusals;
use crate::history::History;
use crate::model::close::CloseReason;
use crate::model::identity::{Chain, Sha256};
use crate::model::names::{Name, ServerName};
use crate::model::notice::NoticeEvent;
use crate::model::rejection::{Health, Reason, Rejection};
use crate::notify::{Notices, texts};
use crate::relay::{Order, Support};
use crate::sessions::registry::{Session, Sessions};
use crate::sessions::review::{self, Reviewed};
use crate::sessions::selector::SessionSelector;
use crate::snapshot::{Route, Snapshot};
use crate::telemetry::log::{Event, Log, detail};
use crate::telemetry::metrics::Metrics;

/// What all connections of a running gate share.
#[derive(Debug)]
pub(crate) struct Gate {
    /// The current configuration. A connection loads it once.
    pub(crate) snapshot: ArcSwap<Snapshot>,
    /// The limits, and the state they are counted in.
    pub(crate) admission: Admission,
    /// What TLS the kernel can take over.
    pub(crate) kernel: Support,
    /// The limit of open files.
    pub(crate) descriptors: Descriptors,
    /// What is known of backends, kept across reloads.
    pub(crate) directory: Directory,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) log: Arc<Log>,
    /// The latest refusals.
    pub(crate) refusals: Arc<Refusals>,
    /// What happened in each hour, across restarts.
    pub(crate) history: Arc<History>,
    /// What the owner is sent messages about.
    pub(crate) notices: Arc<Notices>,
    /// The open sessions.
    pub(crate) sessions: Arc<Sessions>,
    /// Cancelled when no more connections are admitted. Open sessions go on.
    pub(crate) draining: CancellationToken,
    /// Notified after the sessions have been reviewed by another snapshot.
    pub(crate) reviewed: Notify,
    ids: AtomicU64,
    first_id: AtomicU64,
}

impl Gate {
    pub(crate) fn new(
        snapshot: Snapshot,
        admission: Admission,
        kernel: Support,
        metrics: Arc<Metrics>,
        log: Arc<Log>,
    ) -> Self {
        log.report_to(metrics.log());
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            admission,
            kernel,
            descriptors: Descriptors::of_a_gate(),
            directory: Directory::new(1),
            metrics,
            log,
            refusals: Arc::default(),
            history: Arc::default(),
            notices: Arc::default(),
            sessions: Arc::default(),
            draining: CancellationToken::new(),
            reviewed: Notify::new(),
            ids: AtomicU64::new(1),
            first_id: AtomicU64::new(1),
        }
    }

    /// How many connections have been accepted: each has taken an id.
    pub(crate) fn accepted(&self) -> u64 {
        self.ids.load(Ordering::Relaxed) - self.first_id.load(Ordering::Relaxed)
    }

    /// The first id that a process may give that replaces this one, which accepts connections a moment longer.
    pub(crate) fn first_id_of_successor(&self) -> u64 {
        const GAP: u64 = 10_000;
        self.ids.load(Ordering::Relaxed).saturating_add(GAP)
    }

    /// Counts ids from `first` on: those before it are of the process that this one replaces. To be called before connections
    /// are accepted.
    pub(crate) fn continue_ids(&self, first: u64) {
        self.first_id.store(first, Ordering::Relaxed);
        self.ids.store(first, Ordering::Relaxed);
    }

    /// Cuts every session that the current snapshot does not admit; `requested` is when the change was asked for.
    pub(crate) fn review(&self, requested: Instant) -> Reviewed {
        let (snapshot, now) = (self.snapshot.load_full(), UnixTime::now());
        let reviewed = review::review(&self.sessions, &snapshot, now, requested);
        // Connections that are dialling their backend check their route again.
        self.reviewed.notify_waiters();
        self.withdraw_unless_admitted(self.admission.vouchers(), &snapshot, now);
        reviewed
    }

    /// Cuts the sessions whose certificate has expired, except on routes that keep them.
    pub(crate) fn cut_expired(&self, now: UnixTime) {
        review::cut_expired(&self.sessions, &self.snapshot.load_full(), now);
    }

    /// Cuts the selected sessions, and returns them.
    pub(crate) fn cut(&self, selector: &SessionSelector) -> Vec<Arc<Session>> {
        let at = Instant::now();
        let (mut sessions, _) = self.sessions.newest(usize::MAX);
        sessions.retain(|session| {
            selector.matches(session, self.admission.source(session.source.ip()))
                && session.relay.order(Order { reason: CloseReason::CutByHand, cause: None, at })
        });
        sessions
    }

    /// Notes that a backend of a route was dialled, and answered or did not.
    pub(crate) fn backend_dialed(&self, route: &Name, backend: &Backend, answered: Result<(), Reason>) {
        let up = answered.is_ok();
        self.history.dialled(route, backend, up);
        if !self.metrics.route(route).is_some_and(|metrics| metrics.backend(backend, answered)) {
            return;
        }
        let (route, backend) = (route.as_str(), backend.to_string());
        match answered {
            Ok(()) => self.notices.tell(NoticeEvent::BackendUp, &backend, || texts::backend_up(route, &backend)),
            Err(reason) => {
                let text = || texts::backend_down(route, &backend, reason);
                self.notices.tell(NoticeEvent::BackendDown, &backend, text);
            }
        }
    }

    /// Follows the snapshot in force: forgets backends that it does not have, and has those checked that are to be checked.
    pub(crate) fn follow_backends(&self) {
        let snapshot = self.snapshot.load();
        self.directory.pool.keep(|backend| snapshot.in_order.iter().any(|route| route.backends.contains(backend)));
        for route in &snapshot.in_order {
            let Some(metrics) = self.metrics.route(&route.name) else { continue };
            for checked in route.backends.checks() {
                metrics.health(&checked.check().backend, checked.health());
            }
        }
        self.directory.checks.send_replace(snapshot.checks());
    }

    /// Notes how a health check ended. One that passes and changes nothing leaves no trace.
    pub(crate) fn backend_checked(&self, checked: &Arc<Checked>, change: Change) {
        let (backend, health) = (&checked.check().backend, checked.health());
        let passed = matches!(change, Change::Passed | Change::Up);
        // First, so that a client that comes for what is told here is connected.
        if passed {
            self.directory.pool.passed(backend);
        }
        let snapshot = self.snapshot.load();
        let is_of = |route: &&Arc<Route>| route.backends.checks().iter().any(|other| Arc::ptr_eq(other, checked));
        let routes: Vec<&Name> = snapshot.in_order.iter().filter(is_of).map(|route| &route.name).collect();
        let mut answers_again = false;
        for route in &routes {
            if passed || change == Change::Down {
                self.history.dialled(route, backend, passed);
            }
            let Some(metrics) = self.metrics.route(route) else { continue };
            answers_again |= passed && metrics.did_not_answer(backend);
            if metrics.health(backend, health.clone()) {
                self.tell_health(route, backend, &health);
            }
        }
        let routes = || routes.iter().map(ToString::to_string).collect();
        match (change, health) {
            (Change::Down, Health::Unhealthy { failure, .. }) => {
                let (backend, detail) = (backend.to_string(), detail(&explain::check_failure(&failure)));
                self.log.event(&Event::BackendUnhealthy { backend, routes: routes(), detail });
            }
            (Change::Up, _) => {
                self.log.event(&Event::BackendHealthy { backend: backend.to_string(), routes: routes() });
            }
            _ => {}
        }
        if answers_again {
            self.backend_came_back(backend);
        }
    }

    fn tell_health(&self, route: &Name, backend: &Backend, health: &Health) {
        let (route, backend) = (route.as_str(), backend.to_string());
        match health {
            Health::Unhealthy { failure, .. } => {
                let text = || texts::backend_unhealthy(route, &backend, failure);
                self.notices.tell(NoticeEvent::BackendDown, &backend, text);
            }
            Health::Unchecked | Health::Healthy { .. } => {
                self.notices.tell(NoticeEvent::BackendUp, &backend, || texts::backend_up(route, &backend));
            }
        }
    }

    /// Notes that a backend that did not answer does so again.
    pub(crate) fn backend_came_back(&self, backend: &Backend) {
        for route in self.snapshot.load().in_order.iter().filter(|route| route.backends.contains(backend)) {
            self.backend_dialed(&route.name, backend, Ok(()));
        }
    }

    /// Whether a connection that was admitted to `route` may still reach its backends, by the current snapshot.
    pub(crate) fn still_admits(
        &self,
        server_name: Option<&ServerName>,
        route: &Arc<Route>,
        chain: Option<&Chain>,
    ) -> Result<(), Rejection> {
        let verdict = self.snapshot.load().still_admits(server_name, route, chain, UnixTime::now());
        verdict.map_err(Rejection::silent)
    }

    /// Withdraws the vouchers of devices whose certificate has expired, except on routes that keep them.
    pub(crate) fn withdraw_expired_vouchers(&self, now: UnixTime) {
        let mut expired = self.admission.vouchers();
        expired.retain(|device| device.chain.good_until < now.as_secs());
        self.withdraw_unless_admitted(expired, &self.snapshot.load(), now);
    }

    /// Checks the voucher of a device for the source of `client`, after a connection that showed its certificate was
    /// refused. The chain it vouched with is judged, not the refused one: the certificate may have been copied.
    pub(crate) fn recheck_voucher(&self, client: IpAddr, device: &Sha256) {
        if let Some(device) = self.admission.voucher(client, device) {
            self.withdraw_unless_admitted(vec![device], &self.snapshot.load(), UnixTime::now());
        }
    }

    fn withdraw_unless_admitted(&self, mut vouchers: Vec<Voucher>, snapshot: &Snapshot, now: UnixTime) {
        vouchers.retain(|device| !snapshot.admits_anywhere(&device.chain, now));
        self.admission.withdraw(&vouchers);
    }

    /// The id for a new connection.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::checked::LogFormat;

    impl Gate {
        /// A gate that logs to nowhere, and moves payload without the kernel.
        pub(crate) fn testing(config: &crate::config::checked::Config) -> Arc<Self> {
            let log = Log::new(LogFormat::Json, std::io::sink());
            Arc::new(Self::new(
                Snapshot::build(config).expect("a snapshot"),
                Admission::new(config.limits.clone()),
                Support::none(),
                Arc::new(Metrics::new(config).expect("metrics")),
                Arc::new(log.expect("a log")),
            ))
        }
    }
}
