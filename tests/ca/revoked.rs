//! Revoked certificates stay revoked, no other ones are, and reports claim no more than that.

use serde_json::Value;

use crate::common::process::{run, tool};
use crate::home::{Home, refused};

/// Whether OpenSSL accepts this device's certificate with the revocation list.
#[track_caller]
fn counts(home: &Home, certificate: &str) -> bool {
    let verify = ["verify", "-crl_check", "-CRLfile", "pki/clients.crl", "-CAfile", "pki/clients.pem", certificate];
    let verified = home.openssl(&verify);
    assert!(verified.status.success() || verified.stderr.contains("certificate revoked"), "{verified}");
    verified.status.success()
}

/// The serial number of this device's latest certificate.
#[track_caller]
fn serial(home: &Home, name: &str) -> String {
    let list = home.list();
    list.iter().rfind(|line| line["name"] == name).unwrap()["serial"].as_str().unwrap().to_owned()
}

#[test]
fn forged_serial_number_revokes_no_device() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    let number = format!("0x{}", serial(&home, "alice-phone"));
    let forge = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x"];
    let with = ["-addext", "basicConstraints=critical,CA:FALSE", "-set_serial", &number, "-keyout", "x-key.pem"];
    home.openssl(&[&forge[..], &with, &["-out", "x.pem"]].concat()).success();
    let before = home.files();
    refused(home.ca(&["revoke", "--file", "x.pem"]), 2, &["none of the authorities", "x.pem was signed by"]);
    assert_eq!(home.files(), before);
    assert_eq!(home.devices(), ["alice-phone valid"]);
}

#[test]
fn restored_inventory_keeps_revocations_of_the_list() {
    let home = Home::with_authorities();
    for name in ["alice-phone", "bob-laptop", "carol-tablet"] {
        home.ca(&["device", name]).success();
        if name == "alice-phone" {
            // This inventory has neither the other devices nor the revocations.
            std::fs::copy(home.path("pki/inventory.toml"), home.path("backup.toml")).unwrap();
        }
    }
    for (name, reason) in [("alice-phone", "lost"), ("bob-laptop", "retired")] {
        home.ca(&["revoke", name, "--reason", reason]).not_proved();
    }
    std::fs::copy(home.path("backup.toml"), home.path("pki/inventory.toml")).unwrap();
    assert_eq!(home.devices(), ["alice-phone revoked", "– revoked"], "what is so, and not what the inventory says");

    let revoked = home.ca(&["revoke", "--file", "devices/carol-tablet.pem"]).not_proved();
    assert!(revoked.stderr.contains("2 certificates were on the revocation list"), "{revoked}");
    for name in ["alice-phone", "bob-laptop", "carol-tablet"] {
        assert!(!counts(&home, &format!("devices/{name}.pem")), "{name} is accepted again");
    }
    assert_eq!(home.devices(), ["alice-phone revoked", "– revoked", "carol-tablet revoked"]);
    let list = home.openssl(&["crl", "-in", "pki/clients.crl", "-noout", "-text"]).success().text();
    assert_eq!(
        (list.matches("Key Compromise").count(), list.matches("Cessation Of Operation").count()),
        (2, 1),
        "why they were revoked is known still: {list}"
    );
    // A revoked device cannot be renewed.
    refused(home.ca(&["renew", "alice-phone"]), 2, &["is revoked"]);
    // Known entries are not reported again.
    let again = home.ca(&["revoke", "--lists"]).not_proved();
    assert!(!again.stderr.contains("on the revocation list"), "{again}");
}

#[test]
fn renewal_respects_the_revocation_list() {
    let home = Home::with_authorities();
    for name in ["alice-phone", "bob-laptop"] {
        home.ca(&["device", name]).success();
    }
    std::fs::copy(home.path("pki/inventory.toml"), home.path("backup.toml")).unwrap();
    home.ca(&["revoke", "alice-phone"]).not_proved();
    std::fs::copy(home.path("backup.toml"), home.path("pki/inventory.toml")).unwrap();
    // The list is respected, whatever the inventory says.
    let renewed = home.ca(&["renew", "alice-phone"]).failure();
    assert!(renewed.stderr.contains("error: the certificate of alice-phone is revoked"), "{renewed}");
    std::fs::copy(home.path("devices/bob-laptop.pem"), home.path("old.pem")).unwrap();
    home.ca(&["renew", "bob-laptop", "--revoke-old"]).not_proved();
    assert!(!counts(&home, "old.pem"), "what was replaced");
    assert!(!counts(&home, "devices/alice-phone.pem"));
    assert!(counts(&home, "devices/bob-laptop.pem"));
}

