//! The configuration after every check: types that cannot hold a wrong value.

use std::collections::BTreeSet;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::sign::CertifiedKey;

use super::seen::Seen;
use crate::model::identity::{Serial, Sha256};
use crate::model::names::{Name, ServerNamePattern};
use crate::model::source::Prefixes;

/// The whole configuration, ready to be used: files are read, keys fit their certificates, names are unique.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from.
    pub file: PathBuf,
    /// `kernel_tls`.
    pub kernel_tls: KernelTls,
    /// `watch`: whether a file that changes is taken over by itself.
    pub watch: bool,
    /// `[[listener]]`, at least one.
    pub listeners: Vec<Listener>,
    /// `[[route]]`, at least one.
    pub routes: Vec<Route>,
    /// `[timeouts]`.
    pub timeouts: Timeouts,
    /// `[limits]`.
    pub limits: Limits,
    /// `[metrics]`.
    pub metrics: Metrics,
    /// `[control]`.
    pub control: Control,
    /// `[log]`.
    pub log: Log,
    /// What is allowed but probably not meant.
    pub warnings: Vec<Warning>,
    /// Every file that was read for it, and what that looked like before.
    pub seen: Seen,
}

/// Whether bytes of terminated routes are encrypted by the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelTls {
    /// Where the kernel can.
    Auto,
    /// Never.
    Off,
    /// Always: the gate does not start on a kernel that cannot.
    Require,
}

/// A bound address.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name, a label value.
    pub name: Name,
    /// Where it listens; `[::]` takes IPv4 too.
    pub address: SocketAddr,
    /// Sources that must send a PROXY protocol header; from all others a header is refused.
    pub proxy_protocol_from: Vec<IpNet>,
    /// The only sources that may connect; empty means all.
    pub allow_sources: Vec<IpNet>,
    /// Sources that may not connect, whatever `allow_sources` says.
    pub deny_sources: Vec<IpNet>,
}

/// What some server names lead to.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name, a label value.
    pub name: Name,
    /// What it answers to, at least one.
    pub server_names: Vec<ServerNamePattern>,
    /// What it leads to, at least one; tried in this order.
    pub backends: Vec<Backend>,
    /// The PROXY protocol header that the backend is sent.
    pub send_proxy_protocol: SendProxyProtocol,
    /// Who does TLS, and with what.
    pub mode: RouteMode,
}

/// Who does TLS for a route.
#[derive(Clone, Debug)]
pub enum RouteMode {
    /// The gate does: it asks for a certificate and decides.
    Terminate(Box<Terminate>),
    /// The backend does; the gate asks nobody for a certificate.
    Passthrough,
}

/// What a route needs to do TLS itself.
#[derive(Clone, Debug)]
pub struct Terminate {
    /// The server certificate.
    pub certificate: Arc<Certificate>,
    /// How client certificates are judged.
    pub client_auth: Arc<ClientAuth>,
    /// Whom the route lets in.
    pub allow: Allow,
    /// Application protocols (ALPN, RFC 7301) in order of preference; empty means that none is negotiated.
    pub application_protocols: Vec<Vec<u8>>,
}

/// A server certificate whose key fits.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The file of its chain.
    pub chain_file: PathBuf,
    /// The file of its key.
    pub key_file: PathBuf,
    /// Chain and key, as rustls wants them.
    pub certified_key: Arc<CertifiedKey>,
}

/// What is asked of client certificates. The words are Caddy's, and mean what they mean there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuthMode {
    /// Ask; take none, and take any without looking who vouches for it.
    Request,
    /// Insist on one; take any without looking who vouches for it.
    Require,
    /// Ask; take none, but verify what is given.
    VerifyIfGiven,
    /// Insist on one and verify it.
    RequireAndVerify,
}

