//! Messages to the owner: `[notify]`.
//!
//! ```text
//!  gate ── events, counted ──▶ notifier ── one POST or one run of a program per message ──▶ receiver
//!  gate ◀── outcomes, state ── notifier      a process for each receiver, which the launcher starts
//! ```
//!
//! The gate's sandbox allows neither connections to the receiver nor programs. So a *notifier* has them: it is started beside the
//! gate, knows the section `[notify]` and nothing else of the configuration, and enters a sandbox of its own. A gate that
//! an attacker has taken over can send it messages, and nothing else.
//!
//! | file | does |
//! |---|---|
//! | `notices` | in the gate: collects events. Never waits |
//! | `lasting` | in the gate: what lasts is told once a day |
//! | `told` | in the gate: what was told lately, for the next notifier |
//! | `texts` | what is told |
//! | `message` | how receivers want it |
//! | `ledger` | one message for each subject and hour, and a digest of the rest |
//! | `courier` | what waits for the receiver, and when it is tried again |
//! | `receiver`, `webhook`, `command`, `failure` | the receivers, and why they do not take a message |
//! | `process` | the notifier |

mod command;
mod courier;
mod failure;
mod lasting;
mod ledger;
mod message;
mod notices;
mod process;
mod receiver;
pub(crate) mod texts;
mod told;
mod webhook;

pub(crate) use self::lasting::{LOOK_INTERVAL, Lasting};
pub(crate) use self::message::{FromNotifier, Notice, ToNotifier};
pub(crate) use self::notices::{Notices, ReceiverState};
pub use self::process::{NotifierError, notifier};
pub(crate) use self::receiver::Receiver;
pub(crate) use self::told::Told;
