//! The fields of a line. They are documented, and other programs rely on them.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::explain::moment;
use crate::model::identity::Identity;
use crate::model::impostor::Impostor;
use crate::model::names::{printable, visible};

/// The longest text of a stranger's in a line.
pub(super) const STRANGER_MAX: usize = 128;

/// The longest detail. Some come from libraries, which quote what they were sent.
pub(super) const DETAIL_MAX: usize = 256;

/// A line about the gate itself.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A listener is bound.
    Listening {
        /// Which one.
        listener: String,
        /// Where, with the port the kernel chose if port 0 was asked for.
        address: SocketAddr,
    },
    /// A listener that a reload has taken out of service.
    ListenerClosed {
        /// Which one.
        listener: String,
        /// Where it was.
        address: SocketAddr,
    },
    /// The metrics listener is bound.
    Metrics {
        /// Where.
        address: SocketAddr,
    },
    /// The control socket is bound.
    Control {
        /// Where.
        socket: String,
    },
    /// The rights that the gate has given up.
    Sandbox {
        /// The value of `sandbox.mode`.
        mode: &'static str,
        /// The parts that are in force.
        in_force: Vec<&'static str>,
        /// Capabilities that it cannot do without.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        capabilities: Vec<&'static str>,
        /// What is not in force, and why.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        missing: Vec<String>,
    },
    /// Connections are accepted.
    Ready,
    /// No more connections are accepted; open ones may end.
    Draining,
    /// Another configuration is in force.
    Reloaded {
        /// What requested it.
        cause: &'static str,
        /// Connections that continue.
        sessions_kept: usize,
        /// Connections that end, since they are no longer admitted.
        sessions_cut: usize,
        /// What is allowed but probably not intended.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
        /// What takes effect only after a restart.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        after_restart: Vec<String>,
        /// Clients and the routes they gained.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        gained: Vec<String>,
        /// Clients and the routes they lost.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        lost: Vec<String>,
    },
    /// Another configuration was refused; the one before stays in force.
    ReloadFailed {
        /// What requested it.
        cause: &'static str,
        /// Every error in it.
        errors: Vec<String>,
        /// Revocation lists and `deny` entries that are in force nevertheless.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        in_force: Vec<String>,
        /// Sessions that end because of those.
        #[serde(skip_serializing_if = "Option::is_none")]
        sessions_cut: Option<usize>,
    },
    /// A revocation list was handed over and is in force.
    RevocationList {
        /// The authority.
        issuer: String,
        /// Its CRL number.
        #[serde(skip_serializing_if = "Option::is_none")]
        number: Option<String>,
        /// SHA-256 of the list in binary form.
        sha256: String,
        /// Sessions that end because of it.
        sessions_cut: usize,
    },
    /// A new process accepts connections; those that are open stay with this one.
    Upgraded {
        /// The new process.
        pid: u32,
        /// Its release.
        version: String,
        /// Sessions that stay here.
        sessions_kept: usize,
        /// When they are cut (RFC 3339).
        until: String,
    },
    /// A new process did not take over; this one continues.
    UpgradeFailed {
        /// Why.
        error: String,
    },
    /// A receiver of messages to the owner does not take them.
    NoticesFailing {
        /// Scheme and host of a URL, or the path of a program.
        receiver: String,
        /// Why.
        error: String,
    },
    /// It takes them again.
    NoticesDelivered {
        /// The same.
        receiver: String,
    },
    /// The health checks of a backend fail: it gets no connections.
    BackendUnhealthy {
        /// The backend.
        backend: String,
        /// The routes that lead to it.
        routes: Vec<String>,
        /// Why the last check failed.
        detail: String,
    },
    /// They pass again.
    BackendHealthy {
        /// The backend.
        backend: String,
        /// The routes that lead to it.
        routes: Vec<String>,
    },
    /// The public certificate was issued, and is in place.
    CertificateRenewed {
        /// The names that it is for.
        names: Vec<String>,
        /// The directory of the ACME server.
        directory: String,
    },
    /// An order for the public certificate has failed; the certificate in use stays.
    CertificateRenewalFailed {
        /// The directory of the ACME server.
        directory: String,
        /// What the server said, or why it could not be asked.
        error: String,
        /// What can be done about it.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        remedies: Vec<String>,
        /// How many orders have failed in a row.
        in_a_row: u32,
        /// When the next one begins (RFC 3339).
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    },
    /// A device has asked for its next certificate through the gate, and was answered.
    RenewalRequest {
        /// The device.
        device: String,
        /// How, as in the metrics.
        outcome: &'static str,
        /// Whether the key of the request is that of its certificate, `same`, or a `new` one.
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<&'static str>,
        /// The address of the client.
        source: String,
        /// The serial number of the certificate that was issued without the owner.
        #[serde(skip_serializing_if = "Option::is_none")]
        serial: Option<String>,
        /// That of the certificate that it descends from.
        #[serde(skip_serializing_if = "Option::is_none")]
        descends_from: Option<String>,
        /// When it expires.
        #[serde(skip_serializing_if = "Option::is_none")]
        not_after: Option<String>,
        /// What is wrong.
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// About the process that renews certificates without the owner.
    UnattendedRenewal {
        /// Why it does not run, so that requests are left to the owner; without it, it runs again.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// Connections could not be accepted for lack of descriptors or memory: reported once a minute.
    AcceptFailed {
        /// The listener of the last failure.
        listener: String,
        /// How many since the last report.
        failures: u64,
        /// The last error, and what to do about it.
        error: String,
    },
    /// About the files of the history.
    History {
        /// Why they are not written; without it and without a message they are written again.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// What has happened.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// A machine is being woken, for a device that was admitted.
    Waking {
        /// The route of the device.
        route: String,
        /// The backend.
        backend: String,
        /// The address of its network card.
        mac: String,
        /// Where the packets are sent.
        broadcast: SocketAddr,
    },
    /// No machine is being woken any more.
    WakeEnded {
        /// The same route.
        route: String,
        /// The backend.
        backend: String,
        /// How it ended, as in the metrics.
        outcome: &'static str,
        /// How long it took.
        seconds: f64,
        /// Why no packet could be sent.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// Lines that were left out.
    LeftOut {
        /// How many.
        lines: u64,
        /// Why.
        cause: LeftOutCause,
        /// Whose connections: an address, or all that `limits` counts as one source; `None` for those of several.
        #[serde(skip_serializing_if = "Option::is_none")]
        source: Option<String>,
        /// SHA-256 of the certificate, if it was of one that a trust anchor signed.
        #[serde(skip_serializing_if = "Option::is_none")]
        fingerprint: Option<String>,
        /// Where they were rejected; `relay` if they were admitted without a certificate.
        #[serde(skip_serializing_if = "Option::is_none")]
        stage: Option<&'static str>,
        /// Why they were rejected or closed.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'static str>,
    },
}

/// Why lines were left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftOutCause {
    /// There were too many of the same kind.
    Sampling,
    /// The output did not take them, or not fast enough.
    Output,
}

/// The line of one verdict.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict<'a> {
    /// `rejected` or `closed`.
    pub event: &'static str,
    /// A number for the connection, unique while the gate runs.
    pub id: u64,
    /// Where it arrived.
    pub listener: &'a str,
    /// Who connected: address and port.
    pub source: String,
    /// The server name as the client sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<&'a str>,
    /// The JA4 fingerprint of its ClientHello.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ja4: Option<String>,
    /// The route, once it was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'a str>,
    /// Where in the journey it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<&'static str>,
    /// Why.
    pub reason: &'static str,
    /// Which side caused a rejection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub side: Option<&'static str>,
    /// Details.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The TLS alert that the client was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert: Option<String>,
    /// The certificate that was shown.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "certificate")]
    pub certificate: Option<Arc<Identity>>,
    /// What the client pretended to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impostor: Option<LoggedImpostor<'a>>,
    /// What the handshake negotiated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// The backend that was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// How the bytes were moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<&'static str>,
    /// Payload from the client to the backend, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_to_backend: Option<u64>,
    /// Payload from the backend to the client, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_to_client: Option<u64>,
    /// Where the time went.
    pub durations: Durations,
    /// From accept to the verdict, in seconds.
    pub seconds: f64,
}

/// An impostor, in a line.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LoggedImpostor<'a> {
    /// The device, or the route that is a canary.
    pub name: &'a str,
    /// What gave it away: `name`, `serial`, `key`, `canary` or `canary_route`.
    pub claim: &'static str,
}

