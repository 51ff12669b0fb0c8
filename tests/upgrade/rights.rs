//! What takes rights away reaches the sessions of processes that upgrades have left.

use std::sync::Arc;

use doorward::control::RouteInForce;
use doorward::control::client::{in_force, take_list};
use rcgen::{CertificateRevocationListParams, SerialNumber};
use rustix::process::{Pid, Signal, kill_process};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use crate::client::{Client, client};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::home::House;
use crate::scene::{NAS, ask, config, upgrade, wait_for_earlier};

fn device(pki: &TestPki, name: &str, serial: u64) -> Arc<ClientConfig> {
    let mut params = Certified::for_clients(name);
    params.serial_number = Some(SerialNumber::from(serial));
    client(pki, Some(&pki.clients.issue(params)))
}

fn list(pki: &TestPki, revoked: &[u64], number: u64) -> String {
    let revoked: Vec<SerialNumber> = revoked.iter().copied().map(SerialNumber::from).collect();
    let list = Authority::for_lists(&revoked, days_from_now(-1), days_from_now(5));
    pki.clients.sign_list(CertificateRevocationListParams { crl_number: SerialNumber::from(number), ..list })
}

fn der(pki: &TestPki, list: &str) -> (Vec<u8>, Vec<u8>) {
    let authority = CertificateDer::from_pem_slice(pki.clients.pem().as_bytes()).unwrap().to_vec();
    (authority, CertificateRevocationListDer::from_pem_slice(list.as_bytes()).unwrap().to_vec())
}

/// Waits until a session has been cut for this reason.
#[track_caller]
fn assert_cut(gate: &Gate, session: &Client, reason: &str, count: usize) {
    let _ = session.read_to_end();
    let what = format!("{count} sessions cut: {reason}");
    gate.wait_for_lines(&what, count, |line| line["event"] == "closed" && line["reason"] == reason);
}

#[test]
fn cut_reaches_sessions_of_every_process() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = Gate::start(&config(&House::new(&pki).route("nas", backend.address())));
    let [alice, bob] = [("alice-phone", 1), ("bob-laptop", 2)].map(|(name, serial)| device(&pki, name, serial));
    let enter = |device| Client::admitted(gate.address(), device, NAS).unwrap();
    let mut alices = vec![enter(&alice)];
    let bobs = [enter(&bob)];
    for _ in 0..2 {
        upgrade(&gate);
        alices.push(enter(&alice));
    }
    let status = ask(&gate, &["status"]);
    assert_eq!(status["sessions"], 4, "{status}");
    let earlier = status["earlier"].as_array().unwrap();
    assert_eq!(earlier[0]["pid"], gate.pid());
    let sessions: Vec<_> = earlier.iter().map(|process| process["sessions"].as_u64().unwrap()).collect();
    assert_eq!(sessions, [2, 1], "{status}");
    assert_eq!(status["routes"][0]["sessions"], 4);
    let shown = gate.ask(&["status"]).success().text();
    assert!(shown.contains("earlier") && shown.contains("2 open connections"), "{shown}");

    let listed = ask(&gate, &["sessions"]);
    let of = |process: &serde_json::Value| {
        listed["sessions"].as_array().unwrap().iter().filter(|session| session["process"] == *process).count()
    };
    assert_eq!((of(&earlier[0]["pid"]), of(&earlier[1]["pid"]), of(&serde_json::Value::Null)), (2, 1, 1), "{listed}");
    let mut ids: Vec<u64> =
        listed["sessions"].as_array().unwrap().iter().map(|session| session["id"].as_u64().unwrap()).collect();
    ids.dedup();
    assert_eq!(ids.len(), 4, "an id stands for one session");

    let cut = ask(&gate, &["cut", "alice-phone"]);
    assert_eq!(cut["open"], 3, "{cut}");
    for session in &alices {
        assert_cut(&gate, session, "cut_by_hand", 3);
    }
    bobs[0].ping().unwrap();
    // One session, by its id, in the first process.
    let id = ask(&gate, &["sessions"])["sessions"][0]["id"].to_string();
    assert_eq!(ask(&gate, &["cut", &id])["open"], 1);
    assert_cut(&gate, &bobs[0], "cut_by_hand", 4);
    wait_for_earlier(&gate, 0);
    gate.end_after_upgrades();
}

