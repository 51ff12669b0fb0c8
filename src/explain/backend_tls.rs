//! Words about TLS with a backend.

use super::fragments;
use crate::model::rejection::{Alert, BackendCertificateFault, BackendTlsFault};

/// Why TLS with a backend did not come about: of a certificate, with its fingerprint, which `trust` takes.
pub(super) fn fault(fault: &BackendTlsFault) -> String {
    match fault {
        // The fingerprint first: the log bounds the text, and the rest is the backend's choice.
        BackendTlsFault::Certificate { seen, fault } => {
            let its = format!("its certificate is sha256:{seen}");
            match fault {
                BackendCertificateFault::OtherFingerprint => format!("{its}, and trust of backend_tls has another one"),
                BackendCertificateFault::NotTrusted => {
                    format!("{its}; neither it nor an authority that signed it is in trust of backend_tls")
                }
                BackendCertificateFault::Name { expected, names } => {
                    format!("{its}, not for {expected}, but for {names}")
                }
                BackendCertificateFault::Expired { not_after } => {
                    format!("{its}; it, or one above it, expired at {}", fragments::moment(*not_after))
                }
                BackendCertificateFault::NotYetValid { not_before } => {
                    format!("{its}; it, or one above it, is not valid before {}", fragments::moment(*not_before))
                }
                BackendCertificateFault::Other(text) => format!("{its}, which cannot be used: {text}"),
            }
        }
        // certificate_required, and bad_certificate to certificate_unknown, and unknown_ca (RFC 8446 section 6.2).
        BackendTlsFault::Alert(alert @ Alert(42..=46 | 48 | 116)) => format!(
            "it does not accept the gate's certificate, or asks for one: {alert}; certificate and key of backend_tls name it"
        ),
        BackendTlsFault::Alert(alert) => format!("it ended the TLS handshake: {alert}"),
        BackendTlsFault::NotTls => "its answer is not TLS: name the port with TLS, or remove backend_tls".to_owned(),
        BackendTlsFault::Ended => "it closed the connection during the TLS handshake".to_owned(),
        BackendTlsFault::Protocol { asked } => format!(
            "the device and the gate agreed on {asked} (ALPN), and the backend did not agree: remove it from \
             application_protocols"
        ),
        BackendTlsFault::Io(error) => format!("TLS handshake: {}", error.text),
        BackendTlsFault::Other(text) => format!("TLS handshake: {text}"),
    }
}
