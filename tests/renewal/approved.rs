//! What becomes of a request: stored, approved, and given to the device; or refused.

use std::fs;

use doorward::model::identity::Sha256;
use serde_json::Value;
use toml::Table;

use crate::common::process::run;
use crate::home::{mode, refused};
use crate::house::{House, RENEW, answer};

/// What `doorward ca requests` has.
fn requests(house: &House) -> Vec<Value> {
    let listed = house.ca(&["requests", "--format", "json"]).success();
    serde_json::from_slice(&listed.stdout).unwrap()
}

#[test]
fn owner_approves_and_the_device_gets_its_certificate() {
    let house = House::of(&["alice-laptop", "bob-laptop"]);
    let request = house.request("devices/alice-laptop-key.pem");
    let stored = house.send("alice-laptop", &request);
    assert_eq!(stored.status, 202, "{}", stored.body);
    assert!(stored.headers.contains("\nretry-after: 60\n"), "{}", stored.headers);
    let line = house.gate.wait_for_line("the request", |line| line["event"] == "renewal_request");
    assert_eq!(
        (&line["device"], &line["outcome"], &line["key"]),
        (&"alice-laptop".into(), &"stored".into(), &"same".into())
    );
    assert_eq!((mode(&house.folder()), fs::read_dir(house.folder()).unwrap().count()), (0o700, 1));
    assert_eq!(house.send("alice-laptop", &request).status, 202, "it waits");

    let listed = requests(&house);
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!((&listed[0]["name"], &listed[0]["key"]), (&"alice-laptop".into(), &"same".into()));
    let approved = house.ca(&["approve", "alice-laptop"]).success();
    assert!(approved.stderr.contains("Issued a certificate for alice-laptop, valid until 2"), "{approved}");
    assert_eq!(requests(&house).len(), 0);

    let sent = house.send("alice-laptop", &request);
    assert_eq!(sent.status, 200, "{}", sent.body);
    assert!(sent.headers.contains("application/pkcs7-mime; smime-type=certs-only"), "{}", sent.headers);
    assert!(sent.headers.contains("content-transfer-encoding: base64"), "{}", sent.headers);
    let issued = house.issued(&sent);
    // The names are those of the certificate before, whatever the request says.
    assert!(issued.contains("subject=CN = alice-laptop\n") || issued.contains("subject=CN=alice-laptop\n"), "{issued}");
    assert_eq!(issued.matches("BEGIN CERTIFICATE").count(), 1, "{issued}");
    let new = house.home.path("devices/new.pem");
    fs::write(&new, &issued).unwrap();
    fs::copy(house.home.path("devices/alice-laptop-key.pem"), house.home.path("devices/new-key.pem")).unwrap();
    let text = house.home.openssl(&["x509", "-noout", "-text", "-in", &new.display().to_string()]).success().text();
    assert!(!text.contains("bob-laptop") && !text.contains("admins") && !text.contains("DNS:"), "{text}");
    let ca = house.home.path("pki/clients.pem").display().to_string();
    house.home.openssl(&["verify", "-CAfile", &ca, &new.display().to_string()]).success();

    // It gets in, and with it the device can ask for the next one: the answer before is not the answer to that.
    assert!(run(&mut house.curl(Some("new"), RENEW, "/.well-known/est/cacerts")).success().text().contains(" 200 "));
    let inventory_known = || house.send("new", &request).status;
    let next = crate::common::process::wait_until("the gate to know the certificate", || {
        Some(inventory_known()).filter(|status| *status != 403)
    });
    assert_eq!(next, 202);
    let metrics = house.gate.settled();
    let outcomes = |outcome| metrics.sum("doorward_renewal_requests_total", &[("outcome", outcome)]);
    assert_eq!((outcomes("waiting"), outcomes("approved")), (1.0, 1.0));
    assert_eq!(house.home.devices(), ["alice-laptop renewed", "bob-laptop valid", "alice-laptop valid"]);
}

