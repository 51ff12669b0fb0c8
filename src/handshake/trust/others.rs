//! Authorities of the owner that a route does not trust: those of other routes and of the inventory. A certificate of theirs
//! is a device's own and no forgery, although the route refuses it.

use std::collections::HashMap;

use rustls::pki_types::CertificateDer;

use super::budget::Allowance;
use crate::handshake::suites::PROVIDER;
use crate::pki::{self, Parts};

/// The authorities of all routes and of the inventory.
#[derive(Debug, Default)]
pub struct OtherAuthorities {
    /// Their keys (SubjectPublicKeyInfo), by name.
    keys: HashMap<Vec<u8>, Vec<Vec<u8>>>,
    /// A stranger can name any issuer, so all clients share what is verified here. Beyond it, a certificate counts as signed
    /// by none.
    allowance: Allowance,
}

impl OtherAuthorities {
    /// Takes their certificates. One that cannot be read is left out.
    pub fn new<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> Self {
        let mut keys: HashMap<Vec<u8>, Vec<Vec<u8>>> = HashMap::new();
        for parts in certificates.into_iter().filter_map(|one| Parts::read(one)) {
            let named = keys.entry(parts.subject.to_vec()).or_default();
            if !named.iter().any(|key| key == parts.key) {
                named.push(parts.key.to_vec());
            }
        }
        Self { keys, allowance: Allowance::default() }
    }

    /// Whether one of them signed this certificate, or a certificate that was sent along and signed it.
    pub(super) fn vouch_for(&self, certificate: &Parts<'_>, sent: &[CertificateDer<'_>]) -> bool {
        if self.signed(certificate) {
            return true;
        }
        let mut above = sent.iter().filter_map(|one| Parts::read(one)).filter(|one| one.subject == certificate.issuer);
        above.any(|issuer| self.signed(&issuer) && self.verify(issuer.key, certificate))
    }

    fn signed(&self, certificate: &Parts<'_>) -> bool {
        let named = self.keys.get(certificate.issuer).map(Vec::as_slice).unwrap_or_default();
        named.iter().any(|key| self.verify(key, certificate))
    }

    fn verify(&self, key: &[u8], certificate: &Parts<'_>) -> bool {
        let algorithms = PROVIDER.signature_verification_algorithms.all;
        self.allowance.take() && pki::verify(algorithms, key, &certificate.signature).is_ok()
    }
}
