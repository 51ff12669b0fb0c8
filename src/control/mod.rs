//! The control socket: `doorward status`, `sessions`, `why`, `reload`, `cut` and `ca` send requests to the running gate.
//!
//! A unix socket for the gate's user and root, and for the group of a folder that the service manager made for it. One
//! connection is one request: a line of JSON each way ([`Request`], [`Answer`]), both limited in size and time, and some followed
//! by as many bytes as they announce.

mod answers;
mod certificates;
pub mod client;
pub(crate) mod earlier;
mod history;
mod merge;
mod route_status;
pub(crate) mod server;
mod socket;
pub(crate) mod upgrades;

use serde::{Deserialize, Serialize};

pub use self::answers::NoticeReceiver;
pub(crate) use self::answers::{StaticFacts, rfc3339};
pub use self::certificates::{Certificates, OrderFailure, Orders, ServerCertificate};
pub use self::history::{History, Visit};
pub(crate) use self::history::{history_of, moment_of};
pub use self::route_status::{BackendHealth, RouteStatus};
#[doc(hidden)]
pub use self::server::fuzz_read;
pub(crate) use self::server::{Context, Control};
pub use self::socket::BindError;
pub(crate) use self::socket::Permitted;
pub use crate::explain::certificate::Certificate;
pub use crate::explain::finding::told::{ToldFinding, ToldVerdict};
pub use crate::explain::finding::{ToldCertificate, ToldFailure};
pub use crate::explain::look_up::ToldName;
pub use crate::explain::refusal_json::Refusal;
use crate::reload::policy_report::Change;

/// The longest request line, in bytes.
const REQUEST_MAX: usize = 4096;

/// The answer to an unknown request. Other releases compare it: it never changes.
const NOT_UNDERSTOOD: &str = "this is no question that the gate understands";

/// The longest revocation list that is accepted, in bytes: more than half a million certificates.
pub const LIST_MAX: usize = 32 * 1024 * 1024;

/// The longest certificate of an authority that is accepted, in bytes.
const AUTHORITY_MAX: usize = 64 * 1024;

/// The most sessions in one answer.
pub const SESSIONS_MAX: usize = 1000;

/// The most visits in one answer.
pub const VISITS_MAX: usize = 5000;

/// The most refusals in one answer.
pub const REFUSALS_MAX: usize = 100;

/// The most expiries in one answer.
const EXPIRIES_MAX: usize = 100;

