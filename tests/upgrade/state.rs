//! What is handed over.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};

use rustix::process::Signal;

use crate::client::{Client, client, connect_from};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::wait_until;
use crate::home::House;
use crate::scene::{NAS, ask, config, upgrade, wait_for_earlier};

fn descriptors(pid: u64) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn no_descriptor_is_left_over_after_upgrades() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = Gate::start(&config(&House::new(&pki).route("nas", backend.address())));
    let first = descriptors(gate.pid().into());
    // A successor has one descriptor more than the first process at most: the pipe
    // of its standard input. Anything that each upgrade leaves over goes beyond that.
    for _ in 0..4 {
        let pid = upgrade(&gate)["pid"].as_u64().unwrap();
        wait_for_earlier(&gate, 0);
        // A request to the control socket may still be about to be closed.
        wait_until("as many descriptors as before", || (descriptors(pid) <= first + 1).then_some(()));
    }
    gate.end_after_upgrades();
}

#[test]
fn counters_and_open_connections_of_all_processes_are_on_metrics() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let device = client(&pki, Some(&pki.client("alice-phone")));
    let gate = Gate::start(&config(&House::new(&pki).route("nas", backend.address())));
    let mut sessions = Vec::new();
    for round in 1..=3 {
        sessions.push(Client::admitted(gate.address(), &device, NAS).unwrap());
        // A scrape never shows less than the one before.
        upgrade(&gate);
        let metrics = gate.metrics();
        for name in ["doorward_connections_accepted_total", "doorward_connections_active"] {
            assert_eq!(metrics.sum(name, &[]), f64::from(round), "{name}");
        }
    }
    let (_, page) = gate.get("/");
    assert!(page.contains("3 more connections with a process that an upgrade has left"), "{page}");
    drop(sessions.remove(0));
    gate.wait_metric("doorward_connections_closed_total", &[], 1.0);
    gate.wait_metric("doorward_connections_active", &[], 2.0);
    drop(sessions);
    wait_for_earlier(&gate, 0);
    let metrics = gate.settled();
    assert_eq!(metrics.sum("doorward_connections_closed_total", &[]), 3.0);
    gate.end_after_upgrades();
}

#[test]
fn banned_source_is_banned_after_an_upgrade() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let device = client(&pki, Some(&pki.client("alice-phone")));
    let house = House::new(&pki).limits("penalties = \"on\"").route("nas", backend.address());
    let gate = Gate::start(&config(&house));
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));
    let visit = || {
        let mut stream = connect_from(source, gate.address());
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    };
    let banned = |count| {
        let lines = gate.lines();
        lines.iter().filter(|line| line["reason"] == "source_banned").count() >= count
    };
    for _ in 0..100 {
        visit();
        if banned(1) {
            break;
        }
    }
    assert!(banned(1), "the source is not banned");
    upgrade(&gate);
    let before = gate.lines().iter().filter(|line| line["reason"] == "source_banned").count();
    visit();
    wait_until("it is banned there", || banned(before + 1).then_some(()));
    // Others are not.
    Client::admitted(gate.address(), &device, NAS).unwrap();
    gate.end_after_upgrades();
}

#[test]
fn fifth_process_is_refused_until_an_earlier_one_has_ended() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let device = client(&pki, Some(&pki.client("alice-phone")));
    let gate = Gate::start(&config(&House::new(&pki).route("nas", backend.address())));
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(Client::admitted(gate.address(), &device, NAS).unwrap());
        upgrade(&gate);
    }
    let refused = gate.ask(&["upgrade"]).failure();
    assert_eq!(refused.status.code(), Some(4));
    assert!(refused.stderr.contains("4 processes of earlier upgrades"), "{refused}");
    sessions.iter().for_each(|session| session.ping().unwrap());
    drop(sessions.remove(1));
    wait_for_earlier(&gate, 3);
    upgrade(&gate);
    drop(sessions);
    wait_for_earlier(&gate, 0);
    gate.end_after_upgrades();
}

#[test]
fn new_process_follows_the_new_configuration() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let device = client(&pki, Some(&pki.client("alice-phone")));
    // In a folder of its own, so that the sandbox lets it be removed.
    let former = pki.path("run/control.sock");
    std::fs::create_dir(former.parent().unwrap()).unwrap();
    let before = config(&House::new(&pki).route("nas", backend.address()));
    let before = before.replacen("\"control.sock\"", &format!("{former:?}"), 1);
    let gate = Gate::start(&before);
    let session = Client::admitted(gate.address(), &device, NAS).unwrap();
    // Another listener beside the one that is handed over, and settings that a reload does not change.
    let more = "[[listener]]\nname = \"second\"\naddress = \"127.0.0.1:0\"\n";
    let after = format!("kernel_tls = \"off\"\n{before}").replacen("[metrics]", &format!("{more}\n[metrics]"), 1);
    std::fs::write(gate.folder().join("doorward.toml"), after).unwrap();
    upgrade(&gate);
    let status = ask(&gate, &["status"]);
    let listeners = status["listeners"].as_array().unwrap();
    assert_eq!(listeners[0]["address"], gate.address().to_string());
    let second = listeners[1]["address"].as_str().unwrap().parse().unwrap();
    for address in [gate.address(), second] {
        Client::admitted(address, &device, NAS).unwrap();
    }
    // A listener that the configuration no longer has refuses connections once it is handed over. The same for the control
    // socket, whose file is gone.
    let moved = before.replacen("public", "other", 1).replacen("control.sock", "moved.sock", 1);
    let upgraded = gate.upgraded().len();
    std::fs::write(gate.folder().join("doorward.toml"), moved).unwrap();
    gate.signal_serving(Signal::USR2);
    wait_until("it is replaced", || (gate.upgraded().len() > upgraded).then_some(()));
    wait_until("the former socket is removed", || (!former.exists()).then_some(()));
    wait_until("the other one answers", || gate.ask(&["status"]).status.success().then_some(()));
    for gone in [gate.address(), second] {
        wait_until("it is closed", || std::net::TcpStream::connect(gone).is_err().then_some(()));
    }
    session.ping().unwrap();
    drop(session);
    wait_for_earlier(&gate, 0);
    gate.end_after_upgrades();
}
