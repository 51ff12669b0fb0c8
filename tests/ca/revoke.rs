//! Revokes certificates: what the command writes, and whether OpenSSL reads it.

use crate::home::{Home, refused};

#[test]
fn revoked_name_covers_all_its_certificates() {
    let home = Home::with_authorities();
    for name in ["alice-phone", "bob-laptop"] {
        home.ca(&["device", name]).success();
    }
    std::fs::copy(home.path("devices/alice-phone.pem"), home.path("old.pem")).unwrap();
    home.ca(&["renew", "alice-phone"]).success();
    let verify = |certificate: &str| {
        let check = ["verify", "-x509_strict", "-crl_check", "-CRLfile", "pki/clients.crl", "-CAfile"];
        home.openssl(&[&check[..], &["pki/clients.pem", certificate]].concat())
    };
    for certificate in ["old.pem", "devices/alice-phone.pem", "devices/bob-laptop.pem"] {
        verify(certificate).success();
    }
    let revoked = home.ca(&["revoke", "alice-phone"]).not_proved();
    assert!(revoked.stderr.contains("doorward reload"), "{revoked}");
    assert!(revoked.stderr.contains("/pki/clients.crl\"]"), "{revoked}");
    for certificate in ["old.pem", "devices/alice-phone.pem"] {
        let refused = verify(certificate).failure();
        assert!(refused.stderr.contains("certificate revoked"), "{refused}");
    }
    verify("devices/bob-laptop.pem").success();
    // Revoking again changes nothing, and is no error.
    let again = home.ca(&["revoke", "alice-phone"]).not_proved();
    assert!(again.stderr.contains("already"), "{again}");
    assert_eq!(home.devices(), ["alice-phone revoked", "bob-laptop valid", "alice-phone revoked"]);
}

#[test]
fn certificate_is_revoked_by_serial_fingerprint_or_file() {
    let home = Home::with_authorities();
    for name in ["a", "b", "c", "d"] {
        home.ca(&["device", name]).success();
    }
    let of = |name: &str, what: &str| {
        let list = home.list();
        list.iter().find(|line| line["name"] == name).unwrap()[what].as_str().unwrap().to_owned()
    };
    home.ca(&["revoke", "--serial", &of("a", "serial").to_uppercase()]).not_proved();
    home.ca(&["revoke", "--fingerprint", &format!("sha256:{}", of("b", "fingerprint")), "--reason", "retired"])
        .not_proved();
    home.ca(&["revoke", "--file", "devices/c.pem"]).not_proved();
    assert_eq!(home.devices(), ["a revoked", "b revoked", "c revoked", "d valid"]);
    let list = home.openssl(&["crl", "-in", "pki/clients.crl", "-noout", "-text"]).success().text();
    assert_eq!(
        (list.matches("Key Compromise").count(), list.matches("Cessation Of Operation").count()),
        (2, 1),
        "{list}"
    );
    // An unknown serial number is added to the list: the inventory may be younger than the authority.
    home.ca(&["revoke", "--serial", "0123456789abcdef"]).not_proved();
    let list = home.openssl(&["crl", "-in", "pki/clients.crl", "-noout", "-text"]).success().text();
    assert!(list.contains("Serial Number: 0123456789ABCDEF"), "{list}");
}

#[test]
fn revocation_list_numbers_increase() {
    let home = Home::with_authorities();
    let number = || {
        let text = home.openssl(&["crl", "-in", "pki/clients.crl", "-noout", "-crlnumber"]).success().text();
        u64::from_str_radix(text.trim().strip_prefix("crlNumber=0x").unwrap(), 16).unwrap()
    };
    // Even if both an older inventory and an older list were restored.
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut last = number();
    for _ in 0..3 {
        let inventory = std::fs::read_to_string(home.path("pki/inventory.toml")).unwrap();
        assert!(inventory.contains(&format!("list_number = {last}\n")), "{inventory}");
        std::fs::write(
            home.path("pki/inventory.toml"),
            inventory.replace(&format!("list_number = {last}\n"), "list_number = 7\n"),
        )
        .unwrap();
        home.ca(&["revoke", "--lists"]).not_proved();
        assert!(number() > last && number() >= seconds);
        last = number();
    }
}

