//! A gate with one backend, and the checks of a rejection.

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
use crate::common::gate::{Gate, LOCAL};
use crate::common::metrics::Metrics;
use crate::common::pki::TestPki;
use crate::common::process::wait_until;

/// The server name of the gate's route.
pub(crate) const NAS: &str = "nas.home.example";

/// The time limit for immediate answers, on a busy machine.
pub(crate) const PROMPT: Duration = Duration::from_secs(8);

/// A gate with the route `nas` for [`NAS`], to an echo backend. Every verified certificate is allowed.
///
/// Every test must call [`Scene::end`].
pub(crate) struct Scene {
    pub(crate) pki: TestPki,
    pub(crate) backend: Backend,
    pub(crate) gate: Gate,
    /// The configuration of an authorized client, alice.
    pub(crate) alice: Arc<ClientConfig>,
    /// How many descriptors the gate had open before the test.
    descriptors: usize,
    /// How many connections of the route `nas` have been closed.
    closed: usize,
}

/// What a client received, and how and when the connection ended.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) bytes: Vec<u8>,
    pub(crate) end: End,
    /// Measured from before the connection was made.
    pub(crate) after: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// End of file: everything that was sent has arrived.
    Orderly,
    /// A reset, as the kernel sends it when a socket is closed with unread bytes.
    Reset,
}

impl Scene {
    /// With deadlines that no test reaches.
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
        // Descriptors that the gate keeps are open after the first connection.
        scene.assert_alice_served();
        scene.count_descriptors();
        scene
    }

    /// Counts the descriptors that the gate keeps open.
    pub(crate) fn count_descriptors(&mut self) {
        self.gate.settled();
        // The last scrape may still be open, so the minimum of several counts is used.
        let looks = std::iter::repeat_with(|| {
            thread::sleep(Duration::from_millis(5));
            self.descriptors()
        });
        self.descriptors = looks.take(20).min().unwrap();
    }

    /// A connection to the gate, without Nagle's algorithm.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.gate.address(), DEADLINE).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// A TLS client of alice, before its handshake.
    pub(crate) fn alice(&self) -> ClientConnection {
        ClientConnection::new(Arc::clone(&self.alice), NAS.try_into().unwrap()).unwrap()
    }

    /// Alice is authorized, and her bytes are echoed.
    #[track_caller]
    pub(crate) fn assert_alice_served(&mut self) {
        let stream = StreamOwned::new(self.alice(), self.connect());
        self.assert_served(stream);
    }

    /// The client is authorized, and its bytes are echoed.
    #[track_caller]
    pub(crate) fn assert_served(&mut self, mut stream: StreamOwned<ClientConnection, impl Read + Write>) {
        let question = b"Hello, echo! ";
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

    /// One more connection was closed. Returns its log line.
    #[track_caller]
    pub(crate) fn assert_closed(&mut self) -> Value {
        self.closed += 1;
        self.gate.wait_closed("nas", self.closed).pop().unwrap()
    }

    /// Sends `bytes` on a new connection, which must be rejected for this reason with this alert. Returns the log line.
    #[track_caller]
    pub(crate) fn assert_rejected(&self, bytes: &[u8], stage: &str, reason: &str, alert: Option<u8>) -> Value {
        let line = self.expect_rejection(stage, reason, |stream| {
            let response = send_and_read(stream, bytes);
            assert!(response.after < PROMPT, "closed after {:?}", response.after);
            assert_alert(&response, alert);
        });
        let named = alert.map(|alert| doorward::model::rejection::Alert(alert).to_string());
        assert_eq!(line["alert"].as_str(), named.as_deref(), "{line}");
        line
    }

    /// Runs `attempt` with a new connection, which must be rejected for this reason; see [`Scene::expect_one_rejection`].
    #[track_caller]
    pub(crate) fn expect_rejection(&self, stage: &str, reason: &str, attempt: impl FnOnce(&TcpStream)) -> Value {
        let mut source = None;
        let line = self.expect_one_rejection(stage, reason, || {
            let stream = self.connect();
            source = stream.local_addr().ok();
            attempt(&stream);
        });
        assert_eq!(line["source"], source.unwrap().to_string());
        line
    }

    /// Runs `attempt`, which makes one connection that must be rejected for this reason: exactly one counter increases by
    /// one, one log line has the reason, and no backend is dialled. Returns the line.
    #[track_caller]
    pub(crate) fn expect_one_rejection(&self, stage: &str, reason: &str, attempt: impl FnOnce()) -> Value {
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
        assert_eq!(up(REJECTED, &[]), 1.0, "only one counter increases");
        assert_eq!(up("doorward_connections_accepted_total", &[]), 1.0);
        assert_eq!(up("doorward_connections_closed_total", &[]), 0.0);
        assert_eq!(self.backend.accepted(), asked, "no backend is dialled");
        assert_plain(&line);
        line
    }

    /// The checks after every attack: a good client is served, every connection has its verdict, and no descriptor stays
    /// open.
    #[track_caller]
    pub(crate) fn end(mut self) -> Metrics {
        self.assert_alice_served();
        let metrics = self.gate.settled();
        wait_until("every descriptor is closed", || (self.descriptors() <= self.descriptors).then_some(()));
        metrics
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.gate.pid())).unwrap().count()
    }

    /// The resident memory of the gate in bytes (proc(5), `VmRSS`).
    pub(crate) fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.gate.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: usize = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        kib * 1024
    }
}

const REJECTED: &str = "doorward_connections_rejected_total";

/// Sends `bytes` and reads until the gate ends the connection.
#[track_caller]
pub(crate) fn send_and_read(mut stream: &TcpStream, bytes: &[u8]) -> Response {
    let started = Instant::now();
    // The gate may close before everything is sent; its answer is still read.
    let _ = stream.write_all(bytes);
    read_to_end(stream, started)
}

/// Reads until the gate ends the connection.
#[track_caller]
pub(crate) fn read_to_end(mut stream: &TcpStream, started: Instant) -> Response {
    let mut bytes = Vec::new();
    let end = match stream.read_to_end(&mut bytes) {
        Ok(_) => End::Orderly,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => End::Reset,
        Err(error) => panic!("the gate does not end the connection: {error}; it sent {bytes:02x?}"),
    };
    Response { bytes, end, after: started.elapsed() }
}

/// The client received exactly a fatal alert and an orderly end, or nothing.
#[track_caller]
pub(crate) fn assert_alert(response: &Response, alert: Option<u8>) {
    match alert {
        None => assert!(response.bytes.is_empty(), "{response:02x?}"),
        Some(alert) => {
            // The version of a record has no meaning (RFC 8446 section 5.1).
            assert!(
                matches!(response.bytes[..], [21, 3, _, 0, 2, 2, description] if description == alert),
                "instead of alert {alert}: {response:02x?}"
            );
            assert_eq!(response.end, End::Orderly, "a reset could overtake the alert");
        }
    }
}

/// Sends byte by byte with pauses, on another thread, until everything is sent or the gate closes.
pub(crate) fn send_byte_by_byte(stream: &TcpStream, bytes: Vec<u8>, pause: Duration) -> thread::JoinHandle<()> {
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

/// A log line is plain text on one line, whatever the client sent.
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
