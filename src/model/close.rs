//! Why a relayed connection was closed, and what its client is told.

use super::alert::Alert;

/// Why a relay ended: which side, and how (after HAProxy's termination states, configuration.txt section 8.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseReason {
    /// Both sides ended, the client first.
    ClientClosed,
    /// Both sides ended, the backend first.
    BackendClosed,
    /// The client reset the connection or vanished.
    ClientReset,
    /// The backend reset the connection or vanished.
    BackendReset,
    /// The backend ended its TLS stream without a close_notify, so that its data may be incomplete.
    BackendTruncated,
    /// No byte in either direction for `timeouts.idle`.
    IdleTimeout,
    /// The connection reached the age of `timeouts.lifetime`.
    LifetimeLimit,
    /// One side had ended and the other sent nothing for `timeouts.half_close`.
    HalfCloseTimeout,
    /// The gate shut down, and the connection was still open at the drain deadline.
    DrainDeadline,
    /// The certificate was revoked after the connection began.
    Revoked,
    /// The certificate was added to `deny` after the connection began.
    Denied,
    /// The certificate expired after the connection began.
    Expired,
    /// The route's `allow` no longer contains the certificate.
    NotAllowed,
    /// The certificate no longer chains to a trust anchor of the route, or its revocation status is unknown.
    NotTrusted,
    /// The route was removed.
    RouteRemoved,
    /// The owner cut it (`doorward cut`).
    CutByHand,
    /// The client violated the TLS protocol after the handshake, or its records were tampered with.
    TlsError,
    /// The validator of a pending order for a public certificate was shown the certificate of its challenge (RFC 8737).
    AcmeChallenge,
    /// A fault of the gate.
    Internal,
}

/// How the TLS stream to a client ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By a close_notify: the client has been sent everything (RFC 8446 section 6.1).
    Complete,
    /// By the end of the TCP stream alone, which a client takes for a truncation. TLS has no alert for a time limit or the end of a
    /// process, and `internal_error` would be wrong. Browsers use another connection, as after any server that is restarted.
    Truncated,
    /// By this fatal alert: what was received may be incomplete (section 6.2).
    Alert(Alert),
    /// By the fatal alert that the RFC has for the client's error.
    AlertOfTheError,
}

impl CloseReason {
    /// Every reason.
    pub const ALL: &'static [Self] = &[
        Self::ClientClosed,
        Self::BackendClosed,
        Self::ClientReset,
        Self::BackendReset,
        Self::BackendTruncated,
        Self::IdleTimeout,
        Self::LifetimeLimit,
        Self::HalfCloseTimeout,
        Self::DrainDeadline,
        Self::Revoked,
        Self::Denied,
        Self::Expired,
        Self::NotAllowed,
        Self::NotTrusted,
        Self::RouteRemoved,
        Self::CutByHand,
        Self::TlsError,
        Self::AcmeChallenge,
        Self::Internal,
    ];

    /// The reasons for which a running gate cuts a session: it is no longer authorized, or the owner cut it.
    pub const CUT: &'static [Self] = &[
        Self::Revoked,
        Self::Denied,
        Self::Expired,
        Self::NotAllowed,
        Self::NotTrusted,
        Self::RouteRemoved,
        Self::CutByHand,
    ];

    /// How the client's TLS stream ends. A close_notify is for streams that their sender has ended. A client that has lost its
    /// right is told as the next connection of its device will be.
    pub const fn ending(self) -> Ending {
        match self {
            Self::ClientClosed | Self::BackendClosed | Self::AcmeChallenge => Ending::Complete,
            Self::ClientReset
            | Self::BackendReset
            | Self::BackendTruncated
            | Self::IdleTimeout
            | Self::LifetimeLimit
            | Self::HalfCloseTimeout
            | Self::DrainDeadline => Ending::Truncated,
            Self::Revoked => Ending::Alert(Alert::CERTIFICATE_REVOKED),
            Self::Expired => Ending::Alert(Alert::CERTIFICATE_EXPIRED),
            Self::Denied | Self::NotAllowed | Self::CutByHand => Ending::Alert(Alert::ACCESS_DENIED),
            Self::NotTrusted => Ending::Alert(Alert::UNKNOWN_CA),
            Self::RouteRemoved => Ending::Alert(Alert::UNRECOGNIZED_NAME),
            Self::TlsError => Ending::AlertOfTheError,
            Self::Internal => Ending::Alert(Alert::INTERNAL_ERROR),
        }
    }

    /// The label value in metrics and log lines.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::BackendClosed => "backend_closed",
            Self::ClientReset => "client_reset",
            Self::BackendReset => "backend_reset",
            Self::BackendTruncated => "backend_truncated",
            Self::IdleTimeout => "idle_timeout",
            Self::LifetimeLimit => "lifetime_limit",
            Self::HalfCloseTimeout => "half_close_timeout",
            Self::DrainDeadline => "drain_deadline",
            Self::Revoked => "revoked",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::NotAllowed => "not_allowed",
            Self::NotTrusted => "not_trusted",
            Self::RouteRemoved => "route_removed",
            Self::CutByHand => "cut_by_hand",
            Self::TlsError => "tls_error",
            Self::AcmeChallenge => "acme_challenge",
            Self::Internal => "internal",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rejection::Cause;

    /// The device is told the same at its next attempt.
    #[test]
    fn lost_right_ends_a_session_by_the_alert_that_refuses_the_next_one() {
        for &reason in CloseReason::CUT {
            let refused = Cause::Ordered(reason).reason().alert();
            match reason {
                // It may come back.
                CloseReason::CutByHand => assert_eq!(reason.ending(), Ending::Alert(Alert::ACCESS_DENIED)),
                _ => assert_eq!(Some(reason.ending()), refused.map(Ending::Alert), "{reason:?}"),
            }
        }
    }

    #[test]
    fn stream_is_complete_only_if_its_sender_has_ended_it() {
        let complete = CloseReason::ALL.iter().copied().filter(|reason| reason.ending() == Ending::Complete);
        let ended = [CloseReason::ClientClosed, CloseReason::BackendClosed, CloseReason::AcmeChallenge];
        assert_eq!(complete.collect::<Vec<_>>(), ended);
    }
}
