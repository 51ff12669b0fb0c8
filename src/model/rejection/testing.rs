//! Every cause once, for tests.

use std::io::ErrorKind;
use std::time::Duration;

use super::{
    AddressList, Alert, Answer, BackendCertificateFault, BackendTlsFault, Cause, CertificateFault, CheckFailure,
    DenyEntry, FailedCheck, HelloFault, IoError, ListFault, LookUp, Protocol, ProxyHeaderFault, RenewedFault, Signer,
    Text,
};
use crate::model::close::CloseReason;
use crate::model::identity::{Serial, Sha256};
use crate::model::names::{Name, ServerName};

/// Every variant of [`Cause`], and every variant of its parts.
pub(crate) fn every_cause() -> Vec<Cause> {
    let text = || Text::new("a text");
    let io_error = || IoError { kind: ErrorKind::ConnectionReset, errno: Some(104), text: text() };
    let error = || Box::new(io_error());
    let route = || Name::parse("nas").expect("a name");
    let backend = || Text::new("192.168.1.10:5666");
    let mut all = vec![
        Cause::ConnectionLimit { limit: 7 },
        Cause::ConnectionShare { share: 4 },
        Cause::HandshakeEvicted,
        Cause::SourceLimit { limit: 7 },
        Cause::SourceShare { share: 4 },
        Cause::SourceRate,
        Cause::SourceBanned { left: Duration::from_secs(60) },
        Cause::SourceDenied(AddressList::Denied("192.0.2.0/24".parse().expect("a network"))),
        Cause::SourceDenied(AddressList::NotAllowed),
        Cause::ProxyHeaderAbsent,
        Cause::ProxyHeaderEnded,
        Cause::ProxyHeaderTimeout,
        Cause::ProxyHeaderIo(io_error()),
        Cause::Draining,
        Cause::ClientHelloTimeout,
        Cause::ClientHelloEnded,
        Cause::ClientHelloIo(io_error()),
        Cause::Malformed(HelloFault::Unreadable(text())),
        Cause::Malformed(HelloFault::TrailingBytes),
        Cause::Malformed(HelloFault::Truncated),
        Cause::Malformed(HelloFault::BytesBehindRequest),
        Cause::TooLarge { most: 16_384 },
        Cause::ServerNameMissing,
        Cause::ServerNameUnknown { name: ServerName::parse("nas.home.example").expect("a name") },
        Cause::CanaryRoute { route: route() },
        Cause::RouteRemoved { route: route() },
        Cause::DefaultRouteRemoved { route: route() },
        Cause::ServerNameMoved { route: route() },
        Cause::NoStarttls { route: route() },
        Cause::OldVersion { version: "TLS 1.1" },
        Cause::NoSharedVersion(text()),
        Cause::NoSharedParameters(text()),
        Cause::NoSignatureScheme,
        Cause::NoApplicationProtocol,
        Cause::Misbehaved(text()),
        Cause::HandshakeTooLong,
        Cause::PeerAlert(Alert::UNKNOWN_CA),
        Cause::HandshakeTimeout,
        Cause::HandshakeEnded,
        Cause::HandshakeIo(io_error()),
        Cause::NoCertificate,
        Cause::UnknownIssuer,
        Cause::IssuerKeyDiffers,
        Cause::NoPathInFirst,
        Cause::Expired { not_after: 1, now: 2 },
        Cause::ValidityReversed,
        Cause::NotYetValid { not_before: i64::MAX, now: 2 },
        Cause::Revoked,
        Cause::Denied(DenyEntry::Fingerprint(Sha256([7; 32]))),
        Cause::Denied(DenyEntry::Serial(Serial::from_be_bytes(&[7]))),
        Cause::RevocationUnknown { issuer: None, fault: ListFault::Missing },
        Cause::RevocationListExpired { next_update: 1, now: 2 },
        Cause::WrongPurpose,
        Cause::BadSignature,
        Cause::Unverified,
        Cause::NameNotAllowed { name: text(), name_constrained: false },
        Cause::NameNotAllowed { name: text(), name_constrained: true },
        Cause::GuestElsewhere { name: text(), routes: text() },
        Cause::BackendRefused { backend: backend(), error: error() },
        Cause::BackendTimeout { backend: backend() },
        Cause::BackendTimedOut { backend: backend(), error: error() },
        Cause::BackendUnreachable { backend: backend(), error: error() },
        Cause::Unresolved { backend: backend(), error: LookUp::Failed(error()) },
        Cause::Unresolved { backend: backend(), error: LookUp::NoAnswer },
        Cause::BackendFull { backend: backend(), limit: 7 },
        Cause::WakeTimeout { backend: backend(), seconds: 90 },
        Cause::WakeNotSent { backend: backend(), error: error() },
        Cause::RouteChanged,
        Cause::Shortage { backend: backend(), error: error() },
        Cause::NoBackends,
        Cause::Tls(text()),
        Cause::NoVerdict,
        Cause::NotJudged,
    ];
    all.extend(every_check_failure().into_iter().map(|failure| {
        let failed = || FailedCheck { backend: backend(), failure: failure.clone() };
        Cause::Unhealthy([failed(), failed()].into())
    }));
    let backend_certificate = |fault| BackendTlsFault::Certificate { seen: Sha256([7; 32]), fault };
    all.extend(
        [
            backend_certificate(BackendCertificateFault::OtherFingerprint),
            backend_certificate(BackendCertificateFault::NotTrusted),
            backend_certificate(BackendCertificateFault::Name { expected: text(), names: text() }),
            backend_certificate(BackendCertificateFault::Expired { not_after: 1 }),
            backend_certificate(BackendCertificateFault::NotYetValid { not_before: i64::MAX }),
            backend_certificate(BackendCertificateFault::Other(text())),
            BackendTlsFault::Alert(Alert::UNKNOWN_CA),
            BackendTlsFault::NotTls,
            BackendTlsFault::Ended,
            BackendTlsFault::Protocol { asked: text() },
            BackendTlsFault::Io(error()),
            BackendTlsFault::Other(text()),
        ]
        .map(|fault| Cause::BackendTls { backend: backend(), fault: Box::new(fault) }),
    );
    all.extend(CloseReason::ALL.iter().copied().map(Cause::Ordered));
    all.extend(
        [ListFault::Missing, ListFault::OtherAuthority, ListFault::NotPermitted, ListFault::OtherScope]
            .map(|fault| Cause::RevocationUnknown { issuer: Some(Text::new("CN=Devices")), fault }),
    );
    for signer in [Signer::Device, Signer::Issuer] {
        all.extend([None, Some(Text::new("Ed448"))].map(|key| Cause::UnsupportedKey { signer, key }));
        all.push(Cause::UnsupportedSignature { signer, algorithm: Text::new("SHA-1 with RSA") });
    }
    all.extend(
        [
            Protocol::Other,
            Protocol::Http,
            Protocol::Ssh,
            Protocol::Smb,
            Protocol::Rdp,
            Protocol::Socks,
            Protocol::Postgres,
            Protocol::ProxyHeader,
            Protocol::OtherTls,
        ]
        .map(Cause::NotTls),
    );
    all.extend(
        [
            ProxyHeaderFault::NoEndOfLine(107),
            ProxyHeaderFault::NoCrlf,
            ProxyHeaderFault::NotAscii,
            ProxyHeaderFault::Address,
            ProxyHeaderFault::Form,
            ProxyHeaderFault::Version,
            ProxyHeaderFault::TooLong(2048),
            ProxyHeaderFault::TooShort,
            ProxyHeaderFault::Family,
            ProxyHeaderFault::Command,
        ]
        .map(Cause::ProxyHeaderInvalid),
    );
    all.extend(
        [
            CertificateFault::Unreadable,
            CertificateFault::BadEncoding,
            CertificateFault::Version1,
            CertificateFault::AuthorityAsDevice,
            CertificateFault::IssuerNotAuthority,
            CertificateFault::PathLength,
            CertificateFault::NameConstraints,
            CertificateFault::CriticalExtension,
            CertificateFault::EmptyUsage,
            CertificateFault::AlgorithmMismatch,
            CertificateFault::Extension,
            CertificateFault::Validity,
            CertificateFault::PathDepth,
            CertificateFault::TooMuchWork,
            CertificateFault::TooManyExtensions(64),
            CertificateFault::TooManyCertificates(9),
            CertificateFault::ChainTooLong { bytes: 70_000, most: 65_536 },
            CertificateFault::UnverifiedTooLong(70_000),
            CertificateFault::Renewed(RenewedFault::NoOrigin),
            CertificateFault::Renewed(RenewedFault::InvalidOrigin),
            CertificateFault::Renewed(RenewedFault::OtherAuthority),
            CertificateFault::Renewed(RenewedFault::NotInInventory),
            CertificateFault::Renewed(RenewedFault::OtherKey),
            CertificateFault::Renewed(RenewedFault::OtherNames),
            CertificateFault::Other(text()),
        ]
        .map(Cause::InvalidCertificate),
    );
    all
}

