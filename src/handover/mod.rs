//! How a running gate is replaced by a new process of its program, without a connection that is refused or lost.
//!
//! ```text
//!  gate ── Start ──▶ launcher ── starts ──▶ new gate      the same program, the same arguments
//!  gate ── its listening sockets ─────────▶ new gate      reads the configuration, binds nothing that it was handed
//!  gate ◀───────────────────────── Ready ── new gate
//!  gate ── bans, Go ──────────────────────▶ new gate      accepts connections from now on, as the old one still does
//!  gate ◀─────────────────────── Serving ── new gate
//!  gate ── Committed ─────────────────────▶ new gate      the old one accepts no more, and lives on for its sessions
//! ```
//!
//! The *launcher* is a small process that `doorward run` starts before it has read anything. It can start the program that
//! its own file is, with the arguments of this run, as a gate, as a notifier (`[notify]`), as the ACME agent
//! (`[certificate.acme]`) or as what renews certificates (`[renewal] issuer`), and nothing else. So the gate itself never executes a file, and a sandbox that it enters does not bind the new process.
//!
//! Until `Committed` the old gate serves as before, whatever the new one does. Afterwards the channel carries requests of the
//! control socket to the old one, and tells each when the other has ended.

mod channel;
mod child;
mod helpers;
mod launcher;
mod messages;
mod requests;
mod taken;

pub(crate) use self::channel::{Channel, pair};
pub(crate) use self::child::{channel_at_stdin, ignore_signals};
pub(crate) use self::helpers::Starter;
pub(crate) use self::launcher::{Connected, LaunchError, Launched};
pub use self::launcher::{Launcher, Unavailable, launcher};
pub(crate) use self::messages::{Counters, Penalty, Process, State, ToPredecessor, ToSuccessor, Told};
pub use self::requests::{HelperKind, ReceiverKind};
pub(crate) use self::taken::Predecessor;
pub use self::taken::{HandOver, Taken, TakenListener};
