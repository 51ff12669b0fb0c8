//! A gate that listens, with a backend, and clients of any kind.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::super::super::serve;
use super::super::home::{CERTIFICATES, Home};
use crate::admission::Admission;
use crate::config::checked::{Config, LogFormat};
use crate::gate::Gate;
use crate::listener::Accepted;
use crate::model::identity::Sha256;
use crate::model::names::ServerName;
use crate::relay::Support;
use crate::snapshot::Snapshot;
use crate::telemetry::log::Log;
use crate::telemetry::metrics::Metrics;

/// The names of the gate's routes: two of a strict one, a passthrough one, a canary, and one for PostgreSQL.
pub(super) const NAS: &str = "nas.home.example";
pub(super) const PHOTOS: &str = "photos.home.example";
pub(super) const MAIL: &str = "mail.home.example";
pub(super) const BAIT: &str = "bait.home.example";
pub(super) const DB: &str = "db.home.example";

/// What the challenges are for.
pub(super) const DIGEST: Sha256 = Sha256([0xa7; 32]);

/// For what takes milliseconds, on a busy machine.
pub(super) const LONG: Duration = Duration::from_secs(60);

pub(super) const SHORT: Duration = Duration::from_millis(5);

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("the lines").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A gate with its listener.
pub(super) struct Live {
    pub(super) gate: Arc<Gate>,
    pub(super) address: SocketAddr,
    /// What the backend has received, a part for each connection.
    pub(super) received: Arc<Mutex<Vec<Vec<u8>>>>,
    /// A device that every strict route allows: its certificate and key in DER.
    pub(super) alice: (Vec<u8>, Vec<u8>),
    lines: Lines,
    told: Cell<usize>,
    _home: Home,
    _runtime: Runtime,
}

/// How a connection ended, as its client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Orderly,
    Reset,
}

/// A verdict: the event with what belongs to it in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) reason: String,
    pub(super) stage: Option<String>,
    pub(super) alert: Option<String>,
    pub(super) line: Value,
}

impl Live {
    /// With `more` in the configuration.
    pub(super) fn new(more: &str) -> Self {
        let home = Home::new("*.home.example");
        let (backend, received) = backend();
        let text = format!(
            "{more}\n{CERTIFICATES}\
             [[route]]\nname = \"nas\"\nserver_names = [\"{NAS}\", \"{PHOTOS}\"]\nbackends = [\"{backend}\"]\nallow = [\"any\"]\n\
             [[route]]\nname = \"mail\"\nmode = \"passthrough\"\nserver_names = [\"{MAIL}\"]\nbackends = [\"{backend}\"]\n\
             [[route]]\nname = \"bait\"\ncanary = true\nserver_names = [\"{BAIT}\"]\n\
             [[route]]\nname = \"db\"\nstarttls = \"postgres\"\nserver_names = [\"{DB}\"]\nbackends = [\"{backend}\"]\n\
             allow = [\"any\"]\n"
        );
        let text = if text.contains("[[listener]]") {
            text
        } else {
            format!("[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n{text}")
        };
        // That no test reaches on a busy machine.
        let text = if text.contains("[timeouts]") {
            text
        } else {
            format!("{text}[timeouts]\nclient_hello = \"1m\"\nhandshake = \"1m\"\n")
        };
        let config = home.config(&text);
        let lines = Lines::default();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let gate = gate(&config, lines.clone());
        let address = listen(&runtime, &config, &gate);
        let alice = (home.device.0.to_vec(), home.device.1.clone());
        Self { gate, address, received, alice, lines, told: Cell::new(0), _home: home, _runtime: runtime }
    }

    /// An order for this name is pending.
    pub(super) fn order(&self, name: &str) {
        self.gate.challenges.offer(&ServerName::from_client_hello(name), DIGEST).expect("a challenge");
    }

