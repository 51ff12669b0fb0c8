//! Words about TLS with a backend.

use super::fragments;
use crate::model::rejection::{Alert, BackendCertificateFault, BackendTlsFault};

/// Why TLS with a backend did not come about: of a certificate, with the line that would accept it.
pub(super) fn fault(fault: &BackendTlsFault) -> String {
    match fault {
        BackendTlsFault::Certificate { seen, fault } => {
            let accepted = format!("if that is its right certificate: backend_tls = {{ trust = \"sha256:{seen}\" }}");
            match fault {
                BackendCertificateFault::OtherFingerprint => format!(
                    "its certificate has another fingerprint than trust of backend_tls: sha256:{seen}; {accepted}"
                ),
                BackendCertificateFault::NotTrusted => {
                    format!(
                        "trust of backend_tls has neither its certificate nor the authority that signed it; {accepted}"
                    )
                }
                BackendCertificateFault::Name { expected, names } => format!(
                    "its certificate is not for {expected}, but for {names}: write server_name = \"…\" with one of its \
                     names into backend_tls; {accepted}"
                ),
                BackendCertificateFault::Expired { not_after } => {
                    format!(
                        "its certificate, or one above it, expired at {}; {accepted}",
                        fragments::moment(*not_after)
                    )
                }
                BackendCertificateFault::NotYetValid { not_before } => format!(
                    "its certificate, or one above it, is not valid before {}; {accepted}",
                    fragments::moment(*not_before)
                ),
                BackendCertificateFault::Other(text) => format!("its certificate cannot be used: {text}"),
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
