//! The metrics listener under attack (attacks.md, row 27): it answers proper requests, and the gate is not disturbed.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::ClientConfig;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::time::Instant;

use crate::client::{Client, client, connect};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::wait_until;
use crate::home::House;
use crate::http::{exchange, get};

const NAS: &str = "nas.home.example";

/// The timeout of a scrape, by default.
const SCRAPE: Duration = Duration::from_secs(10);

/// Far more than the few milliseconds that it takes, for a slow machine with other tests on it.
const QUICK: Duration = Duration::from_secs(2);

/// How many hostile connections there are.
const HOSTILE: usize = 1000;

/// The most connections that the listener holds, and one that is being closed.
const SLOTS: usize = 64 + 1;

struct Scene {
    gate: Gate,
    alice: Arc<ClientConfig>,
    descriptors: usize,
    /// Held to the end: the gate dials it.
    _backend: Backend,
}

impl Scene {
    fn new() -> Self {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
        let pki = TestPki::new();
        let backend = Backend::echo();
        let gate = House::new(&pki).route("nas", backend.address()).open();
        let alice = client(&pki, Some(&pki.client("alice-phone")));
        let mut scene = Self { gate, alice, descriptors: 0, _backend: backend };
        // Descriptors that are opened once and kept are open from here on.
        scene.serve_alice();
        get(&scene.gate, "/metrics");
        scene.descriptors = wait_until("the descriptors are as many as before", || {
            let first = scene.descriptors();
            std::thread::sleep(Duration::from_millis(20));
            (first == scene.descriptors()).then_some(first)
        });
        scene
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.gate.pid())).unwrap().count()
    }

    /// A client with a certificate is admitted at once.
    #[track_caller]
    fn serve_alice(&self) {
        let begun = Instant::now();
        let admitted = Client::admitted(self.gate.address(), &self.alice, NAS)
            .unwrap_or_else(|end| panic!("alice was turned away: {end:?}"));
        admitted.close_notify();
        admitted.end();
        assert!(begun.elapsed() < QUICK, "alice waited for {:?}", begun.elapsed());
    }

    /// While the hostile clients are connected, alice is admitted at once, Prometheus has its reply in time, and the gate holds
    /// no more connections than it may.
    #[track_caller]
    fn holds(&self, hostile: &[TcpStream]) {
        assert_eq!(hostile.len(), HOSTILE);
        for _ in 0..5 {
            self.serve_alice();
        }
        let begun = Instant::now();
        let answer = get(&self.gate, "/metrics");
        assert_eq!(answer.status, 200);
        assert!(answer.body.contains("doorward_build_info{"), "{}", answer.body);
        assert!(begun.elapsed() < SCRAPE, "the scrape took {:?}", begun.elapsed());
        println!("{HOSTILE} connections before it: the scrape took {:?}", begun.elapsed());
        let held = self.descriptors().saturating_sub(self.descriptors);
        // alice's last connection and its backend's may still be closing.
        assert!(held <= SLOTS + 2, "{held} descriptors more than before");
        for _ in 0..5 {
            self.serve_alice();
        }
    }

    /// Nothing is left of the hostile connections.
    #[track_caller]
    fn ends_clean(self, hostile: Vec<TcpStream>) {
        drop(hostile);
        self.gate.settled();
        wait_until("the descriptors are back", || (self.descriptors() <= self.descriptors).then_some(()));
        let accepted = self.gate.metrics().sum("doorward_connections_accepted_total", &[]);
        assert_eq!(accepted, 11.0, "connections to the metrics listener are none of the gate's");
    }
}

/// Connections that send `bytes` and wait.
fn hostile(address: SocketAddr, bytes: &[u8]) -> Vec<TcpStream> {
    let connection = || {
        let mut stream = connect(address);
        // The first may be closed before the last are open.
        let _ = stream.write_all(bytes);
        stream
    };
    std::iter::repeat_with(connection).take(HOSTILE).collect()
}

