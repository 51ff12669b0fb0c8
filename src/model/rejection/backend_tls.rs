//! Why TLS with a backend did not come about.

use super::{Alert, IoError, Text};
use crate::model::identity::Sha256;

/// Why TLS with a backend did not come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendTlsFault {
    /// The gate does not accept its certificate.
    Certificate {
        /// SHA-256 of the certificate that it showed.
        seen: Sha256,
        /// Why not.
        fault: BackendCertificateFault,
    },
    /// It sent an alert.
    Alert(Alert),
    /// What it sent is not TLS.
    NotTls,
    /// It closed the connection during the handshake.
    Ended,
    /// The client chose an application protocol that needs ALPN, and the backend did not agree to it.
    Protocol {
        /// What the client chose.
        asked: Text,
    },
    /// The socket failed.
    Io(Box<IoError>),
    /// Anything else. The text is rustls'.
    Other(Text),
}

/// Why the certificate of a backend is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendCertificateFault {
    /// It is not the one whose fingerprint `trust` has.
    OtherFingerprint,
    /// It is not in the file of `trust`, and no authority there, or of the system, signed it.
    NotTrusted,
    /// It does not have the name.
    Name {
        /// The name that it should have.
        expected: Text,
        /// The names that it has.
        names: Text,
    },
    /// It has expired.
    Expired {
        /// The last second in which it was valid, since 1970; 0 if that is not known.
        not_after: i64,
    },
    /// It is not valid yet.
    NotYetValid {
        /// The first second in which it will be valid, since 1970; 0 if that is not known.
        not_before: i64,
    },
    /// Anything else. The text is rustls'.
    Other(Text),
}
