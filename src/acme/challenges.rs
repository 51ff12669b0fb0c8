//! The challenges of pending orders (tls-alpn-01, RFC 8737).
//!
//! The certificate of a challenge is shown to a client whose ALPN extension is exactly `acme-tls/1`, for a name with a pending
//! order, and to no other. Its handshakes ask for no certificate, have no tickets, and lead to no route.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::time::Instant;

use crate::client_hello::Hello;
use crate::model::identity::Sha256;
use crate::model::names::ServerName;
use crate::snapshot::Route;
use crate::tls::driver::ACME_TLS_ALPN;

/// How long a challenge is answered if it is not withdrawn: as long as a server may take to validate.
const VALID_FOR: Duration = Duration::from_secs(10 * 60);

/// The most challenges at the same time. An order has one for each server name of the configuration.
const PENDING_MAX: usize = 256;

/// Why no certificate can be made for a challenge.
#[derive(Debug, thiserror::Error)]
pub enum InvalidChallenge {
    /// There are too many.
    #[error("more than {PENDING_MAX} challenges are pending")]
    TooMany,
    /// The certificate cannot be written.
    #[error("the certificate for the challenge cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// rustls does not take it.
    #[error("the certificate for the challenge cannot be used: {0}")]
    Rustls(#[from] rustls::Error),
}

/// The challenges of pending orders.
#[derive(Default)]
pub struct Challenges(Mutex<HashMap<ServerName, Pending>>);

struct Pending {
    config: Arc<ServerConfig>,
    until: Instant,
}

impl fmt::Debug for Challenges {
    /// Keys are never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenges").finish_non_exhaustive()
    }
}

impl Challenges {
    /// From now on a validator of `name` is shown a certificate with the SHA-256 of the key authorization (RFC 8737 section 3), for
    /// ten minutes at most. Replaces an earlier challenge of the name.
    ///
    /// # Errors
    ///
    /// The certificate cannot be made, or too many challenges are pending.
    pub fn offer(&self, name: &ServerName, key_authorization: Sha256) -> Result<(), InvalidChallenge> {
        let config = Arc::new(server_config(name, key_authorization)?);
        let now = Instant::now();
        let mut pending = self.pending();
        pending.retain(|_, challenge| challenge.until > now);
        if pending.len() >= PENDING_MAX && !pending.contains_key(name) {
            return Err(InvalidChallenge::TooMany);
        }
        pending.insert(name.clone(), Pending { config, until: now + VALID_FOR });
        Ok(())
    }

    /// The order of `name` is no longer pending.
    pub fn withdraw(&self, name: &ServerName) {
        self.pending().remove(name);
    }

    /// No order is pending.
    pub fn withdraw_all(&self) {
        self.pending().clear();
    }

    /// How many names have a pending order.
    pub fn names_pending(&self) -> usize {
        let pending = self.pending();
        if pending.is_empty() {
            return 0;
        }
        let now = Instant::now();
        pending.values().filter(|challenge| challenge.until > now).count()
    }

    /// What a client is shown that asks as a validator does for a name with a pending order. A validator begins TLS at once.
    pub(crate) fn for_validator(&self, hello: &Hello, route: &Route) -> Option<Arc<ServerConfig>> {
        let asks = hello.is_validator && hello.starttls.is_none() && route.terminates();
        if asks { self.find(hello.server_name.as_ref()?) } else { None }
    }

    fn find(&self, name: &ServerName) -> Option<Arc<ServerConfig>> {
        let pending = self.pending();
        let challenge = pending.get(name)?;
        (challenge.until > Instant::now()).then(|| Arc::clone(&challenge.config))
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<ServerName, Pending>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The configuration of handshakes with a validator.
fn server_config(name: &ServerName, key_authorization: Sha256) -> Result<ServerConfig, InvalidChallenge> {
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::default();
    // One dNSName and no other name. Its dates are rcgen's, which include any that a wrong clock may have: validators have no use
    // for them.
    params.subject_alt_names = vec![rcgen::SanType::DnsName(name.as_str().try_into()?)];
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "ACME challenge");
    params.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(&key_authorization.0)];
    let certificate = params.self_signed(&key)?.der().clone();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = provider.key_provider.load_private_key(PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
    // Not `with_single_cert`: it reads the certificate, and refuses the critical extension.
    let shown = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = vec![ACME_TLS_ALPN.to_vec()];
    // A ticket of such a handshake would be one without a client certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    // The record layer says goodbye.
    config.enable_secret_extraction = true;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ServerName {
        ServerName::from_client_hello(text)
    }

    #[tokio::test(start_paused = true)]
    async fn challenge_is_answered_until_it_is_withdrawn_or_old() {
        let challenges = Challenges::default();
        assert!(challenges.find(&name("nas.home.example")).is_none());
        challenges.offer(&name("nas.home.example"), Sha256([7; 32])).expect("a challenge");
        assert!(challenges.find(&name("nas.home.example")).is_some());
        assert!(challenges.find(&name("ssh.home.example")).is_none());
        assert_eq!(challenges.names_pending(), 1);
        challenges.withdraw(&name("nas.home.example"));
        assert!(challenges.find(&name("nas.home.example")).is_none());
        challenges.offer(&name("nas.home.example"), Sha256([7; 32])).expect("a challenge");
        tokio::time::advance(VALID_FOR - Duration::from_secs(1)).await;
        assert!(challenges.find(&name("nas.home.example")).is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(challenges.find(&name("nas.home.example")).is_none());
        assert_eq!(challenges.names_pending(), 0);
    }

    #[test]
    fn pending_challenges_are_bounded() {
        let challenges = Challenges::default();
        for n in 0..PENDING_MAX {
            challenges.offer(&name(&format!("n{n}.home.example")), Sha256([7; 32])).expect("a challenge");
        }
        let more = challenges.offer(&name("more.home.example"), Sha256([7; 32]));
        assert!(matches!(more, Err(InvalidChallenge::TooMany)), "{more:?}");
        challenges.offer(&name("n0.home.example"), Sha256([8; 32])).expect("it is replaced");
    }
}
