//! The control socket: how `doorward status`, `doorward sessions` and `doorward why` ask a running gate, and how
//! `doorward reload` and `doorward cut` have it do something.
//!
//! A unix socket for the gate's own user and for root. One connection is one question: a line of JSON each way
//! ([`Request`], [`Answer`]), both bounded in size and time. Behind the line of some requests follow as many bytes as it says.

pub mod ask;
pub(crate) mod serve;
mod socket;

use serde::{Deserialize, Serialize};

pub(crate) use self::serve::{Control, Facts};
pub use self::socket::BindError;
pub use crate::explain::told::{Certificate, Refusal};
use crate::reload::policy_report::Change;

/// The longest question, in bytes.
const REQUEST_MAX: usize = 4096;

/// What a gate answers to a question that it does not know, whatever its release.
const NOT_UNDERSTOOD: &str = "this is no question that the gate understands";

/// The longest revocation list that is handed over, in bytes: half a million certificates and more.
pub const LIST_MAX: usize = 32 * 1024 * 1024;

/// The longest certificate of an authority that is handed over, in bytes.
const AUTHORITY_MAX: usize = 64 * 1024;

/// The most sessions in one answer.
pub const SESSIONS_MAX: usize = 1000;

/// The most refusals in one answer.
pub const REFUSALS_MAX: usize = 100;

/// The most of what expires that one answer has.
const EXPIRIES_MAX: usize = 100;

