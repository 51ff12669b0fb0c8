//! The life of a connection. Read [`establish`], [`permit`] and [`reach`] from top to bottom to know the product.

mod client;
mod log;
mod renewal;
mod steps;
mod validator;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use tokio::net::TcpStream;
use tokio::time::Instant;

use self::client::Client;
use self::log::ConnectionLog;
use self::validator::validate;
use crate::admission::{Admitted, Last, Parting, Refused, Slots};
use crate::authorize::{Authorized, authorize};
use crate::backend_tls::TlsStream;
use crate::backends::dial::First;
use crate::backends::wake::{self, Sleeper};
use crate::client_hello;
use crate::config::checked::Timeouts;
use crate::gate::Gate;
use crate::handshake::{Parts, handshake};
use crate::listener::Accepted;
use crate::model::close::CloseReason;
use crate::model::rejection::{Cause, Rejection};
use crate::relay::{self, Handle, Limits, Order, Path, RelaySummary};
use crate::snapshot::{Route, RouteAccess, Snapshot};
use crate::sys::stream::Stream;
use crate::tls::record::{Keys, Pending, Session};

/// A connection that may go on to a backend.
struct Permitted {
    authorized: Authorized,
    route: Arc<Route>,
    client: Client,
}

/// An admitted connection with an open backend.
struct Established {
    client: TcpStream,
    tls: Tls,
    limits: Limits,
    /// The handle by which the connection can be ended.
    told: Arc<Handle>,
    /// Given back when the relay ends.
    slots: Slots,
}

/// A connection that ends before any payload moves.
enum Ended {
    /// It is refused.
    Refused(Refused),
    /// It was admitted, and cut while its backends were dialled, or its client left.
    Cut(RelaySummary, Parting),
    /// A validator of a pending order has seen the certificate of its challenge.
    Validated(Parting),
}

