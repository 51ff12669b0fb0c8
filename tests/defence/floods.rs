//! Good clients are served, whatever others hold.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use doorward::model::rejection::Reason;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::Instant;

use crate::client::{Hello, client, connect_from, plain_end};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::home::House;
use crate::{NAS, admitted_from, loopback};

/// The defaults of `[limits]`.
const HANDSHAKES: usize = 512;
const CONNECTIONS_PER_SOURCE: usize = 256;

/// What attacks.md owes to a good client.
const OWED: Duration = Duration::from_secs(1);

const HERE: IpAddr = loopback(0, 1);
const GREEDY: IpAddr = loopback(0, 2);

/// A gate with timeouts of minutes, and devices of the house.
struct Scene {
    gate: Gate,
    pki: TestPki,
    _backend: Backend,
}

impl Scene {
    /// Opens it with these `[limits]`, and lets this process have as many sockets as these tests take.
    fn open(limits: &str) -> Self {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
        let (pki, backend) = (TestPki::new(), Backend::echo());
        let gate = House::new(&pki)
            .limits(&format!("penalties = \"on\"\n{limits}"))
            .timeouts("client_hello = \"5m\"\nhandshake = \"5m\"")
            .route("nas", backend.address())
            .open();
        Self { gate, pki, _backend: backend }
    }

    /// Good clients come one after the other, from an address that has never been seen and from one that has.
    #[track_caller]
    fn assert_served(&self, sources: &[IpAddr]) {
        let alice = client(&self.pki, Some(&self.pki.client("alice-phone")));
        for (count, &source) in sources.iter().enumerate() {
            let begun = Instant::now();
            let admitted = admitted_from(source, &self.gate, &alice);
            let took = begun.elapsed();
            assert!(admitted.is_ok(), "{count}: {source} was refused: {admitted:?}");
            assert!(took < OWED, "{count}: {source} waited for {took:?}");
        }
    }

    /// As many as one source may have, from this one; nothing is said on them.
    #[track_caller]
    fn silent_from(&self, source: IpAddr) -> Vec<TcpStream> {
        let held = (0..CONNECTIONS_PER_SOURCE).map(|_| connect_from(source, self.gate.address())).collect();
        self.gate.wait_metric("doorward_handshakes_in_progress", &[], CONNECTIONS_PER_SOURCE as f64);
        held
    }

    /// This source has all it may have, and tries for more.
    #[track_caller]
    fn assert_no_more_for(&self, source: IpAddr) {
        let more: Vec<TcpStream> = (0..50).map(|_| connect_from(source, self.gate.address())).collect();
        for stream in &more {
            plain_end(stream);
        }
        self.gate.wait_rejected("admission", Reason::SourceLimit.label(), 50);
    }
}

/// Half a ClientHello from each of many addresses, 50 times, as often as one may connect in a second by default.
fn half_open(count: u8, gate: &Gate) -> Vec<TcpStream> {
    let hello = Hello { version: 0x0303, suites: &[0x1301], server_name: NAS }.record();
    let half = |source| {
        let mut stream = connect_from(source, gate.address());
        stream.write_all(&hello[..hello.len() / 2]).unwrap();
        stream
    };
    (1..=count).flat_map(|host| std::iter::repeat_n(loopback(7, host), 50)).map(half).collect()
}

