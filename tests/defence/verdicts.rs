//! The verdict that was reached is the one that counts, whatever becomes of the client afterwards.

use std::net::IpAddr;
use std::sync::Arc;

use doorward::model::rejection::{Alert, Reason};
use rustix::process::Signal;
use rustls::ClientConfig;

use crate::client::{Client, End, client, connect_from};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki};
use crate::home::{House, verdicts};
use crate::{NAS, admitted_from, loopback};

const HERE: IpAddr = loopback(0, 1);

/// A client of another authority that was sent the alert and does not close.
#[track_caller]
fn lingering(source: IpAddr, gate: &Gate, config: &Arc<ClientConfig>) -> Client {
    let stranger = Client::on(connect_from(source, gate.address()), config, NAS);
    let end = stranger.handshake().and_then(|()| stranger.read(&mut [0]).map(drop)).unwrap_err();
    assert_eq!(end, End::Alert(Alert::UNKNOWN_CA));
    stranger
}

fn stranger(pki: &TestPki) -> Arc<ClientConfig> {
    client(pki, Some(&Authority::new("Another house").issue(Certified::for_clients("alice-phone"))))
}

#[test]
fn row_40_refused_clients_that_linger_keep_their_reason() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let gate = House::new(&pki)
        .limits("handshakes = 4\nconnection_rate_per_source = \"off\"\npenalties = \"on\"")
        .timeouts("client_hello = \"5m\"\nhandshake = \"5m\"")
        .route("nas", backend.address())
        .open();
    let mallory = stranger(&pki);
    let (mut held, mut silent) = (Vec::new(), Vec::new());
    // They push out whatever still has a place in the handshakes.
    let push_out = |silent: &mut Vec<_>| {
        let accepted = gate.metrics().sum("doorward_connections_accepted_total", &[]);
        silent.extend((1..=4).map(|other| connect_from(loopback(8, other), gate.address())));
        gate.wait_metric("doorward_connections_accepted_total", &[], accepted + 4.0);
    };
    for host in 1..=20 {
        held.push(lingering(loopback(7, host), &gate, &mallory));
        push_out(&mut silent);
    }
    gate.wait_rejected("certificate", Reason::UnknownCa.label(), held.len());
    gate.wait_metric("doorward_handshakes_in_progress", &[], 4.0);
    gate.wait_rejected("admission", Reason::HandshakeLimit.label(), silent.len() - 4);
    assert!(verdicts(&gate).iter().all(|line| line["reason"] != "unknown_ca" || line["alert"] == "unknown_ca"));

    // Each of them has paid for it: two seconds of sixty.
    let source = loopback(9, 1);
    let tries = (0..60).take_while(|_| {
        held.push(lingering(source, &gate, &mallory));
        push_out(&mut silent);
        gate.wait_rejected("certificate", Reason::UnknownCa.label(), held.len());
        // From an address that is banned, nothing but a certificate is listened to.
        crate::client::refused_plainly(&connect_from(source, gate.address()), b"GET / HTTP/1.1\r\n\r\n");
        !verdicts(&gate).iter().any(|line| line["reason"] == Reason::SourceBanned.label())
    });
    assert!(tries.count() < 40, "it is never banned");
}

#[test]
fn row_40_refused_clients_that_linger_hold_no_place() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let limits = "handshakes = 1\nconnections = 3\nconnections_per_source = 2\nconnection_rate_per_source = \"off\"";
    let gate = House::new(&pki).limits(limits).route("nas", backend.address()).open();
    let (mallory, alice) = (stranger(&pki), client(&pki, Some(&pki.client("alice-phone"))));
    let open = || std::fs::read_dir(format!("/proc/{}/fd", gate.pid())).unwrap().count();
    let before = open();
    let mut held = Vec::new();
    for _ in 0..30 {
        held.push(lingering(HERE, &gate, &mallory));
        // Of one source, 16 are waited for. One more has not been closed yet, and one serves the metrics.
        assert!(open() <= before + 16 + 2, "{} descriptors after {before}", open());
    }
    admitted_from(HERE, &gate, &alice).unwrap();
    gate.wait_rejected("certificate", Reason::UnknownCa.label(), held.len());
    let metrics = gate.settled();
    assert_eq!(metrics.sum("doorward_connections_rejected_total", &[]), held.len() as f64);
}

#[test]
fn row_40_draining_does_not_rewrite_a_verdict() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let mut gate = House::new(&pki).route("nas", backend.address()).open();
    let mallory = stranger(&pki);
    let held: Vec<Client> = (0..5).map(|_| lingering(HERE, &gate, &mallory)).collect();
    gate.signal(Signal::TERM);
    assert!(gate.wait_for_end().success());
    let lines = verdicts(&gate);
    assert_eq!(lines.len(), held.len(), "{lines:?}");
    for line in lines {
        assert_eq!((&line["reason"], &line["alert"]), (&"unknown_ca".into(), &"unknown_ca".into()), "{line}");
    }
}
