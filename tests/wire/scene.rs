//! A gate with one service behind it, and what is owed for every refusal.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;
use tokio::time::Instant;

use crate::common::DEADLINE;
use crate::common::backend::Backend;
use crate::common::gate::{Gate, LOCAL, Metrics};
use crate::common::pki::TestPki;
use crate::common::process::wait_until;

/// The one name that the gate serves in most tests.
pub(crate) const NAS: &str = "nas.home.example";

/// How soon is at once, on a busy machine.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(8);

/// A gate with the route `nas` for [`NAS`], to a backend that echoes. Every verified certificate is let in.
///
/// [`Scene::end`] is part of every test.
pub(crate) struct Scene {
    pub(crate) pki: TestPki,
    pub(crate) backend: Backend,
    pub(crate) gate: Gate,
    /// A client that is let in: alice.
    pub(crate) alice: Arc<ClientConfig>,
    /// How many descriptors the gate held before the test.
    descriptors: usize,
    /// How many connections of the route `nas` were let in and are over.
    closed: usize,
}

/// What a client received, and when and how that ended.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) bytes: Vec<u8>,
    pub(crate) end: End,
    /// Counted from before the connection was made.
    pub(crate) after: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// End of file: all that was sent has come.
    Orderly,
    /// A reset, as the kernel sends it when a socket is closed with unread bytes.
    Reset,
}

impl Scene {
    /// With deadlines that no test can run into.
    pub(crate) fn new() -> Self {
        Self::with("[timeouts]\nclient_hello = \"1m\"\nhandshake = \"1m\"\n")
    }

    /// With `more` in the configuration.
    pub(crate) fn with(more: &str) -> Self {
        let pki = TestPki::new();
        let backend = Backend::echo();
        let config = format!(
            r#"{LOCAL}
[limits]
connection_rate_per_source = "off"

{}
[[route]]
name = "nas"
server_names = ["{NAS}"]
backends = ["{}"]
allow = ["any"]

{more}"#,
            pki.config(),
            backend.address()
        );
        let gate = Gate::start(&config);
        let alice = Arc::new(pki.client_config(Some(&pki.client("alice")), rustls::ALL_VERSIONS));
        let mut scene = Self { pki, backend, gate, alice, descriptors: 0, closed: 0 };
        // What a gate opens once and keeps is open after the first connection.
        scene.serve_alice();
        scene.count_descriptors();
        scene
    }

    /// Takes the descriptors that the gate holds now for those it holds for good.
    pub(crate) fn count_descriptors(&mut self) {
        self.gate.settled();
        // The last scrape may not be closed yet: the least of some looks is what the gate keeps.
        let looks = std::iter::repeat_with(|| {
            thread::sleep(Duration::from_millis(5));
            self.descriptors()
        });
        self.descriptors = looks.take(20).min().unwrap();
    }

    /// A connection to the gate. What is written to it leaves at once.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.gate.address(), DEADLINE).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// Alice's client on a socket, with the handshake to come.
    pub(crate) fn alice(&self) -> ClientConnection {
        ClientConnection::new(Arc::clone(&self.alice), NAS.try_into().unwrap()).unwrap()
    }

    /// Alice is let in, and what she sends comes back.
    #[track_caller]
    pub(crate) fn serve_alice(&mut self) {
        let stream = StreamOwned::new(self.alice(), self.connect());
        self.assert_served(stream);
    }