/// Every variant of [`CheckFailure`].
pub(crate) fn every_check_failure() -> Vec<CheckFailure> {
    let text = || Text::new("a text");
    let error = || IoError { kind: ErrorKind::ConnectionReset, errno: Some(104), text: text() };
    let (after, answer, expected) =
        (Duration::from_secs(2), || Answer::new(b"HTTP/1.1 400"), || Some(Answer::new(b"SSH-")));
    vec![
        CheckFailure::NotAccepted,
        CheckFailure::NotReached(error()),
        CheckFailure::Unresolved(LookUp::NoAnswer),
        CheckFailure::Unresolved(LookUp::Failed(Box::new(IoError { text: Text::new("no such name"), ..error() }))),
        CheckFailure::Silent { after, expected: expected() },
        CheckFailure::Silent { after, expected: None },
        CheckFailure::Closed { received: answer(), expected: expected(), error: None },
        CheckFailure::Closed { received: Answer::new(b""), expected: expected(), error: None },
        CheckFailure::Closed { received: Answer::new(b""), expected: None, error: Some(error()) },
        CheckFailure::Answered { received: answer(), expected: Answer::new(b"SSH-") },
        CheckFailure::Tls(text()),
        CheckFailure::BackendTls(Box::new(BackendTlsFault::NotTls)),
    ]
}
