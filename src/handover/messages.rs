//! What the two processes of a hand-over tell each other.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// A process of the gate that accepts no more connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its process id.
    pub(crate) pid: u32,
    /// Its release.
    pub(crate) version: String,
    /// When it was started.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) since: OffsetDateTime,
    /// When its sessions are cut.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) until: OffsetDateTime,
}

/// From the running gate to the new process. What is in braces is about the descriptor that comes with the message.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub(crate) enum ToSuccessor {
    /// A listening socket.
    Listener {
        /// The listener's name.
        name: String,
        /// Its address in the configuration.
        address: SocketAddr,
        /// systemd has opened it.
        passed: bool,
    },
    /// The socket of the metrics.
    Metrics {
        /// Its address in the configuration.
        address: SocketAddr,
    },
    /// The control socket.
    Control {
        /// Its path.
        path: PathBuf,
    },
    /// The standard error of the running gate.
    Stderr,
    /// That was all.
    Offered,
    /// A connection of the control socket: a request, and its answer.
    Request,
    /// Accept connections. A stream with [`State`] as JSON.
    Go,
    /// A process that an upgrade before this one has left: the channel to it.
    Earlier(Process),
    /// The sender accepts no more connections and is the process behind this channel. A stream with [`Counters`] as JSON.
    Committed {
        /// The sender.
        process: Process,
        /// The configuration was loaded again after the new process had been started.
        reload: bool,
    },
    /// The sender ends. A stream with its counters.
    Final,
}

/// From the new process to the gate that it replaces.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub(crate) enum ToPredecessor {
    /// Everything is built and bound.
    Ready {
        /// Its release.
        version: String,
    },
    /// Connections are accepted.
    Serving,
    /// A connection of the control socket: a request, and its answer.
    Request,
}

/// What the processes of a gate have counted, as texts of Prometheus' format.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// The sender itself.
    pub(crate) own: String,
    /// Those that have ended.
    pub(crate) ended: String,
    /// Those that run, by process id.
    pub(crate) running: Vec<(u32, String)>,
}

/// What a new process takes over besides sockets. It is never written to a disk.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct State {
    /// The first id for its connections.
    pub(crate) first_id: u64,
    /// Sources that are banned or owe something.
    #[serde(default)]
    pub(crate) penalties: Vec<Penalty>,
    /// What the owner was told lately, so that it is not told again.
    #[serde(default)]
    pub(crate) told: Vec<Told>,
}

/// What the owner was told about a subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// The receiver; none: it is what lasts, which is told once a day.
    pub(crate) receiver: Option<String>,
    /// The event's label.
    pub(crate) event: String,
    pub(crate) subject: String,
    /// How long ago, in nanoseconds.
    pub(crate) ago: u64,
}

/// What a source owes, and its ban. Times are nanoseconds from the moment of the hand-over; what has passed is 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Penalty {
    /// The first address of the source, and how many leading bits its addresses share.
    pub(crate) source: (IpAddr, u8),
    /// When the cost of its rejections will have passed.
    pub(crate) settled: u64,
    /// When its ban ends.
    pub(crate) banned: u64,
    /// How often it was banned.
    pub(crate) bans: u8,
}