impl<'a> From<&'a Impostor> for LoggedImpostor<'a> {
    fn from(impostor: &'a Impostor) -> Self {
        Self { name: &impostor.name, claim: impostor.claim.label() }
    }
}

/// How long the steps took that a connection reached, in seconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Durations {
    /// From accept on, limits and a PROXY protocol header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admission: Option<f64>,
    /// To the whole ClientHello and its route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hello: Option<f64>,
    /// The TLS handshake, if the gate did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake: Option<f64>,
    /// To an open backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dial: Option<f64>,
    /// To the end of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay: Option<f64>,
}

/// What a handshake negotiated, in a line.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Tls {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite.
    pub cipher_suite: &'static str,
    /// Whether the session was resumed.
    pub resumed: bool,
}

/// The fields of a certificate in a line.
fn certificate<S: Serializer>(identity: &Option<Arc<Identity>>, serializer: S) -> Result<S::Ok, S::Error> {
    let Some(identity) = identity else { return serializer.serialize_none() };
    let mut fields = serializer.serialize_struct("Certificate", 6)?;
    fields.serialize_field("name", &stranger(&identity.display_name()))?;
    fields.serialize_field("fingerprint", &identity.fingerprint.to_string())?;
    fields.serialize_field("serial", &stranger(&identity.serial.to_string()))?;
    fields.serialize_field("issuer", &stranger(&identity.issuer))?;
    fields.serialize_field("not_after", &moment(identity.not_after))?;
    fields.serialize_field("verified", &identity.verified)?;
    fields.end()
}

impl Event {
    /// So many lines the output did not take.
    pub(super) fn not_taken(lines: u64) -> Self {
        Self::LeftOut { lines, cause: LeftOutCause::Output, source: None, fingerprint: None, stage: None, reason: None }
    }
}

/// A stranger's text, escaped and bounded for a line.
pub fn stranger(text: &str) -> String {
    printable(text, STRANGER_MAX)
}

/// More about a verdict, bounded for a line.
pub fn detail(text: &str) -> String {
    visible(text, DETAIL_MAX)
}
