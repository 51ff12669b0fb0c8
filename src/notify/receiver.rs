//! A receiver of messages.

use super::command::Program;
use super::failure::Failure;
use super::message::Notice;
use super::webhook::Poster;
use crate::config::checked::Notify;

/// A receiver.
#[derive(Clone, Debug)]
pub(crate) enum Receiver {
    /// An HTTP server.
    Webhook(Poster),
    /// A program.
    Command(Program),
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
