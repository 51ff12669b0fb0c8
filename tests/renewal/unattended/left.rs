//! What is left to the owner.

use std::fs;

use super::{gets_in, house, house_with, issuer, outcomes, ready, renewed};
use crate::common::backend::Backend;
use crate::common::process::{run, wait_until};
use crate::house::{House, config};

#[test]
fn new_key_is_for_the_owner() {
    let house = house(&["alice-laptop"]);
    let key = house.home.path("devices/next-key.pem").display().to_string();
    house.home.openssl(&["genpkey", "-algorithm", "ED25519", "-out", &key]).success();
    assert_eq!(house.send("alice-laptop", &house.request("devices/next-key.pem")).status, 202);
    let listed = house.ca(&["requests"]).success();
    assert!(listed.text().contains("doorward ca approve alice-laptop --new-key"), "{listed}");
    assert_eq!(outcomes(&house, "issued_unattended").len(), 0);
}

#[test]
fn devices_that_the_configuration_names_are_for_the_owner() {
    let house = house_with(&["alice-laptop", "bob-laptop"], ", days = 30, except = [\"alice-laptop\"]");
    assert_eq!(house.send("alice-laptop", &house.request("devices/alice-laptop-key.pem")).status, 202);
    assert_eq!(house.send("bob-laptop", &house.request("devices/bob-laptop-key.pem")).status, 200);
    let line = house.gate.wait_for_line("the request", |line| line["outcome"] == "stored");
    assert!(line["detail"].as_str().unwrap().contains("renewal.issuer.except"), "{line}");
    house.ca(&["approve", "--all"]).success();
    assert_eq!(house.send("alice-laptop", &house.request("devices/alice-laptop-key.pem")).status, 200);
}

#[test]
fn request_that_the_owner_has_refused_stays_refused() {
    let house = house_with(&["alice-laptop"], ", days = 30, except = [\"alice-laptop\"]");
    let request = house.request("devices/alice-laptop-key.pem");
    assert_eq!(house.send("alice-laptop", &request).status, 202);
    house.ca(&["refuse", "alice-laptop"]).success();
    let more = issuer(&house.home, ", days = 30");
    house.gate.reload(&format!("{}\n[control]\nsocket = \"control.sock\"\n", config(&house.home, &house.nas, &more)));
    ready(&house.gate);
    assert_eq!(house.send("alice-laptop", &request).status, 403);
}

#[test]
fn without_the_issuer_its_certificates_end_and_the_owner_decides() {
    let house = house(&["alice-laptop"]);
    renewed(&house, "alice-laptop", "first");
    assert!(gets_in(&house, "first"));
    let without = format!("{}\n[control]\nsocket = \"control.sock\"\n", config(&house.home, &house.nas, ""));
    house.gate.reload(&without);
    assert!(!gets_in(&house, "first"));
    house.gate.wait_rejected("certificate", "unknown_ca", 1);
    // What was issued is no answer any more, and the certificate before still counts.
    let request = house.request("devices/alice-laptop-key.pem");
    let waits = wait_until("a minute is not over", || {
        let sent = house.send("alice-laptop", &request);
        (sent.status == 202 || sent.status == 429).then_some(sent)
    });
    assert_eq!(waits.status, 202, "{}", waits.body);
    house.ca(&["approve", "alice-laptop"]).success();
    let sent = house.send("alice-laptop", &request);
    assert_eq!(sent.status, 200);
    super::take(&house, &sent, "alice-laptop", "approved");
    assert!(gets_in(&house, "approved"));
    // Another one in its place renews what the owner has issued, and nothing of the former is taken.
    super::make_issuer(&house.home, &["--replace"]);
    let more = issuer(&house.home, ", days = 398");
    house.gate.reload(&format!("{}\n[control]\nsocket = \"control.sock\"\n", config(&house.home, &house.nas, &more)));
    ready(&house.gate);
    assert!(!gets_in(&house, "first") && gets_in(&house, "approved") && gets_in(&house, "alice-laptop"));
}

#[test]
fn wrong_key_or_one_that_the_gate_could_read_renews_nothing() {
    let home = super::home(&["alice-laptop"], 10);
    let more = issuer(&home, ", days = 30");
    // That of another authority.
    fs::copy(home.path("pki/clients-key.pem"), home.path("issuer/renewals-key.pem")).unwrap();
    let house = House::at(home, &more);
    let line = house.gate.wait_for_line("the failure", |line| line["event"] == "unattended_renewal");
    assert!(line["error"].as_str().unwrap().contains("the key does not match the certificate"), "{line}");
    // It is stored, and the owner decides.
    assert_eq!(house.send("alice-laptop", &house.request("devices/alice-laptop-key.pem")).status, 202);
    house.ca(&["approve", "alice-laptop"]).success();
    assert_eq!(house.send("alice-laptop", &house.request("devices/alice-laptop-key.pem")).status, 200);
}

/// The key is not the gate's to read, and without a sandbox nothing sees to that.
#[test]
fn check_warns_of_a_gate_without_a_sandbox_beside_the_key() {
    let home = super::home(&["alice-laptop"], 10);
    let warning = "warning: renewal.issuer.key: with mode = \"off\" under [sandbox], nothing keeps the gate";
    let nas = Backend::echo();
    for (mode, warned) in [("off", true), ("auto", false)] {
        let sandbox = format!("[sandbox]\nmode = \"{mode}\"\n");
        let file = home.path(&format!("{mode}/doorward.toml"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, config(&home, &nas, &format!("{}{sandbox}", issuer(&home, "")))).unwrap();
        let said = run(home.doorward().args(["check", "--config"]).arg(&file)).success();
        assert_eq!(said.stderr.contains(warning), warned, "{said}");
    }
}