impl From<Refused> for Ended {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Rejection> for Ended {
    fn from(rejection: Rejection) -> Self {
        Self::Refused(rejection.into())
    }
}

/// Where the connection's TLS ends, and its backend.
enum Tls {
    /// In the kernel, with these keys.
    Kernel(Box<Keys>, Stream),
    /// In the gate; with the bytes that came right behind the handshake, and those that wait to be sent.
    Terminated(Box<Session>, Pending, Stream),
    /// In the gate, which speaks TLS with the backend as well.
    Both(Box<Session>, Pending, Box<TlsStream>),
    /// In the backend.
    Passthrough(Stream),
}

/// The rest of a connection: its relay, or a refused client that has not read its alert yet. On the heap and no larger than
/// its path needs: this is what a connection takes as long as it lasts.
type Rest = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves a connection, from accept to its one verdict.
///
/// Not an async fn: that would keep room for its arguments, and a relay may last for days.
pub(crate) fn serve(accepted: Accepted, gate: Arc<Gate>) -> impl Future<Output = ()> {
    let beginning = Box::pin(begin(accepted, gate));
    async move {
        if let Some(rest) = beginning.await {
            rest.await;
        }
    }
}

/// From accept to the relay, or to the verdict. The verdict is recorded before the client gets time to read its alert, so
/// that nothing that happens then can change it.
async fn begin(accepted: Accepted, gate: Arc<Gate>) -> Option<Rest> {
    let mut log = ConnectionLog::open(&gate, &accepted);
    // One generation of the configuration for the whole connection.
    let snapshot = gate.snapshot.load_full();
    let parting = match establish(accepted, &gate, &snapshot, &mut log).await {
        Ok(established) => return Some(relay(established, &gate, log)),
        Err(Ended::Refused(Refused { rejection, parting, .. })) => {
            log.rejected(&rejection);
            parting
        }
        Err(Ended::Cut(summary, parting)) => {
            log.closed(&summary);
            Some(parting)
        }
        Err(Ended::Validated(parting)) => {
            log.closed(&RelaySummary::without_payload(CloseReason::AcmeChallenge, Path::Copy));
            Some(parting)
        }
    };
    let parting = parting?.lingers()?;
    Some(Box::pin(async move { gate.admission.linger(parting).await }))
}

/// From accept to an open backend.
async fn establish(
    accepted: Accepted,
    gate: &Arc<Gate>,
    snapshot: &Snapshot,
    log: &mut ConnectionLog,
) -> Result<Established, Ended> {
    // Up to the permit, a client that draining ends gets no alert; after it, one does.
    let permitted = gate.draining.run_until_cancelled(let_in(accepted, gate, snapshot, log)).await;
    let permitted = permitted.unwrap_or_else(|| Err(draining().into()))?;

    if let Some(service) = permitted.route.renewal.clone() {
        return renewal::answer(permitted, &service, gate, &snapshot.timeouts, log);
    }
    // On the heap, like everything large: most connections never get here.
    Box::pin(reach(permitted, gate, &snapshot.timeouts, log)).await
}

/// What connections are refused for while the gate drains.
fn draining() -> Rejection {
    Rejection::silent(Cause::Draining)
}

/// From accept to the permit.
async fn let_in(
    accepted: Accepted,
    gate: &Gate,
    snapshot: &Snapshot,
    log: &mut ConnectionLog,
) -> Result<Permitted, Ended> {
    let hello_deadline = accepted.at + snapshot.timeouts.client_hello;

    let names = gate.challenges.names_pending();
    let admitted = gate.admission.admit(accepted, hello_deadline, names, |client| log.client_is(client)).await?;
    log.admitted();

    // Until a handshake is over, its place may be needed for another one. A result that is there is never given up for that.
    let (evicted, gives_way) = admitted.slots.eviction();
    tokio::select! {
        biased;
        permitted = Box::pin(permit(admitted, gate, snapshot, log)) => permitted,
        () = evicted.notified() => Err(gives_way.into()),
    }
}

/// From the first byte to the permit. Each step takes what the one before it gave, so none can be left out.
async fn permit(
    admitted: Admitted,
    gate: &Gate,
    snapshot: &Snapshot,
    log: &mut ConnectionLog,
) -> Result<Permitted, Ended> {
    let mut greeted = client_hello::peek(admitted, snapshot.starttls()).await?;
    log.greeted(&greeted);

    let route = match snapshot.find_asked(greeted.server_name.as_ref(), greeted.starttls) {
        Ok(route) => Arc::clone(route),
        Err(cause) => return Err(greeted.refuse(cause).into()),
    };
    if let Some(challenge) = gate.challenges.for_validator(&greeted, &route) {
        log.routed(&route);
        return Err(Box::pin(validate(greeted, challenge, gate, snapshot.timeouts.handshake, log)).await);
    }
    if let Err(rejection) = gate.admission.turn(&mut greeted.admitted.slots, route.terminates()).await {
        return Err(greeted.decide().admitted.refuse(rejection, Last::Nothing).into());
    }
    log.routed(&route);

    let (tls, policy) = match &route.access {
        RouteAccess::Terminate { tls, policy, .. } => (tls, policy),
        RouteAccess::Passthrough(policy) => {
            // The client speaks TLS with the backend: it is sent no alert from here on.
            let mut hello = greeted.decide();
            hello.admitted.slots.handshake_done();
            if let Err(rejection) = gate.admission.without_certificate(&mut hello.admitted.slots) {
                return Err(hello.admitted.refuse(rejection, Last::Nothing).into());
            }
            let authorized = policy.permit();
            return Ok(Permitted { authorized, route, client: Client::Raw(Box::new(hello)) });
        }
    };

    let handshake_deadline = greeted.admitted.slots.handshake_deadline(Instant::now() + snapshot.timeouts.handshake);
    let mut ticket = None;
    let handshaking = Box::pin(handshake(greeted, tls, gate.kernel.any(), handshake_deadline, &mut ticket));
    let result = log.handshaking(handshaking).await;
    log.ticket(ticket);
    let mut secured = match result {
        Ok(secured) => Box::new(secured),
        Err(refused) => {
            log.certificate_refused(&refused);
            return Err(refused.into());
        }
    };
    log.secured(&secured);
    secured.admitted.slots.handshake_done();

    let authorized = match authorize(secured.identity.clone(), policy) {
        Ok(authorized) => authorized,
        Err(rejection) => return Err(secured.refuse(rejection).into()),
    };

    let Parts { admitted: Admitted { slots, .. }, identity, chain, .. } = &mut **secured;
    let place = match (identity, chain) {
        (Some(identity), Some(chain)) if identity.verified => gate.admission.vouch(slots, identity, chain),
        _ => gate.admission.without_certificate(slots),
    };
    if let Err(rejection) = place {
        return Err(secured.refuse(rejection).into());
    }
    Ok(Permitted { authorized, route, client: Client::Secured(secured) })
}

/// From the permit to an open backend. All the while, the connection can be told to end, and a permit that a reload has
/// taken back is not used.
async fn reach(
    permitted: Permitted,
    gate: &Gate,
    timeouts: &Timeouts,
    log: &mut ConnectionLog,
) -> Result<Established, Ended> {
    let Permitted { authorized, route, client } = permitted;
    let admitted = client.admitted();
    let limits = limits(timeouts, admitted.at);
    let (server_name, chain) = (client.server_name().cloned(), client.chain().cloned());
    let header = client.proxy_header(route.send_proxy_protocol);
    let first = First { header: &header, protocol: client.protocol(), payload_waits: client.payload_waits() };
    let path = client.path(gate, route.backends.tls().is_some());

    // From here on, whatever takes its right away finds it; what did so before is found by asking.
    let told = log.begins_session(path);
    let allowed = || gate.still_admits(server_name.as_ref(), &route, chain.as_deref());
    let begun = log.dialing();
    let tried = |backend, answered| log.tried(backend, answered);
    let sleeper = Sleeper { route: &route.name, wake: route.wake.as_ref(), wakes: &gate.wakes };
    let limit = timeouts.dial;
    let dialing = wake::dial(authorized, sleeper, &route.backends, first, limit, &gate.directory, &allowed, tried);
    let mut dialed = tokio::select! {
        biased;
        order = told.wait_for_order() => Err(Interrupted::Order(order)),
        () = gate.draining.cancelled() => Err(Interrupted::Refused(draining())),
        rejection = until_refused(gate, &allowed) => Err(Interrupted::Refused(rejection)),
        // Looked for where it may be held for minutes.
        reason = client.until_left(), if route.wake.is_some() => Err(Interrupted::Left(reason)),
        dialed = dialing => dialed.map_err(Interrupted::Refused),
    };
    log.dialed(dialed.as_mut().ok(), begun);

    match dialed {
        Ok(dialed) => Ok(client.established(path, dialed.connection, limits, told)?),
        Err(Interrupted::Order(Order { reason: reason @ CloseReason::CutByHand, .. }) | Interrupted::Left(reason)) => {
            let summary = RelaySummary::without_payload(reason, path);
            Err(Ended::Cut(summary, client.end(reason)))
        }
        // What is wrong by now is told exactly.
        Err(Interrupted::Order(order)) => Err(client.refuse(allowed().err().unwrap_or_else(|| refusal(order))).into()),
        Err(Interrupted::Refused(rejection)) => Err(client.refuse(rejection).into()),
    }
}
/// Why a backend is not dialled any longer.
enum Interrupted {
    /// The connection was told to end.
    Order(Order),
    /// No backend can be reached, or the client is no longer authorized.
    Refused(Rejection),
    /// The client has left.
    Left(CloseReason),
}

/// Asks again whenever a reload has been done.
async fn until_refused(gate: &Gate, allowed: &impl Fn() -> Result<(), Rejection>) -> Rejection {
    loop {
        // Before asking: what is done from here on is noticed.
        let reviewed = gate.reviewed.notified();
        if let Err(rejection) = allowed() {
            return rejection;
        }
        reviewed.await;
    }
}

/// What a connection is turned away for that was told to end before payload moved.
fn refusal(Order { reason, cause, .. }: Order) -> Rejection {
    cause.map_or(Cause::Ordered(reason), |cause| *cause).into()
}

fn limits(timeouts: &Timeouts, accepted_at: Instant) -> Limits {
    Limits {
        idle: timeouts.idle,
        half_close: timeouts.half_close,
        lifetime: timeouts.lifetime.map(|lifetime| accepted_at + lifetime),
    }
}

/// Moves payload until both sides have ended.
fn relay(established: Established, gate: &Gate, mut log: ConnectionLog) -> Rest {
    let Established { client, tls, limits, slots, told } = established;
    match tls {
        Tls::Kernel(keys, backend) => {
            log.relay_begins(Path::Kernel);
            to_the_end(relay::in_kernel(client, *keys, &gate.kernel, backend, limits, told), slots, log)
        }
        Tls::Terminated(session, payload, backend) => {
            log.relay_begins(Path::Copy);
            to_the_end(relay::terminated(client, session, payload, backend, limits, told), slots, log)
        }
        Tls::Both(session, payload, backend) => {
            log.relay_begins(Path::Copy);
            to_the_end(relay::terminated_to_tls(client, session, payload, backend, limits, told), slots, log)
        }
        Tls::Passthrough(backend) => {
            log.relay_begins(Path::Raw);
            to_the_end(relay::passthrough(client, backend, limits, told), slots, log)
        }
    }
}

/// A relay, then the verdict. The slots are given back first: a reader of the verdict finds them free.
fn to_the_end(
    mut relaying: impl Future<Output = RelaySummary> + Unpin + Send + 'static,
    slots: Slots,
    log: ConnectionLog,
) -> Rest {
    let mut held = Some((slots, log));
    // No async block: that would keep the relay twice.
    Box::pin(poll_fn(move |cx| {
        let summary = ready!(Pin::new(&mut relaying).poll(cx));
        if let Some((slots, log)) = held.take() {
            drop(slots);
            log.closed(&summary);
        }
        Poll::Ready(())
    }))
}

#[cfg(test)]
mod tests;