/// Row 3, with every limit as it is by default: of 5,000 handshakes that do not go on, 512 are held.
#[test]
fn half_open_handshakes_5000_under_the_default_limits() {
    let scene = Scene::open("");
    let gate = &scene.gate;
    let held = half_open(100, gate);
    assert_eq!(held.len(), 5000);
    gate.wait_rejected("admission", Reason::HandshakeLimit.label(), held.len() - HANDSHAKES);
    gate.wait_metric("doorward_handshakes_in_progress", &[], HANDSHAKES as f64);
    let sources: Vec<IpAddr> = (1..=10).flat_map(|host| [HERE, loopback(1, host)]).collect();
    scene.assert_served(&sources);
    // Each of them took the place of one that did not go on, and none the place of another.
    gate.wait_closed("nas", sources.len());
    let open = held.iter().filter(|stream| {
        stream.set_nonblocking(true).unwrap();
        matches!((&mut &**stream).read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    });
    let open = open.count();
    assert!((HANDSHAKES - sources.len()..HANDSHAKES).contains(&open), "{open} are left");
}

/// The same if the limits let it hold all of them, and from 500 on.
#[test]
fn half_open_handshakes_500_to_5000_are_all_held() {
    // So many connections fit the 20,000 descriptors that this process may have, so no limit is lowered.
    let scene = Scene::open("connections = 9000\nhandshakes = 6000");
    let gate = &scene.gate;
    let mut held = half_open(10, gate);
    gate.wait_metric("doorward_handshakes_in_progress", &[], 500.0);
    scene.assert_served(&[HERE, loopback(1, 1)]);
    held.extend(half_open_again(gate));
    gate.wait_metric("doorward_handshakes_in_progress", &[], 5000.0);
    scene.assert_served(&[HERE, loopback(1, 2), HERE, loopback(1, 3)]);
    let rejected = gate.metrics().sum("doorward_connections_rejected_total", &[]);
    assert_eq!(rejected, 0.0, "no connection was refused");
    drop(held);
    gate.wait_rejected("client_hello", Reason::ClientHelloClosedEarly.label(), 5000);
}

/// 4,500 more.
fn half_open_again(gate: &Gate) -> Vec<TcpStream> {
    let connect = |host| connect_from(loopback(8, host), gate.address());
    (1..=90).flat_map(|host| std::iter::repeat_n(host, 50)).map(connect).collect()
}

/// Row 31, with relays: one admitted device cannot use up all connections.
#[test]
fn one_source_at_its_limit_leaves_others_served() {
    let scene = Scene::open("connection_rate_per_source = \"off\"");
    let gate = &scene.gate;
    let bob = client(&scene.pki, Some(&scene.pki.client("bob-laptop")));
    let held: Vec<_> = (0..CONNECTIONS_PER_SOURCE).map(|_| admitted_from(GREEDY, gate, &bob).unwrap()).collect();
    scene.assert_no_more_for(GREEDY);
    let sources: Vec<IpAddr> = (0..10).flat_map(|host| [HERE, loopback(1, 1 + host)]).collect();
    scene.assert_served(&sources);
    for client in &held {
        client.ping().unwrap();
    }
    assert_eq!(gate.metrics().sum("doorward_connections_active", &[("route", "nas")]), 256.0);
}

/// Row 31, with silence: who has no certificate holds no more than others, and nothing of theirs.
#[test]
fn one_silent_source_at_its_limit_leaves_others_served() {
    let scene = Scene::open("connection_rate_per_source = \"off\"");
    let gate = &scene.gate;
    let held = scene.silent_from(GREEDY);
    scene.assert_no_more_for(GREEDY);
    scene.assert_served(&[HERE, loopback(1, 1), HERE]);
    drop(held);
    gate.wait_rejected("client_hello", Reason::ClientHelloClosedEarly.label(), CONNECTIONS_PER_SOURCE);
}

/// The same from behind the owner's address: those who say nothing give way.
#[test]
fn silent_strangers_give_way_to_the_owner_of_the_address() {
    let scene = Scene::open("connection_rate_per_source = \"off\"");
    let gate = &scene.gate;
    scene.assert_served(&[HERE]);
    gate.wait_closed("nas", 1);
    let held = scene.silent_from(HERE);
    scene.assert_served(&[HERE; 10]);
    gate.wait_closed("nas", 11);
    let gave_way = gate.metrics().sum("doorward_connections_rejected_total", &[("reason", "handshake_limit")]);
    assert!((1.0..=10.0).contains(&gave_way), "{gave_way}");
    drop(held);
}
