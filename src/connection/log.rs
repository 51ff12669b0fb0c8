//! What is known about a connection, and the one verdict about it: rejected or closed, counted and logged.

use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use metrics::Gauge;
use tokio::time::Instant;

use crate::admission::Refused;
use crate::backends::dial::Dialed;
use crate::client_hello::Greeted;
use crate::config::checked::Backend;
use crate::explain;
use crate::explain::refusals::{Circumstances, Refusal};
use crate::gate::Gate;
use crate::handshake::{Facts, Secured};
use crate::listener::Accepted;
use crate::model::close::CloseReason;
use crate::model::identity::{Chain, Identity};
use crate::model::names::Name;
use crate::model::rejection::{Cause, Reason, Rejection, Stage};
use crate::relay::{Handle, Order, Path, RelaySummary};
use crate::sessions::registry::{Entered, Holder, Session, Sessions};
use crate::snapshot::Route;
use crate::telemetry::log::{Certificate, Durations, Tls, Verdict, detail, stranger};
use crate::telemetry::metrics::{ListenerMetrics, RouteMetrics};
use crate::tls::ja4::Ja4;

/// The file of one connection. Dropped without a verdict it reports `internal`: accepted is always the sum of rejected,
/// closed and active.
pub(crate) struct Record {
    gate: Arc<Gate>,
    id: u64,
    client: SocketAddr,
    listener: Name,
    listener_metrics: Option<Arc<ListenerMetrics>>,
    route: Option<(Arc<Route>, Option<Arc<RouteMetrics>>)>,
    server_name: Option<Box<str>>,
    ja4: Option<Ja4>,
    steps: Steps,
    identity: Option<Arc<Identity>>,
    chain: Option<Arc<Chain>>,
    /// On the heap, as passthrough connections have none.
    facts: Option<Box<Facts>>,
    backend: Option<usize>,
    session: Option<Entered>,
    in_progress: bool,
    decided: bool,
}

/// What takes the time of a connection, in the order of the journey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Admission,
    Hello,
    Handshake,
    Dial,
    Relay,
}

/// How long each step took. One ends where the next one begins, so that together they are the whole time.
#[derive(Debug)]
struct Steps {
    now: Step,
    since: Instant,
    admission: Option<Took>,
    hello: Option<Took>,
    handshake: Option<Took>,
    dial: Option<Took>,
}

/// A time in nanoseconds. It is kept for as long as its connection, so it is half as large as a `Duration` that may be none.
#[derive(Clone, Copy, Debug)]
struct Took(NonZeroU64);

impl Took {
    fn new(time: Duration) -> Self {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self(NonZeroU64::new(nanoseconds).unwrap_or(NonZeroU64::MIN))
    }

    const fn time(self) -> Duration {
        Duration::from_nanos(self.0.get())
    }
}

impl Steps {
    fn begin(at: Instant) -> Self {
        Self { now: Step::Admission, since: at, admission: None, hello: None, handshake: None, dial: None }
    }

    /// Begins the next step and returns the time.
    fn next(&mut self, step: Step) -> Instant {
        let now = Instant::now();
        let took = Some(Took::new(now.saturating_duration_since(self.since)));
        match self.now {
            Step::Admission => self.admission = took,
            Step::Hello => self.hello = took,
            Step::Handshake => self.handshake = took,
            Step::Dial => self.dial = took,
            // The last one.
            Step::Relay => return now,
        }
        (self.now, self.since) = (step, now);
        now
    }

    /// From accept until now.
    fn whole(&self, now: Instant) -> Duration {
        let took = [self.admission, self.hello, self.handshake, self.dial].into_iter().flatten();
        took.fold(now.saturating_duration_since(self.since), |sum, step| sum.saturating_add(step.time()))
    }

    /// As a line of the log has them; the step of this moment ends now.
    fn durations(&self, now: Instant) -> Durations {
        let seconds = |step, took: Option<Took>| {
            let last = (self.now == step).then(|| Took::new(now.saturating_duration_since(self.since)));
            took.or(last).map(|took| took.time().as_secs_f64())
        };
        Durations {
            admission: seconds(Step::Admission, self.admission),
            hello: seconds(Step::Hello, self.hello),
            handshake: seconds(Step::Handshake, self.handshake),
            dial: seconds(Step::Dial, self.dial),
            relay: seconds(Step::Relay, None),
        }
    }
}