impl ClientAuthMode {
    /// The word in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Require => "require",
            Self::VerifyIfGiven => "verify_if_given",
            Self::RequireAndVerify => "require_and_verify",
        }
    }

    /// Whether a client without a certificate is turned away.
    pub const fn requires(self) -> bool {
        matches!(self, Self::Require | Self::RequireAndVerify)
    }

    /// Whether a certificate must be vouched for by a trust anchor.
    pub const fn verifies(self) -> bool {
        matches!(self, Self::VerifyIfGiven | Self::RequireAndVerify)
    }
}

/// How client certificates are judged. A route's own `[route.client_auth]` takes every key it does not give from the
/// default `[client_auth]`; an empty list counts as given.
#[derive(Clone, Debug)]
pub struct ClientAuth {
    /// What is asked.
    pub mode: ClientAuthMode,
    /// The certificates that vouch for clients; at least one in every mode that verifies.
    pub trust: Vec<TrustAnchor>,
    /// Revocation lists; empty means that revocation is not checked by list.
    pub revocation_lists: Vec<RevocationList>,
    /// Lists that revoke beside those, and were not loaded with the configuration. They never make the status of a
    /// certificate unknown.
    pub newer_lists: Vec<Arc<NewerList>>,
    /// Certificates that are turned away without a list: those of the route and those of the default.
    pub deny: DenyList,
    /// Those of them that were loaded with the configuration, if others were added since.
    pub loaded_deny: Option<Arc<DenyList>>,
    /// What an expired revocation list means.
    pub expired_revocation_list: ExpiredRevocationList,
    /// Of which certificates a revocation list has to speak.
    pub revocation_check: RevocationCheck,
    /// What becomes of those whose certificate expires while they are in.
    pub expired_session: ExpiredSession,
    /// Whether clients are told the names of the trust anchors (`certificate_authorities`, RFC 8446 section 4.2.4).
    /// Browsers then offer their user only the certificates that fit; but whoever asks for the route's server name is
    /// told, too, and a mkcert root is named after its owner.
    pub announce_trust: bool,
}

/// Which certificates of a path have to be on no revocation list, and need one that speaks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationCheck {
    /// All but the trust anchor.
    Chain,
    /// The client's own only, for authorities whose root publishes no list.
    Leaf,
}

/// A certificate that vouches for clients, from a `trust` file.
#[derive(Clone, Debug)]
pub struct TrustAnchor {
    /// The file it came from.
    pub file: PathBuf,
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// What it vouches for.
    pub kind: TrustKind,
}

/// What a certificate in `trust` vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustKind {
    /// The certificates that it signed: it is an authority's.
    Authority,
    /// Itself only: it is that of one device, whose key must not make other devices.
    Pinned,
}

/// A certificate revocation list, from a `revocation_lists` file.
#[derive(Clone, Debug)]
pub struct RevocationList {
    /// The file it came from.
    pub file: PathBuf,
    /// The list.
    pub list: CertificateRevocationListDer<'static>,
    /// Who made it: the name of an authority, as it is encoded.
    pub issuer: Vec<u8>,
    /// SHA-256 of the key (SubjectPublicKeyInfo) in `trust` that signed it; `None` for the list of an authority that is not
    /// there, such as an intermediate.
    pub signer: Option<Sha256>,
    /// When it was made (`thisUpdate`), in seconds since 1970.
    pub this_update: i64,
    /// When its successor is due (`nextUpdate`), in seconds since 1970.
    pub next_update: Option<i64>,
    /// Its CRL number.
    pub number: Option<Serial>,
    /// SHA-256 of the list in binary form.
    pub sha256: Sha256,
    /// Whether it speaks for all certificates of its issuer: it is no delta, and has no issuing distribution point.
    pub whole: bool,
    /// What says for which part it speaks: the values of those extensions. Empty if it speaks for all.
    pub part: Vec<Vec<u8>>,
}

/// A list that was handed to the running gate, or was read although the configuration that names it could not be loaded.
#[derive(Clone, Debug)]
pub struct NewerList {
    /// The list. Of one that was handed over, `file` is empty.
    pub list: RevocationList,
    /// The certificate of the authority that signed it; `None` for a list from a file whose authority is in no `trust`.
    pub authority: Option<CertificateDer<'static>>,
}

