//! Stage 4: the TLS handshake. [`driver`](crate::tls::driver) is rustls; this is the socket, and what is made of the outcome.

pub mod config;
mod hkdf;
mod observation;
pub mod suites;
mod tickets;
pub mod trust;
mod verifier;

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{Error, PeerIncompatible};
use scopeguard::ScopeGuard;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use self::config::RouteTls;
use self::observation::{Observation, observe};
use self::verifier::Judged;
use crate::admission::{Admitted, Last, Parting, Refused};
use crate::client_hello::{Greeted, Hello};
use crate::model::identity::{Chain, Identity};
use crate::model::names::ServerName;
use crate::model::rejection::{Alert, Cause, Reason, Rejection, Text};
use crate::sys::ktls;
use crate::sys::socket::{self, send};
pub use crate::tls::driver::Facts;
use crate::tls::driver::{self, Finished, Wants};
use crate::tls::record::{Keys, Pending, RECORD_MAX, Session};

/// The most received bytes a handshake may pile up: a message may span records, and rustls takes one of 64 KiB.
const RECEIVED_MAX: usize = 96 * 1024;

/// The most records of a handshake behind the ClientHello. Clients send three to ten, and those with records of 512 bytes send
/// sixty for a chain of 30 kB; each costs as much as hundreds of bytes do.
const RECORDS_MAX: usize = 128;

/// The header of a record.
const RECORD_HEADER: usize = 5;

/// A completed handshake.
///
/// Its client believes itself in, so it is never left without a word: dropped without a decision, it tells the client
/// `internal_error`.
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
    /// Whom the certificate names, at the head of the chain that was verified. `None` if none was shown, which only
    /// some client-auth modes let through.
    pub identity: Option<Arc<Identity>>,
    /// The chain that was verified.
    pub chain: Option<Arc<Chain>>,
    /// What was negotiated.
    pub facts: Facts,
}

/// Where the bytes are that stand next to the handshake.
#[derive(Debug)]
pub enum Payload {
    /// Here, but for what the client has not sent yet.
    Here(Pending),
    /// All that the client has sent is in its socket, kernel TLS is attached to it, without keys, and nothing is left to be
    /// sent.
    InSocket,
}

impl Secured {
    fn new(parts: Parts) -> Self {
        Self(scopeguard::guard(parts, |parts| drop(parts.refuse_undecided())))
    }

    /// Takes it apart, for a decision.
    pub fn decide(self) -> Parts {
        ScopeGuard::into_inner(self.0)
    }

    /// Turns the client away, after all. rustls itself can send no alert any more, but the keys can.
    pub fn refuse(self, rejection: Rejection) -> Refused {
        self.decide().refuse(rejection)
    }

