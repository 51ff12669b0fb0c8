//! What a route's handshakes are made with: one [`ServerConfig`] for each route of each snapshot.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, ServerConfig};

use super::observation;
use super::suites::PROVIDER;
use super::tickets::{TicketKey, Tickets};
use super::trust::{Authorities, UnusableTrust};
use super::verifier::{Judged, RouteVerifier};
use crate::authorize::Policy;
use crate::config::checked::Terminate;
use crate::model::identity::Identity;
use crate::model::rejection::Cause;

/// What the handshakes of one route need.
#[derive(Debug)]
pub struct RouteTls {
    pub(super) server: Arc<ServerConfig>,
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
    /// the old names. `authorities` are those of the route's `client_auth`. `former` is of the route of the same name in the
    /// snapshot before: see [`tickets`](super::tickets).
    pub fn new(
        route: &Terminate,
        authorities: Arc<Authorities>,
        policy: Arc<Policy>,
        former: Option<&Self>,
    ) -> Result<Self, InvalidTls> {
        let verifier = Arc::new(RouteVerifier::new(authorities, policy));
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(InvalidTls::Rustls)?
            .with_client_cert_verifier(Arc::<RouteVerifier>::clone(&verifier))
            .with_cert_resolver(Arc::new(OneCertificate(Arc::clone(&route.certificate.certified_key))));
        server.alpn_protocols.clone_from(&route.application_protocols);
        // Sessions live in tickets only, under a key of this route.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        let ticket_key = TicketKey::of(route, former.map(|former| &former.ticket_key)).map_err(InvalidTls::Rustls)?;
        server.ticketer = Arc::new(Tickets::new(ticket_key.clone(), Arc::clone(&verifier)));
        // Two, as usual, would be another key derived and another chain sealed, for a client that comes back over more
        // than one connection at once; it makes full handshakes then.
        server.send_tls13_tickets = 1;
        // 0-RTT is never offered: it could be replayed, and would reach the backend before the client has proved
        // anything (RFC 8446 section 8).
        server.max_early_data_size = 0;
        // The keys leave rustls after the handshake, for the record layer or for the kernel.
        server.enable_secret_extraction = true;
        Ok(Self { server: Arc::new(server), verifier, ticket_key })
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
