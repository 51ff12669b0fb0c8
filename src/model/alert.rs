//! TLS alerts.

use std::fmt;

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
