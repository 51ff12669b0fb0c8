//! The NAS is woken, or cannot be; and what the owner is shown meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;

use doorward::model::rejection::Alert;
use tokio::time::Instant;

use crate::client::{Client, End, client};
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::home::House;
use crate::network::{MAC, NAS, Network};
use crate::{NAME, config, machine, visit, wait_wakes};

/// A packet is sent every five seconds at most.
fn most(begun: Instant) -> usize {
    usize::try_from(begun.elapsed().as_secs() / 5).unwrap() + 1
}

#[test]
fn packet_on_the_wire_wakes_the_nas_and_the_device_is_answered() {
    let (network, pki) = (Network::new(), TestPki::new());
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let gate = Gate::start(&config(&pki, ""));
    assert_eq!(machine(&gate), "unused");
    let begun = Instant::now();
    let visit = visit(&gate, &alice);
    let frame = network.wait_packets(1);
    // To all machines on the wire: the frame, and in it the address (RFC 791 section 3.1) and the port of the datagram.
    assert_eq!(frame[..6], [0xff; 6], "{frame:x?}");
    assert_eq!((&frame[26..30], &frame[30..34]), (&[10, 77, 0, 1][..], &[255; 4][..]), "{frame:x?}");
    assert_eq!(frame[36..38], 9_u16.to_be_bytes(), "{frame:x?}");
    assert_eq!(machine(&gate), "waking");
    let (_, page) = gate.get("/");
    assert!(page.contains("waking"), "{page}");
    let nas = network.boots();
    let guest = visit.join().unwrap().unwrap();
    guest.ping().unwrap();
    assert_eq!(machine(&gate), "up");
    let line = gate.wait_for_line("the NAS is awake", |line| line["event"] == "wake_ended");
    assert_eq!((&line["outcome"], &line["route"]), (&"woken".into(), &"nas".into()), "{line}");
    assert!(line["seconds"].as_f64().unwrap() <= begun.elapsed().as_secs_f64(), "{line}");
    let line = gate.wait_for_line("the NAS is woken", |line| line["event"] == "waking");
    assert_eq!((&line["mac"], &line["broadcast"]), (&MAC.into(), &"255.255.255.255:9".into()), "{line}");
    wait_wakes(&gate, "woken", 1.0);
    assert!(network.packets() <= most(begun), "{} packets", network.packets());
    let before = network.packets();
    // It is awake now.
    for _ in 0..5 {
        Client::admitted(gate.address(), &alice, NAME).unwrap();
    }
    assert_eq!(network.packets(), before);
    assert_eq!(gate.metrics().sum("doorward_wakes_total", &[]), 1.0);
    drop(guest);
    gate.settled();
    drop(nas);
}

#[test]
fn many_connections_wake_the_nas_once() {
    let (network, pki) = (Network::new(), TestPki::new());
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let ssh = SocketAddr::new(NAS.ip(), 22);
    let keys = format!("allow = [\"any\"]\nwake = {{ mac = \"{MAC}\", broadcast = \"10.77.0.255:9\" }}");
    let house = House::new(&pki).route_with("nas", &[&NAS.to_string()], &keys);
    let keys = format!("application_protocols = [\"ssh\"]\n{keys}");
    let gate = house.route_with("ssh", &[&ssh.to_string()], &keys).open();
    let begun = Instant::now();
    let visits: Vec<_> = (0..40).map(|_| visit(&gate, &alice)).collect();
    // Another service of the same machine.
    let (address, device) = (gate.address(), Arc::clone(&alice));
    let other = std::thread::spawn(move || Client::admitted(address, &device, "ssh.home.example").map(drop));
    let frame = network.wait_packets(1);
    assert_eq!(frame[30..34], [10, 77, 0, 255], "{frame:x?}");
    let nas = network.boots();
    let answered: Vec<Client> = visits.into_iter().map(|visit| visit.join().unwrap().unwrap()).collect();
    // Its other service starts later.
    let late = network.serves(ssh);
    other.join().unwrap().unwrap();
    assert!(network.packets() <= most(begun), "{} packets", network.packets());
    assert_eq!(answered.len(), 40);
    drop(answered);
    let metrics = gate.settled();
    // On a busy machine, one that is awake may take longer to answer than the gate waits for.
    for (route, most) in [("nas", 4.0), ("ssh", 1.0)] {
        let woken = metrics.sum("doorward_wakes_total", &[("route", route), ("outcome", "woken")]);
        assert!(woken <= most, "{route}: {woken}");
        assert_eq!(metrics.sum("doorward_wakes_total", &[("route", route)]), woken, "{route}");
    }
    assert!(metrics.sum("doorward_wakes_total", &[("route", "nas")]) >= 1.0);
    drop((nas, late));
}

#[test]
fn packet_of_ipv6_wakes_the_nas_too() {
    let (network, pki) = (Network::new(), TestPki::new());
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let gate = Gate::start(&config(&pki, ", broadcast = \"[ff02::1%home]:9\""));
    let visit = visit(&gate, &alice);
    let frame = network.wait_packets(1);
    // To all nodes on the link (RFC 4291 section 2.7.1, RFC 2464 section 7).
    assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1], "{frame:x?}");
    let nas = network.boots();
    drop(visit.join().unwrap().unwrap());
    gate.settled();
    drop(nas);
}

#[test]
fn nas_that_stays_dark_is_told_and_is_trouble() {
    let (network, pki) = (Network::new(), TestPki::new());
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let gate = Gate::start(&config(&pki, ", timeout = \"2s\""));
    let backend = NAS.to_string();
    let end = visit(&gate, &alice).join().unwrap().unwrap_err();
    assert_eq!(end, End::Alert(Alert::INTERNAL_ERROR));
    let line = gate.wait_rejected("backend", "wake_timeout", 1).remove(0);
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.contains("no answer within wake.timeout, 2 s"), "{line}");
    wait_wakes(&gate, "timeout", 1.0);
    gate.wait_metric("doorward_backend_up", &[("backend", &backend)], 0.0);
    assert_eq!(machine(&gate), "down");
    let said = gate.ask(&["status"]).success().text();
    assert!(said.starts_with("nas: down since"), "{said}");
    assert!(said.contains(&format!("The machine of {backend} sleeps, and did not wake up.")), "{said}");
    let why = gate.ask(&["why"]).success().text();
    assert!(why.contains("did not wake up"), "{why}");

    // The next device does not wait for the dial first.
    let visit = visit(&gate, &alice);
    let seen = network.packets();
    network.wait_packets(seen.max(1));
    let nas = network.boots();
    match visit.join().unwrap() {
        Ok(guest) => drop(guest),
        // Two seconds are few on a busy machine.
        Err(_) => drop(Client::admitted(gate.address(), &alice, NAME).unwrap()),
    }
    gate.wait_metric("doorward_backend_up", &[("backend", &backend)], 1.0);
    assert_eq!(machine(&gate), "up");
    gate.settled();
    drop(nas);
}

#[test]
fn nas_that_is_awake_gets_no_packet_when_its_service_is_down() {
    let (network, pki) = (Network::new(), TestPki::new());
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let gate = Gate::start(&config(&pki, ""));
    drop(network.boots());
    let end = visit(&gate, &alice).join().unwrap().unwrap_err();
    assert_eq!(end, End::Alert(Alert::INTERNAL_ERROR));
    gate.wait_rejected("backend", "refused", 1);
    gate.settled();
    assert_eq!((network.packets(), gate.metrics().sum("doorward_wakes_total", &[])), (0, 0.0));
    assert_eq!(machine(&gate), "down");
}
