//! The metrics listener among strangers (attacks.md, row 27): it answers who asks properly, and the gate notices nothing.

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

/// Prometheus gives up a scrape after 10 s, unless it is told otherwise.
const SCRAPE: Duration = Duration::from_secs(10);

/// Far more than the few milliseconds that it takes, for a slow machine with other tests on it.
const QUICK: Duration = Duration::from_secs(2);

/// How many strangers there are.
const STRANGERS: usize = 1000;

/// The most connections that the listener holds, and one that is just being told to go.
const PLACES: usize = 64 + 1;

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
        // What is opened once and kept is open from here on.
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

    /// A good client gets in at once.
    #[track_caller]
    fn serve_alice(&self) {
        let begun = Instant::now();
        let admitted = Client::admitted(self.gate.address(), &self.alice, NAS)
            .unwrap_or_else(|end| panic!("alice was turned away: {end:?}"));
        admitted.close_notify();
        admitted.end();
        assert!(begun.elapsed() < QUICK, "alice waited for {:?}", begun.elapsed());
    }

    /// While `strangers` are connected, alice gets in at once, Prometheus has its answer in time, and the gate holds no
    /// more of them than it may.
    #[track_caller]
    fn holds(&self, strangers: &[TcpStream]) {
        assert_eq!(strangers.len(), STRANGERS);
        for _ in 0..5 {
            self.serve_alice();
        }
        let begun = Instant::now();
        let answer = get(&self.gate, "/metrics");
        assert_eq!(answer.status, 200);
        assert!(answer.body.contains("doorward_build_info{"), "{}", answer.body);
        assert!(begun.elapsed() < SCRAPE, "the scrape took {:?}", begun.elapsed());
        println!("{STRANGERS} strangers before it: the scrape took {:?}", begun.elapsed());
        let held = self.descriptors().saturating_sub(self.descriptors);
        // alice's last connection and its backend's may still be on their way out.
        assert!(held <= PLACES + 2, "{held} descriptors more than before");
        for _ in 0..5 {
            self.serve_alice();
        }
    }

    /// Nothing is left of the strangers.
    #[track_caller]
    fn ends_clean(self, strangers: Vec<TcpStream>) {
        drop(strangers);
        self.gate.settled();
        wait_until("the descriptors are back", || (self.descriptors() <= self.descriptors).then_some(()));
        let accepted = self.gate.metrics().sum("doorward_connections_accepted_total", &[]);
        assert_eq!(accepted, 11.0, "the strangers at the metrics listener are none of the gate's connections");
    }
}

/// Each sends `bytes` and waits.
fn strangers(address: SocketAddr, bytes: &[u8]) -> Vec<TcpStream> {
    let stranger = || {
        let mut stream = connect(address);
        // The first may be gone before the last have come.
        let _ = stream.write_all(bytes);
        stream
    };
    std::iter::repeat_with(stranger).take(STRANGERS).collect()
}

#[test]
fn a_thousand_slow_requests_keep_neither_alice_nor_prometheus_waiting() {
    let scene = Scene::new();
    let slow = strangers(scene.gate.metrics_address(), b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ");
    scene.holds(&slow);
    scene.ends_clean(slow);
}

#[test]
fn a_thousand_that_say_nothing_keep_neither_alice_nor_prometheus_waiting() {
    let scene = Scene::new();
    let silent = strangers(scene.gate.metrics_address(), b"");
    scene.holds(&silent);
    scene.ends_clean(silent);
}

/// They ask, and do not read: with the smallest window there is, an answer does not fit into what the kernel holds for
/// them.
#[test]
fn a_thousand_that_do_not_read_keep_neither_alice_nor_prometheus_waiting() {
    let scene = Scene::new();
    let address = scene.gate.metrics_address();
    let deaf = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(1).unwrap();
        socket.connect(&address.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        stream
    };
    let deaf: Vec<TcpStream> = std::iter::repeat_with(deaf).take(STRANGERS).collect();
    scene.holds(&deaf);
    scene.ends_clean(deaf);
}

/// Whoever does not end his request is let go, even if nobody else needs the place; and so is who sends a byte now and
/// then.
#[test]
fn a_request_that_does_not_end_is_ended() {
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
    assert!(begun.elapsed() > Duration::from_secs(4), "after {:?}: a slow client is no stranger", begun.elapsed());
    let ended = silent.read_to_end(&mut Vec::new());
    assert!(ended.is_ok_and(|count| count == 0), "nothing was asked");
    assert!(begun.elapsed() < SCRAPE);
}

#[test]
fn what_is_too_large_is_refused_without_being_kept() {
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
            // The end of a connection with bytes that nobody read is a reset, which may overtake the answer.
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
    // What is large for a person is nothing for the listener.
    let fine = exchange(&scene.gate, format!("GET /healthz HTTP/1.0\r\nHost: {host}\r\n{}\r\n", fields(60)));
    assert_eq!(fine.unwrap().status, 200);
}

/// Resident memory in bytes (proc(5), `/proc/PID/status`).
fn memory(gate: &Gate) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
}

/// A stream of connections, each reset at once.
#[test]
fn connections_that_are_reset_leave_nothing() {
    let scene = Scene::new();
    for count in 0..STRANGERS {
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
