//! Certificates of every kind that tools and authorities make, with one verdict for each: attacks.md row 47.
//!
//! The running gate, `doorward explain`, `doorward check` and `doorward ca inspect` must agree on all of them. The table is
//! in `kinds`.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

#[expect(dead_code, reason = "made for the tests of the journey")]
#[path = "../journey/client.rs"]
mod client;

mod kinds;
mod maker;

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use crate::client::{Client, Shown, VERSIONS, showing, signing_key};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::process::{Finished, run, wait_until};
use crate::kinds::{ACCEPTED, Kind};
use crate::maker::Maker;

/// The program under test.
fn doorward(arguments: &[&str]) -> Finished {
    run(Command::new(env!("CARGO_BIN_EXE_doorward")).args(arguments))
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// `admitted`, or the reason as `stage/reason`.
fn verdict(answer: &Value) -> String {
    match answer["reason"].as_str() {
        Some(reason) if answer["stage"].is_string() => format!("{}/{reason}", answer["stage"].as_str().unwrap()),
        _ => ACCEPTED.to_owned(),
    }
}

/// The verdict of the gate for a client with this certificate.
fn asked_live(gate: &Gate, maker: &Maker, kind: &Kind) -> (String, Value) {
    let file = std::fs::read(maker.path(&format!("{}.pem", kind.name))).unwrap();
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&file).map(Result::unwrap).collect();
    // With keys that rustls cannot sign with, the gate must reject the certificate before it checks a signature.
    let key = PrivateKeyDer::from_pem_file(maker.path(&format!("{}.key", kind.name)))
        .ok()
        .filter(|key| rustls::crypto::aws_lc_rs::sign::any_supported_type(key).is_ok())
        .filter(|_| kind.expected == ACCEPTED)
        .unwrap_or_else(|| PrivateKeyDer::from_pem_file(maker.path("shared.key")).unwrap());
    let name = format!("{}.home.example", kind.route);
    let mut verdicts = BTreeSet::new();
    let mut line = Value::Null;
    for version in VERSIONS {
        let before = gate.lines().len();
        let shown = Shown::new(chain.clone(), signing_key(key.clone_key())) as Arc<dyn ResolvesClientCert>;
        // From the log: the alerts are tested elsewhere.
        drop(Client::admitted(gate.address(), &showing(&maker.server, shown, &[version]), &name));
        let is_verdict = |line: &&Value| line["event"] == "rejected" || line["event"] == "closed";
        line = wait_until(kind.name, || gate.lines().iter().skip(before).find(is_verdict).cloned());
        verdicts.insert(verdict(&line));
    }
    (verdicts.into_iter().collect::<Vec<_>>().join(" under TLS 1.3 and 1.2: "), line)
}

#[test]
fn row_47_gate_explain_check_and_inspect_agree_on_every_kind() {
    let maker = Maker::new();
    let kinds = kinds::make(&maker);
    let names: BTreeSet<&str> = kinds.iter().map(|kind| kind.name).collect();
    assert_eq!(names.len(), kinds.len(), "a duplicate kind");
    assert!(kinds.len() >= 60, "{} kinds", kinds.len());

    let backend = Backend::echo();
    let config = maker.config(backend.address());
    let file = maker.write("doorward.toml", &config);
    let file = file.to_str().unwrap();

    // check: exactly the authorities with unsupported keys, and the expired list.
    let checked = doorward(&["check", "--config", file]).success();
    // Except the warning about the common backend of the routes.
    let about_clients = |line: &&str| line.split(": ").nth(1).is_some_and(|key| key.contains("client_auth"));
    let warnings: Vec<&str> =
        checked.stderr.lines().filter(|line| line.starts_with("warning: ")).filter(about_clients).collect();
    let mut rest = warnings.clone();
    for expected in kinds::WARNINGS {
        let at = rest.iter().position(|line| line.contains(expected));
        rest.remove(at.unwrap_or_else(|| panic!("check does not say {expected:?}: {warnings:#?}")));
    }
    assert!(rest.is_empty(), "check says more: {rest:#?}");

    let gate = Gate::start(&config);
    let mut failures = Vec::new();
    for kind in &kinds {
        let pem = maker.path(&format!("{}.pem", kind.name));
        let pem = pem.to_str().unwrap();
        let name = format!("{}.home.example", kind.route);
        let explained =
            doorward(&["explain", "--config", file, "--server-name", &name, "--cert", pem, "--format", "json"]);
        let explained = json(&explained.text());
        let inspected = json(&doorward(&["ca", "inspect", pem, "--format", "json"]).success().text());
        let (live, line) = asked_live(&gate, &maker, kind);

        let own = inspected["items"][0]["facts"]["as_client"].as_str().unwrap_or("no certificate");
        let own = own.split(": ").next().unwrap();
        let own = if own.starts_with("the gate accepts it") { ACCEPTED } else { own };
        for (who, said, expected) in [
            ("the gate", live.as_str(), kind.expected),
            ("explain", &verdict(&explained), kind.expected),
            ("inspect", own, kind.alone),
        ] {
            if said != expected {
                failures.push(format!("{}: {who} says {said}, not {expected}; {line} {explained}", kind.name));
            }
        }
        for (who, name) in [("the gate", &line["certificate"]["name"]), ("explain", &explained["certificate"])] {
            if kind.called.is_some_and(|called| name != called) {
                failures.push(format!("{}: {who} calls it {name}, not {:?}", kind.name, kind.called));
            }
        }
        let subject = inspected["items"][0]["facts"]["subject"].as_str().unwrap_or_default();
        if kind.called.is_some_and(|called| !inspected["items"][0]["is"].as_str().unwrap().contains(called)) {
            failures.push(format!("{}: inspect says {subject}, not {:?}", kind.name, kind.called));
        }
        // A detail in our words, not those of a library.
        let detail = line["detail"].as_str().unwrap_or_default();
        if kind.expected.starts_with("certificate/")
            && (detail.contains("Context") || detail.contains("peer certificate"))
        {
            failures.push(format!("{}: {detail}", kind.name));
        }
    }
    assert!(failures.is_empty(), "{} of {} kinds:\n{}", failures.len(), kinds.len(), failures.join("\n"));
}