#[test]
fn list_of_another_authority_is_ignored() {
    let home = Home::with_authorities();
    let elsewhere = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    elsewhere.ca(&["revoke", "--serial", &serial(&home, "alice-phone")]).not_proved();
    // Another key of an authority with the same role.
    std::fs::copy(elsewhere.path("pki/clients.crl"), home.path("pki/clients.crl")).unwrap();
    home.ca(&["revoke", "--lists"]).not_proved();
    assert_eq!(home.devices(), ["alice-phone valid"]);
    assert!(counts(&home, "devices/alice-phone.pem"));
}

#[test]
fn reimported_authority_keeps_its_list() {
    let home = Home::new();
    run(tool("mkcert", "mkcert").current_dir(home.path("")).env("CAROOT", home.path("mkcert")).args(["-client", "a"]))
        .success();
    home.ca(&["import", "--mkcert", "mkcert"]).success();
    home.ca(&["revoke", "--file", "a-client.pem"]).not_proved();
    std::fs::remove_file(home.path("pki/inventory.toml")).unwrap();
    let imported = home.ca(&["import", "--mkcert", "mkcert", "--folder", "pki"]).success();
    assert!(imported.stderr.contains("1 certificate was on the revocation list"), "{imported}");
    let list = home.openssl(&["crl", "-in", "pki/mkcert.crl", "-noout", "-text"]).success().text();
    assert!(list.contains("Key Compromise"), "{list}");
    assert_eq!(home.devices(), ["– revoked"]);
}

#[test]
fn moved_authority_is_imported_from_its_new_folder() {
    let home = Home::new();
    run(tool("mkcert", "mkcert").current_dir(home.path("")).env("CAROOT", home.path("mkcert")).args(["-client", "a"]))
        .success();
    home.ca(&["import", "--mkcert", "mkcert"]).success();
    std::fs::rename(home.path("mkcert"), home.path("moved")).unwrap();
    refused(home.ca(&["revoke", "--file", "a-client.pem"]), 1, &["mkcert/rootCA.pem"]);
    home.ca(&["import", "--mkcert", "moved"]).success();
    home.ca(&["revoke", "--file", "a-client.pem"]).not_proved();
    assert_eq!(home.list().len(), 1);
}

#[test]
fn revoking_one_of_two_certificates_warns_of_the_other() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    home.ca(&["renew", "alice-phone"]).success();
    let latest = serial(&home, "alice-phone");
    let revoked = home.ca(&["revoke", "--serial", &latest, "--format", "json"]).not_proved();
    let revoked: Value = serde_json::from_slice(&revoked.stdout).unwrap();
    assert_eq!(revoked["still_in"], serde_json::json!(["alice-phone"]), "{revoked}");
    let revoked = home.ca(&["revoke", "--serial", &latest]).not_proved();
    for words in ["alice-phone has another certificate, which is still valid", "doorward ca revoke alice-phone"] {
        assert!(revoked.stderr.contains(words), "{words:?} is missing: {revoked}");
    }
    let revoked = home.ca(&["revoke", "alice-phone", "--format", "json"]).not_proved();
    let revoked: Value = serde_json::from_slice(&revoked.stdout).unwrap();
    assert_eq!(revoked["still_in"], serde_json::json!([]), "{revoked}");
    assert_eq!(home.devices(), ["alice-phone revoked", "alice-phone revoked"]);
}

#[test]
fn unknown_serial_number_is_reported_as_unknown() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    let revoked = home.ca(&["revoke", "--serial", "0123456789abcdef"]).not_proved();
    for words in ["no certificate in the inventory has the serial number 0123456789abcdef", "devices", "compare"] {
        assert!(revoked.stderr.contains(words), "{words:?} is missing: {revoked}");
    }
    let known = home.ca(&["revoke", "--serial", &serial(&home, "alice-phone")]).not_proved();
    assert!(!known.stderr.contains("no certificate in the inventory"), "{known}");
}

#[test]
fn authority_without_list_revokes_nothing() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    let file = home.path("pki/inventory.toml");
    let inventory = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, inventory.replace("revocation_list = \"clients.crl\"\n", "")).unwrap();
    refused(home.ca(&["revoke", "alice-phone"]), 2, &["\"devices\"", "has no revocation list"]);
    refused(home.ca(&["revoke", "--lists"]), 2, &["keeps a revocation list"]);
    assert_eq!(home.devices(), ["alice-phone valid"]);
}
