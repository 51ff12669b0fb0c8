//! A home with a gate, its devices and services.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use doorward::control::client::ask;
use doorward::control::{Answer, Request, Status};
use rustix::process::{Pid, Signal, kill_process};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::backend::{Counts, Service};
use crate::common::DEADLINE;
use crate::common::metrics::Metrics;
use crate::common::process::{Daemon, run, wait_until};
use crate::home::Home;
use crate::log::Told;
use crate::processes;
use crate::tally::Tally;

/// A route to a service that is always there.
pub(super) const NAS: &str = "nas.home.example";
/// A route to a service that is closed and opened again.
pub(super) const FLAKY: &str = "flaky.home.example";
/// A route to both: the second is dialled when the first is closed.
pub(super) const PAIR: &str = "pair.home.example";
/// A passthrough route.
pub(super) const MAIL: &str = "mail.home.example";

/// The limits of the gate, each of which is reached at the end to show that every slot is free.
pub(super) const PER_SOURCE: usize = 100;
pub(super) const CONNECTIONS: usize = 3 * PER_SOURCE;
pub(super) const HANDSHAKES: usize = 64;

/// `timeouts.drain`: longer than every session that an upgrade must not cut.
pub(super) const DRAIN: Duration = Duration::from_secs(90);

/// The devices, each with an address of its own.
pub(super) const DEVICES: [&str; 10] =
    ["alice", "bob", "carol", "dave", "erin", "frank", "victim", "denied", "cut", "mallory"];

/// The source address of a device.
pub(super) fn home_of(device: &str) -> Ipv4Addr {
    let number = DEVICES.iter().position(|name| *name == device).unwrap();
    Ipv4Addr::new(127, 1, 0, u8::try_from(number + 1).unwrap())
}

/// What a configuration says beside the rest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Change {
    /// One route more.
    pub(super) route: bool,
    /// The device `denied` is denied.
    pub(super) deny: bool,
    /// A mistake.
    pub(super) broken: bool,
    /// A ClientHello may take long.
    pub(super) patient: bool,
}

/// What the flaky service does; each follows the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flap {
    Open,
    Closing,
    Closed,
    Opening,
}

impl Flap {
    /// After so many changes.
    pub(super) const fn of(changes: u64) -> Self {
        match changes % 4 {
            0 => Self::Open,
            1 => Self::Closing,
            2 => Self::Closed,
            _ => Self::Opening,
        }
    }

    pub(super) const fn is_changing(self) -> bool {
        matches!(self, Self::Closing | Self::Opening)
    }
}

/// A home whose gate runs for the whole bench.
pub(super) struct Scene {
    pub(super) home: Home,
    gate: Daemon,
    pub(super) address: SocketAddr,
    metrics: SocketAddr,
    pub(super) tally: Tally,
    backends: [SocketAddr; 2],
    pub(super) counts: [Arc<Counts>; 2],
    /// How often the [`Flap`] of the second service has changed.
    flaps: AtomicU64,
    denied: String,
    /// Connections that clients have begun, and those that the kernel has completed.
    begun: AtomicU64,
    connected: AtomicU64,
    /// When processes were replaced, by process id.
    replaced: Mutex<HashMap<u32, Instant>>,
    told: Mutex<Told>,
}

pub(super) type Session = TlsStream<TcpStream>;

