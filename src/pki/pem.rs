//! The text form of certificates, keys and lists (RFC 7468).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A block with this label, its text 64 characters wide.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        // Base64 is ASCII.
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
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
    fn what_is_encoded_is_read_again() {
        for length in [0, 1, 47, 48, 49, 96, 200] {
            let der: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let text = encode(CERTIFICATE, &der);
            assert_eq!(&CertificateDer::from_pem_slice(text.as_bytes()).expect("PEM")[..], der);
            assert!(text.lines().all(|line| line.len() <= 64), "{text}");
        }
    }
}
