//! Stage 4: the TLS handshake, on rustls' unbuffered connection.

pub mod config;
mod hkdf;
mod observation;
pub mod suites;
mod tickets;
pub mod trust;
mod verifier;

use std::io;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, InsufficientSizeError, UnbufferedStatus};
use rustls::{Error, HandshakeKind, PeerIncompatible, ProtocolVersion};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use self::config::RouteTls;
use self::observation::{Observation, observe};
use self::verifier::Judged;
use crate::admission::{Admitted, Last, Parting, Refused};
use crate::client_hello::Greeted;
use crate::model::identity::{Chain, Identity};
use crate::model::names::ServerName;
use crate::model::rejection::{Alert, Reason, Rejection};
use crate::sys::ktls;
use crate::sys::socket::{self, send};
use crate::tls::record::{Keys, Pending, RECORD_MAX, Session};

/// The most received bytes a handshake may pile up: a message may span records, and rustls takes one of 64 KiB.
const RECEIVED_MAX: usize = 96 * 1024;

/// The most records of a handshake behind the ClientHello. Clients send three to ten, and those with records of 512 bytes send
/// sixty for a chain of 30 kB; each costs as much as hundreds of bytes do.
const RECORDS_MAX: usize = 128;

/// The header of a record.
const RECORD_HEADER: usize = 5;

/// A completed handshake.
#[derive(Debug)]
pub struct Secured {
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
    /// Turns the client away, after all. rustls itself can send no alert any more, but the keys can.
    pub fn refuse(self, rejection: Rejection) -> Refused {
        refuse_under_keys(self.admitted, self.keys, self.payload, rejection)
    }

    /// Ends the connection in order, before any payload.
    pub fn close(self) -> Parting {
        let mut records = unsent(self.payload);
        let sealed = Session::new(self.keys).map(|mut session| session.close_notify(&mut records).is_ok());
        if !sealed.unwrap_or_default() {
            records.clear();
        }
        self.admitted.part(Last::Records(&records, None)).1
    }
}

fn refuse_under_keys(admitted: Admitted, keys: Keys, payload: Payload, rejection: Rejection) -> Refused {
    let mut records = unsent(payload);
    let alert = rejection
        .reason
        .alert()
        .filter(|alert| Session::new(keys).is_ok_and(|mut session| session.fatal(*alert, &mut records).is_ok()));
    if alert.is_none() {
        records.clear();
    }
    admitted.refuse(rejection, Last::Records(&records, alert))
}

/// The records that have yet to be sent.
fn unsent(payload: Payload) -> Vec<u8> {
    match payload {
        Payload::Here(pending) => pending.unsent,
        Payload::InSocket => Vec::new(),
    }
}

/// What a handshake negotiated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite as registered with IANA.
    pub cipher_suite: String,
    /// The application protocol (ALPN).
    pub application_protocol: Option<Vec<u8>>,
    /// Whether the session was resumed from a ticket.
    pub resumed: bool,
}

