//! Why a connection was rejected: one closed enum, with total matches to everything that is said about it.

use std::fmt;

/// Where in the journey of a connection a decision fell (the order is the order of the journey).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Limits and source addresses, before a byte is read.
    Admission,
    /// The first bytes, looked at and not yet taken.
    ClientHello,
    /// Which route the server name leads to.
    Route,
    /// The TLS handshake, but for the client's certificate.
    Handshake,
    /// The client's certificate.
    Certificate,
    /// Whether the route allows this identity.
    Policy,
    /// Reaching the backend, for a client that is allowed.
    Backend,
    /// Anywhere: a fault of the gate itself.
    Internal,
}

impl Stage {
    /// The label value in metrics and log lines.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::ClientHello => "client_hello",
            Self::Route => "route",
            Self::Handshake => "handshake",
            Self::Certificate => "certificate",
            Self::Policy => "policy",
            Self::Backend => "backend",
            Self::Internal => "internal",
        }
    }

    /// Whether a rejection here has no route yet, so that its `route` label is `none`.
    pub const fn is_before_route(self) -> bool {
        match self {
            Self::Admission | Self::ClientHello | Self::Route => true,
            Self::Handshake | Self::Certificate | Self::Policy | Self::Backend | Self::Internal => false,
        }
    }
}

/// Who brought a rejection about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Whoever connected to us.
    Client,
    /// The service behind us.
    Backend,
    /// This program or its configuration.
    Gate,
}

impl Side {
    /// The word in log lines.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Backend => "backend",
            Self::Gate => "gate",
        }
    }
}

/// A TLS alert description (RFC 8446 section 6, RFC 6066 section 9, RFC 7301 section 3.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Alert(pub u8);

impl Alert {
    /// `unexpected_message`.
    pub const UNEXPECTED_MESSAGE: Self = Self(10);
    /// `handshake_failure`.
    pub const HANDSHAKE_FAILURE: Self = Self(40);
    /// `bad_certificate`.
    pub const BAD_CERTIFICATE: Self = Self(42);
    /// `unsupported_certificate`.
    pub const UNSUPPORTED_CERTIFICATE: Self = Self(43);
    /// `certificate_revoked`.
    pub const CERTIFICATE_REVOKED: Self = Self(44);
    /// `certificate_expired`.
    pub const CERTIFICATE_EXPIRED: Self = Self(45);
    /// `unknown_ca`.
    pub const UNKNOWN_CA: Self = Self(48);
    /// `access_denied`.
    pub const ACCESS_DENIED: Self = Self(49);
    /// `decode_error`.
    pub const DECODE_ERROR: Self = Self(50);
    /// `decrypt_error`.
    pub const DECRYPT_ERROR: Self = Self(51);
    /// `protocol_version`.
    pub const PROTOCOL_VERSION: Self = Self(70);
    /// `internal_error`.
    pub const INTERNAL_ERROR: Self = Self(80);
    /// `missing_extension`.
    pub const MISSING_EXTENSION: Self = Self(109);
    /// `unrecognized_name`.
    pub const UNRECOGNIZED_NAME: Self = Self(112);
    /// `certificate_required`.
    pub const CERTIFICATE_REQUIRED: Self = Self(116);
    /// `no_application_protocol`.
    pub const NO_APPLICATION_PROTOCOL: Self = Self(120);

    /// The name as registered with IANA, for those that a gate or its clients send.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "close_notify",
            10 => "unexpected_message",
            20 => "bad_record_mac",
            22 => "record_overflow",
            40 => "handshake_failure",
            42 => "bad_certificate",
            43 => "unsupported_certificate",
            44 => "certificate_revoked",
            45 => "certificate_expired",
            46 => "certificate_unknown",
            47 => "illegal_parameter",
            48 => "unknown_ca",
            49 => "access_denied",
            50 => "decode_error",
            51 => "decrypt_error",
            70 => "protocol_version",
            71 => "insufficient_security",
            80 => "internal_error",
            86 => "inappropriate_fallback",
            90 => "user_canceled",
            100 => "no_renegotiation",
            109 => "missing_extension",
            110 => "unsupported_extension",
            112 => "unrecognized_name",
            113 => "bad_certificate_status_response",
            116 => "certificate_required",
            120 => "no_application_protocol",
            _ => return None,
        })
    }

    /// The alert as a fatal, unencrypted record: what may be sent before the keys of a handshake exist
    /// (RFC 8446 sections 5.1 and 6).
    pub const fn plaintext_record(self) -> [u8; 7] {
        [21, 3, 3, 0, 2, 2, self.0]
    }
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "alert_{}", self.0),
        }
    }
}