/// The longest answer, in bytes. [`SESSIONS_MAX`] and [`REFUSALS_MAX`] stay far below it.
const ANSWER_MAX: usize = 4 * 1024 * 1024;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// The state of the gate.
    Status,
    /// The open sessions.
    Sessions {
        /// How many, the newest first; at most [`SESSIONS_MAX`].
        count: usize,
    },
    /// The latest refusals of a client.
    Why {
        /// `last`, an IP address, `sha256:…`, or the name of a device.
        wanted: String,
        /// How many; at most [`REFUSALS_MAX`].
        count: usize,
        /// The most important first, instead of the newest: see [`finding`](crate::explain::finding).
        #[serde(default)]
        ranked: bool,
    },
    /// Which devices were admitted.
    History {
        /// How far back, in seconds.
        seconds: u64,
        /// One device, or all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<String>,
        /// How many visits, the latest first; at most [`VISITS_MAX`].
        count: usize,
    },
    /// Reload the configuration.
    Reload,
    /// Cut sessions.
    Cut {
        /// Which: see [`SessionSelector`](crate::sessions::selector::SessionSelector).
        #[serde(rename = "whom")]
        selector: String,
    },
    /// Cut every session. A request of its own, so that a truncated [`Cut`](Self::Cut) never means this.
    #[serde(rename = "cut_everybody")]
    CutAll,
    /// The certificates and revocation lists in force. Followed by the certificate of an authority in DER, unless
    /// `authority_bytes` is 0.
    InForce {
        /// The length of the certificate.
        authority_bytes: usize,
    },
    /// Put a revocation list in force. Followed by the certificate of the authority that signed it and by the list, in DER.
    TakeList {
        /// The length of the certificate.
        authority_bytes: usize,
        /// The length of the list; at most [`LIST_MAX`].
        list_bytes: usize,
    },
    /// Start the program of the gate again, and hand it the listening sockets.
    Upgrade,
    /// The certificates that the gate shows.
    Certificates,
    /// Order the public certificate now. The answer does not wait for it.
    RenewCertificate,
    /// The counters as on `/metrics`. Processes of one gate ask each other.
    Counters,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Sessions`].
    Sessions(Sessions),
    /// To [`Request::Why`].
    Why(Why),
    /// To [`Request::History`].
    History(History),
    /// To [`Request::Reload`], when it was done.
    Reloaded(Reloaded),
    /// To [`Request::Reload`], when it was refused.
    NotReloaded {
        /// The errors, as from `doorward check`.
        errors: Vec<String>,
        /// Revocation lists and `deny` entries that took effect all the same.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        in_force: Vec<String>,
        /// How many sessions were cut because of those.
        #[serde(default)]
        sessions_cut: usize,
    },
    /// To [`Request::Cut`] and [`Request::CutAll`]: the sessions that were cut.
    Cut(Sessions),
    /// To [`Request::InForce`].
    InForce(InForce),
    /// To [`Request::TakeList`], when the list is in force.
    ListTaken(ListTaken),
    /// To [`Request::Upgrade`], when the new process accepts connections.
    Upgraded(Upgraded),
    /// To [`Request::Upgrade`], when the gate was not replaced: why. It continues as before.
    NotUpgraded {
        /// Why.
        error: String,
    },
    /// To [`Request::Certificates`], and to [`Request::RenewCertificate`] when the order begins.
    Certificates(Box<Certificates>),
    /// To [`Request::Counters`].
    Counters(String),
    /// To any request: why it was refused.
    Error(String),
}

/// A reload that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The warnings, as from `doorward check`.
    pub warnings: Vec<String>,
    /// Changed settings that take effect only after a restart.
    pub after_restart: Vec<String>,
    /// Listeners that were opened.
    #[serde(default)]
    pub opened: Vec<Listening>,
    /// Listeners that were closed.
    #[serde(default)]
    pub closed: Vec<Listening>,
    /// Clients that gained access to routes.
    pub gained: Vec<Change>,
    /// Clients that lost access to routes.
    pub lost: Vec<Change>,
    /// How many sessions stay open.
    pub sessions_kept: usize,
    /// How many sessions were cut, because they would not be admitted any more.
    pub sessions_cut: usize,
}

/// The certificates and revocation lists in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// On each route that terminates TLS.
    pub routes: Vec<RouteInForce>,
}

/// The certificates and revocation lists in force on a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteInForce {
    /// The route's name.
    pub name: String,
    /// Whether it verifies client certificates.
    pub verifies: bool,
    /// Whether a list of the given authority affects its clients.
    pub trusts: bool,
    /// The file of its server certificate.
    pub certificate_file: String,
    /// The SHA-256 fingerprints of that certificate and its chain.
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
    /// Its thisUpdate (RFC 3339).
    pub this_update: String,
    /// SHA-256 of its DER.
    pub sha256: String,
    /// Its file; `None` if it came over the control socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// A revocation list that was accepted and is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListTaken {
    /// How many sessions were cut because of it.
    pub sessions_cut: usize,
}

/// A gate that was replaced by a new process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// The process that accepts connections now.
    pub pid: u32,
    /// Its release.
    pub version: String,
    /// The process that did before.
    pub earlier_pid: u32,
    /// How many sessions stay open there.
    pub earlier_sessions: usize,
    /// When they are cut (RFC 3339).
    pub earlier_until: String,
}

/// A process that an upgrade has left: it accepts no connections, and ends with its sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierProcess {
    /// Its process id.
    pub pid: u32,
    /// Its release.
    pub version: String,
    /// When it started (RFC 3339).
    pub since: String,
    /// When its sessions are cut (RFC 3339).
    pub until: String,
    /// Its open sessions; `None` if it does not answer.
    pub sessions: Option<usize>,
}

/// The state of a gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its release.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// When it started (RFC 3339).
    pub since: String,
    /// How long it has run, in seconds.
    pub seconds: u64,
    /// Whether it is stopping, and accepts no more connections.
    pub draining: bool,
    /// Whether all is well; `None` from a gate of an older release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<ToldVerdict>,
    /// What the owner has to know, the most important first.
    #[serde(default)]
    pub findings: Vec<ToldFinding>,
    /// Its configuration file.
    pub config: String,
    /// When the configuration came into force (RFC 3339).
    pub config_since: String,
    /// The errors of the latest reload, if that was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub config_errors: Vec<String>,
    /// Why its log cannot be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_error: Option<LogError>,
    /// Why its history cannot be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_error: Option<LogError>,
    /// The rights that it has given up; `None` from a gate of an older release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Box<SandboxStatus>>,
    /// Its listeners.
    pub listeners: Vec<Listening>,
    /// The address of its metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// Its routes.
    pub routes: Vec<RouteStatus>,
    /// The host names of its backends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_names: Vec<ToldName>,
    /// The public certificate, if the configuration wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_certificate: Option<Box<ToldCertificate>>,
    /// What renews certificates without the owner, if that is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unattended_renewal: Option<crate::model::renewal::UnattendedState>,
    /// What expires next, the first first; limited in number.
    #[serde(default)]
    pub expiries: Vec<Expiring>,
    /// Connections that this process has accepted.
    pub accepted: u64,
    /// Connections that this process has refused.
    pub rejected: u64,
    /// Open sessions, those of earlier processes included.
    pub sessions: usize,
    /// The receivers of messages to the owner.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<NoticeReceiver>,
    /// Processes that upgrades have left, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<EarlierProcess>,
    /// Why the latest upgrade failed, unless one has succeeded since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade_error: Option<String>,
}

/// Something that expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiring {
    /// Its kind, as in the metrics.
    pub kind: String,
    /// Its kind for people, to be followed by the name.
    pub what: String,
    /// Its file, or the name of a device.
    pub name: String,
    /// When (RFC 3339).
    pub at: String,
    /// Whole days until then; negative once it has expired.
    pub days_left: i64,
}

/// A listener of a gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// Its name.
    pub name: String,
    /// Its listeners.
    pub address: String,
}

/// The rights that a gate has given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxStatus {
    /// The value of `sandbox.mode`.
    pub mode: String,
    /// The parts that are in force.
    pub in_force: Vec<String>,
    /// Capabilities that the gate cannot do without.
    pub capabilities: Vec<String>,
    /// The version of the kernel's Landlock interface; 0 for none.
    pub landlock: u32,
    /// What is not in force, and why.
    pub missing: Vec<String>,
}

/// Why the log or the history cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogError {
    /// Since when (RFC 3339).
    pub since: String,
    /// The error, and what to do.
    pub error: String,
}

/// Sessions that are open, or were just cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// How many they are.
    pub open: usize,
    /// The newest of them, the newest first.
    pub sessions: Vec<Session>,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its id, as in the log.
    pub id: u64,
    /// When it began (RFC 3339).
    pub since: String,
    /// How long it has lasted, in seconds.
    pub seconds: u64,
    /// The client's address and port.
    pub source: String,
    /// The listener that accepted it.
    pub listener: String,
    /// Its route.
    pub route: String,
    /// The client's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// The backend, once one has answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// How its bytes are moved.
    pub path: String,
    /// Payload from the client to the backend so far, in bytes.
    pub bytes_to_backend: u64,
    /// Payload from the backend to the client so far, in bytes.
    pub bytes_to_client: u64,
    /// The process that serves it, if that is not the one that accepts connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<u32>,
}

/// Refusals of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// How many matching refusals the gate remembers.
    pub known: usize,
    /// How many connections were refused since the start, of all clients.
    pub rejected: u64,
    /// The matching refusals, in the order that was asked for.
    pub refusals: Vec<Refusal>,
    /// If there are none: what the history knows of the client since before the start. Else, why clients refuse the gate: its public
    /// certificate was not issued, or has expired.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<ToldFinding>,
}
