//! What a reload, an upgrade and the end of the gate do to checks.

use rustix::process::Signal;

use crate::client::{Client, client};
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::wait_until;
use crate::home::House;
use crate::service::{Service, keys};
use crate::{ANY, HEALTHY, NAS};

fn count(gate: &Gate, event: &str) -> usize {
    gate.lines().iter().filter(|line| line["event"] == *event).count()
}

/// A route that is checked like the one that a test changes: when it has been checked again and again, the other one would have
/// been, too.
fn house<'a>(pki: &'a TestPki, service: &Service, clock: &Service, keys_of_nas: &str) -> House<'a> {
    House::new(pki).route_with("nas", &[&service.address()], keys_of_nas).route_with(
        "clock",
        &[&clock.address()],
        &keys(1, 1),
    )
}

#[test]
fn reload_that_removes_the_checks_ends_them() {
    let pki = TestPki::new();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let (service, clock) = (Service::new(false), Service::new(true));
    let gate = house(&pki, &service, &clock, &keys(1, 1)).open();
    gate.wait_metric(HEALTHY, &[("route", "nas")], 0.0);
    assert_eq!(gate.reload(&house(&pki, &service, &clock, ANY).config())["event"], "reloaded");
    // One may have been under way.
    clock.wait_checks(2);
    let before = service.checks();
    clock.wait_checks(5);
    assert_eq!(service.checks(), before);
    assert_eq!(gate.metrics().label_values(HEALTHY, "route"), ["clock"]);
    Client::admitted(gate.address(), &alice, NAS).unwrap().ping().unwrap();
}

#[test]
fn reload_with_the_same_checks_keeps_what_is_known() {
    let pki = TestPki::new();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let (service, clock) = (Service::new(false), Service::new(true));
    let gate = house(&pki, &service, &clock, &keys(1, 2)).open();
    gate.wait_metric(HEALTHY, &[("route", "nas")], 0.0);
    // Something else changes.
    let changed = house(&pki, &service, &clock, &keys(1, 2)).timeouts("idle = \"1h\"").config();
    assert_eq!(gate.reload(&changed)["event"], "reloaded");
    assert_eq!(gate.metrics().sum(HEALTHY, &[("route", "nas")]), 0.0);
    Client::admitted(gate.address(), &alice, NAS).map(|_| ()).unwrap_err();
    gate.wait_rejected("backend", "unhealthy", 1);
    service.wait_checks(4);
    assert_eq!((service.clients(), count(&gate, "backend_unhealthy")), (0, 1));
}

#[test]
fn reload_that_changes_or_adds_checks_begins_anew() {
    let pki = TestPki::new();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let (service, clock) = (Service::new(false), Service::new(true));
    let gate = house(&pki, &service, &clock, ANY).open();
    assert_eq!(gate.reload(&house(&pki, &service, &clock, &keys(1, 1)).config())["event"], "reloaded");
    gate.wait_metric(HEALTHY, &[("route", "nas")], 0.0);
    // Nothing is expected of it any longer: it is dialled until a check says otherwise, and none does.
    let lenient = format!("{ANY}\nhealth = {{ every = \"100ms\", timeout = \"30s\", fall = 1 }}");
    assert_eq!(gate.reload(&house(&pki, &service, &clock, &lenient).config())["event"], "reloaded");
    assert_eq!(gate.metrics().sum(HEALTHY, &[("route", "nas")]), 1.0);
    Client::admitted(gate.address(), &alice, NAS).unwrap().ping().unwrap();
    clock.wait_checks(5);
    assert_eq!(count(&gate, "backend_unhealthy"), 1);
}

#[test]
fn checks_end_when_the_gate_drains() {
    let pki = TestPki::new();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let service = Service::new(true);
    let mut gate =
        House::new(&pki).timeouts("drain = \"1s\"").route_with("nas", &[&service.address()], &keys(1, 1)).open();
    let session = Client::admitted(gate.address(), &alice, NAS).unwrap();
    service.wait_checks(2);
    gate.signal(Signal::TERM);
    let line = gate.wait_for_line("it drains", |line| line["event"] == "draining");
    let status = gate.wait_for_end();
    drop(session);
    // The session was cut after a second, in which there would have been ten checks. One may have been under way.
    let after = service.checks() - service.checks_at(line["time"].as_str().unwrap());
    assert!(after <= 1, "{after} checks after the drain began: {status}");
}

#[test]
fn only_the_newest_process_of_a_gate_checks() {
    let pki = TestPki::new();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let service = Service::new(true);
    let config =
        House::new(&pki).timeouts("drain = \"5m\"").route_with("nas", &[&service.address()], &keys(1, 1)).config();
    let mut gate = Gate::start(&format!("watch = \"off\"\n{config}\n[control]\nsocket = \"control.sock\"\n"));
    let session = Client::admitted(gate.address(), &alice, NAS).unwrap();
    gate.ask(&["upgrade"]).success();
    session.ping().unwrap();
    // Both processes write to one log.
    service.pass(false);
    gate.wait_metric(HEALTHY, &[], 0.0);
    service.wait_checks(4);
    service.pass(true);
    gate.wait_metric(HEALTHY, &[], 1.0);
    service.wait_checks(4);
    assert_eq!((count(&gate, "backend_unhealthy"), count(&gate, "backend_healthy")), (1, 1));
    session.ping().unwrap();
    drop(session);
    let first = gate.pid();
    assert!(gate.wait_for_end_of(first).is_none_or(|status| status.success()));
    wait_until("the new process serves alone", || (gate.metrics().sum(HEALTHY, &[]) == 1.0).then_some(()));
    gate.end_after_upgrades();
}
