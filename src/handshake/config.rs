//! What a route's handshakes are made with: a [`ServerConfig`] for each order of cipher suites, for each route of each
//! snapshot.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, ServerConfig};

use super::observation;
use super::suites::Suites;
use super::tickets::{TicketKey, Tickets};
use super::trust::{Authorities, UnusableTrust};
use super::verifier::{Judged, RouteVerifier};
use crate::authorize::Policy;
use crate::config::checked::{Terminate, TicketSecret};
use crate::model::identity::Identity;
use crate::model::names::Name;
use crate::model::rejection::Cause;
use crate::tls::record::Aead;

/// Where the key of a route's tickets comes from: see [`tickets`](super::tickets).
#[derive(Clone, Copy, Debug)]
pub struct TicketSource<'a> {
    /// The name of the route.
    pub route: &'a Name,
    /// Keys that gates share.
    pub shared: &'a [TicketSecret],
    /// The route of the same name in the snapshot before.
    pub former: Option<&'a RouteTls>,
}

/// What the handshakes of one route need.
#[derive(Debug)]
pub struct RouteTls {
    /// For clients that favour AES, or nothing that the gate knows.
    server: Arc<ServerConfig>,
    /// For clients that favour ChaCha20. The same but for the order of the suites: a ticket of one is a ticket of the other.
    chacha20: Arc<ServerConfig>,
    pub(super) verifier: Arc<RouteVerifier>,
    pub(super) ticket_key: TicketKey,
}

/// The identity in a chain, and whether it is let in.
pub type Judgement = (Option<Arc<Identity>>, Result<(), Cause>);

/// Why no handshake configuration could be built.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTls {
    /// rustls refuses the trust anchors or the revocation lists.
    #[error(transparent)]
    Trust(UnusableTrust),
    /// rustls refuses the rest.
    #[error(transparent)]
    Rustls(Error),
}

impl RouteTls {
    /// Builds everything anew, with the trust anchor names of the CertificateRequest: a verifier swapped alone would keep
    /// the old names. `authorities` are those of the route's `client_auth`.
    pub fn new(
        route: &Terminate,
        suites: &Suites,
        authorities: Arc<Authorities>,
        policy: Arc<Policy>,
        tickets: TicketSource<'_>,
    ) -> Result<Self, InvalidTls> {
        let verifier = Arc::new(RouteVerifier::new(authorities, policy));
        let TicketSource { route: name, shared, former } = tickets;
        let ticket_key = TicketKey::of(name, route, suites, shared, former.map(|former| &former.ticket_key))
            .map_err(InvalidTls::Rustls)?;
        let tickets: Arc<dyn ProducesTickets> = Arc::new(Tickets::new(ticket_key.clone(), Arc::clone(&verifier)));
        let certificate = Arc::new(OneCertificate(Arc::clone(&route.certificate.certified_key)));
        let build = |provider| Self::server_config(route, provider, &verifier, &certificate, &tickets);
        let server = build(&suites.usual).map_err(InvalidTls::Rustls)?;
        let chacha20 = if Arc::ptr_eq(&suites.usual, &suites.chacha20) {
            Arc::clone(&server)
        } else {
            build(&suites.chacha20).map_err(InvalidTls::Rustls)?
        };
        Ok(Self { server, chacha20, verifier, ticket_key })
    }

    fn server_config(
        route: &Terminate,
        provider: &Arc<CryptoProvider>,
        verifier: &Arc<RouteVerifier>,
        certificate: &Arc<OneCertificate>,
        tickets: &Arc<dyn ProducesTickets>,
    ) -> Result<Arc<ServerConfig>, Error> {
        let mut server = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_client_cert_verifier(Arc::<RouteVerifier>::clone(verifier))
            .with_cert_resolver(Arc::<OneCertificate>::clone(certificate));
        // The provider has the suites in the order in which they are chosen.
        server.ignore_client_order = true;
        server.alpn_protocols.clone_from(&route.application_protocols);
        // Sessions live in tickets only, under a key of this route.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.ticketer = Arc::clone(tickets);
        // Two, as usual, would be another key derived and another chain sealed, for a client that comes back over more
        // than one connection at once; it makes full handshakes then.
        server.send_tls13_tickets = 1;
        // 0-RTT is never offered: it could be replayed, and would reach the backend before the client has proved
        // anything (RFC 8446 section 8).
        server.max_early_data_size = 0;
        // The keys leave rustls after the handshake, for the record layer or for the kernel.
        server.enable_secret_extraction = true;
        Ok(Arc::new(server))
    }

    /// The configuration for a client with this favourite AEAD.
    pub(super) const fn server(&self, favourite: Option<Aead>) -> &Arc<ServerConfig> {
        match favourite {
            Some(Aead::Chacha20Poly1305) => &self.chacha20,
            Some(Aead::Aes128Gcm | Aead::Aes256Gcm) | None => &self.server,
        }
    }

    /// Who vouches for certificates.
    pub fn authorities(&self) -> &Arc<Authorities> {
        &self.verifier.authorities
    }

    /// What a handshake would say to a client that shows `chain`, end entity first; an empty one is a client without a
    /// certificate.
    pub fn judge(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Judgement {
        let Some((end_entity, intermediates)) = chain.split_first() else {
            return (None, self.verifier.judge_without_certificate());
        };
        let Judged { identity, verdict, .. } = self.verifier.judge(end_entity, intermediates, now);
        (identity, verdict.map_err(|refused| refused.cause))
    }
}

/// The route's certificate for every client: the route was chosen by server name already.
#[derive(Debug)]
struct OneCertificate(Arc<CertifiedKey>);

impl ResolvesServerCert for OneCertificate {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls has no error of its own for a key that can make none of these signatures under TLS 1.2, so it is looked at
        // before. The certificate is given all the same: rustls would send the wrong alert without one.
        let signs = self.0.key.choose_scheme(hello.signature_schemes()).is_some();
        observation::current(|current| current.unable_to_sign = !signs);
        Some(Arc::clone(&self.0))
    }
}
