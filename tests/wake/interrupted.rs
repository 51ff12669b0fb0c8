//! Who wakes nothing, and what happens while the NAS is being woken (attacks.md row 39).

use std::io::Write;
use std::sync::Arc;

use doorward::model::close::CloseReason;
use doorward::model::identity::Sha256;
use doorward::model::rejection::Alert;
use rcgen::SerialNumber;
use rustix::process::Signal;
use rustls::ClientConfig;

use crate::client::{Client, End, Hello, client, connect, refused_plainly};
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::network::Network;
use crate::{NAME, config, machine, visit, wait_wakes, with_client_auth};

/// A device whose connection waits for the NAS: it has sent its request.
fn waiting(network: &Network, gate: &Gate, device: &Arc<ClientConfig>) -> Client {
    let guest = Client::handshaken(gate.address(), device, NAME).unwrap();
    guest.send(b"ping").unwrap();
    network.wait_packets(1);
    guest
}

/// No attempt goes on, and no packet comes any more. The NAS starts, and is not connected to for what has ended.
#[track_caller]
fn assert_given_up(network: &Network, gate: &Gate) {
    wait_wakes(gate, "abandoned", 1.0);
    let packets = network.packets();
    let nas = network.boots();
    gate.settled();
    assert_eq!(nas.service().received(), 0);
    assert_eq!(network.packets(), packets);
}

#[test]
fn strangers_and_refused_devices_wake_nothing() {
    let (network, pki) = (Network::new(), TestPki::new());
    let serial = SerialNumber::from(7);
    let list = pki.clients.revocation_list(std::slice::from_ref(&serial), days_from_now(-1), days_from_now(5));
    let denied = pki.client("old-phone");
    let keys = format!(
        "revocation_lists = [{:?}]\ndeny = [\"sha256:{}\"]",
        pki.write("clients.crl", list),
        Sha256::of(&denied.chain()[0])
    );
    let config = with_client_auth(&pki, &keys, "").replace("[\"any\"]", "[\"alice-phone\"]");
    let gate = Gate::start(&config);
    let mut revoked = Certified::for_clients("alice-phone");
    revoked.serial_number = Some(serial);
    let mut expired = Certified::for_clients("alice-phone");
    expired.not_after = days_from_now(-1);
    let refused = [
        ("no certificate", client(&pki, None), Alert::CERTIFICATE_REQUIRED),
        ("revoked", client(&pki, Some(&pki.clients.issue(revoked))), Alert::CERTIFICATE_REVOKED),
        ("denied", client(&pki, Some(&denied)), Alert::ACCESS_DENIED),
        ("expired", client(&pki, Some(&pki.clients.issue(expired))), Alert::CERTIFICATE_EXPIRED),
        ("not allowed", client(&pki, Some(&pki.client("bob-laptop"))), Alert::ACCESS_DENIED),
        (
            "another authority",
            client(&pki, Some(&Authority::new("Others").issue(Certified::for_clients("alice-phone")))),
            Alert::UNKNOWN_CA,
        ),
    ];
    for (what, device, alert) in &refused {
        let end = Client::admitted(gate.address(), device, NAME).map(|_| ()).unwrap_err();
        assert_eq!(end, End::Alert(*alert), "{what}");
    }
    // Never a handshake.
    refused_plainly(&connect(gate.address()), b"GET / HTTP/1.1\r\n\r\n");
    let mut stream = connect(gate.address());
    stream.write_all(&Hello { version: 0x0303, suites: &[0x1301], server_name: NAME }.record()).unwrap();
    drop(stream);
    gate.settled();
    assert_eq!(gate.metrics().sum("doorward_wakes_total", &[]), 0.0);
    assert_eq!(machine(&gate), "unused");
    assert_eq!(network.packets(), 0);

    // The same network, and a device that is let in.
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let guest = waiting(&network, &gate, &alice);
    guest.reset();
    wait_wakes(&gate, "abandoned", 1.0);
}

#[test]
fn row_39_revoked_while_waking_ends_the_attempt() {
    let (network, pki) = (Network::new(), TestPki::new());
    let list = |revoked: &[SerialNumber]| {
        pki.write("clients.crl", pki.clients.revocation_list(revoked, days_from_now(-1), days_from_now(5)))
    };
    let gate = Gate::start(&with_client_auth(&pki, &format!("revocation_lists = [{:?}]", list(&[])), ""));
    let mut params = Certified::for_clients("lost-phone");
    params.serial_number = Some(SerialNumber::from(7));
    let lost = client(&pki, Some(&pki.clients.issue(params)));
    let guest = waiting(&network, &gate, &lost);
    list(&[SerialNumber::from(7)]);
    gate.ask(&["reload"]).success();
    assert_eq!(guest.end(), End::Alert(Alert::CERTIFICATE_REVOKED));
    gate.wait_rejected("certificate", "revoked", 1);
    assert_given_up(&network, &gate);
}

