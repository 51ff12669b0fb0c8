//! Whether an authority has signed a certificate or a revocation list.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use crate::pki::{Parts, Signed, verify};

/// Whether the authority with the certificate `issuer` has signed this certificate.
pub fn has_signed(issuer: &CertificateDer<'_>, certificate: &X509Certificate<'_>) -> bool {
    let Ok((_, issuer)) = X509Certificate::from_der(issuer) else { return false };
    let (message, signature) = (certificate.tbs_certificate.as_ref(), certificate.signature_value.data.as_ref());
    certificate.issuer().as_raw() == issuer.subject().as_raw() && is_signature_of(&issuer, message, signature)
}

/// Whether the key in the certificate `issuer` signed this revocation list (DER), and the list bears its name.
pub fn has_signed_list(issuer: &CertificateDer<'_>, list: &[u8]) -> bool {
    let Ok(([], read)) = CertificateRevocationList::from_der(list) else { return false };
    let (Some(issuer), Some(signed)) = (Parts::read(issuer), Signed::read(list)) else { return false };
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
    read.issuer().as_raw() == issuer.subject && verify(algorithms.all, issuer.key, &signed).is_ok()
}

fn is_signature_of(issuer: &X509Certificate<'_>, message: &[u8], signature: &[u8]) -> bool {
    let key = issuer.public_key().subject_public_key.data.as_ref();
    rustls::crypto::aws_lc_rs::default_provider()
        .signature_verification_algorithms
        .all
        .iter()
        .any(|algorithm| algorithm.verify_signature(key, message, signature).is_ok())
}