#[test]
fn revocation_errors_say_what_to_do() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    let elsewhere = Home::with_authorities();
    elsewhere.ca(&["device", "stranger"]).success();
    let before = home.files();
    let stranger = elsewhere.path("devices/stranger.pem");
    let stranger = stranger.to_str().unwrap();
    let server = home.list()[0]["serial"].as_str().unwrap().to_owned();
    for (arguments, words) in [
        (&["revoke", "bob-laptop"][..], &["no device named \"bob-laptop\"", "there are: alice-phone"][..]),
        (&["revoke", "devices/alice-phone.pem"], &["--file devices/alice-phone.pem"]),
        (&["revoke", "--file", stranger], &["none of the authorities", "deny = [\"sha256:"]),
        (&["revoke", "--file", "devices/alice-phone-key.pem"], &["no certificate found in"]),
        (&["revoke", "--file", "devices/alice-phone.p12"], &["a password of its own", "--serial"]),
        (&["revoke", "--file", "nowhere.pem"], &["cannot read nowhere.pem"]),
        (&["revoke", "--fingerprint", &"0".repeat(64)], &["no certificate with the fingerprint", "--serial"]),
        (&["revoke", "--serial", &server], &["certificate of the gate", "--new-key"]),
        (&["renew", "bob-laptop"], &["no device named", "doorward ca list"]),
        (&["renew", "home.example"], &["doorward ca renew --server"]),
        (&["list", "--folder", "elsewhere"], &["no inventory in elsewhere", "doorward ca init"]),
    ] {
        refused(home.ca(arguments), 2, words);
    }
    for (arguments, words) in [
        (&["revoke", "--serial", "xyz"][..], "hexadecimal digits"),
        (&["revoke", "--fingerprint", "12"], "64 hexadecimal digits"),
        (&["revoke", "alice-phone", "--serial", "12"], "cannot be used with"),
        (&["renew"], "required"),
    ] {
        let finished = home.ca(arguments).failure();
        assert_eq!(finished.status.code(), Some(2), "{finished}");
        assert!(finished.stderr.contains(words), "{finished}");
    }
    assert_eq!(home.files(), before);
}

#[test]
fn missing_authority_key_blocks_only_signing() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    // The key is kept elsewhere, as the manual advises.
    std::fs::rename(home.path("pki/clients-key.pem"), home.path("away.pem")).unwrap();
    let before = home.files();
    refused(home.ca(&["device", "bob-laptop"]), 2, &["pki/clients-key.pem is missing", "put it back", "deny = "]);
    refused(home.ca(&["revoke", "alice-phone"]), 2, &["pki/clients-key.pem is missing"]);
    assert_eq!(home.files(), before);
    assert_eq!(home.devices(), ["alice-phone valid"]);
    home.ca(&["export", "alice-phone"]).success();
    home.ca(&["server"]).not_proved();
    std::fs::rename(home.path("away.pem"), home.path("pki/clients-key.pem")).unwrap();
    home.ca(&["revoke", "alice-phone"]).not_proved();
}

#[test]
fn authority_with_unsupported_name_is_not_imported() {
    let home = Home::new();
    std::fs::create_dir(home.path("mkcert")).unwrap();
    // Two attributes in one component: the issuer in what it signs would differ.
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "mkcert/rootCA-key.pem"];
    home.openssl(&[&["req", "-x509", "-subj", "/O=x+CN=y", "-out", "mkcert/rootCA.pem"], &key[..]].concat()).success();
    refused(home.ca(&["import", "--mkcert", "mkcert"]), 1, &["not the certificate of an authority"]);
    assert!(!home.path("pki/mkcert.crl").exists());
}