impl Scene {
    /// Makes authorities and devices, and starts a gate in front of these two services, of which the second is flaky.
    pub(super) fn open(steady: &Service, flaky: &Service) -> Self {
        let home = Home::with_authorities();
        for device in DEVICES {
            home.ca(&["device", device]).success();
        }
        std::fs::create_dir(home.path("logs")).unwrap();
        let denied = CertificateDer::from_pem_file(home.path("devices/denied.pem")).unwrap();
        let denied = doorward::model::identity::Sha256::of(&denied).to_string();
        let backends = [steady.address, flaky.address];
        let file = home.path("doorward.toml");
        std::fs::write(&file, config(&home, backends, &denied, Change::default())).unwrap();
        let mut command = home.doorward();
        command.args(["run", "--config"]).arg(&file);
        let log = home.path("logs/doorward.log");
        let gate = Daemon::start_until(&mut command, "its log says ready", || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.contains("\"event\":\"ready\""))
        });
        let text = std::fs::read_to_string(&log).unwrap();
        let address = |event: &str| {
            let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let line = lines.find(|line| line["event"] == event).unwrap();
            line["address"].as_str().unwrap().parse().unwrap()
        };
        Self {
            address: address("listening"),
            metrics: address("metrics"),
            home,
            gate,
            tally: Tally::default(),
            backends,
            counts: [Arc::clone(&steady.counts), Arc::clone(&flaky.counts)],
            flaps: AtomicU64::new(0),
            denied,
            begun: AtomicU64::new(0),
            connected: AtomicU64::new(0),
            replaced: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// Writes the configuration.
    pub(super) fn configure(&self, change: Change) {
        // Complete or not at all: the gate watches the file.
        let (new, file) = (self.home.path("doorward.toml.new"), self.home.path("doorward.toml"));
        std::fs::write(&new, config(&self.home, self.backends, &self.denied, change)).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.home.path("control.sock")
    }

    /// Asks the gate over its control socket.
    pub(super) async fn ask(&self, request: Request) -> Result<Answer, String> {
        let socket = self.socket();
        let answer = tokio::task::spawn_blocking(move || ask(&socket, &request)).await.unwrap();
        answer.map_err(|error| error.to_string())
    }

    pub(super) async fn status(&self) -> Result<Status, String> {
        match self.ask(Request::Status).await? {
            Answer::Status(status) => Ok(*status),
            other => Err(format!("{other:?}")),
        }
    }

    /// Runs a command to its end, on a thread of its own.
    pub(super) async fn command(&self, arguments: &[&str]) -> Result<Value, String> {
        let mut command = self.home.doorward();
        command.args(arguments).args(["--format", "json"]);
        finished(command).await
    }

    /// `doorward ca` with these arguments, whose change has to be in force at the gate.
    pub(super) async fn in_force(&self, arguments: &[&str]) -> Result<(), String> {
        let (config, folder) = (self.home.path("doorward.toml"), self.home.path("pki"));
        let [config, folder] = [config, folder].map(|path| path.display().to_string());
        let all = [&["ca"], arguments, &["--config", &config, "--folder", &folder]].concat();
        let said = self.command(&all).await?;
        if said["in_force"] == true { Ok(()) } else { Err(format!("not in force: {said}")) }
    }

    pub(super) async fn metrics(&self) -> io::Result<Metrics> {
        let mut stream = TcpStream::connect(self.metrics).await?;
        let request = format!("GET /metrics HTTP/1.0\r\nHost: {}\r\n\r\n", self.metrics);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut answer)).await??;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
        Ok(Metrics::parse(body))
    }

    pub(super) fn pem(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.home.path(file)).unwrap()
    }

    /// A client with the certificate that the device has now. It remembers its TLS sessions.
    pub(super) fn device(&self, name: &str, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let certificate = CertificateDer::from_pem_slice(&self.pem(&format!("devices/{name}.pem"))).unwrap();
        let key = PrivateKeyDer::from_pem_slice(&self.pem(&format!("devices/{name}-key.pem"))).unwrap();
        self.client(Some((vec![certificate], key)), versions)
    }

    /// A client that shows this chain, or nothing.
    pub(super) fn client(
        &self,
        shown: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&self.pem("pki/server-ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(roots);
        match shown {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        }
    }

    /// A client that makes full handshakes only.
    pub(super) fn fresh(&self, name: &str) -> Arc<ClientConfig> {
        let mut config = self.device(name, rustls::ALL_VERSIONS);
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }

    pub(super) async fn connect(&self, source: Ipv4Addr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        // Otherwise the ports of one address could run out by those in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind((source, 0).into())?;
        self.begun.fetch_add(1, Ordering::SeqCst);
        let stream = timeout(DEADLINE, socket.connect(self.address)).await??;
        self.connected.fetch_add(1, Ordering::SeqCst);
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A TLS connection. Under TLS 1.3 the client may complete its handshake and be refused after that.
    pub(super) async fn enter(
        &self,
        source: Ipv4Addr,
        config: &Arc<ClientConfig>,
        name: &'static str,
    ) -> io::Result<Session> {
        let tcp = self.connect(source).await?;
        timeout(DEADLINE, Self::shake_hands(tcp, config, name)).await?
    }

    pub(super) async fn shake_hands(
        tcp: TcpStream,
        config: &Arc<ClientConfig>,
        name: &'static str,
    ) -> io::Result<Session> {
        let name = ServerName::try_from(name).unwrap();
        TlsConnector::from(Arc::clone(config)).connect(name, tcp).await
    }

    /// Why the gate refused this connection, which it records after it has sent an alert.
    pub(super) async fn why(&self, client: SocketAddr) -> Result<String, String> {
        let begun = Instant::now();
        while begun.elapsed() < DEADLINE {
            let refusals =
                match self.ask(Request::Why { wanted: client.ip().to_string(), count: 10, ranked: false }).await? {
                    Answer::Why(why) => why.refusals,
                    other => return Err(format!("{other:?}")),
                };
            if let Some(refusal) = refusals.into_iter().find(|refusal| refusal.source == client.to_string()) {
                return Ok(refusal.reason);
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err(format!("nothing is known about the refusal of {client}"))
    }

    /// How often the [`Flap`] of the flaky service has changed so far.
    pub(super) fn flaps(&self) -> u64 {
        self.flaps.load(Ordering::SeqCst)
    }

    /// The flaky service enters its next [`Flap`].
    pub(super) fn flap(&self) {
        self.flaps.fetch_add(1, Ordering::SeqCst);
    }

    /// The fewest and the most connections that the gate can have accepted: those of which the client knows, and those that
    /// it has begun.
    pub(super) fn connections(&self) -> (u64, u64) {
        (self.connected.load(Ordering::SeqCst), self.begun.load(Ordering::SeqCst))
    }

    /// This process is being replaced.
    pub(super) fn replaces(&self, pid: u32) {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner).insert(pid, Instant::now());
    }

    /// When the replacement of this process began.
    pub(super) fn replaced(&self, pid: u32) -> Option<Instant> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner).get(&pid).copied()
    }

    /// The processes of the gate.
    pub(super) fn processes(&self) -> Vec<u32> {
        processes::of_group(self.gate.group())
    }

    /// Those of them that have this file open.
    pub(super) fn with_open(&self, file: &Path) -> Vec<u32> {
        processes::with_open(self.gate.group(), file)
    }

    /// Counts the lines of a file of the log that no process has open.
    pub(super) fn count_log(&self, file: &Path) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).read(file);
    }

    /// Stops the process that accepts connections, which has to end, and what it has started with it. Counts the rest of its
    /// log. Returns the tally, what the log tells, and what was written to stderr.
    pub(super) fn stop(self, serving: u32) -> (Tally, Told, String) {
        kill_process(Pid::from_raw(serving.cast_signed()).unwrap(), Signal::TERM).unwrap();
        // Not killed with its group, as it would be otherwise after an upgrade: its last lines count what it left out.
        wait_until("every process of the gate has ended", || self.processes().is_empty().then_some(()));
        for file in logs(&self.home.path("logs")) {
            self.count_log(&file);
        }
        let stderr = self.gate.output();
        (self.tally, self.told.into_inner().unwrap_or_else(PoisonError::into_inner), stderr)
    }
}