#[test]
fn revocation_of_a_device_is_one_of_what_it_was_given_through_the_gate() {
    let house = House::of(&["alice-laptop"]);
    let request = house.request("devices/alice-laptop-key.pem");
    assert_eq!(house.send("alice-laptop", &request).status, 202);
    house.ca(&["approve", "--all"]).success();
    fs::write(house.home.path("devices/new.pem"), house.issued(&house.send("alice-laptop", &request))).unwrap();
    fs::copy(house.home.path("devices/alice-laptop-key.pem"), house.home.path("devices/new-key.pem")).unwrap();
    house.ca(&["revoke", "alice-laptop"]).success();
    for device in ["alice-laptop", "new"] {
        let mut curl = house.curl(Some(device), RENEW, "/.well-known/est/cacerts");
        run(&mut curl).failure();
        run(&mut house.curl(Some(device), "nas.home.example", "/")).failure();
    }
    let lines = house.gate.wait_rejected("certificate", "revoked", 4);
    assert_eq!(lines.iter().filter(|line| line["route"] == "renewal").count(), 2, "{lines:?}");
}

#[test]
fn request_with_a_new_key_needs_the_owners_word() {
    let house = House::of(&["alice-laptop"]);
    let key = house.home.path("devices/next-key.pem").display().to_string();
    house.home.openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", &key]).success();
    let request = house.request("devices/next-key.pem");
    assert_eq!(house.send("alice-laptop", &request).status, 202);
    let listed = requests(&house);
    assert_eq!((&listed[0]["key"], &listed[0]["key_type"]), (&"new".into(), &"p384".into()));
    let sha256 = listed[0]["key_sha256"].as_str().unwrap();
    // Nothing is issued without the owner, nor by mistake.
    let none = house.ca(&["approve", "--all"]).success();
    assert!(none.stderr.contains("No device waits for an answer that can be given without you"), "{none}");
    refused(
        house.ca(&["approve", "alice-laptop"]),
        2,
        &["asks with a new key", sha256, "approve alice-laptop --new-key"],
    );
    assert_eq!(house.send("alice-laptop", &request).status, 202);
    house.ca(&["approve", "alice-laptop", "--new-key", sha256]).success();
    let sent = house.send("alice-laptop", &request);
    assert_eq!(sent.status, 200);
    fs::write(house.home.path("devices/next.pem"), house.issued(&sent)).unwrap();
    let cacerts = answer(&run(&mut house.curl(Some("next"), RENEW, "/.well-known/est/cacerts")).success());
    assert_eq!(cacerts.status, 200);
    assert!(house.issued(&cacerts).contains("Doorward devices"), "{}", cacerts.body);
}

#[test]
fn refused_request_stays_refused_and_another_one_is_stored() {
    let house = House::of(&["alice-laptop"]);
    let request = house.request("devices/alice-laptop-key.pem");
    assert_eq!(house.send("alice-laptop", &request).status, 202);
    refused(house.ca(&["refuse", "bob-laptop"]), 2, &["bob-laptop has not asked", "alice-laptop"]);
    house.ca(&["refuse", "alice-laptop"]).success();
    let answer = house.send("alice-laptop", &request);
    assert_eq!((answer.status, answer.body.as_str()), (403, "the owner of the gate has refused this request\n"));
    refused(house.ca(&["approve", "alice-laptop"]), 2, &["has not asked for a certificate, and no other device has"]);
    house.gate.wait_for_line("the refusal", |line| line["event"] == "renewal_request" && line["outcome"] == "refused");
}

#[test]
fn newer_request_replaces_the_one_before_after_a_minute() {
    let house = House::of(&["alice-laptop"]);
    assert_eq!(house.send("alice-laptop", &house.request("devices/alice-laptop-key.pem")).status, 202);
    let key = house.home.path("devices/next-key.pem").display().to_string();
    house.home.openssl(&["genpkey", "-algorithm", "ED25519", "-out", &key]).success();
    let request = house.request("devices/next-key.pem");
    let soon = house.send("alice-laptop", &request);
    assert_eq!(soon.status, 429, "{}", soon.body);
    assert!(soon.headers.contains("\nretry-after: "), "{}", soon.headers);
    // A minute ago.
    let file = fs::read_dir(house.folder()).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(&file).unwrap();
    let line = text.lines().find(|line| line.starts_with("requested_at")).unwrap();
    let at: i64 = line.split(" = ").nth(1).unwrap().parse().unwrap();
    fs::write(&file, text.replace(line, &format!("requested_at = {}", at - 60))).unwrap();
    assert_eq!(house.send("alice-laptop", &request).status, 202);
    let listed = requests(&house);
    assert_eq!((listed.len(), &listed[0]["key_type"]), (1, &"ed25519".into()));
}