#[test]
fn revocation_is_in_force_in_every_process() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let file = pki.write("clients.crl", list(&pki, &[], 1));
    let house = House::new(&pki).client_auth(&format!("revocation_lists = [{file:?}]")).route("nas", backend.address());
    let gate = Gate::start(&config(&house));
    let [alice, bob] = [("alice-phone", 1), ("bob-laptop", 2)].map(|(name, serial)| device(&pki, name, serial));
    let enter = |device| Client::admitted(gate.address(), device, NAS).unwrap();
    let mut alices = vec![enter(&alice)];
    let bobs = enter(&bob);
    upgrade(&gate);
    alices.push(enter(&alice));
    let (authority, revoked) = der(&pki, &list(&pki, &[1], 2));
    let socket = gate.folder().join("control.sock");
    let taken = take_list(&socket, &authority, &revoked).unwrap();
    assert_eq!(taken.sessions_cut, 2);
    for session in &alices {
        assert_cut(&gate, session, "revoked", 2);
    }
    bobs.ping().unwrap();
    // Both say so.
    let routes = in_force(&socket, &authority).unwrap().routes;
    assert_eq!(routes.len(), 2, "{routes:?}");
    let newest = |route: &RouteInForce| route.revocation_lists.iter().any(|list| list.number.as_deref() == Some("2"));
    assert!(routes.iter().all(newest), "{routes:?}");

    // The list came over the socket: the next process must have it, and its files do not.
    upgrade(&gate);
    let refused = Client::handshaken(gate.address(), &alice, NAS).and_then(|client| client.ping());
    assert!(refused.is_err(), "a revoked device was admitted after an upgrade");
    gate.wait_rejected("certificate", "revoked", 1);
    bobs.ping().unwrap();
    drop(bobs);
    wait_for_earlier(&gate, 0);
    gate.end_after_upgrades();
}

#[test]
fn reload_reviews_sessions_of_every_process() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let before = config(&House::new(&pki).route("nas", backend.address()));
    let gate = Gate::start(&before);
    let [alice, bob] = [("alice-phone", 1), ("bob-laptop", 2)].map(|(name, serial)| device(&pki, name, serial));
    let enter = |device| Client::admitted(gate.address(), device, NAS).unwrap();
    let alices = enter(&alice);
    let bobs = enter(&bob);
    upgrade(&gate);
    let denying = config(&House::new(&pki).client_auth("deny = [\"serial:01\"]").route("nas", backend.address()));
    std::fs::write(gate.folder().join("doorward.toml"), denying).unwrap();
    let reloaded = ask(&gate, &["reload"]);
    assert_eq!((&reloaded["sessions_cut"], &reloaded["sessions_kept"]), (&1.into(), &1.into()), "{reloaded}");
    assert_cut(&gate, &alices, "denied", 1);
    bobs.ping().unwrap();
    let lines = gate.lines();
    assert_eq!(lines.iter().filter(|line| line["event"] == "reloaded").count(), 1, "each process reports it");
    drop(bobs);
    wait_for_earlier(&gate, 0);
    gate.end_after_upgrades();
}

#[test]
fn revocation_fails_while_an_earlier_process_does_not_answer() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = Gate::start(&config(&House::new(&pki).route("nas", backend.address())));
    let alice = Client::admitted(gate.address(), &device(&pki, "alice-phone", 1), NAS).unwrap();
    let first = Pid::from_raw(gate.pid().try_into().unwrap()).unwrap();
    upgrade(&gate);
    kill_process(first, Signal::STOP).unwrap();
    let (authority, _) = der(&pki, &list(&pki, &[1], 2));
    let unknown = in_force(&gate.folder().join("control.sock"), &authority).unwrap_err().to_string();
    assert!(unknown.contains(&format!("kill -KILL {}", gate.pid())), "{unknown}");
    let refused = gate.ask(&["cut", "--all"]).failure();
    assert!(refused.stderr.contains("its connections were not cut"), "{refused}");
    kill_process(first, Signal::CONT).unwrap();
    // The requests that it was sent meanwhile are served: the sender has gone, and the cut is done.
    assert_cut(&gate, &alice, "cut_by_hand", 1);
    wait_for_earlier(&gate, 0);
    gate.end_after_upgrades();
}