impl Record {
    /// Opens the file of a connection that has just been accepted.
    pub(crate) fn open(gate: &Arc<Gate>, accepted: &Accepted) -> Self {
        let listener = accepted.listener.name.clone();
        let listener_metrics = gate.metrics.listener(&listener);
        if let Some(metrics) = &listener_metrics {
            metrics.accepted.increment(1);
            metrics.handshakes_in_progress.increment(1);
        }
        gate.metrics.active_before_route().increment(1);
        Self {
            gate: Arc::clone(gate),
            id: gate.next_id(),
            client: accepted.peer,
            listener,
            listener_metrics,
            route: None,
            server_name: None,
            ja4: None,
            steps: Steps::begin(accepted.at),
            identity: None,
            chain: None,
            facts: None,
            backend: None,
            session: None,
            in_progress: true,
            decided: false,
        }
    }

    /// Behind a proxy, the client is known only after the proxy has spoken.
    pub(crate) fn comes_from(&mut self, client: SocketAddr) {
        self.client = client;
    }

    /// It is within the limits, and is to say what it wants.
    pub(crate) fn admitted(&mut self) {
        self.steps.next(Step::Hello);
    }

    /// It has said what it wants.
    pub(crate) fn greeted(&mut self, greeted: &Greeted) {
        self.ja4 = greeted.ja4;
        self.server_name = greeted.server_name.as_ref().map(|name| stranger(name.as_str()).into_boxed_str());
    }

    /// It is known where it leads.
    pub(crate) fn routed(&mut self, route: &Arc<Route>) {
        let metrics = self.gate.metrics.route(&route.name);
        self.active().decrement(1);
        self.route = Some((Arc::clone(route), metrics));
        self.active().increment(1);
    }

    /// Takes the time of a handshake.
    pub(crate) async fn handshaking(
        &mut self,
        handshake: impl Future<Output = Result<Secured, Refused>>,
    ) -> Result<Secured, Refused> {
        let begun = self.steps.next(Step::Handshake);
        let result = handshake.await;
        self.gate.metrics.handshake_took(begun.elapsed(), result.is_ok());
        result
    }

    /// A certificate was shown, and refused.
    pub(crate) fn shown(&mut self, refused: &Refused) {
        self.identity.clone_from(&refused.identity);
    }

    /// The handshake is over.
    pub(crate) fn secured(&mut self, secured: &Secured) {
        self.identity.clone_from(&secured.identity);
        self.chain.clone_from(&secured.chain);
        if let Some(metrics) = self.route_metrics() {
            metrics.handshake(secured.facts.version == "TLSv1.3", secured.facts.resumed);
        }
        self.facts = Some(Box::new(secured.facts.clone()));
        self.no_longer_in_progress();
    }

    /// It is let in, and can be told to end from now on. Gives what it is told by.
    pub(crate) fn enters(&mut self, path: Path) -> Arc<Handle> {
        let handle =
            Arc::new(self.route_metrics().map_or_else(Handle::default, |metrics| Handle::new(metrics.meter.clone())));
        let Some((route, _)) = &self.route else { return handle };
        let holder = Holder { identity: self.identity.clone(), chain: self.chain.take() };
        let session = Session::new(self.id, self.client, self.listener.clone(), route.name.clone(), holder, path);
        self.session = Some(Sessions::enter(&self.gate.sessions, Session { relay: Arc::clone(&handle), ..session }));
        handle
    }

    /// A backend is to be reached. Returns the time.
    pub(crate) fn dialing(&mut self) -> Instant {
        self.steps.next(Step::Dial)
    }

    /// A backend answered, or did not.
    pub(crate) fn tried(&self, backend: usize, up: bool) {
        if let Some((route, Some(metrics))) = &self.route
            && let Some(backend) = route.backends.get(backend)
        {
            metrics.backend(backend, up);
        }
    }

    /// A backend was reached, or none was.
    pub(crate) fn dialed(&mut self, dialed: Option<&Dialed>, begun: Instant) {
        self.no_longer_in_progress();
        self.backend = dialed.map(|dialed| dialed.backend);
        if let Some(metrics) = self.route_metrics() {
            if dialed.is_some() { &metrics.dial_ok } else { &metrics.dial_failed }.record(begun.elapsed());
        }
    }

