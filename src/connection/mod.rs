//! The life of a connection. Read [`establish`], [`permit`] and [`reach`] from top to bottom to know the product.

mod log;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use tokio::net::TcpStream;
use tokio::time::Instant;

use self::log::Record;
use crate::admission::{Admitted, Last, Parting, Refused, Slots};
use crate::authorize::{Authorized, authorize};
use crate::backends::dial::{Dialed, dial};
use crate::client_hello::{self, Hello};
use crate::config::checked::{SendProxyProtocol, Timeouts};
use crate::gate::Gate;
use crate::handshake::{Parts, Payload, Secured, handshake};
use crate::listener::Accepted;
use crate::model::close::CloseReason;
use crate::model::rejection::{Cause, Rejection, Text};
use crate::proxy_protocol::{self, TlsFacts};
use crate::relay::{self, Handle, Limits, Moved, Order, Path, RelaySummary};
use crate::snapshot::{Access, Route, Snapshot};
use crate::tls::record::{Keys, Pending, Session};

/// A connection that may go on to a backend.
struct Permitted {
    authorized: Authorized,
    route: Arc<Route>,
    client: Client,
}

/// What the gate holds of a client that may go on.
enum Client {
    /// TLS ends here.
    Secured(Box<Secured>),
    /// The backend does TLS.
    Raw(Box<Hello>),
}

/// A connection that has been let in, with a backend to talk to.
struct Established {
    client: TcpStream,
    dialed: Dialed,
    tls: Tls,
    limits: Limits,
    /// What the connection is told to end by.
    told: Arc<Handle>,
    /// Given back when the relay ends.
    slots: Slots,
}

