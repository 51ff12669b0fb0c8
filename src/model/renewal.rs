//! The renewal of device certificates through the gate.

use serde::{Deserialize, Serialize};

/// How the gate has answered a device that asked for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// It was stored, for the owner to decide.
    Stored,
    /// It was stored before, and the owner has not decided yet.
    Waiting,
    /// The owner has approved it: the certificate was sent.
    Approved,
    /// It was issued without the owner, and sent.
    IssuedUnattended,
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
    pub const ALL: [Self; 9] = [
        Self::Stored,
        Self::Waiting,
        Self::Approved,
        Self::IssuedUnattended,
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
            Self::IssuedUnattended => "issued_unattended",
            Self::Refused => "refused",
            Self::TooSoon => "too_soon",
            Self::Invalid => "invalid",
            Self::NotRenewed => "not_renewed",
            Self::Failed => "failed",
        }
    }
}

/// A certificate that was issued without the owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedUnattended {
    /// Its serial number.
    pub serial: String,
    /// The serial number of the certificate that it descends from.
    pub origin: String,
    /// When it expires, in seconds since 1970.
    pub not_after: i64,
}

/// What the process that renews without the owner has done with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unattended {
    /// It has issued the certificate, and stored it as the answer.
    Issued(IssuedUnattended),
    /// It is for the owner to decide.
    Left {
        /// Why.
        why: String,
    },
    /// It could not do anything.
    Failed {
        /// Why.
        error: String,
    },
}

/// The process that renews without the owner, as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnattendedState {
    /// Why it does not run, so that requests are left to the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