    /// Payload begins to move.
    pub(crate) fn relay_begins(&mut self, path: Path) {
        self.steps.next(Step::Relay);
        self.gate.tally.admitted();
        if let Some(metrics) = self.route_metrics() {
            metrics.relay_begins(path);
        }
        if let (Some(entered), Some(backend)) = (&self.session, self.backend()) {
            let _ = entered.session().backend.set(backend.clone());
        }
    }

    /// The verdict: turned away.
    pub(crate) fn rejected(mut self, rejection: &Rejection) {
        self.reject(rejection);
    }

    fn reject(&mut self, rejection: &Rejection) {
        self.decided = true;
        self.leaves(None);
        let reason = rejection.reason();
        self.count_where_it_can(reason);
        if let (Stage::Certificate | Stage::Policy, Some(identity)) = (reason.stage(), &self.identity) {
            self.gate.doubt(self.client.ip(), &identity.fingerprint);
        }
        self.gate.admission.rejected(self.client.ip(), reason);
        // First of all: whoever sees the counter or the line can ask about it.
        let counted_as = self.gate.admission.source(self.client.ip());
        let circumstances = Circumstances {
            id: self.id,
            source: self.client,
            counted_as,
            listener: &self.listener,
            server_name: self.server_name.as_deref(),
            route: self.route.as_ref().map(|(route, _)| &route.name),
            identity: self.identity.as_deref(),
        };
        self.gate.refusals.remember(Refusal::new(&circumstances, rejection));
        match (self.route_metrics(), &self.listener_metrics) {
            (Some(route), _) => route.rejected(&self.listener, reason),
            (None, Some(listener)) => listener.rejected(reason),
            (None, None) => {}
        }
        self.gate.tally.rejected(reason);
        // Asked first: under a flood, lines that nobody writes need not be made.
        let device = self.identity.as_ref().filter(|identity| identity.anchored);
        let taken = match device {
            Some(identity) => self.gate.log.takes_device(identity.fingerprint, reason),
            None => self.gate.log.takes(counted_as, reason),
        };
        if !taken {
            return;
        }
        self.gate.log.verdict(&Verdict {
            event: "rejected",
            stage: Some(reason.stage().label()),
            reason: reason.label(),
            side: Some(reason.side().label()),
            detail: Some(detail(&explain::detail(&rejection.cause))),
            alert: rejection.alert.map(|alert| alert.to_string()),
            ..self.line()
        });
    }

    /// The verdict: let in, and over.
    pub(crate) fn closed(mut self, summary: &RelaySummary) {
        self.close(summary);
    }

    fn close(&mut self, summary: &RelaySummary) {
        self.decided = true;
        self.leaves(Some(summary.reason));
        if let Some(metrics) = self.route_metrics() {
            metrics.closed(summary.reason);
        }
        // Whoever showed a certificate always has his line; strangers have to share.
        let known = self.identity.as_ref().is_some_and(|identity| identity.verified);
        if !known && !self.gate.log.takes(self.gate.admission.source(self.client.ip()), summary.reason) {
            return;
        }
        let cause = summary.cause.as_deref().map(explain::detail);
        self.gate.log.verdict(&Verdict {
            event: "closed",
            reason: summary.reason.label(),
            detail: cause.or_else(|| summary.detail.clone()).map(|text| detail(&text)),
            backend: self.backend().map(ToString::to_string),
            path: Some(summary.path.label()),
            bytes_to_backend: Some(summary.moved.to_backend),
            bytes_to_client: Some(summary.moved.to_client),
            ..self.line()
        });
    }

    /// Its task ended without a verdict.
    fn abandon(&mut self) {
        let session = self.session.as_ref().map(|entered| Arc::clone(entered.session()));
        let Some(session) = session.filter(|_| self.steps.now == Step::Relay) else {
            return self.reject(&Rejection::silent(Cause::NoVerdict));
        };
        // Payload has moved, so it is not to be counted as turned away. An order that it was about to follow is why it ended.
        let reason = session.relay.ordered().map_or(CloseReason::Internal, |order| order.reason);
        let cause = (reason == CloseReason::Internal).then(|| Box::new(Cause::NoVerdict));
        self.close(&RelaySummary { reason, cause, detail: None, path: session.path, moved: session.relay.moved() });
    }

