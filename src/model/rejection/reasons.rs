//! The tables of reasons and causes: all about them that is not words for people.

use std::fmt;
use std::time::Duration;

use super::cause_data::{
    AddressList, CertificateFault, DenyEntry, HelloFault, IoError, ListFault, LookUp, Protocol, ProxyHeaderFault, Side,
    Signer, Stage, Text,
};
use super::check::FailedCheck;
use super::{Alert, BackendTlsFault};
use crate::model::close::CloseReason;
use crate::model::names::{Name, ServerName};

// Everything about a reason that is not words; the words are in `explain`. A row: the stage, the label, the side, the
// alert, and what it costs the source in seconds. The costs:
//
// 0: what the gate, its limits or a backend brought about; what the proxy in front of the gate got wrong, which speaks for
//    every client behind it; and a browser that hangs up, twice at times, to ask its user which certificate to show.
// 1: what a device of the owner's does, too, if something about it is out of date or not set up yet. Most invalid
//    certificates come from a tutorial: version 1, CA:TRUE, a critical extension.
// 2: a stranger, or a device with a certificate of an earlier authority.
// 5: what no device does that is not meant to.
reasons! {
    /// The gate holds as many connections as `limits.connections` allows.
    ConnectionLimit = Admission, "connection_limit", Gate, None, 0;
    /// As many handshakes were in progress as `limits.handshakes` allows, and this one, the oldest of the source that had
    /// the most, had to give way. Or its source is trusted and holds `limits.connections_per_source`.
    HandshakeLimit = Admission, "handshake_limit", Gate, None, 0;
    /// The source holds as many connections as `limits.connections_per_source` allows.
    SourceLimit = Admission, "source_limit", Client, None, 0;
    /// The source connects more often than `limits.connection_rate_per_source` allows.
    SourceRate = Admission, "source_rate", Client, None, 0;
    /// The listener's `allow_sources` or `deny_sources` shut the source out.
    SourceDenied = Admission, "source_denied", Client, None, 0;
    /// The source is banned for its rejected connections (`limits.penalties`), and this connection did not get as far as a
    /// handshake.
    SourceBanned = Admission, "source_banned", Client, None, 0;
    /// A source listed in `proxy_protocol_from` sent no PROXY protocol header.
    ProxyHeaderMissing = Admission, "proxy_header_missing", Client, None, 0;
    /// A source listed in `proxy_protocol_from` sent a PROXY protocol header that cannot be read.
    ProxyHeaderInvalid = Admission, "proxy_header_invalid", Client, None, 0;
    /// The gate is shutting down.
    Draining = Admission, "draining", Gate, None, 0;

    /// No complete ClientHello came within `timeouts.client_hello`.
    ClientHelloTimeout = ClientHello, "timeout", Client, None, 1;
    /// The client closed the connection before its ClientHello was complete.
    ClientHelloClosedEarly = ClientHello, "closed_early", Client, None, 0;
    /// The first bytes are not a TLS record.
    NotTls = ClientHello, "not_tls", Client, None, 2;
    /// A TLS record or a request for TLS came, but no ClientHello that can be read.
    Malformed = ClientHello, "malformed", Client, Some(Alert::DECODE_ERROR), 5;
    /// The ClientHello is longer than the gate is willing to look at.
    TooLarge = ClientHello, "too_large", Client, Some(Alert::DECODE_ERROR), 5;

    /// The ClientHello names no server, and no default route exists.
    ServerNameMissing = Route, "server_name_missing", Client, Some(Alert::MISSING_EXTENSION), 1;
    /// The ClientHello names a server that no route answers to.
    ServerNameUnknown = Route, "server_name_unknown", Client, Some(Alert::UNRECOGNIZED_NAME), 1;

    /// The client speaks no TLS version that the gate does.
    ProtocolVersion = Handshake, "protocol_version", Client, Some(Alert::PROTOCOL_VERSION), 1;
    /// No cipher suite, group or signature scheme in common.
    NoSharedParameters = Handshake, "no_shared_parameters", Client, Some(Alert::HANDSHAKE_FAILURE), 1;
    /// None of the client's application protocols (ALPN) is one of the route's.
    NoApplicationProtocol = Handshake, "no_application_protocol", Client, Some(Alert::NO_APPLICATION_PROTOCOL), 1;
    /// The client broke the TLS protocol.
    Misbehaved = Handshake, "misbehaved", Client, Some(Alert::UNEXPECTED_MESSAGE), 5;
    /// The client refused the gate: it sent an alert.
    PeerAlert = Handshake, "peer_alert", Client, None, 1;
    /// The handshake was not complete within `timeouts.handshake`.
    HandshakeTimeout = Handshake, "timeout", Client, None, 1;
    /// The client closed the connection during the handshake.
    HandshakeClosedEarly = Handshake, "closed_early", Client, None, 0;

    /// The client showed no certificate.
    CertificateRequired = Certificate, "required", Client, Some(Alert::CERTIFICATE_REQUIRED), 1;
    /// No trust anchor of the route vouches for the certificate.
    UnknownCa = Certificate, "unknown_ca", Client, Some(Alert::UNKNOWN_CA), 2;
    /// The certificate, or one above it, has expired.
    Expired = Certificate, "expired", Client, Some(Alert::CERTIFICATE_EXPIRED), 1;
    /// The certificate, or one above it, is not valid yet.
    NotYetValid = Certificate, "not_yet_valid", Client, Some(Alert::CERTIFICATE_EXPIRED), 1;
    /// A revocation list names the certificate.
    Revoked = Certificate, "revoked", Client, Some(Alert::CERTIFICATE_REVOKED), 1;
    /// The deny list names the certificate.
    Denied = Certificate, "denied", Client, Some(Alert::ACCESS_DENIED), 1;
    /// Revocation lists are configured, but none speaks for the certificate's issuer.
    RevocationUnknown = Certificate, "revocation_unknown", Gate, Some(Alert::UNKNOWN_CA), 0;
    /// The revocation list that speaks for the certificate has expired.
    RevocationListExpired = Certificate, "revocation_list_expired", Gate, Some(Alert::UNKNOWN_CA), 0;
    /// The certificate is not meant for clients (extended key usage).
    WrongPurpose = Certificate, "wrong_purpose", Client, Some(Alert::UNSUPPORTED_CERTIFICATE), 1;
    /// The certificate's key, or a signature between it and trust, is of a kind that the gate cannot check.
    UnsupportedKey = Certificate, "unsupported_key", Client, Some(Alert::UNSUPPORTED_CERTIFICATE), 1;
    /// The client's proof that it holds the certificate's key does not fit.
    BadSignature = Certificate, "bad_signature", Client, Some(Alert::DECRYPT_ERROR), 5;
    /// Anything else that is wrong with the certificate.
    CertificateInvalid = Certificate, "invalid", Client, Some(Alert::BAD_CERTIFICATE), 1;

    /// The certificate is good, but the route's `allow` does not name its holder.
    IdentityNotAllowed = Policy, "identity_not_allowed", Client, Some(Alert::ACCESS_DENIED), 1;

    /// Every backend refused or reset the connection.
    BackendRefused = Backend, "refused", Backend, Some(Alert::INTERNAL_ERROR), 0;
    /// No backend answered within `timeouts.dial`.
    BackendTimeout = Backend, "timeout", Backend, Some(Alert::INTERNAL_ERROR), 0;
    /// No backend can be reached.
    BackendUnreachable = Backend, "unreachable", Backend, Some(Alert::INTERNAL_ERROR), 0;
    /// No backend's name could be resolved.
    BackendUnresolved = Backend, "unresolved", Backend, Some(Alert::INTERNAL_ERROR), 0;
    /// TLS with the backend did not come about: most often its certificate is not the one that `backend_tls` asks for.
    BackendTls = Backend, "tls", Backend, Some(Alert::INTERNAL_ERROR), 0;
    /// The machine of the backend sleeps, and could not be woken within `wake.timeout`.
    BackendWakeTimeout = Backend, "wake_timeout", Backend, Some(Alert::INTERNAL_ERROR), 0;
    /// The health checks of every backend fail.
    BackendUnhealthy = Backend, "unhealthy", Backend, Some(Alert::INTERNAL_ERROR), 0;
    /// Every backend that answers has as many connections as `connections_per_backend` allows.
    BackendFull = Backend, "full", Gate, Some(Alert::INTERNAL_ERROR), 0;

    /// A fault of the gate: no decision was reached about the connection.
    Internal = Internal, "internal", Gate, Some(Alert::INTERNAL_ERROR), 0;
}

