//! The configuration after every check: types that cannot hold a wrong value.

mod acme;
mod acme_dns;
mod backend_tls;
mod certificate;
mod client_auth;
mod control;
mod dns_providers;
mod expect;
mod health;
mod history;
mod inventory;
mod limits;
mod notify;
mod renewal;
mod state_folder;
mod tickets;
mod wake;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

use super::file_states::Seen;
use crate::model::identity::Sha256;
use crate::model::names::{Name, ServerName, ServerNamePattern};
use crate::model::service::ServiceKind;
use crate::model::starttls::Starttls;

pub use acme::{Acme, AcmeDirectory, Challenge, Eab};
pub use acme_dns::{Dns, DnsApi, DnsBy, DnsServer, DnsUpdate, TsigAlgorithm, TsigKey};
pub use backend_tls::{BackendTls, BackendTrust, HeaderPlace, backend_name};
pub use certificate::{Certificate, CertificateSource};
pub use client_auth::{
    Allow, ClientAuth, ClientAuthMode, DenyList, ExpiredRevocationList, ExpiredSession, NewerList, RevocationCheck,
    RevocationList, Selector, TrustAnchor, TrustKind,
};
pub use control::{Control, ControlSocket};
pub use dns_providers::{DnsProvider, ProviderKeys};
pub use expect::{AllowEntry, Expectation, ExpectedClients};
pub use health::Health;
pub use history::History;
pub use inventory::{Device, DeviceCertificate, Inventory, IssuedToDevice, RevokedCertificate};
pub use limits::{Banned, Limits, Rate, Timeouts};
pub use notify::{Format, Notify, Secret, SecretUrl, Webhook};
pub use renewal::{KnownOrigin, Renewal, RenewalIssuer, RenewalTrust};
pub use state_folder::StateFolder;
pub use tickets::{TicketSecret, Tickets, WeakSecret};
pub use wake::{Mac, Wake};

/// The whole configuration, ready to be used: files are read, keys fit their certificates, names are unique.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from.
    pub file: PathBuf,
    /// `kernel_tls`.
    pub kernel_tls: KernelTls,
    /// `strength`.
    pub strength: CipherStrength,
    /// `watch`: whether changed files are loaded without a command.
    pub watch: bool,
    /// `public_port`: what devices dial, as a rule a router's forwarded port.
    pub public_port: u16,
    /// `[[listener]]`, at least one.
    pub listeners: Vec<Listener>,
    /// `[[route]]`, at least one, but for canaries.
    pub routes: Vec<Route>,
    /// `[[route]]` with `canary = true`.
    pub canaries: Vec<CanaryRoute>,
    /// `[[expect]]`: what the policy is asserted to be.
    pub expectations: Vec<Expectation>,
    /// `[certificate.acme]`.
    pub acme: Option<Arc<Acme>>,
    /// `[tickets]`.
    pub tickets: Tickets,
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
    /// `[history]`.
    pub history: History,
    /// `[notify]`.
    pub notify: Notify,
    /// `[renewal]`; `None` if devices do not ask for certificates through the gate.
    pub renewal: Option<Renewal>,
    /// `[sandbox]`.
    pub sandbox: SandboxMode,
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
    /// Never: the default.
    Off,
    /// Always: the gate does not start on a kernel that cannot.
    Require,
}

/// Whether the gate takes rights away from itself after its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxMode {
    /// As many as the kernel can take away: the default.
    Auto,
    /// All of them, or the gate does not start.
    Require,
    /// None.
    Off,
}

/// The shortest key of the cipher suites that a client may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CipherStrength {
    /// AES-128 and longer.
    Bits128,
    /// AES-256 and ChaCha20 only.
    Bits256,
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
    /// Which of them it uses.
    pub strategy: Strategy,
    /// How they are checked; `None` if they are not.
    pub health: Option<Health>,
    /// The most connections that each may have; `None` is without limit.
    pub connections_per_backend: Option<usize>,
    /// TLS to them, if they speak it and the gate terminates that of the clients.
    pub backend_tls: Option<Arc<BackendTls>>,
    /// The PROXY protocol header that the backend is sent.
    pub send_proxy_protocol: SendProxyProtocol,
    /// How the machine of its only backend is woken, if it is.
    pub wake: Option<Wake>,
    /// Who does TLS, and with what.
    pub mode: RouteMode,
    /// Which program uses it. It decides what the pages for devices offer, and nothing else.
    pub kind: ServiceKind,
    /// The entries of `allow` one by one; none on a passthrough route.
    pub allow_entries: Vec<AllowEntry>,
}

