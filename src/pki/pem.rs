//! The text form of certificates, keys and lists (RFC 7468).

use pem::{EncodeConfig, LineEnding, Pem};

/// A block with this label.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    pem::encode_config(&Pem::new(label, der), EncodeConfig::new().set_line_ending(LineEnding::LF))
}

/// The label of a certificate.
pub(crate) const CERTIFICATE: &str = "CERTIFICATE";
/// The label of a revocation list.
pub(crate) const REVOCATION_LIST: &str = "X509 CRL";

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn pem_is_read_back() {
        for length in [0, 1, 47, 48, 49, 96, 200] {
            let der: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let text = encode(CERTIFICATE, &der);
            assert_eq!(&CertificateDer::from_pem_slice(text.as_bytes()).expect("PEM")[..], der);
            assert!(text.lines().all(|line| line.len() <= 64), "{text}");
        }
    }
}