#[test]
fn request_that_the_gate_has_made_up_is_not_approved() {
    let house = House::of(&["alice-laptop", "bob-laptop"]);
    assert_eq!(house.send("alice-laptop", &house.request("devices/alice-laptop-key.pem")).status, 202);
    let file = fs::read_dir(house.folder()).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(&file).unwrap();
    // For a certificate that was never issued.
    let line = text.lines().find(|line| line.starts_with("certificate")).unwrap();
    fs::write(&file, text.replace(line, &format!("certificate = \"{}\"", "ab".repeat(32)))).unwrap();
    let listed = requests(&house);
    assert!(listed[0]["problem"].as_str().unwrap().contains("was not issued to a device here"), "{listed:?}");
    refused(house.ca(&["approve", "alice-laptop"]), 2, &["cannot be approved"]);
    house.ca(&["approve", "--all"]).success();
    assert_eq!(house.home.devices(), ["alice-laptop valid", "bob-laptop valid"]);
    // A link to a file of the owner is not followed, and a file that is none of ours is told.
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(house.home.path("pki/clients-key.pem"), &file).unwrap();
    let listed = house.ca(&["requests"]).success();
    assert!(listed.stderr.contains("1 files in"), "{listed}");
    assert_eq!(listed.text(), "No device waits for an answer.\n");
}

/// The owner compares the key that `ca requests` shows with that of the device: what is approved is that key.
#[test]
fn key_that_the_gate_puts_in_after_the_owner_has_looked_is_not_approved() {
    let house = House::of(&["alice-laptop"]);
    let request = |name: &str| {
        let key = house.home.path(&format!("devices/{name}-key.pem")).display().to_string();
        house.home.openssl(&["genpkey", "-algorithm", "ED25519", "-out", &key]).success();
        house.request(&format!("devices/{name}-key.pem"))
    };
    let (own, forged) = (request("next"), request("thief"));
    assert_eq!(house.send("alice-laptop", &own).status, 202);
    let compared = requests(&house)[0]["key_sha256"].as_str().unwrap().to_owned();
    let file =
        |device: &str| house.folder().join(format!("{}.request", &Sha256::of(device.as_bytes()).to_string()[..32]));
    let genuine = fs::read_to_string(file("alice-laptop")).unwrap();
    let with = |device: &str| {
        let mut stored: Table = toml::from_str(&genuine).unwrap();
        let body: String = forged.split_whitespace().collect();
        let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
        stored.insert("request".to_owned(), pem.into());
        stored.insert("device".to_owned(), device.into());
        // The oldest is the first.
        stored.insert("requested_at".to_owned(), 1.into());
        toml::to_string(&stored).unwrap()
    };
    // In its place.
    fs::write(file("alice-laptop"), with("alice-laptop")).unwrap();
    let swapped = house.ca(&["approve", "alice-laptop", "--new-key", &compared]);
    refused(swapped, 2, &["alice-laptop asks with a new key", "its SHA-256 is "]);
    // Beside it, as that of another device.
    fs::write(file("alice-laptop"), &genuine).unwrap();
    fs::write(file("zoe"), with("zoe")).unwrap();
    assert_eq!(requests(&house).len(), 2);
    house.ca(&["approve", "alice-laptop", "--new-key", &compared]).success();
    assert_eq!(house.send("alice-laptop", &own).status, 200);
    let left = requests(&house);
    assert!(left.len() == 1 && left[0]["key_sha256"] != compared.as_str(), "{left:?}");
    assert_eq!(house.home.devices(), ["alice-laptop renewed", "alice-laptop valid"]);
}