impl Route {
    /// The protocol by which its clients may ask for TLS.
    pub fn starttls(&self) -> Option<Starttls> {
        match &self.mode {
            RouteMode::Terminate(terminate) => terminate.starttls,
            RouteMode::Passthrough => None,
        }
    }
}

/// A route that leads nowhere: no device is told its names, so that a client that asks for one betrays itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryRoute {
    /// Its name in the configuration.
    pub name: Name,
    /// The names that are its bait.
    pub server_names: Vec<ServerName>,
}

/// Which of its backends a route uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The first one that answers: the default.
    First,
    /// Each in turn.
    RoundRobin,
    /// The one with the fewest connections.
    LeastConnections,
}

/// Who does TLS for a route.
#[derive(Clone, Debug)]
pub enum RouteMode {
    /// The gate does: it asks for a certificate and decides.
    Terminate(Box<Terminate>),
    /// The backend does; the gate asks for no certificate.
    Passthrough,
}

/// What a route needs to do TLS itself.
#[derive(Clone, Debug)]
pub struct Terminate {
    /// The server certificate.
    pub certificate: Arc<Certificate>,
    /// How client certificates are judged.
    pub client_auth: Arc<ClientAuth>,
    /// Which clients the route admits.
    pub allow: Allow,
    /// Application protocols (ALPN, RFC 7301) in order of preference; empty means that none is negotiated.
    pub application_protocols: Vec<Vec<u8>>,
    /// The protocol by which clients may ask for TLS before they begin it.
    pub starttls: Option<Starttls>,
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
    V2Tls {
        /// The client's certificate itself is among them.
        certificate: bool,
    },
}

/// The listener for metrics and health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Where it listens; `None` if it is off.
    pub address: Option<SocketAddr>,
    /// What `doorward ca` has issued, if that is to be shown.
    pub inventory: Option<Inventory>,
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
    /// SHA-256 of the certificates that were issued as canaries.
    pub fn canary_certificates(&self) -> impl Iterator<Item = Sha256> {
        let issued = self.metrics.inventory.iter().flat_map(|inventory| &inventory.issued);
        issued.filter(|issued| issued.canary).filter_map(|issued| issued.fingerprint)
    }

    /// The routes, and the renewal of certificates, which has a server name and no backends.
    pub fn served(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().chain(self.renewal.as_ref().map(|renewal| &renewal.route))
    }

    /// The host names of backends, each once.
    pub fn host_names(&self) -> BTreeSet<&str> {
        let backends = self.routes.iter().flat_map(|route| &route.backends);
        backends
            .filter_map(|backend| if let Backend::Host(host, _) = backend { Some(host.as_str()) } else { None })
            .collect()
    }

    /// The domain that all server names are in; `None` if they have none in common.
    pub fn domain(&self) -> Option<String> {
        let names = self.routes.iter().flat_map(|route| &route.server_names).filter_map(|pattern| match pattern {
            ServerNamePattern::Exact(name) => name.parent().or(Some(name.as_str())),
            ServerNamePattern::Wildcard(name) => Some(name.as_str()),
            ServerNamePattern::Default => None,
        });
        let common = names.map(|name| name.rsplit('.').collect::<Vec<_>>()).reduce(|common, name| {
            common.into_iter().zip(name).take_while(|(one, other)| one == other).map(|(one, _)| one).collect()
        })?;
        (!common.is_empty()).then(|| common.into_iter().rev().collect::<Vec<_>>().join("."))
    }

    /// Every file of which something is in force.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        let mut files = BTreeSet::from([self.file.clone()]);
        files.extend(self.metrics.inventory.iter().map(|inventory| inventory.file.clone()));
        files.extend(self.notify.files.iter().cloned());
        files.extend(self.acme.iter().flat_map(|acme| acme.files.iter().cloned()));
        files.extend(self.tickets.keys.iter().map(|key| key.file.clone()));
        files.extend(self.renewal.iter().filter_map(|renewal| Some(renewal.issuer.as_ref()?.file.clone())));
        for route in self.served() {
            files.extend(route.backend_tls.iter().flat_map(|tls| tls.files.iter().cloned()));
            let RouteMode::Terminate(terminate) = &route.mode else { continue };
            files.extend([terminate.certificate.chain_file.clone(), terminate.certificate.key_file.clone()]);
            files.extend(terminate.client_auth.trust.iter().map(|anchor| anchor.file.clone()));
            files.extend(terminate.client_auth.revocation_lists.iter().map(|list| list.file.clone()));
        }
        files
    }
}
