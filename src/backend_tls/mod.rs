//! TLS from the gate to a backend, for services that speak nothing else: the gate is the client there.
//!
//! It fails closed. A backend whose certificate is not the one that `backend_tls` asks for gets no byte of a client, and there is no
//! way back to an unencrypted connection.

mod stream;
mod verifier;

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, Error, HandshakeKind};
use tokio_rustls::TlsConnector;
use tracing::debug;

use self::stream::ReadAhead;
pub use self::stream::TlsStream;
pub use self::verifier::Seen;
use self::verifier::{Refused, Verifier};
use crate::config::checked::{self, BackendTrust, HeaderPlace};
use crate::model::rejection::{Alert, BackendTlsFault, Text};
use crate::sys::stream::Stream;

/// How many sessions of a route's backends are kept, to be resumed.
const SESSIONS_MAX: usize = 64;

/// The only protocol that a backend speaks without having agreed to it: that of servers that know nothing of ALPN.
const HTTP_1_1: &[u8] = b"http/1.1";

/// How the gate speaks TLS with the backends of a route.
#[derive(Clone)]
pub struct BackendTls {
    /// With the sessions that can be resumed.
    client: Arc<ArcSwap<ClientConfig>>,
    verifier: Arc<Verifier>,
    config: Arc<checked::BackendTls>,
}

impl std::fmt::Debug for BackendTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackendTls").field("config", &self.config).finish_non_exhaustive()
    }
}

impl BackendTls {
    /// For a route of a configuration, with the cryptography of the gate. Sessions of another configuration are not resumed: what
    /// it trusts may be something else.
    ///
    /// # Errors
    ///
    /// Those of rustls, if the trusted certificates or the gate's own cannot be used.
    pub fn new(config: &Arc<checked::BackendTls>, provider: &Arc<CryptoProvider>) -> Result<Self, Error> {
        let verifier = Arc::new(Verifier::new(&config.trust, Arc::clone(provider))?);
        Self::with(config, provider, verifier)
    }

    /// That of `check --connect`: it accepts every certificate and says what it saw. Nothing of a client is ever sent over it.
    ///
    /// # Errors
    ///
    /// Those of rustls.
    pub fn looking(name: ServerName<'static>, provider: &Arc<CryptoProvider>) -> Result<Self, Error> {
        let verifier = Arc::new(Verifier::accepting_all(Arc::clone(provider)));
        let config = checked::BackendTls {
            trust: BackendTrust::System(Vec::new()),
            server_names: vec![name],
            certificate: None,
            header: HeaderPlace::Before,
            files: Vec::new(),
        };
        Self::with(&Arc::new(config), provider, verifier)
    }

    /// Whether a backend of this name may show these certificates, its own first.
    pub fn accepts(trust: &BackendTrust, shown: &[CertificateDer<'_>], name: &ServerName<'_>) -> bool {
        let provider = Arc::new(aws_lc_rs::default_provider());
        Verifier::new(trust, provider).is_ok_and(|verifier| verifier.verify(shown, name).is_ok())
    }

    fn with(
        config: &Arc<checked::BackendTls>,
        provider: &Arc<CryptoProvider>,
        verifier: Arc<Verifier>,
    ) -> Result<Self, Error> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<_>);
        let mut client = match &config.certificate {
            Some(certified) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(certified))))
            }
            None => builder.with_no_client_auth(),
        };
        client.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        Ok(Self { client: Arc::new(ArcSwap::from_pointee(client)), verifier, config: Arc::clone(config) })
    }

    /// Begins TLS on a connection to the backend of this index. `protocol` is the application protocol that the client has chosen:
    /// the backend is offered that one alone, or none, since the gate passes on the bytes of no other.
    ///
    /// # Errors
    ///
    /// Why the backend is not to be used. Nothing of a client was sent to it.
    pub async fn connect(
        &self,
        stream: Stream,
        backend: usize,
        protocol: Option<&[u8]>,
    ) -> Result<Box<TlsStream>, BackendTlsFault> {
        let Some(name) = self.config.server_names.get(backend) else {
            return Err(BackendTlsFault::Other(Text::new("a backend without a name")));
        };
        let offered = protocol.map(<[u8]>::to_vec).into_iter().collect();
        let io = ReadAhead::new(stream);
        let client = self.client.load_full();
        let connected = TlsConnector::from(client).with_alpn(offered).connect(name.clone(), io).await;
        let tls = connected.map_err(|error| fault_of(&error))?;
        let (_, session) = tls.get_ref();
        debug!(?name, kind = ?session.handshake_kind(), suite = ?session.negotiated_cipher_suite(), "TLS with a backend");
        // A resumed session was verified when it began, and its certificate may have expired since: the gate accepts what it would
        // accept now. To verify a signature is cheap, and the backend is saved the one that is dear.
        if session.handshake_kind() == Some(HandshakeKind::Resumed)
            && let Err(refused) = self.verifier.verify(session.peer_certificates().unwrap_or_default(), name)
        {
            self.forget_sessions();
            return Err(refused.into_fault());
        }
        match (protocol, session.alpn_protocol()) {
            // A server without ALPN speaks HTTP/1.1. Any other protocol was chosen by name (HTTP/2 requires that, RFC 9113 section
            // 3.3), and the client would get an answer in another one.
            (Some(asked), None) if asked != HTTP_1_1 => {
                let asked = Text::new(String::from_utf8_lossy(asked));
                return Err(BackendTlsFault::Protocol { asked });
            }
            _ => {}
        }
        Ok(Box::new(TlsStream::new(tls)))
    }
}

impl BackendTls {
    /// Where the PROXY protocol header goes.
    pub fn header(&self) -> HeaderPlace {
        self.config.header
    }

    /// Whether a backend that `other` has accepted would be accepted, and sent the same.
    pub fn has_settings_of(&self, other: &Self) -> bool {
        let certificate = |one: &Self| one.config.certificate.as_ref().map(|certified| certified.cert.clone());
        self.config.trust == other.config.trust
            && self.config.server_names == other.config.server_names
            && self.config.header == other.config.header
            && certificate(self) == certificate(other)
    }

    /// The next handshakes are full ones, in which the backend shows the certificate that it has by now.
    fn forget_sessions(&self) {
        let mut client = ClientConfig::clone(&self.client.load());
        client.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        self.client.store(Arc::new(client));
    }

    /// The last certificates that were shown, if all are accepted: see [`looking`](Self::looking).
    pub fn seen(&self) -> Option<Seen> {
        self.verifier.seen()
    }
}

/// Accepts every certificate whose key the backend has. For health checks of passthrough routes, whose devices judge the
/// certificate: the gate does not know what they trust, and nothing of a client goes over such a connection.
pub fn any_certificate(provider: &Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Verifier::accepting_all(Arc::clone(provider)))
}

/// Why a handshake failed.
fn fault_of(error: &io::Error) -> BackendTlsFault {
    let Some(tls) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                BackendTlsFault::Ended
            }
            _ => BackendTlsFault::Io(Box::new(error.into())),
        };
    };
    match tls {
        Error::InvalidCertificate(fault) => match Refused::of(fault) {
            Some(refused) => refused.clone().into_fault(),
            None => BackendTlsFault::Other(Text::new(tls)),
        },
        Error::AlertReceived(alert) => BackendTlsFault::Alert(Alert(u8::from(*alert))),
        Error::InvalidMessage(_) => BackendTlsFault::NotTls,
        other => BackendTlsFault::Other(Text::new(other)),
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