    /// Ends the connection in order, before any payload.
    pub fn close(self) -> Parting {
        let Parts { admitted, keys, payload, .. } = self.decide();
        let mut records = unsent(payload);
        let sealed = Session::new(keys).map(|mut session| session.close_notify(&mut records).is_ok());
        if !sealed.unwrap_or_default() {
            records.clear();
        }
        admitted.part(Last::Records(&records, None)).1
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
    fn refuse(self, rejection: Rejection) -> Refused {
        let Self { admitted, keys, payload, .. } = self;
        let mut records = unsent(payload);
        // Most reasons that are told by the close alone are given before any key exists. Here, that would look like an attack on
        // the connection: RFC 8446 section 6.1.
        let alert = rejection.reason().alert().unwrap_or(Alert::INTERNAL_ERROR);
        let sealed = Session::new(keys).is_ok_and(|mut session| session.fatal(alert, &mut records).is_ok());
        let last = if sealed { Last::Records(&records, Some(alert)) } else { Last::Nothing };
        admitted.refuse(rejection, last)
    }

    /// Refuses a client that was given up before anything was decided. Does not wait: it is called in drops.
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

/// Drives the handshake until `deadline`.
///
/// With `for_kernel` the socket is made ready for kernel TLS, if it can be: see [`Payload::InSocket`].
///
/// A client that is refused is told by an alert.
pub async fn handshake(
    mut greeted: Greeted,
    tls: &RouteTls,
    for_kernel: bool,
    deadline: Instant,
) -> Result<Secured, Refused> {
    // Attached now, while the client cannot have ended: Linux attaches it to no socket whose other side has.
    let exact = for_kernel && ktls::attach(&greeted.admitted.stream).is_ok();
    let mut driver = match driver::Handshake::new(Arc::clone(&tls.server)) {
        // On the heap: it is large, and of no more use once the handshake is over.
        Ok(tls) => Box::new(Driver {
            tls,
            received: Vec::new(),
            fed: 0,
            exact,
            peeked: 0,
            mark: 1,
            hello: greeted.length,
            records: 0,
            unsent: Vec::new(),
            observation: Observation::default(),
        }),
        Err(error) => return Err(greeted.fail(&error)),
    };
    // The ClientHello is still in the socket; it fits the first read, and so does what comes right behind it.
    driver.received.reserve(greeted.length + RECORD_HEADER);
    let Hello { admitted: Admitted { stream, .. }, answered, .. } = &mut *greeted;
    let outcome = timeout_at(deadline, driver.run(stream, answered)).await;
    let mark = driver.wait_for(stream, 1);
    let outcome = outcome.map(|done| done.and_then(|()| mark.map_err(Failure::Io)));
    let (cause, last, alert) = match outcome {
        Ok(Ok(())) => return driver.finish(greeted, tls),
        Ok(Err(Failure::Tls { error, mut alert })) => {
            let unable_to_sign = driver.observation.unable_to_sign && matches!(error, Error::General(_));
            if alert.is_empty() && unable_to_sign {
                // rustls sends none. It is TLS 1.2, before there are keys.
                alert.extend(Reason::NoSharedParameters.alert().iter().flat_map(|alert| alert.plaintext_record()));
            }
            let cause = driver
                .observation
                .refusal
                .take()
                .unwrap_or_else(|| if unable_to_sign { Cause::NoSignatureScheme } else { cause_of(&error) });
            let told = description(cause.reason(), &alert);
            (cause, alert, told)
        }
        Ok(Err(Failure::Closed)) => silent(Cause::HandshakeEnded),
        Ok(Err(Failure::Io(error))) => silent(Cause::HandshakeIo(error.into())),
        Ok(Err(Failure::TooMuch)) => silent(Cause::HandshakeTooLong),
        Err(_) => silent(Cause::HandshakeTimeout),
    };
    let refused = greeted.decide().admitted.refuse(cause.into(), Last::Records(&last, alert));
    Err(Refused { identity: driver.presented(), ..refused })
}

/// A rejection that sends nothing.
const fn silent(cause: Cause) -> (Cause, Vec<u8>, Option<Alert>) {
    (cause, Vec::new(), None)
}

struct Driver {
    tls: driver::Handshake,
    received: Vec<u8>,
    /// How many of the received bytes rustls has been shown. It is shown one record more at a time: what stands behind
    /// the last record of the handshake is payload, and must stay sealed until there is a backend to take it.
    fed: usize,
    /// Nothing may be taken off the socket but what rustls was shown: the kernel goes on where the handshake ends.
    exact: bool,
    /// If so, how many bytes at the end of what was received are only a copy: they still stand at the head of the socket.
    /// It counts those that rustls has done away with, too.
    peeked: usize,
    /// How many bytes must be in the socket before it counts as readable.
    mark: usize,
    /// How many bytes of the ClientHello rustls has not been shown yet.
    hello: usize,
    /// How many records rustls has been shown behind it.
    records: usize,
    /// Records that can wait.
    unsent: Vec<u8>,
    observation: Observation,
}

enum Failure {
    Closed,
    Io(io::Error),
    TooMuch,
    Tls { error: Error, alert: Vec<u8> },
}

impl From<driver::Failure> for Failure {
    fn from(failure: driver::Failure) -> Self {
        match failure {
            driver::Failure::Closed => Self::Closed,
            driver::Failure::Tls { error, alert } => Self::Tls { error, alert },
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Driver {
    /// Whom a certificate names that was shown in a handshake which came to nothing. That the client holds its key has not
    /// been proved, so the identity is not verified, even if it is anchored.
    fn presented(&mut self) -> Option<Arc<Identity>> {
        let identity = self.observation.identity.take()?;
        Some(Arc::new(Identity { verified: false, ..Identity::clone(&identity) }))
    }

    /// The ClientHello has come whole. `answered` is set before anything is sent.
    async fn run(&mut self, stream: &TcpStream, answered: &mut bool) -> Result<(), Failure> {
        if self.exact {
            // Of these bytes it is known whose they are, so they need no second look.
            self.received.resize(self.hello, 0);
            let read = stream.try_read(&mut self.received);
            self.received.truncate(read.unwrap_or_default());
        }
        let mut out = Vec::new();
        loop {
            match self.advance(&mut out)? {
                // The kernel numbers its records from the first one on that has not been sent.
                Wants::Send if self.tls.only_tickets_are_left() && !self.exact => self.unsent.append(&mut out),
                Wants::Send => {
                    *answered = true;
                    send(stream, &out).await?;
                    out.clear();
                }
                Wants::Receive => self.receive(stream).await?,
                Wants::Nothing => return Ok(()),
            }
        }
    }

    /// Takes one more record, from what has been received or from the socket.
    async fn receive(&mut self, stream: &TcpStream) -> Result<(), Failure> {
        loop {
            let rest = self.received.get(self.fed..).unwrap_or_default();
            let mut missing = 1;
            if let Some(&[_, _, _, high, low]) = rest.first_chunk::<RECORD_HEADER>() {
                let record = RECORD_HEADER + usize::from(u16::from_be_bytes([high, low]));
                // A length that no record may have is shown to rustls at once, for the alert that belongs to it.
                if rest.len() >= record || record > RECORD_MAX {
                    let shown = record.min(rest.len());
                    self.fed += shown;
                    return self.count(shown);
                }
                missing = record - rest.len();
            }
            if self.received.len() > RECEIVED_MAX {
                return Err(Failure::TooMuch);
            }
            // rustls wants another record, so the part of one that is here will be shown to it for certain.
            self.take_off(stream, 0)?;
            self.wait_for(stream, missing)?;
            stream.readable().await?;
            self.received.reserve(missing.max(4096));
            let read = if self.exact { self.peek(stream) } else { socket::read(stream, &mut self.received) };
            match read {
                Ok(0) => return Err(Failure::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Counts a record of so many bytes.
    fn count(&mut self, bytes: usize) -> Result<(), Failure> {
        if self.hello == 0 {
            self.records += 1;
        }
        self.hello = self.hello.saturating_sub(bytes);
        if self.records > RECORDS_MAX { Err(Failure::TooMuch) } else { Ok(()) }
    }

    /// Has the socket count as readable only when so many bytes have come, or the end: a record wakes the handshake once,
    /// however small the pieces are in which it comes.
    fn wait_for(&mut self, stream: &TcpStream, bytes: usize) -> io::Result<()> {
        if self.mark != bytes {
            socket::set_receive_low_water_mark(stream, bytes)?;
            self.mark = bytes;
        }
        Ok(())
    }

    /// Copies what stands at the head of the socket behind what was received.
    fn peek(&mut self, stream: &TcpStream) -> io::Result<usize> {
        let start = self.received.len();
        self.received.resize(self.received.capacity(), 0);
        let peeked = stream
            .try_io(Interest::READABLE, || socket::peek(stream, self.received.get_mut(start..).unwrap_or_default()));
        self.peeked = peeked.as_ref().copied().unwrap_or_default();
        self.received.truncate(start + self.peeked);
        peeked
    }

    /// Takes what was peeked at off the socket, but for the last `left` bytes.
    fn take_off(&mut self, stream: &TcpStream, left: usize) -> io::Result<()> {
        let done = self.peeked.saturating_sub(left);
        self.peeked -= done;
        socket::discard(stream, done)
    }

    /// Lets rustls work until it needs the network. What it has to send is appended to `out`.
    fn advance(&mut self, out: &mut Vec<u8>) -> Result<Wants, Failure> {
        let Self { tls, received, fed, observation, .. } = self;
        Ok(observe(observation, || tls.advance(received, fed, out))?)
    }

    /// Takes out of rustls what the rest of the journey needs.
    fn finish(self: Box<Self>, greeted: Greeted, tls: &RouteTls) -> Result<Secured, Refused> {
        let mut driver = self;
        let payload = if driver.exact {
            let unused = driver.received.len() - driver.fed;
            if let Err(error) = driver.take_off(&greeted.admitted.stream, unused) {
                let rejection = Rejection::silent(Cause::HandshakeIo(error.into()));
                return Err(greeted.decide().admitted.refuse(rejection, Last::Nothing));
            }
            Payload::InSocket
        } else {
            driver.received.drain(..driver.fed);
            let (received, unsent) = (std::mem::take(&mut driver.received), std::mem::take(&mut driver.unsent));
            Payload::Here(Pending { received, unsent })
        };
        let Self { tls: handshake, observation, .. } = *driver;
        let Finished { facts, chain: shown, keys } = handshake.finish();
        let judged = observation.identity.zip(observation.chain).filter(|_| observation.refusal.is_none());
        let Hello { admitted, server_name, .. } = greeted.decide();
        let keys = match keys {
            Ok(keys) => keys,
            // Without keys, nothing can be said any more.
            Err(error) => {
                let rejection = Rejection::silent(Cause::Tls(Text::new(error)));
                return Err(admitted.refuse(rejection, Last::Nothing));
            }
        };
        // Before anything else is done that can fail.
        let mut secured =
            Secured::new(Parts { admitted, server_name, keys, payload, identity: None, chain: None, facts });
        match identify(&shown, judged, tls) {
            Ok(identified) => {
                (secured.identity, secured.chain) = identified.unzip();
                Ok(secured)
            }
            Err(Refused { rejection, identity, .. }) => Err(Refused { identity, ..secured.refuse(rejection) }),
        }
    }
}

/// Whom a chain names, and the chain.
type Named = (Arc<Identity>, Arc<Chain>);

/// The identity in the chain, with what was verified of it. `judged` is what the verifier let in during this handshake; if the client
/// did not send that, what it sent is judged now. On resumption rustls calls no verifier at all.
fn identify(chain: &[CertificateDer<'_>], judged: Option<Named>, tls: &RouteTls) -> Result<Option<Named>, Refused> {
    let Some((end_entity, intermediates)) = chain.split_first() else { return Ok(None) };
    if let Some(judged) = judged.filter(|(_, judged)| judged.certificates.iter().all(|one| chain.contains(one)))
        && judged.1.certificates.first() == Some(end_entity)
    {
        return Ok(Some(judged));
    }
    let Judged { identity, chain, verdict, .. } = tls.verifier.judge(end_entity, intermediates, UnixTime::now());
    match verdict {
        Ok(()) => Ok(identity.zip(chain)),
        Err(refused) => Err(Refused { identity, ..Rejection::silent(refused.cause).into() }),
    }
}

/// Which alert was sent: to be seen in the record while it is not encrypted, else the one rustls picks for the reason.
fn description(reason: Reason, sent: &[u8]) -> Option<Alert> {
    match sent {
        &[21, _, _, 0, 2, _, description] => Some(Alert(description)),
        _ if reason == Reason::Misbehaved => None,
        _ => reason.alert(),
    }
}

/// Our cause for an error of rustls, by its variant. Its text is only told.
fn cause_of(error: &Error) -> Cause {
    match error {
        Error::NoCertificatesPresented => Cause::NoCertificate,
        // What is wrong with the certificate itself, the verifier has told: this is the signature of the client's
        // CertificateVerify.
        Error::InvalidCertificate(_) => Cause::BadSignature,
        Error::NoApplicationProtocol => Cause::NoApplicationProtocol,
        Error::AlertReceived(alert) => Cause::PeerAlert(Alert((*alert).into())),
        Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => Cause::NoSharedVersion(Text::new(error)),
        Error::PeerIncompatible(_) => Cause::NoSharedParameters(Text::new(error)),
        Error::General(_) | Error::FailedToGetCurrentTime | Error::FailedToGetRandomBytes | Error::EncryptError => {
            Cause::Tls(Text::new(error))
        }
        // rustls' enum is not exhaustive: messages that are malformed, out of place or cannot be decrypted.
        _ => Cause::Misbehaved(Text::new(error)),
    }
}
