//! The life of a connection. Read [`establish`] and [`prove`] from top to bottom to know the product.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::admission::{Admitted, Slots};
use crate::authorize::{Authorized, authorize};
use crate::client_hello;
use crate::config::checked::{SendProxyProtocol, Timeouts};
use crate::dial::{Dialed, dial};
use crate::gate::Gate;
use crate::handshake::{Payload, Secured, handshake};
use crate::listener::Accepted;
use crate::proxy_protocol::{self, TlsFacts};
use crate::record::{Keys, Pending, Session};
use crate::rejection::{Reason, Rejection};
use crate::relay::{self, Limits, Path, RelaySummary};
use crate::snapshot::{Access, Route, Snapshot};
use crate::verdict::Record;

/// A connection that has been let in, with a backend to talk to.
struct Established {
    client: TcpStream,
    dialed: Dialed,
    tls: Tls,
    limits: Limits,
    /// Given back when the relay ends.
    slots: Slots,
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

/// A connection that payload moves through, to its end. On the heap, and no larger than its own path needs: this is what
/// there is of a connection for as long as it lasts.
type Relaying = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Sees a connection through, from accept to its one verdict.
///
/// No async fn: that would keep room for its arguments, and a relay may last for days.
pub(crate) fn serve(accepted: Accepted, gate: Arc<Gate>) -> impl Future<Output = ()> {
    let beginning = Box::pin(begin(accepted, gate));
    async move {
        if let Some(relaying) = beginning.await {
            relaying.await;
        }
    }
}

/// From accept to the first byte of payload, unless the gate is told to stop on the way. `None` is a refusal.
async fn begin(accepted: Accepted, gate: Arc<Gate>) -> Option<Relaying> {
    let mut record = Record::open(&gate, &accepted);
    // One generation of the configuration for the whole connection.
    let snapshot = gate.snapshot.load_full();
    let decided = gate.draining.run_until_cancelled(establish(accepted, &gate, &snapshot, &mut record)).await;
    match decided.unwrap_or_else(|| Err(Rejection::silent(Reason::Draining, "the gate is shutting down"))) {
        Ok(established) => Some(relay(established, &gate, &snapshot, record)),
        Err(rejection) => {
            record.rejected(&rejection);
            None
        }
    }
}

/// From accept to an open backend.
async fn establish(
    accepted: Accepted,
    gate: &Gate,
    snapshot: &Snapshot,
    record: &mut Record,
) -> Result<Established, Rejection> {
    let hello_deadline = accepted.at + snapshot.timeouts.client_hello;

    let admitted = gate.admission.admit(accepted, hello_deadline, |client| record.comes_from(client)).await?;
    record.admitted();

    // Until it is known who this is, the place may be needed for somebody else.
    let evicted = admitted.slots.evicted();
    tokio::select! {
        biased;
        established = Box::pin(prove(admitted, hello_deadline, gate, snapshot, record)) => established,
        () = evicted.notified() => Err(Rejection::silent(
            Reason::HandshakeLimit,
            "its place was needed, and this was the oldest handshake of the source that had the most",
        )),
    }
}

/// From the first byte to an open backend. Each step takes what the one before it gave, so none can be left out.
async fn prove(
    admitted: Admitted,
    hello_deadline: Instant,
    gate: &Gate,
    snapshot: &Snapshot,
    record: &mut Record,
) -> Result<Established, Rejection> {
    let timeouts = &snapshot.timeouts;
    let limits = limits(timeouts, admitted.at);

    let greeted = client_hello::peek(admitted, hello_deadline).await?;
    record.greeted(&greeted);

    let route = match snapshot.routes.find(greeted.server_name.as_ref()) {
        Ok(route) => Arc::clone(route),
        Err(reason) => return Err(greeted.refuse(reason).await),
    };
    record.routed(&route);

    let (tls, policy) = match &route.access {
        Access::Certificate { tls, policy, .. } => (tls, policy),
        Access::Passthrough(policy) => {
            let mut admitted = greeted.admitted;
            admitted.slots.handshake_done();
            gate.admission.without_certificate(&mut admitted.slots)?;
            let header =
                proxy_protocol::header(route.send_proxy_protocol, admitted.client, || admitted.destination(), None);
            let dialed = reach(policy.permit(), &route, &header, timeouts, gate, record).await?;
            let Admitted { stream: client, slots, .. } = admitted;
            return Ok(Established { client, dialed, tls: Tls::Passthrough, limits, slots });
        }
    };

    let handshake_deadline = Instant::now() + timeouts.handshake;
    // On the heap, as is whatever else is large: most of those who knock never get here.
    let handshaking = Box::pin(handshake(greeted, tls, gate.kernel.any(), handshake_deadline));
    let mut secured = match record.handshaking(handshaking).await {
        Ok(secured) => secured,
        Err(refused) => {
            record.shown(refused.identity);
            return Err(refused.rejection);
        }
    };
    record.secured(&secured);
    secured.admitted.slots.handshake_done();

    let authorized = match authorize(secured.identity.clone(), policy) {
        Ok(authorized) => authorized,
        Err(rejection) => return Err(secured.refuse(rejection).await),
    };

    if secured.identity.as_ref().is_some_and(|identity| identity.verified) {
        secured.admitted.slots.vouch();
    } else if let Err(rejection) = gate.admission.without_certificate(&mut secured.admitted.slots) {
        return Err(secured.refuse(rejection).await);
    }

    // A reload may have taken the right away since the connection began.
    if let Err(rejection) = gate.lets_in_still(&route.name, secured.chain.as_deref(), snapshot) {
        return Err(secured.refuse(rejection).await);
    }

    let header = proxy_header(route.send_proxy_protocol, &secured);
    let dialed = match reach(authorized, &route, &header, timeouts, gate, record).await {
        Ok(dialed) => dialed,
        Err(rejection) => return Err(secured.refuse(rejection).await),
    };

    let Secured { admitted, keys, payload, .. } = secured;
    let session = |keys| {
        let session = Session::new(keys).map_err(|error| Rejection::silent(Reason::Internal, error.to_string()));
        session.map(Box::new)
    };
    let tls = match payload {
        Payload::InSocket if gate.kernel.fits(&keys) => Tls::Kernel(Box::new(keys)),
        Payload::InSocket => Tls::Terminated(session(keys)?, Pending::default()),
        Payload::Here(pending) => Tls::Terminated(session(keys)?, pending),
    };
    let Admitted { stream: client, slots, .. } = admitted;
    Ok(Established { client, dialed, tls, limits, slots })
}

/// Opens a backend for whoever holds a permit.
async fn reach(
    authorized: Authorized,
    route: &Route,
    header: &[u8],
    timeouts: &Timeouts,
    gate: &Gate,
    record: &mut Record,
) -> Result<Dialed, Rejection> {
    let begun = record.dialing();
    let tried = |backend, up| record.tried(backend, up);
    let dialed = dial(authorized, &route.backends, header, begun + timeouts.dial, &gate.resolver, tried).await;
    record.dialed(&dialed, begun);
    dialed
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
fn relay(established: Established, gate: &Gate, snapshot: &Arc<Snapshot>, mut record: Record) -> Relaying {
    let Established { client, dialed, tls, limits, slots } = established;
    let backend = dialed.stream;
    match tls {
        Tls::Kernel(keys) => {
            let handle = record.relay_begins(Path::Kernel, snapshot);
            to_the_end(relay::in_kernel(client, *keys, &gate.kernel, backend, limits, handle), slots, record)
        }
        Tls::Terminated(session, payload) => {
            let handle = record.relay_begins(Path::Copy, snapshot);
            to_the_end(relay::terminated(client, session, payload, backend, limits, handle), slots, record)
        }
        Tls::Passthrough => {
            let handle = record.relay_begins(Path::Raw, snapshot);
            to_the_end(relay::passthrough(client, backend, limits, handle), slots, record)
        }
    }
}

/// A relay, and behind it the verdict. The places are given back first: whoever reads the verdict finds them free.
fn to_the_end(
    mut relaying: impl Future<Output = RelaySummary> + Unpin + Send + 'static,
    slots: Slots,
    record: Record,
) -> Relaying {
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