/// Drives the handshake until `deadline`.
///
/// With `for_kernel` the socket is made ready for kernel TLS, if it can be: see [`Payload::InSocket`].
///
/// A client that is refused is told by an alert.
pub async fn handshake(
    greeted: Greeted,
    tls: &RouteTls,
    for_kernel: bool,
    deadline: Instant,
) -> Result<Secured, Refused> {
    let stream = &greeted.admitted.stream;
    // Attached now, while the client cannot have ended: Linux attaches it to no socket whose other side has.
    let exact = for_kernel && ktls::attach(stream).is_ok();
    let mut driver = match UnbufferedServerConnection::new(Arc::clone(&tls.server)) {
        // On the heap: it is large, and of no more use once the handshake is over.
        Ok(connection) => Box::new(Driver {
            connection,
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
        Err(error) => return Err(Rejection::silent(Reason::Internal, error.to_string()).into()),
    };
    // The ClientHello is still in the socket; it fits the first read, and so does what comes right behind it.
    driver.received.reserve(greeted.length + RECORD_HEADER);
    let outcome = timeout_at(deadline, driver.run(stream)).await;
    let mark = driver.wait_for(stream, 1);
    let outcome = outcome.map(|done| done.and_then(|()| mark.map_err(Failure::Io)));
    let (rejection, last, alert) = match outcome {
        Ok(Ok(())) => return driver.finish(greeted, tls),
        Ok(Err(Failure::Tls { error, mut alert })) => {
            if alert.is_empty() && is_unable_to_sign(&error) {
                // rustls sends none. It is TLS 1.2, before there are keys.
                alert.extend(Reason::NoSharedParameters.alert().iter().flat_map(|alert| alert.plaintext_record()));
            }
            let (reason, detail) =
                driver.observation.refusal.take().unwrap_or_else(|| (reason_for(&error), error.to_string()));
            let told = description(reason, &alert);
            (Rejection::silent(reason, detail), alert, told)
        }
        Ok(Err(Failure::Closed)) => silent(Reason::HandshakeClosedEarly, "ended during the handshake"),
        Ok(Err(Failure::Io(error))) => silent(Reason::HandshakeClosedEarly, error.to_string()),
        Ok(Err(Failure::TooMuch)) => silent(Reason::Misbehaved, "more bytes or records than a handshake can have"),
        Err(_) => silent(Reason::HandshakeTimeout, "not complete within timeouts.handshake"),
    };
    let refused = greeted.admitted.refuse(rejection, Last::Records(&last, alert));
    Err(Refused { identity: driver.presented(), ..refused })
}

/// A rejection that sends nothing.
fn silent(reason: Reason, detail: impl Into<String>) -> (Rejection, Vec<u8>, Option<Alert>) {
    (Rejection::silent(reason, detail), Vec::new(), None)
}

struct Driver {
    connection: UnbufferedServerConnection,
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

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What rustls wants next.
enum Wants {
    Send,
    Receive,
    Nothing,
}

impl Driver {
    /// Whom a certificate names that was shown in a handshake which came to nothing. That the client holds its key has not
    /// been proved, so the identity is not verified, even if it is anchored.
    fn presented(&mut self) -> Option<Arc<Identity>> {
        let identity = self.observation.identity.take()?;
        Some(Arc::new(Identity { verified: false, ..Identity::clone(&identity) }))
    }

    /// The ClientHello has come whole.
    async fn run(&mut self, stream: &TcpStream) -> Result<(), Failure> {
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
                Wants::Send if self.only_tickets_are_left() && !self.exact => self.unsent.append(&mut out),
                Wants::Send => {
                    send(stream, &out).await?;
                    out.clear();
                }
                Wants::Receive => self.receive(stream).await?,
                Wants::Nothing => return Ok(()),
            }
        }
    }

    /// Whether what rustls sends is of use to the client later only (RFC 8446 section 4.6.1). TLS 1.2 sends tickets before
    /// its Finished.
    fn only_tickets_are_left(&self) -> bool {
        !self.connection.is_handshaking() && self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
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
        let Self { connection, received, fed, observation, .. } = self;
        loop {
            let shown = received.get_mut(..*fed).unwrap_or_default();
            let UnbufferedStatus { discard, state } = observe(observation, || connection.process_tls_records(shown));
            let wants = match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(out, |space| data.encode(space)).map(|()| None),
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    Ok(Some(Wants::Send))
                }
                Ok(ConnectionState::BlockedHandshake) => Ok(Some(Wants::Receive)),
                Ok(ConnectionState::WriteTraffic(_)) => Ok(Some(Wants::Nothing)),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => return Err(Failure::Closed),
                // Early data is never accepted, and no record of payload is ever shown.
                Ok(_) => Err(Error::General("payload before the handshake was over".to_owned())),
                Err(error) => Err(error),
            };
            received.drain(..discard);
            *fed -= discard;
            match wants {
                // TLS 1.3 could write here before the client's Finished; we do not.
                Ok(Some(Wants::Nothing)) if connection.is_handshaking() => return Ok(Wants::Receive),
                Ok(Some(wants)) => return Ok(wants),
                Ok(None) => {}
                Err(error) => {
                    out.clear();
                    self.collect_alert(out);
                    return Err(Failure::Tls { error, alert: std::mem::take(out) });
                }
            }
        }
    }

    /// After an error rustls has an alert to send. It is asked for what it has, and not once more: shown the same bytes
    /// again it would find the same error, and queue another alert. The bytes must be there all the same, since its
    /// deframer remembers places in them.
    fn collect_alert(&mut self, out: &mut Vec<u8>) {
        let Self { connection, received, fed, observation, .. } = self;
        let shown = received.get_mut(..*fed).unwrap_or_default();
        while connection.wants_write() {
            match observe(observation, || connection.process_tls_records(shown)).state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    if encode(out, |space| data.encode(space)).is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// Takes out of rustls what the rest of the journey needs.
    fn finish(self: Box<Self>, greeted: Greeted, tls: &RouteTls) -> Result<Secured, Refused> {
        let mut driver = self;
        let payload = if driver.exact {
            let unused = driver.received.len() - driver.fed;
            let taken = driver.take_off(&greeted.admitted.stream, unused);
            taken.map_err(|error| Rejection::silent(Reason::HandshakeClosedEarly, error.to_string()))?;
            Payload::InSocket
        } else {
            driver.received.drain(..driver.fed);
            let (received, unsent) = (std::mem::take(&mut driver.received), std::mem::take(&mut driver.unsent));
            Payload::Here(Pending { received, unsent })
        };
        let Self { connection, observation, .. } = *driver;
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let facts = Facts {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "TLSv1.2",
            },
            cipher_suite: connection
                .negotiated_cipher_suite()
                .and_then(|suite| suite.suite().as_str().map(|name| name.replacen("TLS13_", "TLS_", 1)))
                .unwrap_or_default(),
            application_protocol: connection.alpn_protocol().map(<[u8]>::to_vec),
            resumed,
        };
        let judged = observation.identity.zip(observation.chain).filter(|_| observation.refusal.is_none());
        let identified = identify(connection.peer_certificates().unwrap_or_default(), judged, tls);
        let keys = match connection.dangerous_into_kernel_connection() {
            Ok((secrets, schedule)) => Keys { secrets, schedule },
            Err(error) => return Err(Rejection::silent(Reason::Internal, error.to_string()).into()),
        };
        let Greeted { admitted, server_name, .. } = greeted;
        match identified {
            Ok(identified) => {
                let (identity, chain) = identified.unzip();
                Ok(Secured { admitted, server_name, keys, payload, identity, chain, facts })
            }
            Err(Refused { rejection, identity, .. }) => {
                Err(Refused { identity, ..refuse_under_keys(admitted, keys, payload, rejection) })
            }
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
        Err(refused) => Err(Refused { identity, ..Rejection::silent(refused.reason, refused.detail).into() }),
    }
}

/// Appends what rustls encodes.
fn encode(out: &mut Vec<u8>, mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>) -> Result<(), Error> {
    let start = out.len();
    loop {
        let wanted = match encode(out.get_mut(start..).unwrap_or_default()) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => required_size,
            Err(error @ EncodeError::AlreadyEncoded) => return Err(Error::General(error.to_string())),
        };
        out.resize(start + wanted, 0);
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

/// Whether the client takes no signature that the route's key can make. Under TLS 1.2 rustls has no error of its own for
/// that, nor an alert.
fn is_unable_to_sign(error: &Error) -> bool {
    matches!(error, Error::General(message) if message == "incompatible signing key")
}

/// Our reason for an error of rustls.
fn reason_for(error: &Error) -> Reason {
    match error {
        Error::NoCertificatesPresented => Reason::CertificateRequired,
        // What is wrong with the certificate itself, the verifier has told: this is the signature of the client's
        // CertificateVerify.
        Error::InvalidCertificate(_) => Reason::BadSignature,
        Error::NoApplicationProtocol => Reason::NoApplicationProtocol,
        Error::AlertReceived(_) => Reason::PeerAlert,
        Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => Reason::ProtocolVersion,
        Error::PeerIncompatible(_) => Reason::NoSharedParameters,
        error if is_unable_to_sign(error) => Reason::NoSharedParameters,
        Error::General(_) | Error::FailedToGetCurrentTime | Error::FailedToGetRandomBytes | Error::EncryptError => {
            Reason::Internal
        }
        // rustls' enum is not exhaustive: messages that are malformed, out of place or cannot be decrypted.
        _ => Reason::Misbehaved,
    }
}
