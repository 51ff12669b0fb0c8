//! A route, in the answer to `status`.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::explain;
use crate::model::rejection::Health;

/// A route of a gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// Its name.
    pub name: String,
    /// The server names it serves.
    pub server_names: Vec<String>,
    /// Its backends.
    pub backends: Vec<String>,
    /// What their health checks say; none if they are not checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health: Vec<BackendHealth>,
    /// Whether the machine of its backend is `up`, `asleep`, `waking`, `down` or `unused` so far, if the route wakes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Open sessions.
    pub sessions: usize,
}

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
