//! What rustls' errors mean.

use rustls::{Error, PeerIncompatible};

use crate::model::rejection::{Alert, Cause, Reason, Text};

/// The alert that was sent: read from the record if it is not encrypted, else the one rustls picks for the reason.
pub(super) fn alert_sent(reason: Reason, sent: &[u8]) -> Option<Alert> {
    match sent {
        &[21, _, _, 0, 2, _, description] => Some(Alert(description)),
        _ if reason == Reason::Misbehaved => None,
        _ => reason.alert(),
    }
}

/// The cause for an error of rustls, by its variant.
pub(super) fn cause_of(error: &Error) -> Cause {
    match error {
        Error::NoCertificatesPresented => Cause::NoCertificate,
        // The verifier has reported what is wrong with the certificate: this is the signature of CertificateVerify.
        Error::InvalidCertificate(_) => Cause::BadSignature,
        Error::NoApplicationProtocol => Cause::NoApplicationProtocol,
        Error::AlertReceived(alert) => Cause::PeerAlert(Alert((*alert).into())),
        Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => Cause::NoSharedVersion(Text::new(error)),
        Error::PeerIncompatible(_) => Cause::NoSharedParameters(Text::new(error)),
        Error::General(_) | Error::FailedToGetCurrentTime | Error::FailedToGetRandomBytes | Error::EncryptError => {
            Cause::Tls(Text::new(error))
        }
        // rustls' enum is not exhaustive: messages that are malformed, out of place or cannot be decrypted.
        _ => Cause::Misbehaved(Text::new(error)),
    }
}
