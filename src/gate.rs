//! What all connections of a running gate share.

mod issuance;
mod renewals;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use rustls::pki_types::UnixTime;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::acme::Challenges;
use crate::admission::Admission;
use crate::admission::descriptors::Descriptors;
use crate::admission::penalties::Voucher;
use crate::backends::dial::Directory;
use crate::backends::health::{Change, Checked};
use crate::backends::wake::{self, Wakes};
use crate::config::checked::{Backend, Config};
use crate::explain;
use crate::explain::recent::Refusals;
use crate::history::{Admitted, History};
use crate::model::close::CloseReason;
use crate::model::identity::{Chain, Sha256};
use crate::model::issuance::Issuance;
use crate::model::names::{Name, ServerName};
use crate::model::notice::NoticeEvent;
use crate::model::rejection::{Health, Reason, Rejection};
use crate::model::wake::WakeOutcome;
use crate::notify::{Notices, texts};
use crate::relay::{Order, Support};
use crate::renewal::Desk;
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
    /// Which machines of backends are being woken.
    pub(crate) wakes: Wakes,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) log: Arc<Log>,
    /// The latest refusals.
    pub(crate) refusals: Arc<Refusals>,
    /// What happened in each hour, across restarts.
    pub(crate) history: Arc<History>,
    /// What the owner is sent messages about.
    pub(crate) notices: Arc<Notices>,
    /// What validators of pending orders are shown.
    pub(crate) challenges: Challenges,
    /// How the orders for the public certificate go; `None` if the configuration wants none.
    pub(crate) issuance: watch::Sender<Option<Issuance>>,
    /// Where requests of devices are shown to the process that renews without the owner.
    pub(crate) desk: Arc<Desk>,
    /// Whether the process runs that renews without the owner, or why not; `None` if the configuration wants none.
    pub(crate) renewer: watch::Sender<Option<Result<(), String>>>,
    /// Notified when the owner wants the certificate renewed now.
    pub(crate) renewal_wanted: Notify,
    /// What the owner was told of orders that fail.
    issuance_told: Mutex<issuance::ToldOfRow>,
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
            wakes: Wakes::default(),
            metrics,
            log,
            refusals: Arc::default(),
            history: Arc::default(),
            notices: Arc::default(),
            challenges: Challenges::default(),
            issuance: watch::Sender::default(),
            desk: Arc::default(),
            renewer: watch::Sender::default(),
            renewal_wanted: Notify::new(),
            issuance_told: Mutex::default(),
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

    /// Notes in the history what open sessions have moved, of those that have moved at least so many bytes more.
    pub(crate) fn note_payload(&self, least: u64) {
        let (sessions, _) = self.sessions.newest(usize::MAX);
        for session in sessions.iter().filter(|session| session.has_to_note(least)) {
            let moved = session.note(session.relay.moved());
            self.history.moved(&admitted(session), moved.to_backend, moved.to_client);
        }
    }

    /// Notes that a backend of a route was dialled, and answered or did not.
    pub(crate) fn backend_dialed(&self, route: &Name, backend: &Backend, answered: Result<(), Reason>) {
        let metrics = self.metrics.route(route);
        // A machine that sleeps as it is meant to is no trouble.
        if let (Err(reason), Some(metrics)) = (answered, &metrics)
            && metrics.sleeps(backend, reason)
        {
            return;
        }
        self.history.dialled(route, backend, answered.is_ok());
        if !metrics.is_some_and(|metrics| metrics.backend(backend, answered)) {
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

    /// Puts the snapshot of a new configuration in force.
    pub(crate) fn put_in_force(&self, snapshot: Arc<Snapshot>) {
        self.snapshot.store(snapshot);
        self.check_backends();
    }

    /// Has those backends checked that the snapshot in force wants checked, and no others.
    pub(crate) fn check_backends(&self) {
        let snapshot = self.snapshot.load();
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

    /// Follows the backends of a new configuration: those that it does not name are forgotten, and machines as well.
    pub(crate) fn follow_backends(&self, config: &Config) {
        let routes = &config.routes;
        self.directory.pool.keep(|backend| routes.iter().any(|route| route.backends.contains(backend)));
        self.directory.resolver.follow(config.host_names());
        self.wakes.keep(|backend, wake| {
            routes.iter().any(|route| route.wake.as_ref() == Some(wake) && route.backends.contains(backend))
        });
    }

    /// Notes that the machine of a backend is being woken, or how that has ended.
    pub(crate) fn waking(&self, news: &wake::News<'_>) {
        let wake::News { route, backend, wake, ended } = news;
        // Before its connections go on: what is shown then is what they found.
        let snapshot = self.snapshot.load();
        let concerned = |one: &&Arc<Route>| one.wake.as_ref() == Some(wake) && one.backends.contains(backend);
        for one in snapshot.in_order.iter().filter(concerned) {
            if let Some(metrics) = self.metrics.route(&one.name) {
                metrics.waking(backend, ended.is_none());
            }
            if ended.as_ref().is_some_and(|ended| ended.outcome == WakeOutcome::Abandoned && !ended.is_on) {
                self.backend_dialed(&one.name, backend, Err(Reason::BackendTimeout));
            }
        }
        let (name, backend) = (route.to_string(), backend.to_string());
        let Some(ended) = ended else {
            let (mac, broadcast) = (wake.mac.to_string(), wake.broadcast);
            return self.log.event(&Event::Waking { route: name, backend, mac, broadcast });
        };
        if let Some(metrics) = self.metrics.route(route) {
            metrics.woke(ended.outcome);
        }
        self.log.event(&Event::WakeEnded {
            route: name,
            backend,
            outcome: ended.outcome.label(),
            seconds: ended.after.as_secs_f64(),
            error: ended.error.map(ToString::to_string),
        });
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

/// A session, as the history has it.
pub(crate) fn admitted(session: &Session) -> Admitted<'_> {
    Admitted {
        identity: session.identity.as_deref(),
        route: &session.route,
        address: session.source.ip(),
        since: session.since,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::config::checked::{LogFormat, Mac, Wake};
    use crate::explain::finding::BackendState;

    impl Gate {
        /// A gate that logs to nowhere, and moves payload without the kernel.
        pub(crate) fn testing(config: &Config) -> Arc<Self> {
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

    #[test]
    fn machine_that_sleeps_is_trouble_only_if_it_does_not_wake_up() {
        let text = "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"nas\"\n\
                    mode = \"passthrough\"\nserver_names = [\"nas.home.example\"]\nbackends = [\"192.0.2.1:22\"]\n";
        let mut config = crate::config::parse(text, Path::new("/doorward.toml")).expect("a configuration");
        let broadcast = ([192, 0, 2, 255], 9).into();
        let wake = Wake { mac: Mac([2; 6]), broadcast, timeout: Duration::from_secs(9) };
        config.routes[0].wake = Some(wake.clone());
        let gate = Gate::testing(&config);
        gate.notices.want(&NoticeEvent::ALL.into());
        let (route, backend) = (&config.routes[0].name, &config.routes[0].backends[0]);
        let told = || gate.notices.take().0.iter().map(|notice| notice.event).collect::<Vec<_>>();
        let state = || gate.metrics.services()[0].state();
        let waking = |outcome: Option<WakeOutcome>| {
            let ended =
                outcome.map(|outcome| wake::Ended { outcome, after: Duration::ZERO, is_on: false, error: None });
            gate.waking(&wake::News { route, backend, wake: &wake, ended });
        };
        // As a check of its health finds it.
        gate.backend_dialed(route, backend, Err(Reason::BackendTimeout));
        assert!(matches!(state(), BackendState::Asleep { .. }), "{:?}", state());
        waking(None);
        assert!(matches!(state(), BackendState::Waking { .. }), "{:?}", state());
        waking(Some(WakeOutcome::Abandoned));
        assert!(matches!(state(), BackendState::Asleep { .. }), "{:?}", state());
        assert_eq!(
            (told(), gate.metrics.render().contains("doorward_backend_up{route=\"nas\",backend=\"192.0.2.1:22\"} 1")),
            (vec![], true)
        );

        waking(None);
        waking(Some(WakeOutcome::Timeout));
        gate.backend_dialed(route, backend, Err(Reason::BackendWakeTimeout));
        assert!(matches!(state(), BackendState::Down { .. }), "{:?}", state());
        assert_eq!(told(), [NoticeEvent::BackendDown]);
        // It is told once, and stays so until it answers.
        waking(None);
        waking(Some(WakeOutcome::Abandoned));
        gate.backend_dialed(route, backend, Err(Reason::BackendWakeTimeout));
        assert!(matches!(state(), BackendState::Down { .. }), "{:?}", state());
        assert_eq!(told(), []);
        waking(None);
        waking(Some(WakeOutcome::Woken));
        gate.backend_dialed(route, backend, Ok(()));
        assert!(matches!(state(), BackendState::Up { .. }), "{:?}", state());
        assert_eq!(told(), [NoticeEvent::BackendUp]);
        let counted = gate.metrics.render();
        for (outcome, count) in [("abandoned", 2), ("timeout", 1), ("woken", 1), ("not_sent", 0)] {
            let line = format!("doorward_wakes_total{{route=\"nas\",outcome=\"{outcome}\"}} {count}\n");
            assert!(counted.contains(&line), "{line} in {counted}");
        }
    }
}
