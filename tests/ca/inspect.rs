//! `doorward ca inspect` on files of many origins.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rcgen::{
    CertificateParams, CertificateRevocationListParams, CustomExtension, ExtendedKeyUsagePurpose, KeyIdMethod, SanType,
    SerialNumber,
};
use serde_json::Value;

use crate::common::pki::{Authority, Certified, days_from_now};
use crate::common::process::{run, tool};
use crate::home::{Home, refused};

/// For each object in a file, its type and the ids of its findings.
#[track_caller]
fn inspect(home: &Home, file: &str, more: &[&str]) -> Vec<String> {
    let arguments = [&["inspect", file, "--format", "json"], more].concat();
    let inspected = home.ca(&arguments).success();
    let inspected: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    let items = inspected["items"].as_array().unwrap();
    let words = items.iter().map(|item| {
        let findings = item["findings"].as_array().unwrap();
        let ids = findings.iter().map(|finding| finding["id"].as_str().unwrap());
        std::iter::once(item["kind"].as_str().unwrap()).chain(ids).collect::<Vec<_>>().join(" ")
    });
    words.collect()
}

/// A client certificate with one change.
fn changed(home: &Home, file: &str, change: impl FnOnce(&mut CertificateParams)) {
    let mut params = Certified::for_clients("alice-phone");
    change(&mut params);
    std::fs::write(home.path(file), Authority::new("Clients").issue(params).chain_pem()).unwrap();
}

fn mkcert(home: &Home, arguments: &[&str]) {
    let mut mkcert = tool("mkcert", "mkcert");
    mkcert.current_dir(home.path("")).env("CAROOT", home.path("mkcert")).args(arguments);
    run(&mut mkcert).success();
}

#[test]
fn files_made_by_doorward_have_no_findings() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    for (file, is) in [
        ("pki/server-ca.pem", "certificate"),
        ("pki/clients.pem", "certificate"),
        ("pki/server.pem", "certificate server_only"),
        ("devices/alice-phone.pem", "certificate"),
        ("devices/alice-phone-key.pem", "private_key"),
        ("pki/clients.crl", "revocation_list"),
    ] {
        assert_eq!(inspect(&home, file, &[]), [is], "{file}");
    }
    let text = home.ca(&["inspect", "devices/alice-phone.pem"]).success().text();
    assert!(text.starts_with("a certificate for a device: alice-phone\n"), "{text}");
    assert!(text.contains("days left:       824\n"), "{text}");
    let text = home.ca(&["inspect", "pki/server.pem"]).success().text();
    assert!(text.contains("note: this is a server certificate: the gate does not admit a device with it\n"), "{text}");
    let text = home.ca(&["inspect", "pki/server-ca.pem"]).success().text();
    assert!(text.contains("limited to:      home.example\n"), "{text}");
}

#[test]
fn findings_of_mkcert_files() {
    let home = Home::new();
    mkcert(&home, &["-client", "phone.alice"]);
    mkcert(&home, &["alice", "-client"]);
    mkcert(&home, &["-client", "-pkcs12", "tablet"]);
    assert_eq!(inspect(&home, "mkcert/rootCA.pem", &[]), ["certificate no_crl_sign unlimited"]);
    assert_eq!(inspect(&home, "phone.alice-client.pem", &[]), ["certificate both_purposes long"]);
    assert_eq!(inspect(&home, "alice+1.pem", &[]), ["certificate server_only mkcert_option_order long"]);
    // It opens with the password that mkcert always uses.
    assert_eq!(
        inspect(&home, "tablet-client.p12", &[]),
        [
            "archive weak_encryption known_password readable_by_all",
            "certificate both_purposes long",
            "certificate no_crl_sign unlimited",
            "private_key"
        ]
    );
}