/// A connection that ends before any payload moves.
enum Ended {
    /// It is turned away.
    Refused(Refused),
    /// It was let in, and the gate's owner ended it while its backends were dialled.
    Cut(RelaySummary, Parting),
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

/// Who does the connection's TLS.
enum Tls {
    /// The kernel, with these keys.
    Kernel(Box<Keys>),
    /// The gate; with the bytes that came right behind the handshake, and those that wait to go out.
    Terminated(Box<Session>, Pending),
    /// The backend.
    Passthrough,
}

/// What is left of a connection: payload to its end, or a client that has yet to read why it was turned away. On the heap, and no
/// larger than its own path needs: this is what there is of a connection for as long as it lasts.
type Rest = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Sees a connection through, from accept to its one verdict.
///
/// No async fn: that would keep room for its arguments, and a relay may last for days.
pub(crate) fn serve(accepted: Accepted, gate: Arc<Gate>) -> impl Future<Output = ()> {
    let beginning = Box::pin(begin(accepted, gate));
    async move {
        if let Some(rest) = beginning.await {
            rest.await;
        }
    }
}

/// From accept to the first byte of payload, unless the gate is told to stop on the way; or to the verdict. That is given before
/// the client is waited for: whatever happens then, it stays the one that was reached.
async fn begin(accepted: Accepted, gate: Arc<Gate>) -> Option<Rest> {
    let mut record = Record::open(&gate, &accepted);
    // One generation of the configuration for the whole connection.
    let snapshot = gate.snapshot.load_full();
    let parting = match establish(accepted, &gate, &snapshot, &mut record).await {
        Ok(established) => return Some(relay(established, &gate, record)),
        Err(Ended::Refused(Refused { rejection, parting, .. })) => {
            record.rejected(&rejection);
            parting
        }
        Err(Ended::Cut(summary, parting)) => {
            record.closed(&summary);
            Some(parting)
        }
    };
    let parting = parting?.lingers()?;
    Some(Box::pin(async move { gate.admission.linger(parting).await }))
}

/// From accept to an open backend.
async fn establish(
    accepted: Accepted,
    gate: &Gate,
    snapshot: &Snapshot,
    record: &mut Record,
) -> Result<Established, Ended> {
    // Nobody has been let in up to there, so there is nobody to be told. Behind it, a client that dialling is given up for is.
    let permitted = gate.draining.run_until_cancelled(let_in(accepted, gate, snapshot, record)).await;
    let permitted = permitted.unwrap_or_else(|| Err(draining().into()))?;

    // On the heap, as is whatever else is large: most of those who knock never get here.
    Box::pin(reach(permitted, gate, &snapshot.timeouts, record)).await
}

/// What connections are turned away for that are on their way in when the gate is told to stop.
fn draining() -> Rejection {
    Rejection::silent(Cause::Draining)
}

/// From accept to the permit.
async fn let_in(
    accepted: Accepted,
    gate: &Gate,
    snapshot: &Snapshot,
    record: &mut Record,
) -> Result<Permitted, Refused> {
    let hello_deadline = accepted.at + snapshot.timeouts.client_hello;

    let admitted = gate.admission.admit(accepted, hello_deadline, |client| record.comes_from(client)).await?;
    record.admitted();

    // Until a handshake is over, its place may be needed for another one. A result that is there is never given up for that.
    let (evicted, gives_way) = admitted.slots.eviction();
    tokio::select! {
        biased;
        permitted = Box::pin(permit(admitted, gate, snapshot, record)) => permitted,
        () = evicted.notified() => Err(gives_way.into()),
    }
}

/// From the first byte to the permit. Each step takes what the one before it gave, so none can be left out.
async fn permit(
    admitted: Admitted,
    gate: &Gate,
    snapshot: &Snapshot,
    record: &mut Record,
) -> Result<Permitted, Refused> {
    let mut greeted = client_hello::peek(admitted).await?;
    record.greeted(&greeted);

    let route = match snapshot.routes.find(greeted.server_name.as_ref()) {
        Ok(route) => Arc::clone(route),
        Err(_) => return Err(greeted.refuse()),
    };
    if let Err(rejection) = gate.admission.turn(&mut greeted.admitted.slots, route.terminates()).await {
        return Err(greeted.decide().admitted.refuse(rejection, Last::Nothing));
    }
    record.routed(&route);

    let (tls, policy) = match &route.access {
        Access::Certificate { tls, policy, .. } => (tls, policy),
        Access::Passthrough(policy) => {
            // What speaks TLS with the backend is told nothing from here on.
            let mut hello = greeted.decide();
            hello.admitted.slots.handshake_done();
            if let Err(rejection) = gate.admission.without_certificate(&mut hello.admitted.slots) {
                return Err(hello.admitted.refuse(rejection, Last::Nothing));
            }
            let authorized = policy.permit();
            return Ok(Permitted { authorized, route, client: Client::Raw(Box::new(hello)) });
        }
    };

    let handshake_deadline = greeted.admitted.slots.handshake_deadline(Instant::now() + snapshot.timeouts.handshake);
    let handshaking = Box::pin(handshake(greeted, tls, gate.kernel.any(), handshake_deadline));
    let mut secured = match record.handshaking(handshaking).await {
        Ok(secured) => Box::new(secured),
        Err(refused) => {
            record.shown(&refused);
            return Err(refused);
        }
    };
    record.secured(&secured);
    secured.admitted.slots.handshake_done();

    let authorized = match authorize(secured.identity.clone(), policy) {
        Ok(authorized) => authorized,
        Err(rejection) => return Err(secured.refuse(rejection)),
    };

    let Parts { admitted: Admitted { slots, .. }, identity, chain, .. } = &mut **secured;
    let place = match (identity, chain) {
        (Some(identity), Some(chain)) if identity.verified => gate.admission.vouch(slots, identity, chain),
        _ => gate.admission.without_certificate(slots),
    };
    if let Err(rejection) = place {
        return Err(secured.refuse(rejection));
    }
    Ok(Permitted { authorized, route, client: Client::Secured(secured) })
}

/// From the permit to an open backend. All the while, the connection can be told to end, and a permit that a reload has taken
/// back is not used.
async fn reach(
    permitted: Permitted,
    gate: &Gate,
    timeouts: &Timeouts,
    record: &mut Record,
) -> Result<Established, Ended> {
    let Permitted { authorized, route, client } = permitted;
    let admitted = client.admitted();
    let limits = limits(timeouts, admitted.at);
    let (server_name, chain, header) = match &client {
        Client::Secured(secured) => {
            let header = proxy_header(route.send_proxy_protocol, secured);
            (secured.server_name.clone(), secured.chain.clone(), header)
        }
        Client::Raw(hello) => {
            let local = || admitted.destination();
            let header = proxy_protocol::header(route.send_proxy_protocol, admitted.client, local, None);
            (hello.server_name.clone(), None, header)
        }
    };
    let path = client.path(gate);

    // From here on, whatever takes its right away finds it; what did so before is found by asking.
    let told = record.enters(path);
    let allowed = || gate.still_leads(server_name.as_ref(), &route, chain.as_deref());
    let begun = record.dialing();
    let tried = |backend, up| record.tried(backend, up);
    let dialing = dial(authorized, &route.backends, &header, begun + timeouts.dial, &gate.resolver, &allowed, tried);
    let dialed = tokio::select! {
        biased;
        order = told.wait_for_order() => Err(Interrupted::Order(order)),
        () = gate.draining.cancelled() => Err(Interrupted::Refused(draining())),
        rejection = until_refused(gate, &allowed) => Err(Interrupted::Refused(rejection)),
        dialed = dialing => dialed.map_err(Interrupted::Refused),
    };
    record.dialed(dialed.as_ref().ok(), begun);

    match dialed {
        Ok(dialed) => Ok(client.established(path, dialed, limits, told)?),
        Err(Interrupted::Order(Order { reason: CloseReason::CutByHand, .. })) => {
            let summary = RelaySummary {
                reason: CloseReason::CutByHand,
                cause: None,
                detail: None,
                path,
                moved: Moved::default(),
            };
            Err(Ended::Cut(summary, client.close()))
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
    /// No backend is to be had, or not any more.
    Refused(Rejection),
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

impl Client {
    fn admitted(&self) -> &Admitted {
        match self {
            Self::Secured(secured) => &secured.admitted,
            Self::Raw(hello) => &hello.admitted,
        }
    }

    /// How its bytes will be moved.
    fn path(&self, gate: &Gate) -> Path {
        match self {
            Self::Secured(secured)
                if matches!(secured.payload, Payload::InSocket) && gate.kernel.fits(&secured.keys) =>
            {
                Path::Kernel
            }
            Self::Secured(_) => Path::Copy,
            Self::Raw(_) => Path::Raw,
        }
    }

    /// Turns it away. What speaks TLS with the backend can be told nothing.
    fn refuse(self, rejection: Rejection) -> Refused {
        match self {
            Self::Secured(secured) => secured.refuse(rejection),
            Self::Raw(hello) => hello.admitted.refuse(rejection, Last::Nothing),
        }
    }

    /// Ends it in order.
    fn close(self) -> Parting {
        match self {
            Self::Secured(secured) => secured.close(),
            Self::Raw(hello) => hello.admitted.part(Last::Nothing).1,
        }
    }

    fn established(
        self,
        path: Path,
        dialed: Dialed,
        limits: Limits,
        told: Arc<Handle>,
    ) -> Result<Established, Rejection> {
        let (admitted, tls) = match self {
            Self::Raw(hello) => (hello.admitted, Tls::Passthrough),
            Self::Secured(secured) => {
                let Parts { admitted, keys, payload, .. } = secured.decide();
                let tls = match (path, payload) {
                    (Path::Kernel, _) => Tls::Kernel(Box::new(keys)),
                    (_, Payload::InSocket) => Tls::Terminated(session(keys)?, Pending::default()),
                    (_, Payload::Here(pending)) => Tls::Terminated(session(keys)?, pending),
                };
                (admitted, tls)
            }
        };
        let Admitted { stream: client, slots, .. } = admitted;
        Ok(Established { client, dialed, tls, limits, told, slots })
    }
}

fn session(keys: Keys) -> Result<Box<Session>, Rejection> {
    let session = Session::new(keys).map_err(|error| Rejection::silent(Cause::Tls(Text::new(error))));
    session.map(Box::new)
}

fn proxy_header(form: SendProxyProtocol, secured: &Secured) -> Vec<u8> {
    let facts = TlsFacts {
        version: secured.facts.version,
        cipher_suite: &secured.facts.cipher_suite,
        identity: secured.identity.as_deref(),
        resumed: secured.facts.resumed,
        server_name: secured.server_name.as_ref().map(|name| name.as_str()),
        application_protocol: secured.facts.application_protocol.as_deref(),
    };
    proxy_protocol::header(form, secured.admitted.client, || secured.admitted.destination(), Some(facts))
}

fn limits(timeouts: &Timeouts, accepted_at: Instant) -> Limits {
    Limits {
        idle: timeouts.idle,
        half_close: timeouts.half_close,
        lifetime: timeouts.lifetime.map(|lifetime| accepted_at + lifetime),
    }
}

/// Moves payload until both sides have ended.
fn relay(established: Established, gate: &Gate, mut record: Record) -> Rest {
    let Established { client, dialed, tls, limits, slots, told } = established;
    let backend = dialed.stream;
    match tls {
        Tls::Kernel(keys) => {
            record.relay_begins(Path::Kernel);
            to_the_end(relay::in_kernel(client, *keys, &gate.kernel, backend, limits, told), slots, record)
        }
        Tls::Terminated(session, payload) => {
            record.relay_begins(Path::Copy);
            to_the_end(relay::terminated(client, session, payload, backend, limits, told), slots, record)
        }
        Tls::Passthrough => {
            record.relay_begins(Path::Raw);
            to_the_end(relay::passthrough(client, backend, limits, told), slots, record)
        }
    }
}

/// A relay, and behind it the verdict. The places are given back first: whoever reads the verdict finds them free.
fn to_the_end(
    mut relaying: impl Future<Output = RelaySummary> + Unpin + Send + 'static,
    slots: Slots,
    record: Record,
) -> Rest {
    let mut held = Some((slots, record));
    // No async block: that would keep the relay twice.
    Box::pin(poll_fn(move |cx| {
        let summary = ready!(Pin::new(&mut relaying).poll(cx));
        if let Some((slots, record)) = held.take() {
            drop(slots);
            record.closed(&summary);
        }
        Poll::Ready(())
    }))
}

#[cfg(test)]
mod tests;
