//! Backends that do not answer: a name whose first address swallows packets cost every connection the whole dial time, and so did
//! a dead backend before a good one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use crate::client::{Client, client};
use crate::common::backend::{Backend, FullBacklog, kept_address};
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::{after_script, mounting};
use crate::home::House;
use crate::scene::NAS;

/// A gate whose machine has these names.
fn gate_with_hosts(pki: &TestPki, config: &str, hosts: &str) -> Gate {
    let hosts = pki.write("hosts", hosts);
    let script = format!("mount --bind '{}' /etc/hosts", hosts.display());
    Gate::start_with(config, |command| *command = after_script(mounting(), &script, command))
}

#[test]
fn second_address_of_a_name_is_tried_beside_a_silent_first() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let port = backend.address().port();
    let silent = FullBacklog::at(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), port));
    let house = House::new(&pki).timeouts("dial = \"20s\"").route("nas", format!("nas.lan:{port}"));
    let gate = gate_with_hosts(&pki, &house.config(), "127.0.0.2 nas.lan\n127.0.0.1 nas.lan\n");
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let begun = Instant::now();
    for _ in 0..5 {
        Client::admitted(gate.address(), &alice, NAS).unwrap().ping().unwrap();
    }
    // One after the other, they would have taken five times 20 s, or half of that.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    gate.settled();
    assert_eq!(backend.accepted(), 5);
    drop(silent);
}

#[test]
fn every_address_that_was_tried_is_told() {
    let pki = TestPki::new();
    let port = kept_address(([127, 0, 0, 1], 0)).port();
    let silent = FullBacklog::at(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), port));
    let house = House::new(&pki).timeouts("dial = \"1s\"").route("nas", format!("nas.lan:{port}"));
    let gate = gate_with_hosts(&pki, &house.config(), "127.0.0.2 nas.lan\n127.0.0.1 nas.lan\n");
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    Client::admitted(gate.address(), &alice, NAS).map(|_| ()).unwrap_err();
    let line = gate.wait_rejected("backend", "timeout", 1).remove(0);
    let detail = line["detail"].as_str().unwrap();
    for words in
        [format!("nas.lan:{port} ("), "127.0.0.2: no answer".to_owned(), "127.0.0.1: Connection refused".to_owned()]
    {
        assert!(detail.contains(&words), "{words:?} is not in {detail}");
    }
    drop(silent);
}

#[test]
fn dead_first_backend_costs_one_connection_until_it_is_back() {
    let pki = TestPki::new();
    let (dead, good) = (FullBacklog::new(), Backend::echo());
    let first = dead.address;
    let backends = [first.to_string(), good.address().to_string()];
    let gate = House::new(&pki)
        .timeouts("dial = \"20s\"")
        .route_with("nas", &[&backends[0], &backends[1]], "allow = [\"any\"]")
        .open();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let visit = || Client::admitted(gate.address(), &alice, NAS).unwrap().ping().unwrap();
    // It finds out.
    visit();
    let up = |backend: &str, up: f64| gate.wait_metric("doorward_backend_up", &[("backend", backend)], up);
    up(&backends[0], 0.0);
    let begun = Instant::now();
    (0..5).for_each(|_| visit());
    // At half of the dial time each they would have taken 50 s, and one of them 10 s.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(good.accepted(), 6);

    // No client finds out that it is back.
    drop(dead);
    let back = Backend::echo_at(first);
    up(&backends[0], 1.0);
    assert_eq!(good.accepted(), 6);
    visit();
    assert_eq!(good.accepted(), 6, "the first one is the first again");
    gate.settled();
    drop(back);
}

#[test]
fn strategies_spread_connections_as_they_say() {
    let pki = TestPki::new();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let services: Vec<Backend> = (0..3).map(|_| Backend::echo()).collect();
    let addresses: Vec<String> = services.iter().map(|service| service.address().to_string()).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let accepted = || services.iter().map(Backend::accepted).collect::<Vec<_>>();
    let route = |strategy: &str| {
        let keys = format!("allow = [\"any\"]\nstrategy = \"{strategy}\"");
        House::new(&pki).route_with("nas", &addresses, &keys).config()
    };
    let gate = Gate::start(&route("round_robin"));
    for _ in 0..12 {
        Client::admitted(gate.address(), &alice, NAS).unwrap().ping().unwrap();
    }
    assert_eq!(accepted(), [4, 4, 4]);

    let reloaded = gate.reload(&route("least_connections"));
    assert_eq!(reloaded["event"], "reloaded", "{reloaded}");
    let open: Vec<Client> = (0..6).map(|_| Client::admitted(gate.address(), &alice, NAS).unwrap()).collect();
    assert_eq!(accepted(), [6, 6, 6]);
    drop(open);
    gate.settled();
    let again: Vec<Client> = (0..3).map(|_| Client::admitted(gate.address(), &alice, NAS).unwrap()).collect();
    assert_eq!(accepted(), [7, 7, 7]);
    drop(again);
    gate.settled();
}