    /// A client is let in, and what it sends comes back.
    #[track_caller]
    pub(crate) fn assert_served(&mut self, mut stream: StreamOwned<ClientConnection, impl Read + Write>) {
        let question = b"Who is there?";
        stream.write_all(question).unwrap();
        let mut answer = [0; 13];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, question);
        stream.conn.send_close_notify();
        stream.conn.complete_io(&mut stream.sock).unwrap();
        assert_eq!(stream.read(&mut answer).unwrap(), 0);
        drop(stream);
        self.assert_closed();
    }

    /// One more connection was let in and is over; returns its line.
    #[track_caller]
    pub(crate) fn assert_closed(&mut self) -> Value {
        self.closed += 1;
        self.gate.wait_closed("nas", self.closed).pop().unwrap()
    }

    /// Sends `bytes` on a connection of its own, listens to the end, and is refused for this.
    #[track_caller]
    pub(crate) fn assert_refuses(&self, bytes: &[u8], stage: &str, reason: &str, alert: Option<u8>) -> Value {
        let line = self.refused(stage, reason, |stream| {
            let heard = say(stream, bytes);
            assert!(heard.after < AT_ONCE, "closed after {:?}", heard.after);
            assert_told(&heard, alert);
        });
        let named = alert.map(|alert| doorward::model::rejection::Alert(alert).to_string());
        assert_eq!(line["alert"].as_str(), named.as_deref(), "{line}");
        line
    }

    /// Lets `attempt` do what it wants with a connection of its own, after which that connection must have been refused
    /// for this; see [`Scene::one_refused`].
    #[track_caller]
    pub(crate) fn refused(&self, stage: &str, reason: &str, attempt: impl FnOnce(&TcpStream)) -> Value {
        let mut source = None;
        let line = self.one_refused(stage, reason, || {
            let stream = self.connect();
            source = stream.local_addr().ok();
            attempt(&stream);
        });
        assert_eq!(line["source"], source.unwrap().to_string());
        line
    }

    /// Lets `attempt` make one connection, which must have been refused for this, and nothing else have happened:
    /// exactly one counter is up by one, one line says why, and no backend was asked. Returns the line.
    #[track_caller]
    pub(crate) fn one_refused(&self, stage: &str, reason: &str, attempt: impl FnOnce()) -> Value {
        let (before, asked) = (self.gate.settled(), self.backend.accepted());
        let last = self.gate.lines().iter().filter_map(|line| line["id"].as_u64()).max();
        attempt();
        let line = self.gate.wait_for_line("a verdict", |line| line["id"].as_u64() > last);
        assert_eq!(
            [&line["event"], &line["stage"], &line["reason"]],
            ["rejected", stage, reason],
            "instead of {stage}/{reason}: {line}"
        );
        let after = self.gate.settled();
        let up = |name: &str, labels: &[(&str, &str)]| after.sum(name, labels) - before.sum(name, labels);
        let route = line["route"].as_str().unwrap_or("none");
        let labels = [("listener", "public"), ("route", route), ("stage", stage), ("reason", reason)];
        assert_eq!(up(REJECTED, &labels), 1.0, "{labels:?}");
        assert_eq!(up(REJECTED, &[]), 1.0, "only one counter goes up");
        assert_eq!(up("doorward_connections_accepted_total", &[]), 1.0);
        assert_eq!(up("doorward_connections_closed_total", &[]), 0.0);
        assert_eq!(self.backend.accepted(), asked, "no backend is asked");
        assert_plain(&line);
        line
    }

    /// What is owed after every attack: a good client is served, every connection has its verdict, and nothing stays
    /// open.
    #[track_caller]
    pub(crate) fn end(mut self) -> Metrics {
        self.serve_alice();
        let metrics = self.gate.settled();
        wait_until("every descriptor has come back", || (self.descriptors() <= self.descriptors).then_some(()));
        metrics
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.gate.pid())).unwrap().count()
    }

    /// The memory of the gate that is in use, in bytes (proc(5), `VmRSS`).
    pub(crate) fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.gate.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: usize = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        kib * 1024
    }
}

const REJECTED: &str = "doorward_connections_rejected_total";

/// Sends `bytes` and listens until the gate ends the connection.
#[track_caller]
pub(crate) fn say(mut stream: &TcpStream, bytes: &[u8]) -> Heard {
    let begun = Instant::now();
    // A gate that has heard enough may have hung up: what it said before that counts.
    let _ = stream.write_all(bytes);
    listen(stream, begun)
}

/// Listens until the gate ends the connection.
#[track_caller]
pub(crate) fn listen(mut stream: &TcpStream, begun: Instant) -> Heard {
    let mut bytes = Vec::new();
    let end = match stream.read_to_end(&mut bytes) {
        Ok(_) => End::Orderly,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => End::Reset,
        Err(error) => panic!("the gate does not end the connection: {error}; it said {bytes:02x?}"),
    };
    Heard { bytes, end, after: begun.elapsed() }
}

/// A client was told this, and nothing else: a fatal alert and an orderly end, or nothing at all.
#[track_caller]
pub(crate) fn assert_told(heard: &Heard, alert: Option<u8>) {
    match alert {
        None => assert!(heard.bytes.is_empty(), "{heard:02x?}"),
        Some(alert) => {
            // The version of a record is of no meaning (RFC 8446 section 5.1).
            assert!(
                matches!(heard.bytes[..], [21, 3, _, 0, 2, 2, description] if description == alert),
                "instead of alert {alert}: {heard:02x?}"
            );
            assert_eq!(heard.end, End::Orderly, "a reset could overtake the alert");
        }
    }
}

/// Sends byte by byte with `pause` in between, on a thread of its own, until all is sent or the gate has hung up.
pub(crate) fn dribble(stream: &TcpStream, bytes: Vec<u8>, pause: Duration) -> thread::JoinHandle<()> {
    let mut stream = stream.try_clone().unwrap();
    thread::spawn(move || {
        for byte in bytes {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            thread::sleep(pause);
        }
    })
}

/// Whatever a stranger chose, a line stays one line of text for a terminal.
#[track_caller]
fn assert_plain(line: &Value) {
    let mut values = vec![line];
    while let Some(value) = values.pop() {
        match value {
            Value::String(text) => {
                assert!(text.chars().all(|c| matches!(c, ' '..='~' | '…') || c.is_alphanumeric()), "{line}");
                assert!(text.len() <= 512, "{line}");
            }
            Value::Array(more) => values.extend(more),
            Value::Object(more) => values.extend(more.values()),
            _ => {}
        }
    }
}
