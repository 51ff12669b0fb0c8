//! Limits and source addresses, and that every place comes back.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use doorward::model::rejection::Reason;
use rustls::ClientConfig;
use tokio::time::Instant;

use crate::client::{Client, End, client, connect, connect_from, plain_end, refused_plainly};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::wait_until;
use crate::home::{House, Watch};

const NAME: &str = "nas.home.example";
const NEIGHBOUR: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Connects from another address and gets in.
fn neighbour(gate: &Gate, config: &Arc<ClientConfig>) -> Result<Client, End> {
    let client = Client::on(connect_from(NEIGHBOUR, gate.address()), config, NAME);
    client.handshake()?;
    client.ping()?;
    Ok(client)
}

#[track_caller]
fn refused_silently(gate: &Gate, reason: Reason) {
    let watch = Watch::begin(gate);
    let end = plain_end(&connect(gate.address()));
    assert!(matches!(end, End::Truncated | End::Reset), "{end:?}");
    watch.rejected(reason, &end);
}

#[test]
fn connection_limit_covers_all_sources_and_frees_slots() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki)
        .limits("connections = 3\nconnection_rate_per_source = \"off\"")
        .route("nas", backend.address())
        .open();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let mut held: Vec<Client> = (0..2).map(|_| Client::admitted(gate.address(), &config, NAME).unwrap()).collect();
    held.push(neighbour(&gate, &config).unwrap());
    for _ in 0..5 {
        refused_silently(&gate, Reason::ConnectionLimit);
    }
    for round in 1..=10 {
        drop(held.remove(0));
        gate.wait_closed("nas", round);
        gate.wait_metric("doorward_connections_active", &[], 2.0);
        held.push(Client::admitted(gate.address(), &config, NAME).unwrap());
        refused_silently(&gate, Reason::ConnectionLimit);
    }
    for client in &held {
        client.ping().unwrap();
    }
}

#[test]
fn one_source_cannot_take_the_places_of_others() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki)
        .limits("connections_per_source = 2\nconnection_rate_per_source = \"off\"")
        .route("nas", backend.address())
        .open();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let held = [(); 2].map(|()| Client::admitted(gate.address(), &config, NAME).unwrap());
    for _ in 0..20 {
        refused_silently(&gate, Reason::SourceLimit);
    }
    let other = neighbour(&gate, &config).unwrap();
    drop(held);
    gate.wait_closed("nas", 2);
    gate.wait_metric("doorward_connections_active", &[], 1.0);
    Client::admitted(gate.address(), &config, NAME).unwrap();
    other.ping().unwrap();
}

#[test]
fn source_in_a_hurry_waits_and_others_do_not() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki).limits("connection_rate_per_source = \"3/s\"").route("nas", backend.address()).open();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let begun = Instant::now();
    for _ in 0..10 {
        drop(connect(gate.address()));
    }
    let took = begun.elapsed();
    let refused =
        |reason: Reason| gate.metrics().sum("doorward_connections_rejected_total", &[("reason", reason.label())]);
    let in_time = wait_until("all are told", || {
        let in_time = refused(Reason::ClientHelloClosedEarly);
        (in_time + refused(Reason::SourceRate) == 10.0).then_some(in_time)
    });
    // Three at once, and three more for every second that this took.
    assert!((3.0..=4.0 + 3.0 * took.as_secs_f64()).contains(&in_time), "{in_time} in {took:?}");
    neighbour(&gate, &config).unwrap();
    wait_until("the source may connect again", || Client::admitted(gate.address(), &config, NAME).ok());
    // A client with a valid certificate is not delayed.
    for _ in 0..10 {
        Client::admitted(gate.address(), &config, NAME).unwrap();
    }
}

