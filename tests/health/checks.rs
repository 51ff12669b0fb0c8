//! When a backend goes down and comes back, and which connections it gets.

use std::time::Duration;

use doorward::model::rejection::{Alert, Reason};
use tokio::time::Instant;

use crate::client::{Client, End, client};
use crate::common::backend::{Backend, FullBacklog};
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::home::{House, Watch, assert_admitted};
use crate::service::{Service, keys};
use crate::{ANY, HEALTHY, NAS};

fn transition(gate: &Gate, event: &str) -> String {
    let line = gate.wait_for_line(event, |line| line["event"] == *event);
    line["time"].as_str().unwrap().to_owned()
}

#[test]
fn rise_and_fall_are_counted_exactly() {
    let pki = TestPki::new();
    // Two failures and two in a row are too few; the third in a row is the seventh check. Then two in a row must pass.
    let service = Service::scripted("+--+---+-++", true);
    let gate = House::new(&pki).route_with("nas", &[&service.address()], &keys(2, 3)).open();
    let (down, up) = (transition(&gate, "backend_unhealthy"), transition(&gate, "backend_healthy"));
    assert_eq!((service.checks_at(&down), service.checks_at(&up)), (7, 11));
    gate.wait_metric(HEALTHY, &[("route", "nas"), ("backend", &service.address())], 1.0);
    // Checks that pass leave nothing in the log.
    let lines = gate.lines().len();
    service.wait_checks(10);
    assert_eq!(gate.lines().len(), lines, "{:?}", gate.lines());
}

#[test]
fn unhealthy_backend_is_refused_at_once_and_never_dialled() {
    let pki = TestPki::new();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let (hanging, wrong) = (FullBacklog::new(), Service::new(false));
    let swallows = format!("{ANY}\nhealth = {{ every = \"100ms\", timeout = \"200ms\", fall = 2 }}");
    let gate = House::new(&pki)
        .timeouts("dial = \"50s\"")
        .route_with("swallows", &[&hanging.address.to_string()], &swallows)
        .route_with("wrong", &[&wrong.address()], &keys(1, 1))
        .open();
    for route in ["swallows", "wrong"] {
        gate.wait_metric(HEALTHY, &[("route", route)], 0.0);
        let (watch, begun) = (Watch::begin(&gate), Instant::now());
        let name = format!("{route}.home.example");
        let end = Client::admitted(gate.address(), &alice, &name).map(|_| ()).unwrap_err();
        assert_eq!(end, End::Alert(Alert::INTERNAL_ERROR));
        assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
        let line = watch.rejected(Reason::BackendUnhealthy, &end);
        let detail = line["detail"].as_str().unwrap();
        let expected = match route {
            "swallows" => "did not accept the connection in time",
            _ => "answered \"HTTP/1.1 400 Bad Request\", expected \"well\"",
        };
        assert!(detail.starts_with("health checks fail: ") && detail.ends_with(expected), "{detail}");
    }
    assert_eq!(wrong.clients(), 0);
    // Once it is back, the same client is connected.
    wrong.pass(true);
    gate.wait_metric(HEALTHY, &[("route", "wrong")], 1.0);
    Client::admitted(gate.address(), &alice, "wrong.home.example").unwrap().ping().unwrap();
    assert_eq!(wrong.clients(), 1);
}

#[test]
fn unhealthy_backend_is_passed_over_until_it_is_back() {
    let pki = TestPki::new();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let (one, two) = (Service::new(true), Service::new(true));
    let list = [one.address(), two.address()];
    let gate = House::new(&pki).route_with("nas", &[&list[0], &list[1]], &keys(1, 1)).open();
    let leads_to = || {
        let line = assert_admitted(&gate, || Client::admitted(gate.address(), &alice, NAS));
        line["backend"].as_str().unwrap().to_owned()
    };
    assert_eq!(leads_to(), list[0]);
    for _ in 0..3 {
        one.pass(false);
        gate.wait_metric(HEALTHY, &[("backend", &list[0])], 0.0);
        assert_eq!([leads_to(), leads_to()], [list[1].clone(), list[1].clone()]);
        one.pass(true);
        gate.wait_metric(HEALTHY, &[("backend", &list[0])], 1.0);
        assert_eq!(leads_to(), list[0]);
    }
    let events = |name: &str| gate.lines().iter().filter(|line| line["event"] == *name).count();
    assert_eq!((events("backend_unhealthy"), events("backend_healthy")), (3, 3));
}

#[test]
fn session_of_a_backend_that_becomes_unhealthy_goes_on() {
    let pki = TestPki::new();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let service = Service::new(true);
    let gate = House::new(&pki).route_with("nas", &[&service.address()], &keys(1, 1)).open();
    let session = Client::admitted(gate.address(), &alice, NAS).unwrap();
    session.ping().unwrap();
    service.pass(false);
    gate.wait_metric(HEALTHY, &[], 0.0);
    session.ping().unwrap();
}

/// A dial that fails puts a backend last; it does not make it unhealthy, and the next check that passes mends it.
#[test]
fn failed_dial_of_a_checked_backend_is_mended_by_the_next_check() {
    let pki = TestPki::new();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let first = Service::new(true);
    let (address, other) = (first.address(), Backend::echo());
    // The checks of a minute from now have not found out yet.
    let slow = format!(
        "{ANY}\nhealth = {{ every = \"3s\", timeout = \"30s\", fall = 100, send = \"check\\r\\n\", expect = \"well\" }}"
    );
    let gate = House::new(&pki).route_with("nas", &[&address, &other.address().to_string()], &slow).open();
    first.wait_checks(1);
    drop(first);
    let line = assert_admitted(&gate, || Client::admitted(gate.address(), &alice, NAS));
    assert_eq!(line["backend"], other.address().to_string());
    let gauge = |name: &str| gate.metrics().sum(name, &[("backend", &address)]);
    assert_eq!((gauge("doorward_backend_up"), gauge(HEALTHY)), (0.0, 1.0));
    let first = Service::at(&*address, "", true);
    gate.wait_metric("doorward_backend_up", &[("backend", &address)], 1.0);
    assert!(first.checks() > 0 && first.clients() == 0, "a check has found it, and no client");
    let line = assert_admitted(&gate, || Client::admitted(gate.address(), &alice, NAS));
    assert_eq!(line["backend"], address);
}

#[test]
fn routes_share_the_checks_of_a_backend() {
    let pki = TestPki::new();
    let (shared, clock) = (Service::new(true), Service::new(true));
    let (address, keys) = (shared.address(), keys(1, 1));
    let gate = House::new(&pki)
        .route_with("nas", &[&address], &keys)
        .route_with("photos", &[&address], &keys)
        .route_with("clock", &[&clock.address()], &keys)
        .open();
    shared.wait_checks(1);
    let (begin, of_clock) = (shared.checks(), clock.checks());
    clock.wait_checks(20);
    let (of_shared, of_clock) = (shared.checks() - begin, clock.checks() - of_clock);
    // With a task for each route there would be twice as many.
    assert!(of_shared < of_clock * 3 / 2 + 2, "{of_shared} checks, and {of_clock} of the other");
    shared.pass(false);
    for route in ["nas", "photos"] {
        gate.wait_metric(HEALTHY, &[("route", route)], 0.0);
    }
    let line = gate.wait_for_line("it is unhealthy", |line| line["event"] == "backend_unhealthy");
    assert_eq!(line["routes"], serde_json::json!(["nas", "photos"]), "{line}");
}
