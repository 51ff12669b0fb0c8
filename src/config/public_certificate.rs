//! The public certificate of a configuration.

use x509_parser::prelude::{FromDer, X509Certificate};

use super::checked::{CertificateSource, Config, RouteMode};
use super::server_trust::covers;
use crate::model::identity::Identity;
use crate::model::public_certificate::{IssuedCertificate, PublicCertificate};
use crate::pki::public;

/// What is shown as the public certificate; `None` if the configuration wants none.
pub fn public_certificate(config: &Config) -> Option<PublicCertificate> {
    let acme = config.acme.as_ref()?;
    let certificates = config.served().filter_map(|route| match &route.mode {
        RouteMode::Terminate(terminate) => Some(&terminate.certificate),
        RouteMode::Passthrough => None,
    });
    let shown = certificates.into_iter().find(|certificate| certificate.source != CertificateSource::Files)?;
    let leaf = shown.certified_key.cert.first().filter(|_| shown.source == CertificateSource::Acme);
    let parsed = leaf.and_then(|leaf| X509Certificate::from_der(leaf).ok());
    let has_marks = parsed.is_some_and(|(_, leaf)| public::needs_intermediate(&leaf));
    let leaf = leaf.and_then(|leaf| Identity::from_certificate(leaf, false).ok());
    Some(PublicCertificate {
        names: acme.names.iter().cloned().collect(),
        file: shown.chain_file.display().to_string(),
        issued: leaf.map(|leaf| IssuedCertificate {
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            // A private ACME server issues certificates that look like the owner's.
            is_own: acme.trust.is_none() && !has_marks,
            lacks: acme.names.iter().filter(|name| !covers(&leaf.dns_names, name)).cloned().collect(),
            issuer: leaf.issuer,
        }),
    })
}
