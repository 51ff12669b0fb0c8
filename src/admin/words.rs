//! Reasons and kinds in a few plain words, for the rows of the status page.

use crate::rejection::Reason;

/// What happened, in a few words that follow "turned away:".
pub(super) const fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::ConnectionLimit => "too many connections in all",
        Reason::HandshakeLimit => "did not go on, and others waited",
        Reason::SourceLimit => "too many connections from one address",
        Reason::SourceRate => "too many attempts from one address",
        Reason::SourceBanned => "failed too often and has to wait",
        Reason::SourceDenied => "its address is shut out",
        Reason::ProxyHeaderMissing => "a proxy did not say for whom it connects",
        Reason::ProxyHeaderInvalid => "a proxy could not be understood",
        Reason::Draining => "the gate was being stopped",
        Reason::ClientHelloTimeout => "connected and said nothing",
        Reason::ClientHelloClosedEarly => "connected and hung up",
        Reason::NotTls => "spoke something other than TLS",
        Reason::Malformed => "its first message cannot be read",
        Reason::TooLarge => "its first message is far too long",
        Reason::ServerNameMissing => "did not say which name it wants",
        Reason::ServerNameUnknown => "asked for a name you do not have",
        Reason::ProtocolVersion => "speaks no TLS that is still safe",
        Reason::NoSharedParameters => "knows no encryption that is still safe",
        Reason::NoApplicationProtocol => "speaks none of the route's protocols",
        Reason::Misbehaved => "broke the rules of TLS",
        Reason::PeerAlert => "did not trust the gate",
        Reason::HandshakeTimeout => "began and did not finish in time",
        Reason::HandshakeClosedEarly => "began and hung up",
        Reason::CertificateRequired => "showed no certificate",
        Reason::UnknownCa => "showed a certificate that is not yours",
        Reason::Expired => "its certificate has expired",
        Reason::NotYetValid => "its certificate is not valid yet",
        Reason::Revoked => "its certificate was revoked",
        Reason::Denied => "its certificate is on your deny list",
        Reason::RevocationUnknown => "a revocation list is missing",
        Reason::RevocationListExpired => "a revocation list is out of date",
        Reason::WrongPurpose => "its certificate is not for devices",
        Reason::BadSignature => "does not have the certificate's key",
        Reason::CertificateInvalid => "its certificate cannot be used",
        Reason::IdentityNotAllowed => "may not use this route",
        Reason::BackendRefused => "the service behind is not running",
        Reason::BackendTimeout => "the service behind did not answer",
        Reason::BackendUnreachable => "the service behind cannot be reached",
        Reason::BackendUnresolved => "the service's name is not known",
        Reason::Internal => "a fault of the gate",
    }
}
