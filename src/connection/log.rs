//! What is known of one connection so far, and its one verdict: rejected or closed, counted and logged.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use metrics::Gauge;
use tokio::time::Instant;

use super::steps::{Step, Steps};
use crate::admission::Refused;
use crate::backends::dial::Dialed;
use crate::backends::pool::Slot;
use crate::client_hello::Greeted;
use crate::config::checked::Backend;
use crate::explain;
use crate::explain::recent::{Circumstances, Refusal};
use crate::gate::{Gate, admitted};
use crate::handshake::{Facts, Secured};
use crate::listener::Accepted;
use crate::model::close::CloseReason;
use crate::model::identity::{Chain, Identity};
use crate::model::impostor::{Claim, Impostor};
use crate::model::names::Name;
use crate::model::notice::NoticeEvent;
use crate::model::rejection::{Cause, Reason, Rejection, Stage};
use crate::model::ticket::TicketOutcome;
use crate::notify::texts;
use crate::relay::{Handle, Order, Path, RelaySummary};
use crate::sessions::registry::{PeerCertificate, Session, SessionGuard, Sessions};
use crate::snapshot::Route;
use crate::telemetry::log::{Tls, Verdict, detail, stranger};
use crate::telemetry::metrics::{ListenerMetrics, RouteMetrics};
use crate::tls::ja4::Ja4;

/// What is known of one connection so far. Dropped without a verdict it records `internal`, so that accepted is always the
/// sum of rejected, closed and active.
pub(crate) struct ConnectionLog {
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
    tls: Option<Box<Tls>>,
    backend: Option<usize>,
    slot: Option<Slot>,
    session: Option<SessionGuard>,
    in_progress: bool,
    is_validator: bool,
    decided: bool,
}

