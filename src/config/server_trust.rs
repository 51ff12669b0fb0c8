//! Why devices trust the certificates that the gate shows.

use x509_parser::prelude::{FromDer, X509Certificate};

use super::checked::{Certificate, CertificateSource, Config, RouteMode};
use crate::pki::public;

/// Whether devices trust every certificate that the gate shows, without a step of their owner: a public authority has issued
/// them, or will.
pub fn is_public(config: &Config) -> bool {
    let mut shown = certificates(config).peekable();
    shown.peek().is_some() && shown.all(is_public_certificate)
}

/// The certificates of the routes that terminate TLS.
fn certificates(config: &Config) -> impl Iterator<Item = &Certificate> {
    config.routes.iter().filter_map(|route| match &route.mode {
        RouteMode::Terminate(terminate) => Some(&*terminate.certificate),
        RouteMode::Passthrough => None,
    })
}

/// Whether a public authority has issued this certificate, or will.
pub fn is_public_certificate(certificate: &Certificate) -> bool {
    if matches!(certificate.source, CertificateSource::Acme | CertificateSource::Temporary) {
        return true;
    }
    let leaf = certificate.certified_key.cert.first();
    leaf.and_then(|der| X509Certificate::from_der(der).ok()).is_some_and(|(_, leaf)| public::needs_intermediate(&leaf))
}