/// Runs a command, whose output is JSON.
pub(super) async fn finished(mut command: Command) -> Result<Value, String> {
    let finished = tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap();
    if !finished.status.success() {
        return Err(finished.to_string());
    }
    Ok(serde_json::from_slice(&finished.stdout).unwrap_or_default())
}

fn config(home: &Home, [steady, flaky]: [SocketAddr; 2], denied: &str, change: Change) -> String {
    let path = |file: &str| home.path(file).display().to_string();
    let client_hello = if change.patient { "1m" } else { "4s" };
    let mut text = format!(
        "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n[metrics]\naddress = \"127.0.0.1:0\"\n\
         [log]\nformat = \"json\"\noutput = {:?}\n[control]\nsocket = \"control.sock\"\n\
         [timeouts]\nclient_hello = \"{client_hello}\"\nidle = \"30s\"\ndrain = \"{}s\"\n\
         [limits]\nconnections = {CONNECTIONS}\nconnections_per_source = {PER_SOURCE}\nhandshakes = {HANDSHAKES}\n\
         [certificate]\nchain = {:?}\nkey = {:?}\n\
         [client_auth]\ntrust = [{:?}]\nrevocation_lists = [{:?}]\n",
        path("logs/doorward.log"),
        DRAIN.as_secs(),
        path("pki/server.pem"),
        path("pki/server-key.pem"),
        path("pki/clients.pem"),
        path("pki/clients.crl"),
    );
    if change.deny {
        let _ = writeln!(text, "deny = [\"sha256:{denied}\"]");
    }
    if change.broken {
        text.push_str("no_such_key = true\n");
    }
    for (name, backends) in
        [(NAS, vec![steady]), (FLAKY, vec![flaky]), (PAIR, vec![flaky, steady]), (MAIL, vec![steady])]
    {
        let backends: Vec<String> = backends.iter().map(ToString::to_string).collect();
        let mode = if name == MAIL { "mode = \"passthrough\"" } else { "allow = [\"any\"]" };
        let route = name.split('.').next().unwrap();
        let _ = writeln!(
            text,
            "[[route]]\nname = \"{route}\"\nserver_names = [\"{name}\"]\nbackends = {backends:?}\n{mode}"
        );
    }
    if change.route {
        let _ = writeln!(
            text,
            "[[route]]\nname = \"more\"\nserver_names = [\"more.home.example\"]\nbackends = [\"{steady}\"]\nallow = [\"alice\"]"
        );
    }
    text
}

/// The log of the home: every file, with the ones that were rotated away.
pub(super) fn logs(home: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(home).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}