impl ConnectionLog {
    /// Begins with a connection that has just been accepted.
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
            tls: None,
            backend: None,
            slot: None,
            session: None,
            in_progress: true,
            is_validator: false,
            decided: false,
        }
    }

    /// The client's address, which a PROXY protocol header may have changed.
    pub(crate) fn client_is(&mut self, client: SocketAddr) {
        self.client = client;
    }

    /// It is within the limits; its ClientHello comes next.
    pub(crate) fn admitted(&mut self) {
        self.steps.next(Step::Hello);
    }

    /// Its ClientHello is complete.
    pub(crate) fn greeted(&mut self, greeted: &Greeted) {
        self.ja4 = greeted.ja4;
        self.server_name = greeted.server_name.as_ref().map(|name| stranger(name.as_str()).into_boxed_str());
    }

    /// Its route is known.
    pub(crate) fn routed(&mut self, route: &Arc<Route>) {
        let metrics = self.gate.metrics.route(&route.name);
        self.active().decrement(1);
        self.route = Some((Arc::clone(route), metrics));
        self.active().increment(1);
    }

    /// It is a validator of a pending order: what it is refused for is not held against its source.
    pub(crate) const fn validates(&mut self) {
        self.is_validator = true;
    }

    /// Takes the time of a handshake.
    pub(crate) async fn handshaking<T>(
        &mut self,
        handshake: impl Future<Output = Result<T, Refused>>,
    ) -> Result<T, Refused> {
        let begun = self.steps.next(Step::Handshake);
        let result = handshake.await;
        self.gate.metrics.handshake_took(begun.elapsed(), result.is_ok());
        result
    }

    /// The outcome of the session ticket that it presented, if it did.
    pub(crate) fn ticket(&self, outcome: Option<TicketOutcome>) {
        if let Some(outcome) = outcome {
            self.gate.metrics.ticket(outcome);
        }
    }

    /// A certificate was shown and refused.
    pub(crate) fn certificate_refused(&mut self, refused: &Refused) {
        self.identity.clone_from(&refused.identity);
    }

    /// The handshake is over.
    pub(crate) fn secured(&mut self, secured: &Secured) {
        self.identity.clone_from(&secured.identity);
        self.chain.clone_from(&secured.chain);
        self.completed(&secured.facts);
    }

    /// This was negotiated.
    pub(crate) fn completed(&mut self, facts: &Facts) {
        let Facts { version, cipher_suite, resumed, .. } = *facts;
        if let Some(metrics) = self.route_metrics() {
            metrics.handshake(version == "TLSv1.3", resumed);
        }
        self.tls = Some(Box::new(Tls { version, cipher_suite, resumed }));
        self.no_longer_in_progress();
    }

    /// It is admitted and becomes a session. Returns the handle by which it can be ended.
    pub(crate) fn begins_session(&mut self, path: Path) -> Arc<Handle> {
        let handle =
            Arc::new(self.route_metrics().map_or_else(Handle::default, |metrics| Handle::new(metrics.meter.clone())));
        let Some((route, _)) = &self.route else { return handle };
        let certificate = PeerCertificate { identity: self.identity.clone(), chain: self.chain.take() };
        let (listener, route) = (self.listener.clone(), route.name.clone());
        let session = Session::new(self.id, self.client, listener, route, certificate, path, Arc::clone(&handle));
        self.session = Some(Sessions::register(&self.gate.sessions, session));
        handle
    }

    /// Backends are dialled from now on. Returns the time.
    pub(crate) fn dialing(&mut self) -> Instant {
        self.steps.next(Step::Dial)
    }

    /// A backend was dialled, and answered or did not.
    pub(crate) fn tried(&self, backend: usize, answered: Result<(), Reason>) {
        if let Some((route, _)) = &self.route
            && let Some(backend) = route.backends.get(backend)
        {
            self.gate.backend_dialed(&route.name, backend, answered);
        }
    }

    /// Dialling is over; `None` if no backend answered. Holds the place among the connections of the backend to the end.
    pub(crate) fn dialed(&mut self, dialed: Option<&mut Dialed>, begun: Instant) {
        self.no_longer_in_progress();
        if let Some(metrics) = self.route_metrics() {
            if dialed.is_some() { &metrics.dial_ok } else { &metrics.dial_failed }.record(begun.elapsed());
        }
        if let Some(dialed) = dialed {
            (self.backend, self.slot) = (Some(dialed.backend), dialed.slot.take());
        }
    }

    /// The relay begins.
    pub(crate) fn relay_begins(&mut self, path: Path) {
        self.steps.next(Step::Relay);
        if let Some(metrics) = self.route_metrics() {
            metrics.relay_begins(path);
        }
        if let (Some(entered), Some(backend)) = (&self.session, self.backend()) {
            let _ = entered.session().backend.set(backend.clone());
        }
        if let Some(entered) = &self.session {
            let session = entered.session();
            let is_new = self.gate.history.began(&admitted(session));
            if let Some(identity) = &session.identity {
                self.gate.metrics.admitted(identity);
            }
            if let Some(identity) = session.identity.as_ref().filter(|_| is_new) {
                let name = identity.display_name();
                self.gate.notices.tell(NoticeEvent::NewDevice, &name, || {
                    texts::new_device(&name, session.source.ip(), session.route.as_str())
                });
            }
        }
    }

    /// The verdict: rejected.
    pub(crate) fn rejected(mut self, rejection: &Rejection) {
        self.reject(rejection);
    }

    fn reject(&mut self, rejection: &Rejection) {
        self.decided = true;
        self.end_session(None);
        let reason = rejection.reason();
        let impostor = self.impostor(&rejection.cause);
        match (&rejection.cause, &self.route) {
            (Cause::CanaryRoute { route }, _) => self.gate.metrics.impostor(route),
            (_, Some((route, _))) if impostor.is_some() => self.gate.metrics.impostor(&route.name),
            _ => {}
        }
        self.select_series(reason);
        if let (Stage::Certificate | Stage::Policy, Some(identity)) = (reason.stage(), &self.identity) {
            self.gate.recheck_voucher(self.client.ip(), &identity.fingerprint);
        }
        if !self.is_validator {
            self.gate.admission.rejected(self.client.ip(), reason);
        }
        if impostor.as_ref().is_some_and(|impostor| impostor.claim.is_canary()) {
            self.gate.admission.ban(self.client.ip());
        }
        // Before the counter and the line: a reader of those can ask about it.
        let counted_as = self.gate.admission.source(self.client.ip());
        let circumstances = Circumstances {
            id: self.id,
            source: self.client,
            counted_as,
            listener: &self.listener,
            server_name: self.server_name.as_deref(),
            route: self.route.as_ref().map(|(route, _)| &route.name),
            identity: self.identity.as_deref(),
            impostor: impostor.as_ref(),
        };
        let refusal = Refusal::new(&circumstances, rejection);
        if let Some(impostor) = &impostor {
            let route = refusal.route.as_ref().map(ToString::to_string);
            self.gate.notices.tell(NoticeEvent::Impostor, &impostor.name, || {
                let told = format!(
                    "{} {}",
                    explain::impostor::sentence(impostor, &refusal),
                    explain::impostor::advice(impostor)
                );
                texts::impostor(impostor, told, self.client.ip(), route)
            });
        }
        match &refusal.impostor {
            Some(impostor) => self.gate.history.pretended(&refusal, &impostor.name, impostor.claim.label()),
            None => self.gate.history.refused(&refusal),
        }
        self.gate.refusals.remember(refusal);
        match (self.route_metrics(), &self.listener_metrics) {
            (Some(route), _) => route.rejected(&self.listener, reason),
            (None, Some(listener)) => listener.rejected(reason),
            (None, None) => {}
        }
        // Asked first: under a flood, lines that are left out need not be made.
        let device = self.identity.as_ref().filter(|identity| identity.anchored);
        let taken = match (&impostor, device) {
            (Some(impostor), _) => self.gate.log.takes_impostor(&impostor.name, reason),
            (None, Some(identity)) => self.gate.log.takes_device(identity.fingerprint, reason),
            (None, None) => self.gate.log.takes(counted_as, reason),
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
            impostor: impostor.as_ref().map(Into::into),
            ..self.line()
        });
    }

    /// What the client pretended to be, by the devices of the configuration that is in force.
    fn impostor(&self, cause: &Cause) -> Option<Impostor> {
        if let Cause::CanaryRoute { route } = cause {
            return Some(Impostor { name: route.as_str().into(), claim: Claim::CanaryRoute });
        }
        self.gate.snapshot.load().impostors.find(self.identity.as_deref()?, cause)
    }

    /// The verdict: admitted, and closed.
    pub(crate) fn closed(mut self, summary: &RelaySummary) {
        self.close(summary);
    }

    fn close(&mut self, summary: &RelaySummary) {
        self.decided = true;
        if let Some(entered) = &self.session {
            let moved = entered.session().note(summary.moved);
            self.gate.history.ended(&admitted(entered.session()), moved.to_backend, moved.to_client);
        }
        self.end_session(Some(summary.reason));
        if let Some(metrics) = self.route_metrics() {
            metrics.closed(summary.reason);
        }
        // A verified device always has its line; other clients share a quota.
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
        // Payload has moved, so it is closed and not rejected. If it was ordered to end, that is the reason.
        let reason = session.relay.ordered().map_or(CloseReason::Internal, |order| order.reason);
        let cause = (reason == CloseReason::Internal).then(|| Box::new(Cause::NoVerdict));
        self.close(&RelaySummary { reason, cause, detail: None, path: session.path, moved: session.relay.moved() });
    }

    /// Ends the session before its verdict is visible. Counts it as cut if it was ordered to end and did; the relay may have
    /// ended for another reason at that moment.
    fn end_session(&mut self, closed_as: Option<CloseReason>) {
        let ordered = self.session.take().and_then(|entered| entered.session().relay.ordered());
        if let Some(Order { reason, at, .. }) = ordered
            && closed_as.is_none_or(|closed| closed == reason)
        {
            self.gate.metrics.cut(reason, at.elapsed());
        }
    }

    /// Selects the series for a rejection for this reason. A route that was reloaded meanwhile may have more series than
    /// when it was found; reasons that are decided before the route have none there.
    fn select_series(&mut self, reason: Reason) {
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

    /// The fields that every line has.
    fn line(&self) -> Verdict<'_> {
        let now = Instant::now();
        Verdict {
            id: self.id,
            listener: self.listener.as_str(),
            source: self.client.to_string(),
            server_name: self.server_name.as_deref(),
            ja4: self.ja4.map(|ja4| ja4.to_string()),
            route: self.route.as_ref().map(|(route, _)| route.name.as_str()),
            certificate: self.identity.clone(),
            tls: self.tls.as_deref().copied(),
            durations: self.steps.durations(now),
            seconds: self.steps.whole(now).as_secs_f64(),
            ..Verdict::default()
        }
    }

    fn route_metrics(&self) -> Option<&Arc<RouteMetrics>> {
        self.route.as_ref().and_then(|(_, metrics)| metrics.as_ref())
    }

    /// The gauge that this connection is counted in.
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

impl Drop for ConnectionLog {
    fn drop(&mut self) {
        if !self.decided {
            self.abandon();
        }
        self.no_longer_in_progress();
        self.active().decrement(1);
    }
}

#[cfg(test)]
mod tests;
