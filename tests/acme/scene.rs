//! A gate whose certificate pebble issues, after it has looked at the gate's own port.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::client::{Client, End};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::{own_loopback, wait_until};
use crate::pebble::{Pebble, Settings};
use crate::relay::Relay;

pub(crate) const NAS: &str = "nas.home.example";
pub(crate) const PHOTOS: &str = "photos.home.example";

/// How long an order may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is around a gate.
pub(crate) struct Scene {
    pub(crate) pki: TestPki,
    pub(crate) backend: Backend,
    pub(crate) pebble: Pebble,
    pub(crate) relay: Relay,
    state: TempDir,
    address: SocketAddr,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with(&Settings::default())
    }

    pub(crate) fn with(settings: &Settings) -> Self {
        let address = SocketAddr::from((own_loopback(), 5443));
        let SocketAddr::V4(v4) = address else { panic!("it is one of IPv4") };
        let pebble = Pebble::start(*v4.ip(), v4.port(), settings);
        let relay = Relay::start(pebble.address(), &pebble.https_authority());
        let (pki, backend) = (TestPki::new(), Backend::echo());
        Self { pki, backend, pebble, relay, state: tempfile::tempdir().unwrap(), address }
    }

    /// The configuration.
    pub(crate) fn config(&self) -> String {
        self.config_at(self.address)
    }

    /// The same for a gate at another address.
    pub(crate) fn config_at(&self, address: SocketAddr) -> String {
        let routes = [NAS, PHOTOS].map(|name| {
            let backend = self.backend.address();
            let route = name.split('.').next().unwrap();
            format!(
                "[[route]]\nname = \"{route}\"\nserver_names = [\"{name}\"]\nbackends = [\"{backend}\"]\nallow = [\"any\"]\n"
            )
        });
        format!(
            "[[listener]]\nname = \"public\"\naddress = \"{address}\"\n[metrics]\naddress = \"127.0.0.1:0\"\n\
             [log]\nformat = \"json\"\nsampling = \"off\"\n[control]\nsocket = \"control.sock\"\n\
             [limits]\npenalties = \"off\"\nconnection_rate_per_source = \"off\"\n[timeouts]\ndrain = \"5m\"\n\
             [client_auth]\ntrust = [{:?}]\n\
             [certificate.acme]\ndirectory = {:?}\ntrust = {:?}\nstate = {:?}\n{}",
            self.pki.path("clients.pem"),
            self.relay.directory(),
            self.relay.authority(),
            self.state_folder(),
            routes.concat(),
        )
    }

    /// `state`.
    pub(crate) fn state_folder(&self) -> &Path {
        self.state.path()
    }

    /// A gate that has no certificate yet, unless there is one in the folder.
    #[track_caller]
    pub(crate) fn open(&self) -> Gate {
        Gate::start(&self.config())
    }

    /// A device that trusts the root of the server's certificates alone.
    pub(crate) fn device(&self) -> Arc<ClientConfig> {
        Arc::new(self.client_config(true))
    }

    /// The same, with its certificate or without.
    pub(crate) fn client_config(&self, has_certificate: bool) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.pebble.root()).unwrap();
        let builder = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13]);
        let builder = builder.with_root_certificates(roots);
        if !has_certificate {
            return builder.with_no_client_auth();
        }
        let device = self.pki.client("alice-phone");
        builder.with_client_auth_cert(device.chain(), device.key()).unwrap()
    }

    /// Waits until a device gets in by a certificate that it trusts. Returns that certificate.
    #[track_caller]
    pub(crate) fn wait_issued(&self, device: &Arc<ClientConfig>) -> CertificateDer<'static> {
        self.wait_for("a device trusts the certificate", || visit(self.address, device, NAS).ok())
    }

    /// Waits until a device is shown another certificate than this one.
    #[track_caller]
    pub(crate) fn wait_renewed(&self, before: &CertificateDer<'_>) -> CertificateDer<'static> {
        // Without sessions: each handshake shows the certificate.
        let device = self.without_sessions();
        self.wait_for("the certificate is renewed", || {
            let shown = visit(self.address, &device, NAS).expect("the certificate is good all the time");
            (shown != *before).then_some(shown)
        })
    }

    /// A device that remembers no session.
    pub(crate) fn without_sessions(&self) -> Arc<ClientConfig> {
        let mut config = self.client_config(true);
        config.resumption = rustls::client::Resumption::disabled();
        Arc::new(config)
    }

    /// Waits longer than tests wait for what takes milliseconds.
    #[track_caller]
    pub(crate) fn wait_for<T>(&self, what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = answer() {
                return value;
            }
            if Instant::now() > deadline {
                panic!("waited in vain until {what}; the server was asked {:#?}", self.relay.asked());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Gets in and leaves. Returns the certificate that was shown.
pub(crate) fn visit(
    address: SocketAddr,
    device: &Arc<ClientConfig>,
    name: &str,
) -> Result<CertificateDer<'static>, End> {
    let client = Client::admitted(address, device, name)?;
    let shown = client.tls(|connection| connection.peer_certificates().unwrap()[0].clone().into_owned());
    client.close_notify();
    assert_eq!(client.end(), End::Orderly);
    Ok(shown)
}

/// `doorward status` as JSON.
#[track_caller]
pub(crate) fn status(gate: &Gate) -> Value {
    serde_json::from_slice(&gate.ask(&["status", "--format", "json"]).success().stdout).unwrap()
}

/// The processes that order for a gate in this configuration's folder.
pub(crate) fn agents(gate: &Gate) -> Vec<Pid> {
    let own = gate.folder().as_os_str().as_encoded_bytes().to_owned();
    let processes =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let numbers = processes.filter_map(|name| name.parse().ok());
    let is_agent = |pid: &i32| {
        let Ok(words) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
        let mut words = words.split(|&byte| byte == 0);
        words.clone().any(|word| word == b"acme-agent") && words.any(|word| word.starts_with(&own))
    };
    numbers.filter(is_agent).filter_map(Pid::from_raw).collect()
}

/// Waits until there is one agent. Returns it.
#[track_caller]
pub(crate) fn wait_for_agent(gate: &Gate) -> Pid {
    wait_until("there is an agent", || agents(gate).first().copied())
}

/// Sends SIGKILL.
pub(crate) fn kill(pid: Pid) {
    let _ = kill_process(pid, Signal::KILL);
}
