//! A receiver of messages, and why it does not take one.

use std::time::Duration;

use super::command::Program;
use super::message::Notice;
use super::webhook::Poster;
use crate::config::checked::Notify;

/// How long one attempt may take.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// A receiver.
#[derive(Clone, Debug)]
pub(crate) enum Receiver {
    /// An HTTP server.
    Webhook(Poster),
    /// A program.
    Command(Program),
}

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

impl Receiver {
    /// All that `[notify]` names, for a process without a sandbox.
    pub(crate) fn all(notify: &Notify) -> Vec<Self> {
        let webhook = notify.webhook.as_ref().map(|webhook| Self::Webhook(Poster::new(webhook)));
        let command = notify.command.as_ref().map(|command| Self::Command(Program::new(command)));
        webhook.into_iter().chain(command).collect()
    }

    /// What it is called: the scheme and the host of a URL, or the path of a program.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Webhook(poster) => poster.name(),
            Self::Command(program) => program.name(),
        }
    }

    /// Delivers a message. Returns what the receiver has answered, in words.
    pub(crate) async fn deliver(&self, notice: &Notice) -> Result<String, Failure> {
        match self {
            Self::Webhook(poster) => poster.deliver(notice).await,
            Self::Command(program) => program.deliver(notice).await,
        }
    }
}
