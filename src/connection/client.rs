//! What the gate holds of a client that may go on to a backend.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::{Established, Tls};
use crate::admission::{Admitted, Last, Parting, Refused};
use crate::backends::dial::Connection;
use crate::client_hello::Hello;
use crate::config::checked::SendProxyProtocol;
use crate::gate::Gate;
use crate::handshake::{Parts, Payload, Secured};
use crate::model::close::CloseReason;
use crate::model::identity::Chain;
use crate::model::names::ServerName;
use crate::model::rejection::{Cause, Rejection, Text};
use crate::proxy_protocol::{self, TlsFacts};
use crate::relay::{Handle, Limits, Path};
use crate::tls::record::{Keys, Pending, Session};

/// What the gate holds of a client that may go on.
pub(super) enum Client {
    /// TLS ends here.
    Secured(Box<Secured>),
    /// The backend does TLS.
    Raw(Box<Hello>),
}

impl Client {
    pub(super) fn admitted(&self) -> &Admitted {
        match self {
            Self::Secured(secured) => &secured.admitted,
            Self::Raw(hello) => &hello.admitted,
        }
    }

    /// The backend is sent something as soon as it is connected.
    pub(super) fn payload_waits(&self) -> bool {
        match self {
            Self::Secured(secured) => {
                matches!(&secured.payload, Payload::Here(pending) if pending.has_record())
            }
            // The ClientHello.
            Self::Raw(_) => true,
        }
    }

    /// The application protocol that it has chosen.
    pub(super) fn protocol(&self) -> Option<&[u8]> {
        match self {
            Self::Secured(secured) => secured.facts.application_protocol.as_deref(),
            Self::Raw(_) => None,
        }
    }

    /// How its bytes will be moved. To a backend with TLS they are sealed again, so they have to come to user space.
    pub(super) fn path(&self, gate: &Gate, backend_tls: bool) -> Path {
        match self {
            Self::Secured(_) if backend_tls => Path::Copy,
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
    pub(super) fn refuse(self, rejection: Rejection) -> Refused {
        match self {
            Self::Secured(secured) => secured.refuse(rejection),
            Self::Raw(hello) => hello.admitted.refuse(rejection, Last::Nothing),
        }
    }

    /// Ends it for this reason, before any payload.
    pub(super) fn end(self, reason: CloseReason) -> Parting {
        match self {
            Self::Secured(secured) => secured.end(reason.ending()),
            Self::Raw(hello) => hello.admitted.part(Last::Nothing).1,
        }
    }

    pub(super) fn established(
        self,
        path: Path,
        connection: Connection,
        limits: Limits,
        told: Arc<Handle>,
    ) -> Result<Established, Rejection> {
        let (admitted, tls) = match (self, connection) {
            (Self::Raw(hello), Connection::Plain(backend)) => (hello.admitted, Tls::Passthrough(backend)),
            // The configuration rules it out.
            (Self::Raw(_), Connection::Tls(_)) => {
                return Err(Rejection::silent(Cause::Tls(Text::new("TLS inside the TLS of a passthrough route"))));
            }
            (Self::Secured(secured), backend) => {
                let Parts { admitted, keys, payload, .. } = secured.decide();
                let in_kernel = path == Path::Kernel;
                let pending = |payload| match payload {
                    Payload::InSocket => Pending::default(),
                    Payload::Here(pending) => pending,
                };
                let tls = match backend {
                    Connection::Plain(backend) if in_kernel => Tls::Kernel(Box::new(keys), backend),
                    Connection::Plain(backend) => Tls::Terminated(session(keys)?, pending(payload), backend),
                    Connection::Tls(backend) => Tls::Both(session(keys)?, pending(payload), backend),
                };
                (admitted, tls)
            }
        };
        let Admitted { stream, slots, .. } = admitted;
        let client = stream.into_watched().map_err(|error| Rejection::silent(Cause::ClientHelloIo(error.into())))?;
        Ok(Established { client, tls, limits, told, slots })
    }

    /// Waits until the client has left, and returns how it did.
    pub(super) async fn until_left(&self) -> CloseReason {
        const EVERY: Duration = Duration::from_secs(1);
        loop {
            sleep(EVERY).await;
            let payload_waits = self.payload_waits();
            let stream = &self.admitted().stream;
            if stream.is_gone() {
                return CloseReason::ClientReset;
            }
            // What it has sent before may be all of its request: it then waits for the answer.
            if stream.has_ended() && !payload_waits {
                return CloseReason::ClientClosed;
            }
        }
    }

    pub(super) fn server_name(&self) -> Option<&ServerName> {
        match self {
            Self::Secured(secured) => secured.server_name.as_ref(),
            Self::Raw(hello) => hello.server_name.as_ref(),
        }
    }

    /// The verified chain, if it showed one.
    pub(super) fn chain(&self) -> Option<&Arc<Chain>> {
        match self {
            Self::Secured(secured) => secured.chain.as_ref(),
            Self::Raw(_) => None,
        }
    }

    /// The PROXY protocol header for its backend.
    pub(super) fn proxy_header(&self, form: SendProxyProtocol) -> Vec<u8> {
        let facts = match self {
            Self::Secured(secured) => Some(TlsFacts {
                version: secured.facts.version,
                cipher_suite: secured.facts.cipher_suite,
                identity: secured.identity.as_deref(),
                certificate: secured.certificate(),
                resumed: secured.facts.resumed,
                server_name: secured.server_name.as_ref().map(|name| name.as_str()),
                application_protocol: secured.facts.application_protocol.as_deref(),
            }),
            Self::Raw(_) => None,
        };
        proxy_protocol::header(form, self.admitted().client, || self.admitted().destination(), facts)
    }
}

fn session(keys: Keys) -> Result<Box<Session>, Rejection> {
    let session = Session::new(keys).map_err(|error| Rejection::silent(Cause::Tls(Text::new(error))));
    session.map(Box::new)
}