    /// It is no session any more: a reader of the verdict does not find it there. Counts it as cut, if it was told to end and did
    /// so; a relay may have ended by itself at that moment.
    fn leaves(&mut self, closed_as: Option<CloseReason>) {
        let ordered = self.session.take().and_then(|entered| entered.session().relay.ordered());
        if let Some(Order { reason, at, .. }) = ordered
            && closed_as.is_none_or(|closed| closed == reason)
        {
            self.gate.metrics.cut(reason, at.elapsed());
        }
    }

    /// Sees to it that a rejection for this reason finds its series. A route that was reloaded meanwhile may have more of them than
    /// when it was found; and what is decided before there is a route, has none.
    fn count_where_it_can(&mut self, reason: Reason) {
        let can = |metrics: &Option<Arc<RouteMetrics>>| {
            metrics.as_ref().is_some_and(|metrics| metrics.rejects(&self.listener, reason))
        };
        let Some((route, metrics)) = &self.route else { return };
        if can(metrics) {
            return;
        }
        let now = self.gate.metrics.route(&route.name);
        let changed = can(&now).then(|| (Arc::clone(route), now));
        if changed.is_some() || reason.stage().is_before_route() {
            self.active().decrement(1);
            self.route = changed;
            self.active().increment(1);
        }
    }

    /// The backend that was reached.
    fn backend(&self) -> Option<&Backend> {
        self.route.as_ref().zip(self.backend).and_then(|((route, _), index)| route.backends.get(index))
    }

    /// What every line says.
    fn line(&self) -> Verdict {
        let now = Instant::now();
        Verdict {
            id: self.id,
            listener: self.listener.to_string(),
            source: self.client.to_string(),
            server_name: self.server_name.as_deref().map(str::to_owned),
            ja4: self.ja4.map(|ja4| ja4.to_string()),
            route: self.route.as_ref().map(|(route, _)| route.name.to_string()),
            certificate: self.identity.as_deref().map(Certificate::from),
            tls: self.facts.as_ref().map(|facts| Tls {
                version: facts.version,
                cipher_suite: facts.cipher_suite.clone(),
                resumed: facts.resumed,
            }),
            durations: self.steps.durations(now),
            seconds: self.steps.whole(now).as_secs_f64(),
            ..Verdict::default()
        }
    }

    fn route_metrics(&self) -> Option<&Arc<RouteMetrics>> {
        self.route.as_ref().and_then(|(_, metrics)| metrics.as_ref())
    }

    /// The gauge that this connection stands in.
    fn active(&self) -> &Gauge {
        self.route_metrics().map_or_else(|| self.gate.metrics.active_before_route(), |metrics| &metrics.active)
    }