    /// A connection of the address 127.0.0.`host`.
    pub(super) fn connect_from(&self, host: u8) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)).into()).expect("an address");
        socket.connect(&self.address.into()).expect("a connection");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(LONG)).expect("a timeout");
        stream.set_nodelay(true).expect("an option");
        stream
    }

    pub(super) fn connect(&self) -> TcpStream {
        self.connect_from(1)
    }

    /// Sends these bytes and the end, and reads to the end; from another source each time, as few mistakes lead to a ban.
    pub(super) fn send(&self, bytes: &[u8]) -> (Vec<u8>, End) {
        let mut stream = self.connect_from(u8::try_from(2 + self.told.get() % 250).expect("a host"));
        // The gate may have closed by then.
        let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
        read_to_end(&mut stream)
    }

    /// The next verdict that was not asked for yet.
    pub(super) fn verdict(&self) -> Verdict {
        let next = self.told.replace(self.told.get() + 1);
        let line = wait_for("a verdict", || self.verdicts().into_iter().nth(next));
        let text = |key: &str| line[key].as_str().map(ToOwned::to_owned);
        Verdict { reason: text("reason").expect("a reason"), stage: text("stage"), alert: text("alert"), line }
    }

    /// All verdicts up to now.
    pub(super) fn verdicts(&self) -> Vec<Value> {
        let text = String::from_utf8(self.lines.0.lock().expect("the lines").clone()).expect("text");
        let whole = text.rfind('\n').map_or("", |end| text.split_at(end).0);
        let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.filter(|line| line["event"] == "rejected" || line["event"] == "closed").collect()
    }

    /// The counters of accepted, rejected and closed connections, when no connection is open.
    pub(super) fn counted(&self) -> BTreeMap<String, u64> {
        wait_for("every connection to end", || (self.sum("doorward_connections_active") == 0).then_some(()));
        let counters =
            ["accepted_total", "rejected_total", "closed_total"].map(|end| format!("doorward_connections_{end}"));
        let text = self.gate.metrics.render();
        let series = text.lines().filter(|line| counters.iter().any(|name| line.starts_with(name.as_str())));
        let series = series.filter_map(|line| line.rsplit_once(' '));
        series.map(|(name, value)| (name.to_owned(), value.parse().expect("a count"))).filter(|(_, n)| *n > 0).collect()
    }

    /// The sum of all series of this name.
    pub(super) fn sum(&self, name: &str) -> u64 {
        let text = self.gate.metrics.render();
        let series = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// How many connections the backend has got.
    pub(super) fn reached(&self) -> usize {
        self.received.lock().expect("it").len()
    }

    /// No source owes anything.
    pub(super) fn penalties(&self) -> usize {
        self.gate.admission.penalties().len()
    }

    /// Bans 127.0.0.`host`.
    pub(super) fn ban(&self, host: u8) {
        self.gate.admission.ban(Ipv4Addr::new(127, 0, 0, host).into());
    }
}

fn gate(config: &Config, lines: Lines) -> Arc<Gate> {
    Arc::new(Gate::new(
        Snapshot::build(config).expect("a snapshot"),
        Admission::new(config.limits.clone()),
        Support::none(),
        Arc::new(Metrics::new(config).expect("metrics")),
        Arc::new(Log::new(LogFormat::Json, lines).expect("a log")),
    ))
}

/// Accepts connections on the first listener of the configuration.
fn listen(runtime: &Runtime, config: &Config, gate: &Arc<Gate>) -> SocketAddr {
    let socket = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = socket.local_addr().expect("an address");
    let (listener, gate) = (Arc::new(config.listeners.first().expect("a listener").clone()), Arc::clone(gate));
    runtime.spawn(async move {
        loop {
            let (stream, peer) = socket.accept().await.expect("a connection");
            let accepted =
                Accepted { stream: stream.into(), peer, listener: Arc::clone(&listener), at: Instant::now() };
            tokio::spawn(serve(accepted, Arc::clone(&gate)));
        }
    });
    address
}

/// Sends back what it receives.
fn backend() -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let received: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let all = Arc::clone(&received);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, all) = (stream.expect("a connection"), Arc::clone(&all));
            let mut parts = all.lock().expect("it");
            let part = parts.len();
            parts.push(Vec::new());
            drop(parts);
            thread::spawn(move || {
                let mut room = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut room) {
                    let bytes = room.get(..read).expect("what was read");
                    all.lock().expect("it").get_mut(part).expect("its part").extend_from_slice(bytes);
                    if stream.write_all(bytes).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, received)
}

/// Reads until the gate ends the connection.
pub(super) fn read_to_end(stream: &mut TcpStream) -> (Vec<u8>, End) {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => (bytes, End::Orderly),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => (bytes, End::Reset),
        Err(error) => panic!("the gate does not end the connection: {error}; it sent {} bytes", bytes.len()),
    }
}

/// Waits for this.
pub(super) fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(SHORT);
    }
}