#[test]
fn unusual_certificates_have_findings() {
    let home = Home::new();
    changed(&home, "expired.pem", |params| params.not_after = days_from_now(0) - time::Duration::days(3));
    changed(&home, "soon.pem", |params| params.not_after = days_from_now(5));
    changed(&home, "early.pem", |params| params.not_before = days_from_now(2));
    changed(&home, "silent.pem", |params| params.extended_key_usages.clear());
    changed(&home, "mail.pem", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection]);
    changed(&home, "nameless.pem", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_after = days_from_now(900);
    });
    let for_servers = |params: &mut CertificateParams, name: &str| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
    };
    changed(&home, "lan.pem", |params| for_servers(params, "*.lan"));
    changed(&home, "certbot.pem", |params| {
        for_servers(params, "nas.home.example");
        // authorityInfoAccess: caIssuers, as public authorities write it.
        let access = b"\x30\x21\x30\x1f\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x02\x86\x13http://x1.example/r";
        params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], access.to_vec()));
    });
    for (file, is) in [
        ("lan.pem", "certificate server_only wildcard_too_wide"),
        ("certbot.pem", "certificate server_only intermediate_missing"),
        ("expired.pem", "certificate expired"),
        ("soon.pem", "certificate expires_soon"),
        ("early.pem", "certificate not_yet_valid"),
        ("silent.pem", "certificate no_purpose"),
        ("mail.pem", "certificate wrong_purpose"),
        ("nameless.pem", "certificate server_only no_alternative_name too_long"),
    ] {
        let found = inspect(&home, file, &[]);
        assert_eq!(
            found[0].replace(" expires_soon", if is.contains("soon") { " expires_soon" } else { "" }),
            is,
            "{file}"
        );
    }
    let text = home.ca(&["inspect", "expired.pem"]).success().text();
    assert!(text.contains("warning: it expired 3 days ago"), "{text}");

    let subject = ["-subj", "/CN=old", "-keyout", "old-key.pem", "-out", "old.pem", "-nodes", "-days", "90"];
    let old = [&["req", "-x509", "-newkey", "rsa:1024", "-sha1", "-addext", "basicConstraints=CA:FALSE"], &subject[..]];
    home.openssl(&old.concat()).success();
    assert_eq!(inspect(&home, "old.pem", &[]), ["certificate weak_signature weak_key no_purpose self_signed"]);
    home.openssl(&["req", "-new", "-key", "old-key.pem", "-subj", "/CN=old", "-out", "old.csr"]).success();
    assert_eq!(inspect(&home, "old.csr", &[]), ["certificate_request"]);
    home.openssl(&["x509", "-in", "old.pem", "-outform", "der", "-out", "old.der"]).success();
    assert_eq!(inspect(&home, "old.der", &[]), ["certificate weak_signature weak_key no_purpose self_signed"]);
    home.openssl(&["pkey", "-in", "old-key.pem", "-aes256", "-passout", "pass:x", "-out", "locked.pem"]).success();
    assert_eq!(inspect(&home, "locked.pem", &[]), ["private_key"]);

    let list = Authority::new("Clients").revocation_list(&[], days_from_now(-9), days_from_now(-2));
    std::fs::write(home.path("list.crl"), list).unwrap();
    assert_eq!(inspect(&home, "list.crl", &[]), ["revocation_list expired"]);
}

