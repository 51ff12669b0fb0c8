//! rustls' side of a connection, without I/O: reads a ClientHello, and makes a handshake out of bytes that come and go.
//!
//! All that knows rustls' connection types is here and in `tls/record/keys.rs`; `tests/architecture` sees to that.

use std::io;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::{Acceptor, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, InsufficientSizeError, UnbufferedStatus};
use rustls::{CipherSuite, Error, HandshakeKind, ProtocolVersion, ServerConfig};

use crate::model::names::ServerName;
use crate::tls::record::{Aead, Keys};

/// Why there is no ClientHello in bytes that should be one.
#[derive(Debug)]
pub enum HelloError {
    /// rustls cannot buffer so much.
    Io(io::Error),
    /// It ends before the bytes do.
    Longer,
    /// The bytes end before it does.
    Shorter,
    /// rustls refuses it, and would send this alert record.
    Refused(Error, Vec<u8>),
}

/// What is read in a ClientHello before it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The requested server name.
    pub server_name: Option<ServerName>,
    /// The AEAD of the client's favourite among the cipher suites that the gate knows.
    pub favourite: Option<Aead>,
    /// The ALPN extension is exactly [`ACME_TLS_ALPN`].
    pub is_validator: bool,
}

/// The application protocol of ACME's tls-alpn-01 challenge (RFC 8737 section 6.2).
pub const ACME_TLS_ALPN: &[u8] = b"acme-tls/1";

/// Has rustls read a complete ClientHello.
///
/// # Errors
///
/// The bytes are not one ClientHello, or rustls refuses it.
pub fn read_hello(bytes: &[u8]) -> Result<Greeting, HelloError> {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        acceptor.read_tls(&mut rest).map_err(HelloError::Io)?;
        // After each read: rustls makes room for the rest of a long message only when it has seen how it begins.
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) if rest.is_empty() => {
                let hello = accepted.client_hello();
                return Ok(Greeting {
                    server_name: hello.server_name().map(ServerName::from_client_hello),
                    favourite: hello.cipher_suites().iter().find_map(|suite| Aead::of(*suite)),
                    is_validator: hello.alpn().is_some_and(|offered| offered.eq([ACME_TLS_ALPN])),
                });
            }
            Ok(Some(_)) => return Err(HelloError::Longer),
            Err((error, mut alert)) => {
                let mut record = Vec::new();
                // Writing to a Vec cannot fail.
                let _ = alert.write_all(&mut record);
                return Err(HelloError::Refused(error, record));
            }
        }
    }
    Err(HelloError::Shorter)
}

/// What a handshake wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// What it has appended is to be sent.
    Send,
    /// One more record.
    Receive,
    /// It is over.
    Nothing,
}

/// Why a handshake goes no further.
#[derive(Debug)]
pub enum Failure {
    /// The client has ended it.
    Closed,
    /// rustls refuses what the client sent.
    Tls {
        /// Why.
        error: Error,
        /// The records that tell the client.
        alert: Vec<u8>,
    },
}

/// What a handshake negotiated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite as registered with IANA.
    pub cipher_suite: &'static str,
    /// The application protocol (ALPN).
    pub application_protocol: Option<Vec<u8>>,
    /// Whether the session was resumed from a ticket.
    pub resumed: bool,
}

/// What a completed handshake leaves.
#[derive(Debug)]
pub struct Finished {
    /// What was negotiated.
    pub facts: Facts,
    /// The traffic keys.
    pub keys: Result<Keys, Error>,
}

/// A handshake of a server.
pub struct Handshake(UnbufferedServerConnection);

impl Handshake {
    /// Nothing has been received yet.
    ///
    /// # Errors
    ///
    /// The configuration does not fit rustls.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        UnbufferedServerConnection::new(config).map(Self)
    }

    /// Works until it needs the network. It is shown the first `shown` bytes of what was received, and no record behind them is
    /// ever touched; those that it is done with are taken out. What is to be sent is appended to `out`.
    ///
    /// # Errors
    ///
    /// The handshake goes no further.
    pub fn advance(&mut self, received: &mut Vec<u8>, shown: &mut usize, out: &mut Vec<u8>) -> Result<Wants, Failure> {
        loop {
            let bytes = received.get_mut(..*shown).unwrap_or_default();
            let UnbufferedStatus { discard, state } = self.0.process_tls_records(bytes);
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
            *shown -= discard;
            match wants {
                // TLS 1.3 could write here before the client's Finished; we do not.
                Ok(Some(Wants::Nothing)) if self.0.is_handshaking() => return Ok(Wants::Receive),
                Ok(Some(wants)) => return Ok(wants),
                Ok(None) => {}
                Err(error) => {
                    out.clear();
                    self.collect_alert(received.get_mut(..*shown).unwrap_or_default(), out);
                    return Err(Failure::Tls { error, alert: std::mem::take(out) });
                }
            }
        }
    }

    /// After an error rustls has an alert to send. It is asked for what it has, and not once more: shown the same bytes
    /// again it would find the same error, and queue another alert. The bytes must be there all the same, since its
    /// deframer remembers places in them.
    fn collect_alert(&mut self, shown: &mut [u8], out: &mut Vec<u8>) {
        while self.0.wants_write() {
            match self.0.process_tls_records(shown).state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    if encode(out, |space| data.encode(space)).is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// Whether what is to be sent is of use to the client later only (RFC 8446 section 4.6.1). TLS 1.2 sends tickets before
    /// its Finished.
    pub fn only_tickets_are_left(&self) -> bool {
        !self.0.is_handshaking() && self.0.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// The chain that the client has, as rustls reports it: shown now, or in the handshake that is resumed.
    pub fn client_chain(&self) -> &[CertificateDer<'static>] {
        self.0.peer_certificates().unwrap_or_default()
    }

    /// Whether the session was resumed from a ticket.
    pub fn is_resumed(&self) -> bool {
        self.0.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Takes out of rustls what the rest of the journey needs, once the handshake wants nothing more.
    pub fn finish(self) -> Finished {
        let resumed = self.is_resumed();
        let connection = self.0;
        let facts = Facts {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "TLSv1.2",
            },
            cipher_suite: connection.negotiated_cipher_suite().map(|suite| name(suite.suite())).unwrap_or_default(),
            application_protocol: connection.alpn_protocol().map(<[u8]>::to_vec),
            resumed,
        };
        let keys = connection.dangerous_into_kernel_connection();
        Finished { facts, keys: keys.map(|(secrets, schedule)| Keys::new(secrets, schedule)) }
    }
}

impl std::fmt::Debug for Handshake {
    /// Keys are never printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake").finish_non_exhaustive()
    }
}

/// The name of a cipher suite, as IANA has it. rustls tells those of TLS 1.3 apart by another prefix.
fn name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or_default(),
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
