//! `connections_per_backend`.

use doorward::model::rejection::{Alert, Reason};

use crate::client::{Client, End, client};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::home::{House, Watch};
use crate::{ANY, NAS};

#[track_caller]
fn refused_as_full(gate: &Gate, attempt: impl FnOnce() -> Result<Client, End>) {
    let watch = Watch::begin(gate);
    let end = attempt().map(|_| ()).unwrap_err();
    assert_eq!(end, End::Alert(Alert::INTERNAL_ERROR));
    let line = watch.rejected(Reason::BackendFull, &end);
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.ends_with("has 3 connections, which is what connections_per_backend allows"), "{detail}");
}

#[test]
fn full_backend_is_passed_over_and_all_full_is_refused() {
    let pki = TestPki::new();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    for strategy in ["first", "round_robin", "least_connections"] {
        let (one, two) = (Backend::echo(), Backend::echo());
        let list = [one.address().to_string(), two.address().to_string()];
        let keys = format!("{ANY}\nstrategy = \"{strategy}\"\nconnections_per_backend = 3");
        let gate = House::new(&pki).route_with("nas", &[&list[0], &list[1]], &keys).open();
        let visit = || Client::admitted(gate.address(), &alice, NAS);
        let mut held: Vec<Client> = (0..6).map(|_| visit().unwrap()).collect();
        assert_eq!((one.accepted(), two.accepted()), (3, 3), "{strategy}");
        refused_as_full(&gate, visit);
        assert_eq!((one.accepted(), two.accepted()), (3, 3), "{strategy}: it was dialled");
        // A place is given back with the end of its connection, and given to one more.
        for _ in 0..3 {
            drop(held.remove(0));
            gate.wait_metric("doorward_connections_active", &[("route", "nas")], 5.0);
            held.push(visit().unwrap());
            refused_as_full(&gate, visit);
        }
        held.iter().for_each(|client| client.ping().unwrap());
    }
}

#[test]
fn many_clients_at_once_never_exceed_the_limit() {
    let pki = TestPki::new();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let backend = Backend::echo();
    let keys = format!("{ANY}\nconnections_per_backend = 3");
    let gate = House::new(&pki).route_with("nas", &[&backend.address().to_string()], &keys).open();
    let held: Vec<Client> = std::thread::scope(|scope| {
        let attempts: Vec<_> = (0..24).map(|_| scope.spawn(|| Client::admitted(gate.address(), &alice, NAS))).collect();
        attempts.into_iter().filter_map(|attempt| attempt.join().unwrap().ok()).collect()
    });
    assert_eq!((held.len(), backend.accepted()), (3, 3));
    gate.wait_rejected("backend", "full", 21);
}

#[test]
fn reload_keeps_the_count_and_the_new_limit_applies() {
    let pki = TestPki::new();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let backend = Backend::echo();
    let house =
        |limit: &str| House::new(&pki).route_with("nas", &[&backend.address().to_string()], &format!("{ANY}\n{limit}"));
    let gate = house("connections_per_backend = 3").open();
    let visit = || Client::admitted(gate.address(), &alice, NAS);
    let mut held: Vec<Client> = (0..3).map(|_| visit().unwrap()).collect();
    assert_eq!(gate.reload(&house("connections_per_backend = 4").config())["event"], "reloaded");
    held.push(visit().unwrap());
    gate.reload(&house("connections_per_backend = 3").config());
    refused_as_full(&gate, visit);
    gate.reload(&house("").config());
    held.push(visit().unwrap());
    held.iter().for_each(|client| client.ping().unwrap());
}