impl fmt::Debug for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Alert({self})")
    }
}

macro_rules! reasons {
    ($( $(#[doc = $doc:literal])+ $variant:ident = $stage:ident, $label:literal, $side:ident, $alert:expr; )+) => {
        /// Why a connection was rejected. Closed: every rejection has exactly one of these, and the labels are
        /// what dashboards and alerts rely on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $( $(#[doc = $doc])+ $variant, )+
        }

        impl Reason {
            /// Every reason, in the order of the journey.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )+ ];

            /// The stage that rejects for this reason.
            pub const fn stage(self) -> Stage {
                match self { $( Self::$variant => Stage::$stage, )+ }
            }

            /// The `reason` label; unique within its stage.
            pub const fn label(self) -> &'static str {
                match self { $( Self::$variant => $label, )+ }
            }

            /// Who brought it about.
            pub const fn side(self) -> Side {
                match self { $( Self::$variant => Side::$side, )+ }
            }

            /// The alert that tells the client, where the stage leaves one the chance to. rustls may choose a
            /// more precise one for `malformed` and `misbehaved`.
            pub const fn alert(self) -> Option<Alert> {
                match self { $( Self::$variant => $alert, )+ }
            }
        }
    };
}

reasons! {
    /// The gate holds as many connections as `limits.connections` allows.
    ConnectionLimit = Admission, "connection_limit", Gate, None;
    /// As many handshakes were in progress as `limits.handshakes` allows, and this one, the oldest of the source that had
    /// the most, had to give way. Or its source is trusted and holds `limits.connections_per_source`.
    HandshakeLimit = Admission, "handshake_limit", Gate, None;
    /// The source holds as many connections as `limits.connections_per_source` allows.
    SourceLimit = Admission, "source_limit", Client, None;
    /// The source connects more often than `limits.connection_rate_per_source` allows.
    SourceRate = Admission, "source_rate", Client, None;
    /// The listener's `allow_sources` or `deny_sources` shut the source out.
    SourceDenied = Admission, "source_denied", Client, None;
    /// Connections of the source were rejected so often that it has to wait (`limits.penalties`), and this one did not get as far as
    /// a handshake.
    SourceBanned = Admission, "source_banned", Client, None;
    /// A source listed in `proxy_protocol_from` sent no PROXY protocol header.
    ProxyHeaderMissing = Admission, "proxy_header_missing", Client, None;
    /// A source listed in `proxy_protocol_from` sent a PROXY protocol header that cannot be read.
    ProxyHeaderInvalid = Admission, "proxy_header_invalid", Client, None;
    /// The gate is shutting down.
    Draining = Admission, "draining", Gate, None;

    /// No complete ClientHello came within `timeouts.client_hello`.
    ClientHelloTimeout = ClientHello, "timeout", Client, None;
    /// The client went away before its ClientHello was complete.
    ClientHelloClosedEarly = ClientHello, "closed_early", Client, None;
    /// The first bytes are not a TLS record.
    NotTls = ClientHello, "not_tls", Client, None;
    /// A TLS record came, but no ClientHello that can be read.
    Malformed = ClientHello, "malformed", Client, Some(Alert::DECODE_ERROR);
    /// The ClientHello is longer than the gate is willing to look at.
    TooLarge = ClientHello, "too_large", Client, Some(Alert::DECODE_ERROR);

    /// The ClientHello names no server, and no default route exists.
    ServerNameMissing = Route, "server_name_missing", Client, Some(Alert::MISSING_EXTENSION);
    /// The ClientHello names a server that no route answers to.
    ServerNameUnknown = Route, "server_name_unknown", Client, Some(Alert::UNRECOGNIZED_NAME);

    /// The client speaks no TLS version that the gate does.
    ProtocolVersion = Handshake, "protocol_version", Client, Some(Alert::PROTOCOL_VERSION);
    /// No cipher suite, group or signature scheme in common.
    NoSharedParameters = Handshake, "no_shared_parameters", Client, Some(Alert::HANDSHAKE_FAILURE);
    /// None of the client's application protocols (ALPN) is one of the route's.
    NoApplicationProtocol = Handshake, "no_application_protocol", Client, Some(Alert::NO_APPLICATION_PROTOCOL);
    /// The client broke the TLS protocol.
    Misbehaved = Handshake, "misbehaved", Client, Some(Alert::UNEXPECTED_MESSAGE);
    /// The client refused the gate: it sent an alert.
    PeerAlert = Handshake, "peer_alert", Client, None;
    /// The handshake was not complete within `timeouts.handshake`.
    HandshakeTimeout = Handshake, "timeout", Client, None;
    /// The client went away in the middle of the handshake.
    HandshakeClosedEarly = Handshake, "closed_early", Client, None;

    /// The client showed no certificate.
    CertificateRequired = Certificate, "required", Client, Some(Alert::CERTIFICATE_REQUIRED);
    /// No trust anchor of the route vouches for the certificate.
    UnknownCa = Certificate, "unknown_ca", Client, Some(Alert::UNKNOWN_CA);
    /// The certificate, or one above it, has expired.
    Expired = Certificate, "expired", Client, Some(Alert::CERTIFICATE_EXPIRED);
    /// The certificate, or one above it, is not valid yet.
    NotYetValid = Certificate, "not_yet_valid", Client, Some(Alert::CERTIFICATE_EXPIRED);
    /// A revocation list names the certificate.
    Revoked = Certificate, "revoked", Client, Some(Alert::CERTIFICATE_REVOKED);
    /// The deny list names the certificate.
    Denied = Certificate, "denied", Client, Some(Alert::ACCESS_DENIED);
    /// Revocation lists are configured, but none speaks for the certificate's issuer.
    RevocationUnknown = Certificate, "revocation_unknown", Gate, Some(Alert::UNKNOWN_CA);
    /// The revocation list that speaks for the certificate has expired.
    RevocationListExpired = Certificate, "revocation_list_expired", Gate, Some(Alert::UNKNOWN_CA);
    /// The certificate is not meant for clients (extended key usage).
    WrongPurpose = Certificate, "wrong_purpose", Client, Some(Alert::UNSUPPORTED_CERTIFICATE);
    /// The certificate's key, or a signature between it and trust, is of a kind that the gate cannot check.
    UnsupportedKey = Certificate, "unsupported_key", Client, Some(Alert::UNSUPPORTED_CERTIFICATE);
    /// The client's proof that it holds the certificate's key does not fit.
    BadSignature = Certificate, "bad_signature", Client, Some(Alert::DECRYPT_ERROR);
    /// Anything else that is wrong with the certificate.
    CertificateInvalid = Certificate, "invalid", Client, Some(Alert::BAD_CERTIFICATE);

    /// The certificate is good, but the route's `allow` does not name its holder.
    IdentityNotAllowed = Policy, "identity_not_allowed", Client, Some(Alert::ACCESS_DENIED);

    /// Every backend refused or reset the connection.
    BackendRefused = Backend, "refused", Backend, Some(Alert::INTERNAL_ERROR);
    /// No backend answered within `timeouts.dial`.
    BackendTimeout = Backend, "timeout", Backend, Some(Alert::INTERNAL_ERROR);
    /// No backend can be reached.
    BackendUnreachable = Backend, "unreachable", Backend, Some(Alert::INTERNAL_ERROR);
    /// No backend's name could be resolved.
    BackendUnresolved = Backend, "unresolved", Backend, Some(Alert::INTERNAL_ERROR);

    /// A fault of the gate: nobody decided about the connection.
    Internal = Internal, "internal", Gate, Some(Alert::INTERNAL_ERROR);
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stage().label(), self.label())
    }
}

/// A rejection: the reason, and what a person needs to understand this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The reason that is counted.
    pub reason: Reason,
    /// The cause in words. Whatever a stranger chose in it is escaped and bounded already.
    pub detail: String,
    /// The alert that was sent, if one was and its description is known. Whether the client has read it, is not known.
    pub alert: Option<Alert>,
}

impl Rejection {
    /// A rejection that sends no alert.
    pub fn silent(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), alert: None }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_stage_and_a_label_name_one_reason() {
        let mut seen = HashSet::new();
        for reason in Reason::ALL {
            assert!(seen.insert((reason.stage(), reason.label())), "{reason} stands twice");
        }
        assert!(Reason::ALL.is_sorted_by_key(|reason| reason.stage()), "not in the order of the journey");
    }

    #[test]
    fn every_alert_has_its_registered_name() {
        for alert in Reason::ALL.iter().filter_map(|reason| reason.alert()) {
            assert!(alert.name().is_some(), "{}", alert.0);
        }
    }
}
