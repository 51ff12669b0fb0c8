//! A public certificate that cannot be ordered: what the owner is told, and where.

use std::net::SocketAddr;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::client::Client;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, days_from_now};
use crate::common::process::wait_until;
use crate::receiver::Receiver;
use crate::{NAS, Scene, status};

/// A port at which nothing listens, and its address.
fn taken() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// The configuration of a scene with a public certificate from an ACME server at `address`.
fn config(scene: &Scene, address: SocketAddr, receiver: &Receiver) -> String {
    let trust = scene.pki.write("acme-server.pem", Authority::new("ACME").pem());
    let config = scene.config(&format!(
        "webhook = \"http://{}/hook\"\nformat = \"json\"\nevents = [\"renewal_failed\", \"expiring\"]",
        receiver.address()
    ));
    let (before, rest) = config.split_once("[certificate]\n").unwrap();
    let (_, after) = rest.split_once("[client_auth]").unwrap();
    format!(
        "{before}[certificate.acme]\ndirectory = \"https://{address}/dir\"\ntrust = {trust:?}\nstate = {:?}\n\n[client_auth]{after}",
        scene.pki.path("acme")
    )
}

fn finding(told: &Value, kind: &str) -> Value {
    let found = told["findings"].as_array().unwrap().iter().find(|one| one["kind"] == kind).cloned();
    found.unwrap_or_else(|| panic!("{kind} in {told}"))
}

fn has_failed(gate: &Gate) -> Value {
    wait_until("an order has failed", || {
        let told: Value = serde_json::from_str(&gate.get("/status.json").1).unwrap();
        (!told["public_certificate"]["failure"].is_null()).then_some(told)
    })
}

#[test]
fn order_that_fails_is_told_everywhere_with_what_to_do() {
    let (scene, receiver, (_taken, address)) = (Scene::new(), Receiver::start(), taken());
    let gate = Gate::start(&config(&scene, address, &receiver));
    let posted = receiver.wait(1).body;
    assert_eq!((&posted["event"], &posted["priority"]), (&"renewal_failed".into(), &"high".into()), "{posted}");
    assert_eq!(
        (&posted["title"], &posted["resolved"]),
        (&"The public certificate could not be ordered".into(), &false.into())
    );
    let message = posted["message"].as_str().unwrap();
    assert!(message.contains("Connection refused") && message.contains("cannot reach the ACME server"), "{message}");

    let told = has_failed(&gate);
    let failure = &told["public_certificate"]["failure"];
    assert_eq!(failure["in_a_row"], 1, "{failure}");
    assert!(failure["error"].as_str().unwrap().contains("Connection refused"), "{failure}");
    let public = &told["public_certificate"];
    assert_eq!((&public["temporary"], &public["names"][0]), (&true.into(), &NAS.into()), "{public}");
    for told in [&told, &status(&gate)] {
        assert_eq!(finding(told, "certificate_not_issued")["tone"], "bad");
        let failed = finding(told, "renewal_failed");
        assert!(failed["advice"].as_str().unwrap().contains("cannot reach the ACME server"), "{failed}");
    }
    assert_eq!(status(&gate)["public_certificate"]["line"], public["line"]);
    let remedy = failure["remedies"][0].as_str().unwrap();
    let (said, page) = (gate.ask(&["status"]).success().text(), gate.get("/").1);
    let line = format!("Public certificate for {NAS}: not issued yet, the last order failed today ");
    assert!(said.contains(remedy) && said.contains(&line), "{said}");
    assert!(page.contains(remedy) && page.contains("The public certificate could not be ordered"), "{page}");
    let logged = gate.wait_for_line("the failure", |line| line["event"] == "certificate_renewal_failed");
    assert_eq!((&logged["error"], &logged["remedies"]), (&failure["error"], &failure["remedies"]), "{logged}");
    let metrics = gate.metrics();
    for (outcome, count) in [("failed", 1.0_f64), ("renewed", 0.0)] {
        assert_eq!(metrics.sum("doorward_acme_renewals_total", &[("outcome", outcome)]).to_bits(), count.to_bits());
    }

    // A device that refuses the temporary certificate.
    let device = crate::client::client(&scene.pki, Some(&scene.pki.client("alice-phone")));
    assert!(Client::handshaken(gate.address(), &device, NAS).is_err());
    gate.wait_rejected("handshake", "peer_alert", 1);
    let why = gate.ask(&["why"]).success().text();
    assert!(why.contains("\nThe public certificate has not been issued yet. The gate shows a temporary"), "{why}");
}

#[test]
fn short_certificate_is_used_and_not_always_about_to_expire() {
    let (scene, receiver, (_taken, address)) = (Scene::new(), Receiver::start(), taken());
    // Six days long, and renewed a day ago. How it was ordered is not known, so that it is ordered anew.
    let mut params = Certified::for_servers(&[NAS]);
    let until = days_from_now(5);
    (params.not_before, params.not_after) = (days_from_now(-1), until);
    let issued = Authority::new("A public authority").issue(params);
    std::fs::create_dir_all(scene.pki.path("acme/live")).unwrap();
    let file = scene.pki.write("acme/live/certificate.pem", format!("{}{}", issued.chain_pem(), issued.key_pem()));
    let gate = Gate::start(&config(&scene, address, &receiver));
    let told = has_failed(&gate);
    let kinds: Vec<&str> =
        told["findings"].as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert!(!kinds.contains(&"expiry") && !kinds.contains(&"certificate_not_issued"), "{kinds:?}");
    assert_eq!(finding(&told, "renewal_failed")["tone"], "warn");
    assert_eq!(told["public_certificate"]["temporary"], false);
    let shown = told["public_certificate"]["valid_until"].as_str().unwrap();
    assert!(shown.starts_with(&until.date().to_string()), "{told}");
    let labels = [("kind", "server"), ("name", file.to_str().unwrap())];
    let metrics = gate.metrics();
    let gauge = |name: &str| metrics.sum(name, &labels);
    let warned = gauge("doorward_certificate_expiry_timestamp_seconds")
        - gauge("doorward_certificate_expiry_warning_timestamp_seconds");
    assert!((warned - 86_400.0).abs() < 1.0, "{warned}");
    // The row of failures is told, and no expiry.
    assert_eq!(receiver.wait(1).body["event"], "renewal_failed");
}
