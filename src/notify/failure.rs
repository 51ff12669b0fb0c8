//! Why a receiver does not take a message.

use std::time::Duration;

/// How long one attempt may take.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// Why a message was not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// In words. It holds nothing that the URL holds beside its host.
    pub(crate) error: String,
    /// Another attempt with this message would be of no use.
    pub(crate) permanent: bool,
    /// The receiver wants no attempt before.
    pub(crate) retry_after: Option<Duration>,
}

impl Failure {
    /// One that may pass.
    pub(super) fn passing(error: impl Into<String>) -> Self {
        Self { error: error.into(), permanent: false, retry_after: None }
    }

    /// One that stays.
    pub(super) fn permanent(error: impl Into<String>) -> Self {
        Self { error: error.into(), permanent: true, retry_after: None }
    }
}
