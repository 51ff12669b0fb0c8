//! The health checks of backends, in the answer to `status`.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::explain;
use crate::model::rejection::Health;

/// A backend of a route whose health is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendHealth {
    /// The backend.
    pub backend: String,
    /// `unchecked`, `healthy` or `unhealthy`.
    pub health: String,
    /// Since when (RFC 3339); none if no check has ended yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// When the last check failed (RFC 3339), if it is unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked: Option<String>,
    /// Why, to be read behind the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl BackendHealth {
    /// What is known of a backend; `moment` writes a time.
    pub(super) fn new(backend: impl ToString, health: &Health, moment: fn(OffsetDateTime) -> String) -> Self {
        let (word, since, checked, failure) = match health {
            Health::Unchecked => ("unchecked", None, None, None),
            Health::Healthy { since } => ("healthy", Some(since), None, None),
            Health::Unhealthy { since, checked, failure } => ("unhealthy", Some(since), Some(checked), Some(failure)),
        };
        Self {
            backend: backend.to_string(),
            health: word.to_owned(),
            since: since.copied().map(moment),
            checked: checked.copied().map(moment),
            failure: failure.map(explain::check_failure),
        }
    }
}
