//! A connection within all limits, and its end if it is refused.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::slots::{Probation, Slots};
use crate::config::checked;
use crate::model::identity::Identity;
use crate::model::rejection::{Alert, Rejection};
use crate::model::source::Source;
use crate::sys::accepted::AcceptedStream;
use crate::sys::socket::{self, Farewell};

/// A connection within all limits.
#[derive(Debug)]
pub struct Admitted {
    /// The socket; a PROXY protocol header has been taken off it.
    pub stream: AcceptedStream,
    /// The client's address; from the PROXY protocol header where one is required.
    pub client: SocketAddr,
    /// What the client connected to, if a PROXY protocol header has it.
    pub(super) destination: Option<SocketAddr>,
    /// Where it arrived.
    pub listener: Arc<checked::Listener>,
    /// When.
    pub at: Instant,
    /// When its ClientHello has to be complete.
    pub hello_deadline: Instant,
    /// The slots it holds.
    pub slots: Slots,
}

/// The last bytes that a client is sent.
#[derive(Clone, Copy, Debug)]
pub enum Last<'a> {
    /// None.
    Nothing,
    /// An alert before there are keys, in answer to so many bytes that were peeked at.
    Plain(Alert, usize),
    /// These records; the alert in them, if it is known which one that is.
    Records(&'a [u8], Option<Alert>),
}

/// A connection that is refused. It holds no slot any more and its client has been sent the last bytes; what is left is to
/// record it and to give the client time to read.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub rejection: Rejection,
    /// The certificate that was shown, if one was. For the log: it need not have been verified.
    pub identity: Option<Arc<Identity>>,
    /// What is left of the connection. It is closed only when the verdict has been recorded.
    pub parting: Option<Parting>,
}

/// A client that has been sent its last bytes.
#[derive(Debug)]
pub struct Parting {
    pub(super) stream: AcceptedStream,
    pub(super) source: Source,
    /// How the connection is closed.
    pub(super) farewell: Farewell,
}

impl Parting {
    /// Closes the connection, unless its client is to get time to read.
    pub fn lingers(self) -> Option<Self> {
        match self.farewell {
            Farewell::Close => None,
            Farewell::Shutdown => {
                socket::shutdown_and_close(self.stream);
                None
            }
            Farewell::Linger => Some(self),
        }
    }
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        Self { rejection, identity: None, parting: None }
    }
}

impl Admitted {
    /// What the client connected to, for the header that backends are sent.
    pub fn destination(&self) -> SocketAddr {
        self.destination.or_else(|| self.stream.local_addr().ok()).unwrap_or(self.listener.address)
    }

    /// Refuses the connection: gives back its slots and sends the client the last bytes.
    pub fn refuse(self, rejection: Rejection, last: Last<'_>) -> Refused {
        match self.slots.probation.as_deref() {
            Some(Probation { refused, reset, heard: false, .. }) => {
                if *reset && let Ok(socket) = self.stream.socket() {
                    socket::reset_on_close(&socket);
                }
                let rejection = refused.clone();
                Refused { rejection, identity: None, parting: Some(self.part(Last::Nothing).1) }
            }
            _ => {
                let (alert, parting) = self.part(last);
                Refused { rejection: Rejection { alert, ..rejection }, identity: None, parting: Some(parting) }
            }
        }
    }

    /// Gives back all slots and sends the client the last bytes. Returns the alert that was sent.
    pub fn part(self, last: Last<'_>) -> (Option<Alert>, Parting) {
        let Self { stream, slots, .. } = self;
        let source = slots.source;
        // First of all, so that the next connection finds them free.
        drop(slots);
        let (sent, alert) = match last {
            Last::Nothing | Last::Records([], _) => (Ok(Farewell::Close), None),
            Last::Plain(alert, judged) => {
                (socket::send_answer(&stream, judged, &alert.plaintext_record()), Some(alert))
            }
            Last::Records(records, alert) => (socket::send_last(&stream, records), alert),
        };
        let alert = alert.filter(|_| sent.is_ok());
        (alert, Parting { stream, source, farewell: sent.unwrap_or(Farewell::Close) })
    }
}
