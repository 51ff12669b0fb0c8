//! How pressing each line is.

use std::fmt;

use serde::Serialize;

use super::fields::{Event, Verdict};
use crate::telemetry::journal::Priority;

/// What a line can be made of.
pub(super) trait Line: Serialize + fmt::Display {
    /// How pressing it is.
    fn priority(&self) -> Priority;
}

impl Line for Event {
    fn priority(&self) -> Priority {
        match self {
            Self::ReloadFailed { .. } | Self::UpgradeFailed { .. } => Priority::Error,
            Self::LeftOut { .. }
            | Self::AcceptFailed { .. }
            | Self::History { .. }
            | Self::NoticesFailing { .. }
            | Self::CertificateRenewalFailed { .. }
            | Self::UnattendedRenewal { error: Some(_) }
            | Self::BackendUnhealthy { .. } => Priority::Warning,
            Self::Reloaded { .. }
            | Self::RevocationList { .. }
            | Self::CertificateRenewed { .. }
            | Self::RenewalRequest { .. }
            | Self::UnattendedRenewal { error: None }
            | Self::Upgraded { .. } => Priority::Notice,
            Self::Sandbox { missing, .. } if !missing.is_empty() => Priority::Warning,
            Self::WakeEnded { outcome: "timeout" | "not_sent", .. } => Priority::Warning,
            Self::Listening { .. }
            | Self::Sandbox { .. }
            | Self::ListenerClosed { .. }
            | Self::Metrics { .. }
            | Self::Control { .. }
            | Self::NoticesDelivered { .. }
            | Self::BackendHealthy { .. }
            | Self::Waking { .. }
            | Self::WakeEnded { .. }
            | Self::Ready
            | Self::Draining => Priority::Info,
        }
    }
}

impl Line for Verdict<'_> {
    fn priority(&self) -> Priority {
        match self.side {
            None => Priority::Info,
            // Strangers come every day.
            Some("client") => Priority::Notice,
            Some(_) if self.stage == Some("internal") => Priority::Error,
            Some(_) => Priority::Warning,
        }
    }
}
