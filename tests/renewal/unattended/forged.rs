//! A gate that was taken over, and a stolen key of the renewal authority.

use std::fs;
use std::path::PathBuf;

use doorward::model::identity::{Origin, Serial, Sha256};
use doorward::pki::origin::{ORIGIN_OID, extension};
use rcgen::{CertificateParams, CustomExtension, DnType};

use super::{gets_in, house, house_with, keep, make_issuer, origin_of, outcomes, renewed, revoke, stolen};
use crate::common::pki::{Authority, Certified};
use crate::home::refused;
use crate::house::House;

/// A certificate as the renewal authority issues it, with these extensions.
fn like_renewed(name: &str, extensions: Vec<CustomExtension>) -> CertificateParams {
    let mut params = Certified::for_clients(name);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.custom_extensions = extensions;
    params
}

fn key(house: &House, device: &str) -> PathBuf {
    house.home.path(&format!("devices/{device}-key.pem"))
}

/// Makes a certificate with the stolen key, and says whether it gets in.
fn admits(house: &House, extensions: Vec<CustomExtension>, device: &str) -> bool {
    let pem = stolen(&house.home, like_renewed("alice-laptop", extensions), &key(house, device));
    keep(house, &pem, device, "forged");
    gets_in(house, "forged")
}

#[test]
fn stolen_key_admits_no_one_without_the_key_of_a_device() {
    let house = house(&["alice-laptop", "bob-laptop"]);
    let other = house.home.path("devices/thief-key.pem").display().to_string();
    house
        .home
        .openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &other])
        .success();
    let alice = origin_of(&house, "alice-laptop");
    // The right one, for comparison: a device that has its key is no further than before.
    assert!(admits(&house, vec![extension(&alice)], "alice-laptop"));
    let invented = Origin { serial: Serial::parse("abcdef").unwrap(), ..alice };
    let unknown = Origin { fingerprint: Sha256::of(b"none"), ..alice.clone() };
    let elsewhere = Origin { authority: Sha256::of(b"other"), ..alice.clone() };
    let garbage = CustomExtension::from_oid_content(ORIGIN_OID, b"garbage".to_vec());
    for (extensions, device) in [
        (vec![], "alice-laptop"),
        (vec![garbage], "alice-laptop"),
        (vec![extension(&alice), extension(&alice)], "alice-laptop"),
        (vec![extension(&invented)], "alice-laptop"),
        (vec![extension(&unknown)], "alice-laptop"),
        (vec![extension(&elsewhere)], "alice-laptop"),
        // Of a device that is not revoked, for a key of the thief's, or of another device.
        (vec![extension(&alice)], "thief"),
        (vec![extension(&alice)], "bob-laptop"),
    ] {
        assert!(!admits(&house, extensions, device));
    }
    let lines = house.gate.wait_rejected("certificate", "invalid", 8);
    assert_eq!(lines.len(), 8);
    let details: Vec<&str> = lines.iter().map(|line| line["detail"].as_str().unwrap()).collect();
    for words in [
        "does not say which certificate",
        "cannot be relied on",
        "no certificate in the inventory",
        "is not in trust",
        "another key",
    ] {
        assert!(details.iter().any(|detail| detail.contains(words)), "{words}: {details:?}");
    }
    // Nor does it give a device another name.
    let renamed = like_renewed("bob-laptop", vec![extension(&alice)]);
    keep(&house, &stolen(&house.home, renamed, &key(&house, "alice-laptop")), "alice-laptop", "forged");
    assert!(!gets_in(&house, "forged"));
    // A revoked device with its own key and the stolen one: its origin cannot be changed for that of another one.
    revoke(&house, "alice-laptop");
    house.gate.hang_up();
    let bob = origin_of(&house, "bob-laptop");
    let mixed = [
        Origin { serial: bob.serial.clone(), ..alice.clone() },
        Origin { fingerprint: bob.fingerprint, ..alice.clone() },
        bob,
        alice,
    ];
    for origin in mixed {
        assert!(!admits(&house, vec![extension(&origin)], "alice-laptop"));
    }
}

#[test]
fn authority_that_renews_has_no_authorities_below_it() {
    let house = house(&["alice-laptop"]);
    let authority = Authority::read(&house.home.path("pki/renewals.pem"), &house.home.path("issuer/renewals-key.pem"));
    let below = authority.intermediate(Authority::for_authorities("Below"));
    let key = rcgen::KeyPair::from_pem(&fs::read_to_string(key(&house, "alice-laptop")).unwrap()).unwrap();
    let params = like_renewed("alice-laptop", vec![extension(&origin_of(&house, "alice-laptop"))]);
    let pem = below.issue_for_key(params, key).chain_pem();
    keep(&house, &pem, "alice-laptop", "forged");
    assert!(!gets_in(&house, "forged"));
    house.gate.wait_rejected("certificate", "unknown_ca", 1);
}

/// The authority of devices may write what it likes into its certificates: it says nothing.
#[test]
fn extension_in_a_certificate_of_the_owners_authority_says_nothing() {
    let house = house(&["alice-laptop", "bob-laptop"]);
    let authority = Authority::read(&house.home.path("pki/clients.pem"), &house.home.path("pki/clients-key.pem"));
    revoke(&house, "bob-laptop");
    house.gate.hang_up();
    let params = like_renewed("carol", vec![extension(&origin_of(&house, "bob-laptop"))]);
    let key = rcgen::KeyPair::from_pem(&fs::read_to_string(key(&house, "alice-laptop")).unwrap()).unwrap();
    keep(&house, &authority.issue_for_key(params, key).chain_pem(), "alice-laptop", "carol");
    assert!(gets_in(&house, "carol"));
}

