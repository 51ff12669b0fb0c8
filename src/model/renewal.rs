//! The renewal of device certificates through the gate.

/// How the gate has answered a device that asked for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// It was stored, for the owner to decide.
    Stored,
    /// It was stored before, and the owner has not decided yet.
    Waiting,
    /// The owner has approved it: the certificate was sent.
    Approved,
    /// The owner has refused it.
    Refused,
    /// Another request of the device was stored a moment ago.
    TooSoon,
    /// It is no request that the gate could store.
    Invalid,
    /// The certificate of the device is not renewed.
    NotRenewed,
    /// The folder of the requests could not be read or written.
    Failed,
}

impl RequestOutcome {
    /// Every outcome.
    pub const ALL: [Self; 8] = [
        Self::Stored,
        Self::Waiting,
        Self::Approved,
        Self::Refused,
        Self::TooSoon,
        Self::Invalid,
        Self::NotRenewed,
        Self::Failed,
    ];

    /// The word in the log and the metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Waiting => "waiting",
            Self::Approved => "approved",
            Self::Refused => "refused",
            Self::TooSoon => "too_soon",
            Self::Invalid => "invalid",
            Self::NotRenewed => "not_renewed",
            Self::Failed => "failed",
        }
    }
}