/// Whatever becomes of a handshake, its place is free afterwards.
#[test]
fn handshake_slots_are_freed_however_handshakes_end() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki)
        .limits("handshakes = 2\nconnection_rate_per_source = \"off\"")
        // Enough for a handshake on a busy machine.
        .timeouts("client_hello = \"2s\"\nhandshake = \"2s\"")
        .route("nas", backend.address())
        .route("dead", format!("{}:9", crate::common::process::own_loopback()))
        .passthrough("mail", backend.address())
        .open();
    let good = client(&pki, Some(&pki.client("alice-phone")));
    let bare = client(&pki, None);
    let address = gate.address();
    let in_handshake = || {
        let client = Client::on(connect(address), &good, NAME);
        client.flush().unwrap();
        client.receive_some().unwrap();
        client
    };
    // Relays hold no place.
    let relays: Vec<Client> = (0..6).map(|_| Client::admitted(address, &good, NAME).unwrap()).collect();
    let ways: [(&str, &dyn Fn()); 8] = [
        ("not TLS", &|| drop(refused_plainly(&connect(address), b"GET / HTTP/1.1\r\n\r\n"))),
        ("silence", &|| drop(plain_end(&connect(address)))),
        ("gone", &|| drop(connect(address))),
        ("reset in the handshake", &|| in_handshake().reset()),
        ("gone in the handshake", &|| drop(in_handshake())),
        ("silence in the handshake", &|| {
            let _ = in_handshake().read_to_end();
        }),
        ("no certificate", &|| assert!(Client::admitted(address, &bare, NAME).is_err())),
        ("no backend", &|| assert!(Client::admitted(address, &good, "dead.home.example").is_err())),
    ];
    for (what, way) in ways {
        for _ in 0..4 {
            way();
            // Of two places, at most the one of the last connection may still be held.
            gate.wait_metric("doorward_handshakes_in_progress", &[], 0.0);
        }
        let admitted = Client::admitted(address, &good, NAME);
        assert!(admitted.is_ok(), "after {what}: {admitted:?}");
    }
    gate.wait_metric("doorward_connections_active", &[("route", "nas")], 6.0);
    for relay in &relays {
        relay.ping().unwrap();
    }
}

/// The oldest of too many handshakes gives way, long before its time is over.
#[test]
fn oldest_handshake_gives_its_slot_to_a_new_one() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let gate = House::new(&pki).limits("handshakes = 2").route("nas", backend.address()).open();
    let good = client(&pki, Some(&pki.client("alice-phone")));
    let in_handshake = || {
        let client = Client::on(connect(gate.address()), &good, NAME);
        client.flush().unwrap();
        client.receive_some().unwrap();
        client
    };
    let relays: Vec<Client> = (0..6).map(|_| Client::admitted(gate.address(), &good, NAME).unwrap()).collect();
    let (first, second) = (in_handshake(), in_handshake());
    let watch = Watch::begin(&gate);
    let third = in_handshake();
    let (_, end) = first.read_to_end();
    watch.rejected(Reason::HandshakeLimit, &end);
    for client in [&second, &third].into_iter().chain(&relays) {
        client.ping().unwrap();
    }
}

#[test]
fn sources_are_let_in_and_shut_out_by_address() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    for (keys, here, there) in [
        ("deny_sources = [\"127.0.0.2\"]", true, false),
        ("allow_sources = [\"127.0.0.2\"]", false, true),
        ("allow_sources = [\"127.0.0.0/8\"]\ndeny_sources = [\"127.0.0.0/31\"]", false, true),
        ("allow_sources = [\"10.0.0.0/8\"]", false, false),
        ("deny_sources = [\"::/0\"]", true, true),
    ] {
        let gate = House::new(&pki).listener(keys).route("nas", backend.address()).open();
        assert_eq!(Client::admitted(gate.address(), &config, NAME).is_ok(), here, "{keys}");
        assert_eq!(neighbour(&gate, &config).is_ok(), there, "{keys}");
        let refused = usize::from(!here) + usize::from(!there);
        if refused > 0 {
            gate.wait_rejected("admission", Reason::SourceDenied.label(), refused);
        }
    }
}

/// A certificate does not help against a full house, but a full house ends: who has waited gets in.
#[test]
fn five_hundred_half_open_handshakes_and_a_good_client() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki)
        .limits("connections_per_source = 600\nconnection_rate_per_source = \"off\"\nhandshakes = 600")
        .route("nas", backend.address())
        .open();
    let config = client(&pki, Some(&pki.client("alice-phone")));
    let held: Vec<_> = (0..500).map(|_| connect(gate.address())).collect();
    gate.wait_metric("doorward_handshakes_in_progress", &[], 500.0);
    let begun = Instant::now();
    let good = neighbour(&gate, &config).unwrap();
    // The others have ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(held);
    gate.wait_metric("doorward_handshakes_in_progress", &[], 0.0);
    good.ping().unwrap();
}