#[test]
fn thousand_slow_requests_delay_no_client_and_no_scrape() {
    let scene = Scene::new();
    let slow = hostile(scene.gate.metrics_address(), b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ");
    scene.holds(&slow);
    scene.ends_clean(slow);
}

#[test]
fn thousand_silent_connections_delay_no_client_and_no_scrape() {
    let scene = Scene::new();
    let silent = hostile(scene.gate.metrics_address(), b"");
    scene.holds(&silent);
    scene.ends_clean(silent);
}

/// With the smallest receive window, a reply does not fit into the kernel's buffers.
#[test]
fn thousand_unread_replies_delay_no_client_and_no_scrape() {
    let scene = Scene::new();
    let address = scene.gate.metrics_address();
    let not_reading = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(1).unwrap();
        socket.connect(&address.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        stream
    };
    let not_reading: Vec<TcpStream> = std::iter::repeat_with(not_reading).take(HOSTILE).collect();
    scene.holds(&not_reading);
    scene.ends_clean(not_reading);
}

/// Even if no other connection needs the slot, and even if a byte arrives now and then.
#[test]
fn unfinished_requests_time_out() {
    let scene = Scene::new();
    let begun = Instant::now();
    let mut silent = connect(scene.gate.metrics_address());
    let mut dribbling = connect(scene.gate.metrics_address());
    dribbling.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
    dribbling.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut answer = [0; 1024];
    loop {
        match dribbling.read(&mut answer) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let _ = dribbling.write_all(b"x");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                break;
            }
        }
        assert!(begun.elapsed() < SCRAPE, "still there");
    }
    assert!(begun.elapsed() > Duration::from_secs(4), "after {:?}: a slow client needs more time", begun.elapsed());
    let ended = silent.read_to_end(&mut Vec::new());
    assert!(ended.is_ok_and(|count| count == 0), "nothing was requested");
    assert!(begun.elapsed() < SCRAPE);
}

#[test]
fn oversized_requests_are_refused_without_using_memory() {
    let scene = Scene::new();
    let host = scene.gate.metrics_address();
    let megabyte = "x".repeat(1 << 20);
    let fields = |count: usize| (0..count).map(|number| format!("X-{number}: y\r\n")).collect::<String>();
    let before = memory(&scene.gate);
    for (what, request) in [
        ("a request line of a megabyte", format!("GET /{megabyte} HTTP/1.1\r\nHost: {host}\r\n\r\n")),
        ("one without an end", format!("GET /{megabyte}")),
        ("a method of a megabyte", megabyte.clone()),
        ("a field of a megabyte", format!("GET / HTTP/1.1\r\nHost: {host}\r\nX: {megabyte}\r\n\r\n")),
        ("65 fields", format!("GET / HTTP/1.1\r\nHost: {host}\r\n{}\r\n", fields(64))),
        ("100,000 fields", format!("GET / HTTP/1.1\r\nHost: {host}\r\n{}\r\n", fields(100_000))),
    ] {
        for _ in 0..20 {
            let begun = Instant::now();
            // Closing a connection with unread bytes resets it, which may overtake the reply.
            let answer = exchange(&scene.gate, &request);
            assert!(
                answer.as_ref().is_none_or(|answer| [400, 414, 431].contains(&answer.status)),
                "{what}: {answer:?}"
            );
            assert!(begun.elapsed() < QUICK, "{what}: {:?}", begun.elapsed());
        }
        scene.serve_alice();
    }
    let grown = memory(&scene.gate).saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more than before");
    // Many fields, but fewer than the limit.
    let fine = exchange(&scene.gate, format!("GET /healthz HTTP/1.0\r\nHost: {host}\r\n{}\r\n", fields(60)));
    assert_eq!(fine.unwrap().status, 200);
}

/// Resident memory in bytes (proc(5), `/proc/PID/status`).
fn memory(gate: &Gate) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
}

#[test]
fn reset_connections_leave_nothing_behind() {
    let scene = Scene::new();
    for count in 0..HOSTILE {
        let mut stream = connect(scene.gate.metrics_address());
        if count % 2 == 0 {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
        }
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
    for _ in 0..10 {
        scene.serve_alice();
    }
    assert_eq!(get(&scene.gate, "/metrics").status, 200);
    scene.ends_clean(Vec::new());
}