causes! {
    /// As many connections are open as `limits.connections` allows.
    ConnectionLimit {
        /// How many that is.
        limit: usize
    } = ConnectionLimit;
    /// Connections without a valid certificate get half of `limits.connections`, and all of it is in use.
    ConnectionShare {
        /// How many half of it is.
        share: usize
    } = ConnectionLimit;
    /// The handshake was the oldest of the source that had the most, and its slot was needed.
    HandshakeEvicted = HandshakeLimit;
    /// The source has as many connections open as `limits.connections_per_source` allows.
    SourceLimit {
        /// How many that is.
        limit: usize
    } = SourceLimit;
    /// Connections of a source without a valid certificate get half of `limits.connections_per_source`, and all of it is in
    /// use.
    SourceShare {
        /// How many half of it is.
        share: usize
    } = SourceLimit;
    /// More connections than `limits.connection_rate_per_source` allows.
    SourceRate = SourceRate;
    /// The address is on `deny_sources`, or not on `allow_sources`.
    SourceDenied(AddressList) = SourceDenied;
    /// Connections of the source were rejected too often.
    SourceBanned {
        /// How long it still has to wait.
        left: Duration
    } = SourceBanned;
    /// The first bytes do not start a PROXY protocol header.
    ProxyHeaderAbsent = ProxyHeaderMissing;
    /// The connection ended before the header did.
    ProxyHeaderEnded = ProxyHeaderMissing;
    /// No complete header came within `timeouts.client_hello`.
    ProxyHeaderTimeout = ProxyHeaderMissing;
    /// The socket failed before the header was read.
    ProxyHeaderIo(IoError) = ProxyHeaderMissing;
    /// The header cannot be read.
    ProxyHeaderInvalid(ProxyHeaderFault) = ProxyHeaderInvalid;
    /// The gate is shutting down.
    Draining = Draining;

    /// No complete ClientHello came within `timeouts.client_hello`.
    ClientHelloTimeout = ClientHelloTimeout;
    /// The connection ended before the ClientHello did.
    ClientHelloEnded = ClientHelloClosedEarly;
    /// The socket failed before the ClientHello was complete.
    ClientHelloIo(IoError) = ClientHelloClosedEarly;
    /// The first bytes are another protocol.
    NotTls(Protocol) = NotTls;
    /// The ClientHello cannot be read.
    Malformed(HelloFault) = Malformed;
    /// The ClientHello is too long.
    TooLarge {
        /// The most bytes that are taken.
        most: usize
    } = TooLarge;

    /// No server name was sent, and there is no default route.
    ServerNameMissing = ServerNameMissing;
    /// No route has the server name.
    ServerNameUnknown {
        /// The name that was asked for.
        name: ServerName
    } = ServerNameUnknown;
    /// The name of a route that is a canary. The client is answered as for a name that no route has.
    CanaryRoute {
        /// The route.
        route: Name
    } = ServerNameUnknown;
    /// The route was removed while the connection was on its way, and its client named a server.
    RouteRemoved {
        /// The route.
        route: Name
    } = ServerNameUnknown;
    /// The default route was removed while the connection was on its way, and its client named no server.
    DefaultRouteRemoved {
        /// The route.
        route: Name
    } = ServerNameMissing;
    /// The server name leads to another route since.
    ServerNameMoved {
        /// The route that it leads to.
        route: Name
    } = ServerNameUnknown;

    /// The client asked for TLS as a database client does, and the name is that of a route that has no `starttls`.
    NoStarttls {
        /// The route.
        route: Name
    } = ServerNameUnknown;

    /// The ClientHello is of a version before TLS 1.2.
    OldVersion {
        /// The version.
        version: &'static str
    } = ProtocolVersion;
    /// No TLS version in common. The text is rustls'.
    NoSharedVersion(Text) = ProtocolVersion;
    /// No cipher suite, group or signature scheme in common. The text is rustls'.
    NoSharedParameters(Text) = NoSharedParameters;
    /// The client takes no signature that the route's key can make.
    NoSignatureScheme = NoSharedParameters;
    /// No application protocol in common.
    NoApplicationProtocol = NoApplicationProtocol;
    /// The client broke the TLS protocol. The text is rustls'.
    Misbehaved(Text) = Misbehaved;
    /// More bytes or records than a handshake can have.
    HandshakeTooLong = Misbehaved;
    /// The client sent an alert.
    PeerAlert(Alert) = PeerAlert;
    /// The handshake was not complete within `timeouts.handshake`.
    HandshakeTimeout = HandshakeTimeout;
    /// The client closed the connection during the handshake.
    HandshakeEnded = HandshakeClosedEarly;
    /// The socket failed during the handshake.
    HandshakeIo(IoError) = HandshakeClosedEarly;

    /// The client sent no certificate.
    NoCertificate = CertificateRequired;
    /// No path from the certificate to a trust anchor.
    UnknownIssuer = UnknownCa;
    /// A trust anchor has the issuer's name, but another key made the signature.
    IssuerKeyDiffers = UnknownCa;
    /// Too many certificates were sent, and the first of them lead to no trust anchor.
    NoPathInFirst = UnknownCa;
    /// The certificate, or one above it, has expired.
    Expired {
        /// The last second in which it was valid, since 1970.
        not_after: i64,
        /// When it was looked at.
        now: i64
    } = Expired;
    /// The certificate, or one above it, expires before it begins to be valid.
    ValidityReversed = Expired;
    /// The certificate, or one above it, is not valid yet.
    NotYetValid {
        /// The first second in which it will be valid, since 1970.
        not_before: i64,
        /// When it was looked at.
        now: i64
    } = NotYetValid;
    /// A revocation list has the certificate.
    Revoked = Revoked;
    /// `deny` has the certificate.
    Denied(DenyEntry) = Denied;
    /// No revocation list speaks for the certificate.
    RevocationUnknown {
        /// The issuer whose list is needed, if it is known.
        issuer: Option<Text>,
        /// What is wrong with the lists there are.
        fault: ListFault
    } = RevocationUnknown;
    /// The revocation list that speaks for the certificate has expired.
    RevocationListExpired {
        /// When the next list was due, in seconds since 1970.
        next_update: i64,
        /// When it was looked at.
        now: i64
    } = RevocationListExpired;
    /// The extended key usage does not include client authentication.
    WrongPurpose = WrongPurpose;
    /// A key whose signatures the gate cannot check.
    UnsupportedKey {
        /// Whose key.
        signer: Signer,
        /// What the key is, if it is known.
        key: Option<Text>
    } = UnsupportedKey;
    /// A signature algorithm that the gate cannot check.
    UnsupportedSignature {
        /// Which certificate is signed with it.
        signer: Signer,
        /// What it is called.
        algorithm: Text
    } = UnsupportedKey;
    /// The signature in the client's CertificateVerify does not fit the certificate's key.
    BadSignature = BadSignature;
    /// Another fault of the certificate or of what was sent with it.
    InvalidCertificate(CertificateFault) = CertificateInvalid;

    /// The certificate was not verified, and `allow` lacks `unverified`.
    Unverified = IdentityNotAllowed;
    /// `allow` has no selector that matches the identity.
    NameNotAllowed {
        /// What its holder is called.
        name: Text,
        /// The common name does not count, since the issuer's name constraints do not cover it.
        name_constrained: bool
    } = IdentityNotAllowed;
    /// The certificate is a guest pass for other routes.
    GuestElsewhere {
        /// What its holder is called.
        name: Text,
        /// The routes it is for.
        routes: Text
    } = IdentityNotAllowed;

    /// The backend refused or reset the connection.
    BackendRefused {
        /// The backend.
        backend: Text,
        /// The error.
        error: Box<IoError>
    } = BackendRefused;
    /// The backend did not answer within `timeouts.dial`.
    BackendTimeout {
        /// The backend.
        backend: Text
    } = BackendTimeout;
    /// The operating system gave the connection to the backend up.
    BackendTimedOut {
        /// The backend.
        backend: Text,
        /// The error.
        error: Box<IoError>
    } = BackendTimeout;
    /// The backend cannot be reached.
    BackendUnreachable {
        /// The backend.
        backend: Text,
        /// The error.
        error: Box<IoError>
    } = BackendUnreachable;
    /// The backend's host name could not be resolved.
    Unresolved {
        /// The backend, with its port.
        backend: Text,
        /// Why.
        error: LookUp
    } = BackendUnresolved;
    /// TLS with the backend did not come about.
    BackendTls {
        /// The backend.
        backend: Text,
        /// Why.
        fault: Box<BackendTlsFault>
    } = BackendTls;
    /// The machine of the backend was sent packets to wake it, and the backend did not answer within `wake.timeout`.
    WakeTimeout {
        /// The backend.
        backend: Text,
        /// How long it was waited for, in seconds.
        seconds: u64
    } = BackendWakeTimeout;
    /// The packet that wakes the machine of the backend could not be sent.
    WakeNotSent {
        /// The backend.
        backend: Text,
        /// The error.
        error: Box<IoError>
    } = BackendWakeTimeout;
    /// The health checks of every backend fail, so none was dialled.
    Unhealthy(Box<[FailedCheck]>) = BackendUnhealthy;
    /// Every backend that may be dialled has as many connections as `connections_per_backend` allows.
    BackendFull {
        /// The last one.
        backend: Text,
        /// How many that is.
        limit: usize
    } = BackendFull;
    /// A reload changed the route while its backends were dialled.
    RouteChanged = BackendUnreachable;

    /// No descriptors or memory left to reach the backend with.
    Shortage {
        /// The backend.
        backend: Text,
        /// The error.
        error: Box<IoError>
    } = Internal;
    /// The route has no backends, which the configuration rules out.
    NoBackends = Internal;
    /// The TLS library failed. The text is its own.
    Tls(Text) = Internal;
    /// The connection's task ended without a verdict.
    NoVerdict = Internal;
    /// Whether a session may go on could not be judged.
    NotJudged = Internal;
}

/// The reason of a connection that is told to end before payload moved.
const fn of_order(order: CloseReason) -> Reason {
    match order {
        CloseReason::Revoked => Reason::Revoked,
        CloseReason::Denied => Reason::Denied,
        CloseReason::Expired => Reason::Expired,
        CloseReason::NotAllowed => Reason::IdentityNotAllowed,
        CloseReason::NotTrusted => Reason::UnknownCa,
        CloseReason::RouteRemoved => Reason::ServerNameUnknown,
        CloseReason::DrainDeadline => Reason::Draining,
        _ => Reason::Internal,
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stage().label(), self.label())
    }
}

#[cfg(test)]
mod tests;
