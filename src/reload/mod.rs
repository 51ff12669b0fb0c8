//! Reloads: another configuration for the running gate.
//!
//! SIGHUP, the control socket and changed files lead to one [`Reloader`], which does one reload at a time on a thread of its
//! own. Everything is read, checked and built as at the start, and replaces the old configuration only if there is no error.
//! Connections finish their handshake under the configuration they began with; the new one judges them again before a
//! backend is dialled, and it judges every open session.
//!
//! A configuration with errors does not delay revocations: the revocation lists and `deny` entries that can be read are
//! added to the configuration in force. Lists from the control socket (`lists.rs`) have their own thread, which reads no
//! files.

mod built;
pub mod expectations;
mod outcome;
pub mod policy_report;
mod reloader;
mod review;
mod revocation_lists;
mod salvage;
mod startup;
pub(crate) mod watch;
mod worker;

pub use self::outcome::{Listening, Refused, Reloaded, Trigger};
pub(crate) use self::reloader::Current;
pub use self::reloader::Reloader;
pub(crate) use self::revocation_lists::{ListFacts, RouteInForce};
pub(crate) use self::worker::TaskThread;