    fn no_longer_in_progress(&mut self) {
        if std::mem::take(&mut self.in_progress)
            && let Some(metrics) = &self.listener_metrics
        {
            metrics.handshakes_in_progress.decrement(1);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.decided {
            self.abandon();
        }
        self.no_longer_in_progress();
        self.active().decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path as FilePath;
    use std::sync::Mutex;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::admission::Admission;
    use crate::config;
    use crate::config::checked::LogFormat;
    use crate::model::names::ServerName;
    use crate::model::rejection::HelloFault;
    use crate::relay::Support;
    use crate::snapshot::Snapshot;
    use crate::telemetry::log::Log;
    use crate::telemetry::metrics::Metrics;

    const CONFIG: &str = r#"
        [[listener]]
        name = "public"
        address = "127.0.0.1:0"

        [[route]]
        name = "mail"
        mode = "passthrough"
        server_names = ["mail.home.example"]
        backends = ["127.0.0.1:993"]
    "#;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("the lines").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// No connection from outside can bring this about (tests/observe/everywhere.rs looks for every other reason), so the
    /// fault is put in here: the task that serves the connection panics.
    #[tokio::test]
    async fn a_connection_that_nobody_decides_about_is_rejected_as_internal() {
        let config = config::parse(CONFIG, FilePath::new("doorward.toml")).expect("a configuration");
        let lines = Lines::default();
        let log = Arc::new(Log::new(LogFormat::Json, lines.clone()).expect("a log"));
        let gate = Arc::new(Gate::new(
            Snapshot::build(&config).expect("a snapshot"),
            Admission::new(config.limits.clone()),
            Support::none(),
            Arc::new(Metrics::new(&config).expect("metrics")),
            Arc::clone(&log),
        ));
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("an address");

        for routed in [false, true] {
            let _client = TcpStream::connect(address).await.expect("a client");
            let (stream, peer) = socket.accept().await.expect("a connection");
            let listener = Arc::new(config.listeners[0].clone());
            let mut record = Record::open(&gate, &Accepted { stream, peer, listener, at: Instant::now() });
            if routed {
                let name = ServerName::from_client_hello("mail.home.example");
                record.routed(gate.snapshot.load().routes.find(Some(&name)).expect("the route"));
            }
            let serving = tokio::spawn(async move {
                let _record = record;
                panic!("a fault of the gate");
            });
            assert!(serving.await.is_err_and(|error| error.is_panic()));
        }

        log.finish();
        let lines = String::from_utf8(lines.0.lock().expect("the lines").clone()).expect("text");
        let lines: Vec<serde_json::Value> =
            lines.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
        let metrics = gate.metrics.render();
        for (line, route) in lines.iter().zip(["none", "mail"]) {
            assert_eq!(line["event"], "rejected", "{line}");
            assert_eq!((&line["stage"], &line["reason"]), (&"internal".into(), &"internal".into()), "{line}");
            assert_eq!((&line["side"], line["alert"].is_null()), (&"gate".into(), true), "{line}");
            let labels = format!("listener=\"public\",route=\"{route}\",stage=\"internal\",reason=\"internal\"");
            for series in [
                format!("doorward_connections_rejected_total{{{labels}}} 1\n"),
                format!("doorward_connections_active{{route=\"{route}\"}} 0\n"),
            ] {
                assert!(metrics.contains(&series), "{series} in {metrics}");
            }
        }
        assert_eq!(lines.len(), 2, "{lines:?}");
        // What `doorward why` and the status page are answered from.
        let remembered: Vec<_> = gate.refusals.latest(3).iter().map(|refusal| (refusal.id, refusal.reason())).collect();
        assert_eq!(remembered, [(2, Reason::Internal), (1, Reason::Internal)]);
        let internal = Reason::ALL.iter().position(|reason| *reason == Reason::Internal).expect("a reason");
        assert_eq!(gate.tally.now().rejected[internal], 2);
        assert!(metrics.contains("doorward_connections_accepted_total{listener=\"public\"} 2\n"), "{metrics}");
        assert!(metrics.contains("doorward_handshakes_in_progress{listener=\"public\"} 0\n"), "{metrics}");
    }

    /// A handshake that fails before its route counts may still have found one.
    #[tokio::test]
    async fn a_reason_that_a_route_does_not_have_is_counted_without_it() {
        let config = config::parse(CONFIG, FilePath::new("doorward.toml")).expect("a configuration");
        let gate = Arc::new(Gate::new(
            Snapshot::build(&config).expect("a snapshot"),
            Admission::new(config.limits.clone()),
            Support::none(),
            Arc::new(Metrics::new(&config).expect("metrics")),
            Arc::new(Log::new(LogFormat::Json, io::sink()).expect("a log")),
        ));
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let _client = TcpStream::connect(socket.local_addr().expect("an address")).await.expect("a client");
        let (stream, peer) = socket.accept().await.expect("a connection");
        let listener = Arc::new(config.listeners[0].clone());
        let mut record = Record::open(&gate, &Accepted { stream, peer, listener, at: Instant::now() });
        let name = ServerName::from_client_hello("mail.home.example");
        record.routed(gate.snapshot.load().routes.find(Some(&name)).expect("the route"));
        record.rejected(&Rejection::silent(Cause::Malformed(HelloFault::Truncated)));
        let (metrics, reason) = (gate.metrics.render(), Reason::Malformed);
        let labels = format!(
            "listener=\"public\",route=\"none\",stage=\"{}\",reason=\"{}\"",
            reason.stage().label(),
            reason.label()
        );
        for series in [
            format!("doorward_connections_rejected_total{{{labels}}} 1\n"),
            "doorward_connections_active{route=\"mail\"} 0\n".to_owned(),
            "doorward_connections_active{route=\"none\"} 0\n".to_owned(),
        ] {
            assert!(metrics.contains(&series), "{series} in {metrics}");
        }
    }
}