#[test]
fn broken_chains_and_foreign_keys_are_found() {
    let home = Home::with_authorities();
    for name in ["a", "b"] {
        home.ca(&["device", name]).success();
    }
    let join = |to: &str, files: &[&str]| {
        let all: String = files.iter().map(|file| std::fs::read_to_string(home.path(file)).unwrap()).collect();
        std::fs::write(home.path(to), all).unwrap();
        std::fs::set_permissions(home.path(to), std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    join("right.pem", &["devices/a.pem", "pki/clients.pem", "devices/a-key.pem"]);
    assert_eq!(inspect(&home, "right.pem", &[]), ["certificate", "certificate", "private_key"]);
    join("wrong.pem", &["devices/a.pem", "pki/server-ca.pem", "devices/b-key.pem"]);
    assert_eq!(
        inspect(&home, "wrong.pem", &[]),
        ["certificate chain_broken", "certificate", "private_key key_does_not_fit"]
    );
    // Several trust anchors are no chain.
    join("trust.pem", &["pki/clients.pem", "pki/server-ca.pem"]);
    assert_eq!(inspect(&home, "trust.pem", &[]), ["certificate", "certificate"]);
    std::fs::set_permissions(home.path("devices/a-key.pem"), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(inspect(&home, "devices/a-key.pem", &[]), ["private_key readable_by_all"]);
}

#[test]
fn archive_needs_its_password() {
    let home = Home::with_authorities();
    let made = home.ca(&["device", "alice-phone", "--format", "json"]).success();
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    std::fs::write(home.path("password"), made["password"].as_str().unwrap()).unwrap();
    let with = ["--password-file", "password"];
    assert_eq!(
        inspect(&home, "devices/alice-phone.p12", &with),
        ["archive", "certificate", "certificate", "private_key"]
    );
    assert_eq!(
        inspect(&home, "devices/alice-phone-compat.p12", &with),
        ["archive old_encryption", "certificate", "certificate", "private_key"]
    );
    std::fs::write(home.path("password"), "wrong").unwrap();
    refused(
        home.ca(&["inspect", "devices/alice-phone.p12", "--password-file", "password"]),
        2,
        &["wrong password for devices/alice-phone.p12", "groups of four"],
    );
    // Without a terminal: setsid(1) starts a new session, which has none.
    let mut alone = Command::new(tool("setsid", "util-linux").get_program());
    alone.current_dir(home.path("")).arg("--wait").arg(env!("CARGO_BIN_EXE_doorward"));
    refused(
        run(alone.args(["ca", "inspect", "devices/alice-phone.p12"])),
        2,
        &["no terminal to ask on", "--password-file FILE"],
    );
}

#[test]
fn archive_with_too_many_rounds_is_refused() {
    let home = Home::new();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "key.pem"];
    home.openssl(&[&["req", "-x509", "-subj", "/CN=a", "-out", "a.pem"], &key[..]].concat()).success();
    let export = ["pkcs12", "-export", "-inkey", "key.pem", "-in", "a.pem", "-passout", "pass:changeit"];
    for (more, has_mac) in [(&["-iter", "70000"][..], true), (&["-iter", "70000", "-nomac"], false)] {
        home.openssl(&[&export[..], &["-out", "a.p12"], more].concat()).success();
        assert_eq!(inspect(&home, "a.p12", &[])[0], "archive known_password");
        // 70,000 rounds in DER, replaced by 8,388,607: for the MAC, which is the last, or without a MAC, for a key or a
        // certificate.
        let archive = std::fs::read(home.path("a.p12")).unwrap();
        let is_count = |at: &usize| archive[*at..].starts_with(b"\x02\x03\x01\x11\x70");
        let places: Vec<usize> = (0..archive.len()).filter(is_count).collect();
        assert!(!places.is_empty());
        for at in if has_mac { &places[places.len() - 1..] } else { &places[..] } {
            let mut bomb = archive.clone();
            bomb[at + 2..at + 5].copy_from_slice(b"\x7f\xff\xff");
            std::fs::write(home.path("bomb.p12"), &bomb).unwrap();
            refused(home.ca(&["inspect", "bomb.p12"]), 2, &["takes too long", "more than a million rounds"]);
        }
    }
}

#[test]
fn long_numbers_and_names_are_truncated() {
    let home = Home::new();
    let list = CertificateRevocationListParams {
        this_update: days_from_now(-1),
        next_update: days_from_now(1),
        // A million digits, too long to convert to decimal.
        crl_number: SerialNumber::from(vec![0x7f; 1_000_000]),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    std::fs::write(home.path("list.crl"), Authority::new("Clients").sign_list(list)).unwrap();
    assert_eq!(inspect(&home, "list.crl", &[]), ["revocation_list long_number"]);
    changed(&home, "a.pem", |params| {
        params.serial_number = Some(SerialNumber::from(vec![0x7f; 100_000]));
        let name = |index: u32| SanType::DnsName(format!("{index}.home.example").try_into().unwrap());
        params.subject_alt_names = (0..10_000).map(name).collect();
    });
    let text = home.ca(&["inspect", "a.pem"]).success().text();
    assert!(text.len() < 10_000, "{} characters", text.len());
    assert!(text.contains("19.home.example, and 9980 more"), "{text}");
}

#[test]
fn other_files_are_described_as_unknown() {
    let home = Home::new();
    std::fs::write(home.path("page.html"), "<!DOCTYPE html>").unwrap();
    refused(home.ca(&["inspect", "page.html"]), 2, &["is not a certificate, key, request"]);
    refused(home.ca(&["inspect", "nowhere.pem"]), 2, &["cannot read nowhere.pem"]);
    refused(home.ca(&["inspect", "."]), 2, &["is not a file"]);
    std::fs::write(home.path("half.pem"), "-----BEGIN CERTIFICATE-----\nMIIB\n").unwrap();
    let text = home.ca(&["inspect", "half.pem"]).success().text();
    assert!(text.contains("CERTIFICATE without its last line"), "{text}");
    std::fs::write(home.path("evil.pem"), "-----BEGIN \u{1b}[2J-----\nMIIB\n-----END \u{1b}[2J-----\n").unwrap();
    let text = home.ca(&["inspect", "evil.pem"]).success().text();
    assert!(!text.contains('\u{1b}'), "{text:?}");
    changed(&home, "evil.pem", |params| {
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "\u{1b}[2Jevil")
    });
    let text = home.ca(&["inspect", "evil.pem"]).success().text();
    assert!(text.contains("evil") && !text.contains('\u{1b}'), "{text:?}");
}
