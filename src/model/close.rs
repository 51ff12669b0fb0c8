//! How an admitted connection ended.

/// Why a relay ended: who, and in which way (after HAProxy's termination states, configuration.txt section 8.5).
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
    /// No byte either way for `timeouts.idle`.
    IdleTimeout,
    /// The connection was as old as `timeouts.lifetime` allows.
    LifetimeLimit,
    /// One side had ended, and the other was silent for `timeouts.half_close`.
    HalfCloseTimeout,
    /// The gate shut down and could wait no longer.
    DrainDeadline,
    /// The certificate has been revoked since.
    Revoked,
    /// The certificate is in the deny list by now.
    Denied,
    /// The certificate has expired since.
    Expired,
    /// `allow` of the route does not have the certificate any more.
    NotAllowed,
    /// The certificate does not lead to a trust anchor of the route any more, or nobody can say whether it is revoked.
    NotTrusted,
    /// The route is gone.
    RouteRemoved,
    /// The gate's owner ended it by hand.
    CutByHand,
    /// The client broke the TLS protocol after the handshake, or somebody tampered with its records.
    TlsError,
    /// A fault of the gate.
    Internal,
}

impl CloseReason {
    /// Every reason.
    pub const ALL: &'static [Self] = &[
        Self::ClientClosed,
        Self::BackendClosed,
        Self::ClientReset,
        Self::BackendReset,
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
        Self::Internal,
    ];

    /// Those for which a session is cut although the gate goes on: its right to be in is gone, or its owner wants so.
    pub const CUT: &'static [Self] = &[
        Self::Revoked,
        Self::Denied,
        Self::Expired,
        Self::NotAllowed,
        Self::NotTrusted,
        Self::RouteRemoved,
        Self::CutByHand,
    ];

    /// The label value in metrics and log lines.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::BackendClosed => "backend_closed",
            Self::ClientReset => "client_reset",
            Self::BackendReset => "backend_reset",
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
            Self::Internal => "internal",
        }
    }
}