/// Certificates that are turned away one by one.
#[derive(Clone, Debug, Default)]
pub struct DenyList {
    /// By fingerprint.
    pub fingerprints: HashSet<Sha256>,
    /// By serial number.
    pub serials: HashSet<Serial>,
}

/// What an expired revocation list means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiredRevocationList {
    /// Nobody whom it would speak for gets in.
    Deny,
    /// It is used as it is, and the gate warns.
    Warn,
}

/// What becomes of a session whose certificate expires meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiredSession {
    /// It ends.
    Cut,
    /// It goes on until it ends by itself.
    Keep,
}

/// Whom a route lets in; groups are resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    /// `any`: every verified certificate.
    pub any: bool,
    /// `unverified`: whoever the client-auth mode lets through, with an unverified certificate or none.
    pub unverified: bool,
    /// Verified certificates that match one of these.
    pub selectors: Vec<Selector>,
}

/// What picks certificates out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// A bare word: any of the names in the certificate.
    AnyName(String),
    /// `cn:`
    CommonName(String),
    /// `ou:`
    OrganizationalUnit(String),
    /// `dns:`, lower case.
    Dns(String),
    /// `email:`
    Email(String),
    /// `uri:`
    Uri(String),
    /// `ip:`
    Ip(IpAddr),
    /// `sha256:`
    Fingerprint(Sha256),
    /// `spki:`
    Spki(Sha256),
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnyName(name) => f.write_str(name),
            Self::CommonName(name) => write!(f, "cn:{name}"),
            Self::OrganizationalUnit(name) => write!(f, "ou:{name}"),
            Self::Dns(name) => write!(f, "dns:{name}"),
            Self::Email(name) => write!(f, "email:{name}"),
            Self::Uri(name) => write!(f, "uri:{name}"),
            Self::Ip(ip) => write!(f, "ip:{ip}"),
            Self::Fingerprint(digest) => write!(f, "sha256:{digest}"),
            Self::Spki(digest) => write!(f, "spki:{digest}"),
        }
    }
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// An address.
    Address(SocketAddr),
    /// A host name and a port.
    Host(String, u16),
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Host(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The PROXY protocol header that backends are sent (proxy-protocol.txt sections 2.1 and 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendProxyProtocol {
    /// None.
    Off,
    /// The text form.
    V1,
    /// The binary form.
    V2,
    /// The binary form with the `PP2_TYPE_SSL` TLVs, which say who the client is.
    V2Tls,
}

/// How long each phase may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to a complete ClientHello.
    pub client_hello: Duration,
    /// From the ClientHello to the end of the handshake.
    pub handshake: Duration,
    /// For reaching a backend, all of a route's together.
    pub dial: Duration,
    /// Without a byte either way.
    pub idle: Duration,
    /// From accept to the end; `None` is without limit.
    pub lifetime: Option<Duration>,
    /// Without a byte, once one side has ended.
    pub half_close: Duration,
    /// For connections to end when the gate shuts down.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            client_hello: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            dial: Duration::from_secs(5),
            idle: Duration::from_secs(2 * 60 * 60),
            lifetime: None,
            half_close: Duration::from_secs(60),
            drain: Duration::from_secs(30),
        }
    }
}

/// How much is taken on at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one source; `None` is without limit.
    pub connections_per_source: Option<usize>,
    /// New connections of one source; `None` is without limit.
    pub connection_rate_per_source: Option<Rate>,
    /// Handshakes in progress.
    pub handshakes: usize,
    /// Whether a source whose connections are rejected again and again has to wait.
    pub penalties: bool,
    /// How the connections of a source that has to wait are ended.
    pub banned: Banned,
    /// Who is one source.
    pub source_prefixes: Prefixes,
}

