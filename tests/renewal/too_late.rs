//! Certificates that the gate does not renew: what it does, and what the device says.

use std::fs;

use doorward::bundle::Bundle;
use rcgen::KeyPair;
use serde_json::Value;

use crate::common::pki::{Authority, Certified, days_from_now};
use crate::common::process::{run, run_with_input};
use crate::device::{User, house};
use crate::home::refused;
use crate::house::{House, REENROLL, RENEW};
use crate::last_third::with_certificate;

/// What the gate has refused at the service's name: reason and alert of the only line, and that it is counted.
#[track_caller]
fn refusal(house: &House, reason: &str) -> Value {
    let lines = house.gate.wait_rejected("certificate", reason, 1);
    assert_eq!((&lines[0]["route"], &lines[0]["server_name"]), (&"renewal".into(), &RENEW.into()), "{lines:?}");
    let metrics = house.gate.settled();
    assert_eq!(metrics.sum("doorward_connections_rejected_total", &[("reason", reason)]), 1.0);
    assert_eq!(metrics.sum("doorward_renewal_requests_total", &[]), 0.0);
    assert_eq!(fs::read_dir(house.folder()).unwrap().count(), 0);
    lines[0]["alert"].clone()
}

#[test]
fn expired_certificate_is_not_renewed() {
    let (house, user) = house();
    with_certificate(&house, &user, -80, -3);
    let before = user.text();
    let expired = format!("the certificate of alice-laptop expired on {} (3 days ago)", days_from_now(-3).date());
    let instead = "it is too late for doorward renew: ask the owner of nas.home.example for a new file (doorward ca renew alice-laptop)";
    refused(user.renew(&[]), 6, &[&expired, instead]);
    assert_eq!(refusal(&house, "expired"), "certificate_expired");
    // Programs do not even ask.
    refused(run_with_input(&mut user.doorward(&["connect", "nas"]), b""), 6, &[&expired, instead]);
    assert_eq!(house.gate.wait_rejected("certificate", "expired", 2)[1]["route"], "nas");
    assert!(user.text() == before && !user.folder().join("nas.home.example.asked").exists());
}

#[test]
fn certificate_of_tomorrow_is_not_renewed() {
    let (house, user) = house();
    with_certificate(&house, &user, 2, 30);
    let (date, today) = (days_from_now(2).date(), days_from_now(0).date());
    refused(
        user.renew(&[]),
        6,
        &[
            &format!("the certificate of alice-laptop is not valid before {date}, and it is {today} here"),
            "set the clock of this device",
        ],
    );
    assert_eq!(refusal(&house, "not_yet_valid"), "certificate_expired");
}

#[test]
fn revoked_certificate_is_not_renewed() {
    let (house, user) = house();
    house.ca(&["revoke", "alice-laptop"]).success();
    refused(
        user.renew(&[]),
        6,
        &["this device (alice-laptop) was revoked at the gate of nas.home.example", "ask its owner"],
    );
    assert_eq!(refusal(&house, "revoked"), "certificate_revoked");
}

/// The device with a certificate of this authority.
fn of_authority(house: &House, user: &User, authority: &Authority) {
    let key = fs::read_to_string(house.home.path("devices/alice-laptop-key.pem")).unwrap();
    let certified = authority.issue_for_key(Certified::for_clients("alice-laptop"), KeyPair::from_pem(&key).unwrap());
    let bundle = Bundle { chain: certified.chain(), ..Bundle::parse(&user.text()).unwrap() };
    fs::write(user.file(), bundle.to_text()).unwrap();
}

#[test]
fn certificate_of_another_authority_is_not_renewed() {
    let (house, user) = house();
    of_authority(&house, &user, &Authority::new("Devices of another home"));
    refused(
        user.renew(&[]),
        6,
        &["the gate of nas.home.example does not trust the certificate of alice-laptop", "doorward why alice-laptop"],
    );
    assert_eq!(refusal(&house, "unknown_ca"), "unknown_ca");
}

#[test]
fn certificate_for_another_purpose_is_not_renewed() {
    let (house, user) = house();
    let path = |file: &str| house.home.path(file);
    let mut params = Certified::for_clients("alice-laptop");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::from_pem(&fs::read_to_string(path("devices/alice-laptop-key.pem")).unwrap()).unwrap();
    let authority = Authority::read(&path("pki/clients.pem"), &path("pki/clients-key.pem"));
    let chain = authority.issue_for_key(params, key).chain();
    fs::write(user.file(), Bundle { chain, ..Bundle::parse(&user.text()).unwrap() }.to_text()).unwrap();
    refused(user.renew(&[]), 6, &["the gate of nas.home.example cannot use the certificate of alice-laptop"]);
    refusal(&house, "wrong_purpose");
}

#[test]
fn clients_that_are_no_doorward_get_the_alert() {
    let (house, user) = house();
    with_certificate(&house, &user, -80, -3);
    let bundle = Bundle::parse(&user.text()).unwrap();
    let chain: String =
        bundle.chain.iter().map(|der| pem::encode(&pem::Pem::new("CERTIFICATE", der.to_vec()))).collect();
    fs::write(house.home.path("devices/old.pem"), chain).unwrap();
    fs::copy(house.home.path("devices/alice-laptop-key.pem"), house.home.path("devices/old-key.pem")).unwrap();
    let mut curl = house.curl(Some("old"), RENEW, REENROLL);
    let finished = run(curl.args(["--data-binary", "x"])).failure();
    assert!(finished.stderr.contains("certificate expired"), "{finished}");
    refusal(&house, "expired");
}
