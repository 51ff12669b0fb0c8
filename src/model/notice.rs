//! What the owner is sent a message about.

use serde::{Deserialize, Serialize};

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeEvent {
    /// A certificate carries the name of a device, and its authority did not sign it.
    Impostor,
    /// A device has connected for the first time.
    NewDevice,
    /// A backend does not answer.
    BackendDown,
    /// It answers again.
    BackendUp,
    /// A certificate or a revocation list expires soon, or has expired.
    Expiring,
    /// The public certificate could not be renewed; or, after that, it was.
    RenewalFailed,
    /// A device has asked for its next certificate through the gate.
    RenewalRequested,
    /// A changed configuration was refused.
    ReloadFailed,
    /// A right was taken away, and the gate may still grant it.
    RevocationNotInForce,
}

/// How pressing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticePriority {
    /// For the record.
    Low,
    /// In a few days.
    Normal,
    /// Today.
    High,
    /// Now.
    Urgent,
}

/// What was done with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeOutcome {
    /// The receiver has taken its message.
    Sent,
    /// The receiver did not take its message, however often it was tried.
    Failed,
    /// It was one too many: a digest counts it.
    Digested,
    /// There was no room for it.
    Dropped,
}

impl NoticeEvent {
    /// Every event.
    pub const ALL: [Self; 9] = [
        Self::Impostor,
        Self::NewDevice,
        Self::BackendDown,
        Self::BackendUp,
        Self::Expiring,
        Self::RenewalFailed,
        Self::RenewalRequested,
        Self::ReloadFailed,
        Self::RevocationNotInForce,
    ];

    /// The word in the configuration, the metrics and the messages.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Impostor => "impostor",
            Self::NewDevice => "new_device",
            Self::BackendDown => "backend_down",
            Self::BackendUp => "backend_up",
            Self::Expiring => "expiring",
            Self::RenewalFailed => "renewal_failed",
            Self::RenewalRequested => "renewal_requested",
            Self::ReloadFailed => "reload_failed",
            Self::RevocationNotInForce => "revocation_not_in_force",
        }
    }

    /// How pressing it is.
    pub const fn priority(self) -> NoticePriority {
        match self {
            Self::Impostor | Self::RevocationNotInForce => NoticePriority::Urgent,
            Self::BackendDown | Self::RenewalFailed | Self::ReloadFailed => NoticePriority::High,
            Self::NewDevice | Self::Expiring | Self::RenewalRequested => NoticePriority::Normal,
            Self::BackendUp => NoticePriority::Low,
        }
    }
}

impl NoticePriority {
    /// The word in the messages.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Urgent => "urgent",
        }
    }
}

impl NoticeOutcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Sent, Self::Failed, Self::Digested, Self::Dropped];

    /// The word in the metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Digested => "digested",
            Self::Dropped => "dropped",
        }
    }
}