/// How connections of a banned source are ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Banned {
    /// As all others are.
    Close,
    /// By a reset (RFC 9293 section 3.10.4, ABORT): nothing is left of the connection on the gate's machine.
    Drop,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_source: Some(256),
            connection_rate_per_source: Some(Rate { count: 50, per: Duration::from_secs(1) }),
            handshakes: 512,
            penalties: true,
            banned: Banned::Close,
            source_prefixes: Prefixes::default(),
        }
    }
}

/// So many in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many, at least 1.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

/// The listener for metrics and health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Where it listens; `None` if it is off.
    pub address: Option<SocketAddr>,
    /// What `doorward ca` has issued, if that is to be shown.
    pub inventory: Option<Inventory>,
}

/// The devices that `doorward ca` has given certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// The file they stand in.
    pub file: PathBuf,
    /// Each with the certificate that it got last, unless that was revoked.
    pub devices: Vec<Device>,
}

/// A device and its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// What it is called.
    pub name: String,
    /// When its certificate expires, in seconds since 1970.
    pub not_after: i64,
}

/// The socket for those who ask the running gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Where it is.
    pub socket: ControlSocket,
}

/// Where the control socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlSocket {
    /// Nowhere: nobody can ask.
    Off,
    /// There, or the gate does not start.
    At(PathBuf),
    /// In the folder that systemd has made for the gate, else at this path, which is beside the configuration. If it cannot be
    /// made, the gate does without.
    Auto(PathBuf),
}

impl ControlSocket {
    /// What its file is called unless somebody says otherwise.
    pub const NAME: &str = "control.sock";

    /// Where the gate of `deploy/doorward.service` makes it.
    pub const OF_THE_SERVICE: &str = "/run/doorward/control.sock";

    /// Where a gate makes it that has been given these runtime folders (`RuntimeDirectory=`, systemd.exec(5): several are
    /// parted by colons).
    pub fn path(&self, runtime_folders: Option<&OsStr>) -> Option<PathBuf> {
        match self {
            Self::Off => None,
            Self::At(path) => Some(path.clone()),
            Self::Auto(beside) => {
                let folder = runtime_folders.and_then(|folders| std::env::split_paths(folders).next());
                Some(
                    folder
                        .filter(|folder| folder.is_absolute())
                        .map_or_else(|| beside.clone(), |folder| folder.join(Self::NAME)),
                )
            }
        }
    }

    /// Where a gate may have made it, for those who ask: the likeliest first.
    pub fn places(&self) -> Vec<PathBuf> {
        match self {
            Self::Off => Vec::new(),
            Self::At(path) => vec![path.clone()],
            Self::Auto(beside) => vec![beside.clone(), Self::OF_THE_SERVICE.into()],
        }
    }
}

/// How verdicts are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Where to.
    pub output: LogOutput,
    /// For people or for machines.
    pub format: LogFormat,
    /// Whether only some of many rejections of one source are written.
    pub sampling: bool,
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard output.
    Stdout,
    /// systemd's journal, with a field for each thing that is known.
    Journald,
    /// A file, which is appended to.
    File(PathBuf),
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text for people.
    Text,
    /// One JSON object a line for machines.
    Json,
}

/// Something allowed that is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The key it is about, as in an error.
    pub key: String,
    /// What is odd and what to do.
    pub message: String,
}

impl Config {
    /// Every file of which something is in force.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        let mut files = BTreeSet::from([self.file.clone()]);
        files.extend(self.metrics.inventory.iter().map(|inventory| inventory.file.clone()));
        for route in &self.routes {
            let RouteMode::Terminate(terminate) = &route.mode else { continue };
            files.extend([terminate.certificate.chain_file.clone(), terminate.certificate.key_file.clone()]);
            files.extend(terminate.client_auth.trust.iter().map(|anchor| anchor.file.clone()));
            files.extend(terminate.client_auth.revocation_lists.iter().map(|list| list.file.clone()));
        }
        files
    }
}