#[test]
fn row_39_route_removed_while_waking_ends_the_attempt() {
    let (network, pki) = (Network::new(), TestPki::new());
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let before = config(&pki, "");
    let gate = Gate::start(&before);
    let guest = waiting(&network, &gate, &alice);
    let after = before.replace("[\"nas.home.example\"]", "[\"files.home.example\"]");
    std::fs::write(gate.folder().join("doorward.toml"), after).unwrap();
    gate.ask(&["reload"]).success();
    assert_eq!(guest.end(), End::Alert(Alert::UNRECOGNIZED_NAME));
    gate.wait_rejected("route", "server_name_unknown", 1);
    assert_given_up(&network, &gate);
}

#[test]
fn reload_that_changes_nothing_interrupts_no_attempt() {
    let (network, pki) = (Network::new(), TestPki::new());
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let gate = Gate::start(&config(&pki, ""));
    let visit = visit(&gate, &alice);
    network.wait_packets(1);
    assert_eq!(gate.hang_up()["event"], "reloaded");
    assert_eq!(machine(&gate), "waking");
    let nas = network.boots();
    drop(visit.join().unwrap().unwrap());
    gate.wait_metric("doorward_wakes_total", &[], 1.0);
    wait_wakes(&gate, "woken", 1.0);
    assert_eq!(machine(&gate), "up");
    gate.settled();
    drop(nas);
}

#[test]
fn drain_while_waking_ends_the_attempt() {
    let (network, pki) = (Network::new(), TestPki::new());
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let mut gate = Gate::start(&config(&pki, ""));
    let guest = waiting(&network, &gate, &alice);
    gate.signal(Signal::TERM);
    assert_eq!(guest.end(), End::Alert(Alert::INTERNAL_ERROR));
    assert!(gate.wait_for_end().success());
    let line = gate.wait_for_line("the verdict", |line| line["event"] == "rejected");
    assert_eq!(line["reason"], "draining", "{line}");
    let nas = network.boots();
    assert_eq!(nas.service().accepted(), 0);
}

#[test]
fn cut_while_waking_is_closed_by_hand() {
    let (network, pki) = (Network::new(), TestPki::new());
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let gate = Gate::start(&config(&pki, ""));
    let guest = waiting(&network, &gate, &alice);
    gate.ask(&["cut", "alice-phone"]).success();
    assert_eq!(guest.end(), End::of(CloseReason::CutByHand));
    let line = gate.wait_closed("nas", 1).remove(0);
    assert_eq!(line["reason"], "cut_by_hand", "{line}");
    assert_given_up(&network, &gate);
}

#[test]
fn device_that_leaves_while_waking_ends_the_attempt_and_is_no_trouble() {
    let (network, pki) = (Network::new(), TestPki::new());
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    for (resets, reason) in [(true, "client_reset"), (false, "client_closed")] {
        let gate = Gate::start(&config(&pki, ""));
        let guest = Client::handshaken(gate.address(), &alice, NAME).unwrap();
        wait_waking(&gate);
        if resets {
            // With a request that waits to be read.
            guest.send(b"ping").unwrap();
            guest.reset();
        } else {
            drop(guest);
        }
        let line = gate.wait_closed("nas", 1).remove(0);
        assert_eq!(line["reason"], reason, "{line}");
        wait_wakes(&gate, "abandoned", 1.0);
        assert_eq!(machine(&gate), "asleep");
        // It sleeps as it is meant to.
        assert_eq!(gate.metrics().sum("doorward_backend_up", &[]), 1.0);
        let said = gate.ask(&["status"]).success().text();
        assert!(said.starts_with("All is well."), "{said}");
        let (_, page) = gate.get("/");
        assert!(page.contains("asleep"), "{page}");
        gate.settled();
    }
    drop(network);
}

#[track_caller]
fn wait_waking(gate: &Gate) {
    gate.wait_for_line("the NAS is woken", |line| line["event"] == "waking");
}

#[test]
fn device_that_ends_its_request_is_answered_all_the_same() {
    let (network, pki) = (Network::new(), TestPki::new());
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let gate = Gate::start(&config(&pki, ""));
    let guest = waiting(&network, &gate, &alice);
    guest.close_notify();
    guest.shut_tcp();
    // Long enough to be noticed.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let nas = network.boots();
    assert_eq!(guest.read_to_end(), (b"ping".to_vec(), End::Orderly));
    wait_wakes(&gate, "woken", 1.0);
    gate.settled();
    drop(nas);
}