/// The longest answer, in bytes. What [`SESSIONS_MAX`] and [`REFUSALS_MAX`] allow is far below it.
const ANSWER_MAX: usize = 4 * 1024 * 1024;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// How is it?
    Status,
    /// Who is in?
    Sessions {
        /// No more than so many, the newest; at most [`SESSIONS_MAX`].
        count: usize,
    },
    /// Why was somebody turned away?
    Why {
        /// `last`, an IP address, `sha256:…`, or the name of a device.
        wanted: String,
        /// No more than so many, the newest; at most [`REFUSALS_MAX`].
        count: usize,
    },
    /// Take the configuration over as it is in the file now.
    Reload,
    /// End sessions.
    Cut {
        /// Which: see [`Whom`](crate::sessions::selector::Whom).
        whom: String,
    },
    /// End every session. A question of its own: one that was cut short must never mean this.
    CutEverybody,
    /// Which certificates and revocation lists are in force? Behind this line follows the certificate of an authority in
    /// binary form, if one is asked about.
    InForce {
        /// How many bytes follow.
        authority_bytes: usize,
    },
    /// Put a revocation list in force. Behind this line follow the certificate of the authority that signed it and the list,
    /// both in binary form.
    TakeList {
        /// How many bytes the certificate has.
        authority_bytes: usize,
        /// How many bytes the list has; at most [`LIST_MAX`].
        list_bytes: usize,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Sessions`].
    Sessions(Sessions),
    /// To [`Request::Why`].
    Why(Why),
    /// To [`Request::Reload`]: it was done.
    Reloaded(Reloaded),
    /// To [`Request::Reload`]: nothing was changed, for these mistakes.
    NotReloaded {
        /// Each in the words of `doorward check`.
        errors: Vec<String>,
        /// Revocation lists and `deny` entries that are in force nevertheless.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        in_force: Vec<String>,
        /// How many sessions end because of those.
        #[serde(default)]
        sessions_cut: usize,
    },
    /// To [`Request::Cut`] and [`Request::CutEverybody`]: these end.
    Cut(Sessions),
    /// To [`Request::InForce`].
    InForce(InForce),
    /// To [`Request::TakeList`]: it is in force.
    ListTaken(ListTaken),
    /// There is no answer, for this reason.
    Error(String),
}

/// A configuration that was taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// What is allowed but probably not meant, in the words of `doorward check`.
    pub warnings: Vec<String>,
    /// What is different and takes effect only after a restart.
    pub after_restart: Vec<String>,
    /// Where it listens now and did not before.
    #[serde(default)]
    pub opened: Vec<Listening>,
    /// Where it does not listen any more.
    #[serde(default)]
    pub closed: Vec<Listening>,
    /// Who may go where he could not before.
    pub gained: Vec<Change>,
    /// Who may no longer go where he could.
    pub lost: Vec<Change>,
    /// How many connections that are in go on.
    pub sessions_kept: usize,
    /// How many end, since they would not be let in any more.
    pub sessions_cut: usize,
}

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// On each route that terminates TLS.
    pub routes: Vec<RouteInForce>,
}

/// What is in force on a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteInForce {
    /// What the route is called.
    pub name: String,
    /// Whether it verifies client certificates.
    pub verifies: bool,
    /// Whether lists of the authority that was asked about concern clients there.
    pub trusts: bool,
    /// The file of the certificate that it shows.
    pub certificate_file: String,
    /// The fingerprints (SHA-256) of that certificate and of those behind it.
    pub certificates: Vec<String>,
    /// The revocation lists of all authorities.
    pub revocation_lists: Vec<ListInForce>,
}

/// A revocation list that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListInForce {
    /// The authority that signed it.
    pub issuer: String,
    /// Its CRL number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
    /// When it was made (RFC 3339).
    pub this_update: String,
    /// SHA-256 of the list in binary form.
    pub sha256: String,
    /// The file it was read from; nothing if it was handed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// A revocation list that was handed over and is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListTaken {
    /// How many sessions end because of it.
    pub sessions_cut: usize,
}

/// How a gate is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its release.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started (RFC 3339).
    pub since: String,
    /// For how long it has run.
    pub seconds: u64,
    /// It is being stopped, and takes no connections any more.
    pub draining: bool,
    /// Its configuration file.
    pub config: String,
    /// When that was taken over (RFC 3339).
    pub config_since: String,
    /// Why it was not taken over again since, although that was tried: every mistake in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub config_errors: Vec<String>,
    /// Why its log cannot be written, if it cannot, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_error: Option<LogError>,
    /// Where it listens.
    pub listeners: Vec<Listening>,
    /// Where its metrics are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// Where the listeners lead.
    pub routes: Vec<RouteStatus>,
    /// What expires, the next first: so many as an answer tells.
    #[serde(default)]
    pub expiries: Vec<Expiring>,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections turned away since the start.
    pub rejected: u64,
    /// Connections that are in now.
    pub sessions: usize,
}

/// Something that expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiring {
    /// What it is: as in the metrics.
    pub kind: String,
    /// The same for people; the name comes behind.
    pub what: String,
    /// The file where it stands, or the name of a device.
    pub name: String,
    /// When (RFC 3339).
    pub at: String,
    /// Whole days until then; less than 0 when it is past.
    pub days_left: i64,
}

/// A listener of a gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// What it is called.
    pub name: String,
    /// Where it listens.
    pub address: String,
}

/// A route of a gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// What it is called.
    pub name: String,
    /// What it answers to.
    pub server_names: Vec<String>,
    /// Where it leads.
    pub backends: Vec<String>,
    /// Connections that are in now.
    pub sessions: usize,
}

/// Why the log cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogError {
    /// Since when (RFC 3339).
    pub since: String,
    /// What is wrong, and what to do.
    pub error: String,
}

/// Who is in, or was until a moment ago.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// How many there are.
    pub open: usize,
    /// The newest of them, the newest first.
    pub sessions: Vec<Session>,
}

/// A connection that is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its number, as in the log.
    pub id: u64,
    /// Since when (RFC 3339).
    pub since: String,
    /// For how long.
    pub seconds: u64,
    /// Who connected: address and port.
    pub source: String,
    /// Where it arrived.
    pub listener: String,
    /// Where it leads.
    pub route: String,
    /// The certificate that was shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// The backend that was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// How its bytes are moved.
    pub path: String,
    /// Payload from the client to the backend so far, in bytes.
    pub bytes_to_backend: u64,
    /// Payload from the backend to the client so far, in bytes.
    pub bytes_to_client: u64,
}

/// Why somebody was turned away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// How many refusals are remembered of what was asked about.
    pub known: usize,
    /// How many connections were turned away since the start, whoever they were.
    pub rejected: u64,
    /// The newest of what was asked about, the newest first.
    pub refusals: Vec<Refusal>,
}
