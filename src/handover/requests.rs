//! What a gate asks of its launcher.

use serde::{Deserialize, Serialize};

/// What the service manager says to one process and not to another.
pub(super) const OF_ONE_PROCESS: [&str; 4] = ["LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_PID"];

/// A request to the launcher.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToLauncher {
    /// Where the next process writes its errors, as a descriptor.
    Stderr,
    /// Start a process, with the descriptor as its stdin.
    Start,
    /// Kill it.
    Kill,
    /// It stays, and the launcher ends: the process becomes a child of the service manager.
    Release,
    /// Start a helper, with the descriptor as its stdin. There is no answer: it speaks for itself there.
    Helper { kind: HelperKind },
}

/// An answer of the launcher.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromLauncher {
    /// A process runs.
    Started { pid: u32 },
    /// It could not be started.
    Failed { error: String },
    /// It has ended.
    Ended { status: String, error: Option<String> },
}

/// A process beside the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HelperKind {
    /// It sends messages to the owner.
    Notifier(ReceiverKind),
    /// It orders public certificates.
    AcmeAgent,
    /// It renews certificates of devices without the owner.
    Renewer,
}

impl HelperKind {
    /// The command that it is started with.
    pub(super) const fn command(self) -> &'static [&'static str] {
        match self {
            Self::Notifier(ReceiverKind::Webhook) => &["notifier", "--receiver", "webhook"],
            Self::Notifier(ReceiverKind::Command) => &["notifier", "--receiver", "command"],
            Self::AcmeAgent => &["acme-agent"],
            Self::Renewer => &["renewer"],
        }
    }
}

/// What a notifier delivers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiverKind {
    /// `notify.webhook`.
    Webhook,
    /// `notify.command`.
    Command,
}
