//! A completed handshake.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use scopeguard::ScopeGuard;

use crate::admission::{Admitted, Last, Parting, Refused};
use crate::model::close::Ending;
use crate::model::identity::{Chain, Identity};
use crate::model::names::ServerName;
use crate::model::rejection::{Alert, Cause, Rejection};
use crate::sys::socket;
use crate::tls::driver::Facts;
use crate::tls::record::{Keys, Pending, Session};

/// A completed handshake.
///
/// Its client takes the connection to be open, so it always gets an alert or a close_notify: a value dropped without a
/// decision sends `internal_error`.
#[derive(Debug)]
pub struct Secured(ScopeGuard<Parts, fn(Parts)>);

/// What a completed handshake leaves.
#[derive(Debug)]
pub struct Parts {
    /// The connection.
    pub admitted: Admitted,
    /// The server name that was asked for.
    pub server_name: Option<ServerName>,
    /// The traffic keys.
    pub keys: Keys,
    /// Where the client's first payload is.
    pub payload: Payload,
    /// The identity in the certificate that was verified. `None` if none was shown, which only some client-auth modes
    /// accept.
    pub identity: Option<Arc<Identity>>,
    /// The chain that was verified.
    pub chain: Option<Arc<Chain>>,
    /// What was negotiated.
    pub facts: Facts,
}

/// Where the bytes behind the handshake are.
#[derive(Debug)]
pub enum Payload {
    /// In memory, but for what the client has not sent yet.
    Here(Pending),
    /// All that the client has sent is in its socket, kernel TLS is attached to it, without keys, and nothing is left to be
    /// sent.
    InSocket,
}

impl Secured {
    pub(super) fn new(parts: Parts) -> Self {
        Self(scopeguard::guard(parts, |parts| drop(parts.refuse_undecided())))
    }

    /// Takes it apart, for a decision.
    pub fn decide(self) -> Parts {
        ScopeGuard::into_inner(self.0)
    }

    /// Refuses the client after the handshake. rustls can send no alert any more, so the record layer does.
    pub fn refuse(self, rejection: Rejection) -> Refused {
        self.decide().refuse(rejection)
    }

    /// Ends the connection before any payload.
    pub fn end(self, ending: Ending) -> Parting {
        let Parts { admitted, keys, payload, .. } = self.decide();
        let mut records = unsent(payload);
        let sealed = Session::new(keys).is_ok_and(|mut session| match ending {
            Ending::Complete => session.close_notify(&mut records).is_ok(),
            Ending::Alert(alert) => session.fatal(alert, &mut records).is_ok(),
            Ending::Truncated | Ending::AlertOfTheError => false,
        });
        admitted.part(if sealed { Last::Records(&records, None) } else { Last::Nothing }).1
    }
}

impl Deref for Secured {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl DerefMut for Secured {
    fn deref_mut(&mut self) -> &mut Parts {
        &mut self.0
    }
}

impl Parts {
    /// The client's own certificate, also after a resumption: it is in the ticket.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.chain.as_ref()?.certificates.first().map(|certificate| certificate.as_ref())
    }

    fn refuse(self, rejection: Rejection) -> Refused {
        let Self { admitted, keys, payload, .. } = self;
        let mut records = unsent(payload);
        // Most reasons that are told by the close alone are given before any key exists. Here, that would look like an
        // attack on the connection: RFC 8446 section 6.1.
        let alert = rejection.reason().alert().unwrap_or(Alert::INTERNAL_ERROR);
        let sealed = Session::new(keys).is_ok_and(|mut session| session.fatal(alert, &mut records).is_ok());
        let last = if sealed { Last::Records(&records, Some(alert)) } else { Last::Nothing };
        admitted.refuse(rejection, last)
    }

    /// Refuses a client without a decision. Does not wait: it is called in drops.
    fn refuse_undecided(self) -> Refused {
        socket::take_unread(&self.admitted.stream);
        self.refuse(Rejection::silent(Cause::NoVerdict))
    }
}

/// The records that have yet to be sent.
fn unsent(payload: Payload) -> Vec<u8> {
    match payload {
        Payload::Here(pending) => pending.unsent,
        Payload::InSocket => Vec::new(),
    }
}