/// A gate that was taken over can write what it likes into the folder.
#[test]
fn requests_that_the_gate_makes_up_are_not_answered() {
    let house = house_with(&["alice-laptop", "bob-laptop"], ", days = 30, except = [\"alice-laptop\"]");
    let request = house.request("devices/alice-laptop-key.pem");
    assert_eq!(house.send("alice-laptop", &request).status, 202);
    let file = fs::read_dir(house.folder()).unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "request")).unwrap();
    let stored: toml::Table = toml::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let bob_request = house.request("devices/bob-laptop-key.pem");
    let answered = |change: &dyn Fn(&mut toml::Table)| {
        let mut forged = stored.clone();
        change(&mut forged);
        super::look(&house, "bob-laptop", &toml::to_string(&forged).unwrap())
    };
    let pem =
        |house: &House, device: &str| fs::read_to_string(house.home.path(&format!("devices/{device}.pem"))).unwrap();
    let show = |forged: &mut toml::Table, pem: &str| {
        forged.insert("certificate".to_owned(), Sha256::of(&super::der(pem)).to_string().into());
        forged.insert("shown".to_owned(), pem.into());
        forged.insert("device".to_owned(), "bob-laptop".into());
    };
    let asks = |forged: &mut toml::Table, request: &str| {
        let body: String = request.split_whitespace().collect();
        forged.insert(
            "request".to_owned(),
            format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n").into(),
        );
    };
    // Right, for comparison.
    let right = answered(&|forged| {
        show(forged, &pem(&house, "bob-laptop"));
        asks(forged, &bob_request);
    });
    assert!(right.is_ok(), "{right:?}");
    // A key that the gate has made.
    let thief = house.home.path("devices/thief-key.pem").display().to_string();
    house
        .home
        .openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &thief])
        .success();
    let thief = house.request("devices/thief-key.pem");
    let stolen_key = answered(&|forged| {
        show(forged, &pem(&house, "bob-laptop"));
        asks(forged, &thief);
    });
    assert!(stolen_key.unwrap_err().contains("its key is new"));
    // A certificate that it has made.
    let own = Authority::new("Doorward devices");
    let key = rcgen::KeyPair::from_pem(&fs::read_to_string(key(&house, "thief")).unwrap()).unwrap();
    let forged_pem = own.issue_for_key(like_renewed("bob-laptop", vec![]), key).chain_pem();
    let forged = answered(&|forged| {
        show(forged, &forged_pem);
        asks(forged, &thief);
    });
    assert!(forged.unwrap_err().contains("the certificate that it came with is refused"));
    // The certificate of another device, and none.
    let other = answered(&|forged| {
        show(forged, &pem(&house, "alice-laptop"));
        asks(forged, &request);
    });
    assert!(other.unwrap_err().contains("the certificate of another device"));
    let none = answered(&|forged| {
        show(forged, &pem(&house, "bob-laptop"));
        asks(forged, &bob_request);
        forged.remove("shown");
    });
    assert!(none.unwrap_err().contains("is not there"));
    // Revoked, whatever the gate has of that.
    revoke(&house, "bob-laptop");
    let revoked = answered(&|forged| {
        show(forged, &pem(&house, "bob-laptop"));
        asks(forged, &bob_request);
    });
    let revoked = revoked.unwrap_err();
    assert!(revoked.contains("refused") && revoked.contains("revo"), "{revoked}");
    assert_eq!(outcomes(&house, "issued_unattended").len(), 0);
}

#[test]
fn one_device_gets_a_few_a_day() {
    let house = house(&["alice-laptop"]);
    let mut name = "alice-laptop".to_owned();
    for number in 0..4 {
        let next = format!("number-{number}");
        renewed(&house, &name, &next);
        name = next;
    }
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let begun = now();
    crate::common::process::wait_until("a certificate that would last longer", || (now() > begun + 1).then_some(()));
    let sent = house.send(&name, &house.request("devices/alice-laptop-key.pem"));
    assert_eq!(sent.status, 202, "{}", sent.body);
    let line = house.gate.wait_for_line("what is left to the owner", |line| {
        line["detail"].as_str().is_some_and(|detail| detail.contains("too many certificates"))
    });
    assert_eq!(line["outcome"], "stored");
    assert_eq!(outcomes(&house, "issued_unattended").len(), 4);
}

/// It was replaced because its key may be in other hands. A gate that was taken over writes what it likes.
#[test]
fn certificate_of_an_authority_that_was_replaced_shows_the_owner_nothing() {
    let house = house(&["alice-laptop"]);
    renewed(&house, "alice-laptop", "first");
    let next = house.home.path("devices/next-key.pem").display().to_string();
    house.home.openssl(&["genpkey", "-algorithm", "ED25519", "-out", &next]).success();
    assert_eq!(house.send("first", &house.request("devices/next-key.pem")).status, 202);
    let listed = || house.ca(&["requests", "--format", "json"]).success().text();
    assert!(listed().contains("\"key\": \"new\""), "{}", listed());
    make_issuer(&house.home, &["--replace"]);
    assert!(listed().contains("was not issued to a device here"), "{}", listed());
    refused(house.ca(&["approve", "alice-laptop"]), 2, &["was not issued to a device here"]);
    // What was issued is told all the same.
    let issued = house.ca(&["requests", "--renewed"]).success();
    assert!(issued.text().contains("alice-laptop"), "{issued}");
}
