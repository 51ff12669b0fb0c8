//! What can be wrong with a connection.

use std::io;
use std::net::SocketAddr;

use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, CertificateError};

use super::tls::Tls;

/// Why no address was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unreached {
    /// The name has no address, or could not be looked up.
    Name(String),
    /// All addresses failed, each for a reason.
    Addresses(Vec<(SocketAddr, io::ErrorKind)>),
    /// No address answered in time.
    Timeout(Vec<SocketAddr>),
}

/// Why no connection was made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Failure {
    /// Nothing answers.
    Unreached(Unreached),
    /// What answers at this address is not satisfied, or does not satisfy.
    Gate {
        /// The address.
        address: SocketAddr,
        /// What is wrong.
        fault: Fault,
    },
}

impl Failure {
    /// Whether it may be gone in a moment, as after a change of the network; the gate has refused nothing.
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Unreached(_) | Self::Gate { fault: Fault::Silent | Fault::Closed, .. })
    }
}

/// What is wrong with a connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The gate sent this alert.
    Alert(AlertDescription),
    /// The gate's certificate is not trusted. The certificate, where it is known.
    GateCertificate(CertificateError, Option<CertificateDer<'static>>),
    /// What answers does not speak TLS.
    NotTls,
    /// What answers speaks it in no way that this device does, or breaks its rules. The text is rustls'.
    Protocol(String),
    /// The connection was closed without a word.
    Closed,
    /// No answer in time.
    Silent,
    /// Anything else.
    Io(io::ErrorKind),
}

impl Fault {
    pub(super) fn of(error: &io::Error, tls: &Tls) -> Self {
        use io::ErrorKind;
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match (inner, error.kind()) {
            (Some(rustls::Error::AlertReceived(alert)), _) => Self::Alert(*alert),
            (Some(rustls::Error::InvalidCertificate(fault)), _) => Self::GateCertificate(fault.clone(), tls.refused()),
            (Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)), _) => Self::NotTls,
            (Some(other), _) => Self::Protocol(other.to_string()),
            (
                None,
                ErrorKind::UnexpectedEof
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe,
            ) => Self::Closed,
            (None, ErrorKind::TimedOut) => Self::Silent,
            (None, kind) => Self::Io(kind),
        }
    }
}
