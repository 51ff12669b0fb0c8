//! What can be wrong with a connection.

use std::io;
use std::net::SocketAddr;

use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, CertificateError};

use super::tls::Tls;
use super::token::TokenError;

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
    /// The token with the device's key; the gate was not asked.
    Token(TokenError),
}

impl Failure {
    /// Whether it may be gone in a moment, as after a change of the network; the gate has refused nothing.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Unreached(_) | Self::Gate { fault: Fault::Silent | Fault::Closed | Fault::Unanswered, .. } => true,
            Self::Token(error) | Self::Gate { fault: Fault::Token(error), .. } => error.is_passing(),
            Self::Gate { .. } => false,
        }
    }

    /// What is wrong with the token, if that is it.
    pub const fn token(&self) -> Option<&TokenError> {
        match self {
            Self::Token(error) | Self::Gate { fault: Fault::Token(error), .. } => Some(error),
            _ => None,
        }
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
    /// The connection was closed without a word, during the handshake or after the first bytes.
    Closed,
    /// It was closed after the handshake, and before the first byte. A gate that refuses says why, or does not begin a handshake.
    Unanswered,
    /// No answer in time.
    Silent,
    /// The token with the device's key did not sign.
    Token(TokenError),
    /// Anything else.
    Io(io::ErrorKind),
}

impl Fault {
    /// The same if the handshake was done, and nothing has come yet.
    pub(super) fn before_the_first_byte(self) -> Self {
        match self {
            Self::Closed => Self::Unanswered,
            other => other,
        }
    }

    pub(super) fn of(error: &io::Error, tls: &Tls) -> Self {
        use io::ErrorKind;
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match (inner, error.kind()) {
            (Some(rustls::Error::AlertReceived(alert)), _) => Self::Alert(*alert),
            (Some(rustls::Error::InvalidCertificate(fault)), _) => Self::GateCertificate(fault.clone(), tls.refused()),
            (Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)), _) => Self::NotTls,
            (Some(rustls::Error::Other(rustls::OtherError(other))), _) if other.is::<TokenError>() => {
                other.downcast_ref().cloned().map_or(Self::Closed, Self::Token)
            }
            (Some(other), _) => Self::Protocol(other.to_string()),
            (
                None,
                ErrorKind::UnexpectedEof
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe,
            ) => tls.token().and_then(|key| key.token().late()).map_or(Self::Closed, Self::Token),
            (None, ErrorKind::TimedOut) => Self::Silent,
            (None, kind) => Self::Io(kind),
        }
    }
}
