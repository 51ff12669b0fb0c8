//! Whether an authority has signed a certificate or a revocation list.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate, X509Name};

use crate::pki::{Parts, Signed, verify};

/// Whether the authority with the certificate `issuer` has signed this certificate, which bears its name as the issuer's.
pub fn has_signed(issuer: &CertificateDer<'_>, certificate: &X509Certificate<'_>) -> bool {
    bears_signature_of(issuer, certificate.issuer(), certificate.as_raw())
}

/// Whether the key in the certificate `issuer` signed this revocation list (DER), and the list bears its name.
pub fn has_signed_list(issuer: &CertificateDer<'_>, list: &[u8]) -> bool {
    let Ok(([], read)) = CertificateRevocationList::from_der(list) else { return false };
    bears_signature_of(issuer, read.issuer(), list)
}

/// As the gate checks signatures: by the algorithm that is named, and only if it fits the key.
fn bears_signature_of(issuer: &CertificateDer<'_>, named: &X509Name<'_>, der: &[u8]) -> bool {
    let (Some(issuer), Some(signed)) = (Parts::read(issuer), Signed::read(der)) else { return false };
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
    named.as_raw() == issuer.subject && verify(algorithms.all, issuer.key, &signed).is_ok()
}
