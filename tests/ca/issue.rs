//! Issues and renews certificates: what the commands write, and whether OpenSSL accepts it.

use crate::common::process::run;
use crate::home::{Home, mode, refused};

/// The public key of a certificate, as OpenSSL writes it.
#[track_caller]
fn public_key(home: &Home, certificate: &str) -> String {
    home.openssl(&["x509", "-in", certificate, "-noout", "-pubkey"]).success().text()
}

#[test]
fn init_creates_two_authorities_with_private_keys() {
    let home = Home::with_authorities();
    for key in ["pki/server-ca-key.pem", "pki/clients-key.pem", "pki/server-key.pem", "pki/inventory.toml"] {
        assert_eq!(mode(&home.path(key)), 0o600, "{key}");
    }
    for public in ["pki/server-ca.pem", "pki/clients.pem", "pki/server.pem", "pki/clients.crl"] {
        assert_eq!(mode(&home.path(public)), 0o644, "{public}");
    }
    assert_eq!(mode(&home.path("pki")), 0o700);
    let verify = ["verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "nas.home.example"];
    home.openssl(&[&verify[..], &["-CAfile", "pki/server-ca.pem", "pki/server.pem"]].concat()).success();
    let list = home.openssl(&["crl", "-in", "pki/clients.crl", "-CAfile", "pki/clients.pem", "-noout"]).success();
    assert!(list.stderr.contains("verify OK"), "{list}");
    assert_eq!(home.devices(), [] as [&str; 0]);
}

#[test]
fn init_overwrites_nothing_without_force() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    let before = home.files();
    refused(
        home.ca(&["init", "--domain", "home.example"]),
        7,
        &["would overwrite pki/server-ca.pem", "nothing was written", "--force"],
    );
    assert_eq!(home.files(), before);
    home.ca(&["init", "--domain", "home.example", "--force"]).success();
    assert_eq!(home.devices(), [] as [&str; 0], "the new authority has issued nothing");
}

#[test]
fn ca_finds_the_folder_that_init_created() {
    let home = Home::new();
    let mut init = home.doorward();
    init.args(["init", "--domain", "home.example", "--route", "nas=127.0.0.1:80", "--device", "alice-phone"]);
    run(&mut init).success();
    // From the folder above, as after `doorward init`; from the folder itself; and by name.
    home.ca(&["device", "bob-laptop"]).success();
    assert!(home.path("doorward/devices/bob-laptop.p12").exists());
    let mut within = home.doorward();
    within.current_dir(home.path("doorward")).args(["ca", "device", "carol-laptop"]);
    run(&mut within).success();
    assert!(home.path("doorward/devices/carol-laptop.p12").exists());
    home.ca(&["device", "dave", "--folder", "doorward/pki"]).success();
    assert_eq!(home.devices(), ["alice-phone valid", "bob-laptop valid", "carol-laptop valid", "dave valid"]);
}

#[test]
fn new_device_gets_certificate_key_and_archives() {
    let home = Home::with_authorities();
    let made = home.ca(&["device", "alice-phone", "--format", "json"]).success();
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    for secret in ["alice-phone.p12", "alice-phone-compat.p12", "alice-phone-key.pem"] {
        assert_eq!(mode(&home.path("devices").join(secret)), 0o600, "{secret}");
    }
    let verify = ["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "pki/clients.pem"];
    home.openssl(&[&verify[..], &["devices/alice-phone.pem"]].concat()).success();
    let password = format!("pass:{}", made["password"].as_str().unwrap());
    for archive in ["archive", "archive_compat"] {
        let archive = made[archive].as_str().unwrap();
        home.openssl(&["pkcs12", "-in", archive, "-passin", &password, "-nodes", "-noout"]).success();
    }
    assert!(!home.files().iter().any(|(_, contents)| {
        let password = made["password"].as_str().unwrap().as_bytes();
        contents.windows(password.len()).any(|part| part == password)
    }));
    let [device] = &home.list()[1..] else { panic!("the gate's and the device's") };
    assert_eq!(
        (&device["status"], &device["days_left"], &device["key"]),
        (&"valid".into(), &824.into(), &"p256".into())
    );
    assert_eq!(device["serial"], made["serial"]);
}

#[test]
fn keys_of_every_type_are_issued() {
    let home = Home::new();
    home.ca(&["init", "--domain", "home.example", "--key-type", "rsa"]).success();
    for kind in ["p256", "ed25519", "rsa"] {
        home.ca(&["device", kind, "--key-type", kind]).success();
        let certificate = format!("devices/{kind}.pem");
        home.openssl(&["verify", "-x509_strict", "-CAfile", "pki/clients.pem", &certificate]).success();
    }
    let keys: Vec<_> = home.list().iter().map(|line| line["key"].as_str().unwrap().to_owned()).collect();
    assert_eq!(keys, ["rsa-3072", "p256", "ed25519", "rsa-3072"]);
}

#[test]
fn name_of_a_device_is_unique() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    let before = home.files();
    for taken in ["alice-phone", "Alice-Phone"] {
        refused(
            home.ca(&["device", taken]),
            2,
            &["already has a certificate, valid until", "doorward ca renew alice-phone"],
        );
    }
    refused(home.ca(&["device", "alice-phone-key"]), 2, &["files of alice-phone", "another name"]);
    refused(home.ca(&["device", "any"]), 2, &["is reserved"]);
    refused(home.ca(&["device", "../up"]), 2, &["may not"]);
    assert_eq!(home.files(), before);
    // Once revoked, the name is free again, and the files of the revoked certificate are replaced.
    home.ca(&["revoke", "alice-phone"]).not_proved();
    home.ca(&["device", "alice-phone"]).success();
    let archive = |files: &[(std::path::PathBuf, Vec<u8>)]| {
        files.iter().find(|(path, _)| path.ends_with("devices/alice-phone.p12")).unwrap().1.clone()
    };
    assert_ne!(archive(&home.files()), archive(&before));
    assert_eq!(home.devices(), ["alice-phone revoked", "alice-phone valid"]);
}

/// Files are replaced for a device that was issued here before, and whose certificates are revoked; not for any name.
#[test]
fn files_of_a_name_never_issued_are_not_overwritten() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    home.ca(&["revoke", "alice-phone"]).not_proved();
    let archive = home.path("devices/carol-phone.p12");
    std::fs::write(&archive, "of another house").unwrap();
    refused(home.ca(&["device", "carol-phone"]), 7, &["devices/carol-phone.p12", "--force"]);
    assert_eq!(std::fs::read_to_string(&archive).unwrap(), "of another house");
    assert_eq!(home.devices(), ["alice-phone revoked"]);
}

#[test]
fn renewal_keeps_the_key_and_the_old_certificate_valid() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    let old = public_key(&home, "devices/alice-phone.pem");
    let old_file = std::fs::read(home.path("devices/alice-phone.pem")).unwrap();
    let renewed = home.ca(&["renew", "alice-phone"]).success();
    assert!(renewed.stderr.contains("stays valid until"), "{renewed}");
    assert_ne!(std::fs::read(home.path("devices/alice-phone.pem")).unwrap(), old_file);
    assert_eq!(public_key(&home, "devices/alice-phone.pem"), old);
    assert_eq!(home.devices(), ["alice-phone renewed", "alice-phone valid"]);
    assert_eq!(home.list()[2]["renews"], home.list()[1]["serial"]);
    assert!(home.list()[2]["last_renewal"].is_i64());
    let revoked = home.openssl(&["crl", "-in", "pki/clients.crl", "-noout", "-text"]).success();
    assert!(revoked.text().contains("No Revoked Certificates"), "{revoked}");

    home.ca(&["renew", "alice-phone", "--new-key", "--revoke-old"]).not_proved();
    assert_ne!(public_key(&home, "devices/alice-phone.pem"), old);
    assert_eq!(home.devices(), ["alice-phone revoked", "alice-phone revoked", "alice-phone valid"]);
    let list = home.openssl(&["crl", "-in", "pki/clients.crl", "-noout", "-text"]).success();
    assert!(list.text().contains("Superseded"), "{list}");
}

#[test]
fn device_without_local_key_is_renewed() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    let old = public_key(&home, "devices/alice-phone.pem");
    std::fs::remove_dir_all(home.path("devices")).unwrap();
    let renewed = home.ca(&["renew", "alice-phone"]).success();
    assert!(renewed.stderr.contains("The key is not here"), "{renewed}");
    assert_eq!(public_key(&home, "devices/alice-phone.pem"), old);
    let only: Vec<_> = std::fs::read_dir(home.path("devices")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(only, ["alice-phone.pem"]);
}

#[test]
fn server_certificate_is_reissued_with_its_key() {
    let home = Home::with_authorities();
    let key = || std::fs::read(home.path("pki/server-key.pem")).unwrap();
    let names =
        || home.openssl(&["x509", "-in", "pki/server.pem", "-noout", "-ext", "subjectAltName"]).success().text();
    let (old_key, old_names) = (key(), names());
    assert!(old_names.contains("DNS:home.example, DNS:*.home.example"), "{old_names}");
    home.ca(&["renew", "--server"]).not_proved();
    assert_eq!((key(), names()), (old_key.clone(), old_names));
    home.ca(&["server", "nas.home.example", "ssh.home.example"]).not_proved();
    assert!(names().contains("DNS:nas.home.example, DNS:ssh.home.example"), "{}", names());
    assert_eq!(key(), old_key);
    // The names stay the same.
    home.ca(&["server", "--new-key"]).not_proved();
    assert!(names().contains("DNS:nas.home.example, DNS:ssh.home.example"), "{}", names());
    assert_ne!(key(), old_key);
    let status: Vec<_> = home.list().iter().map(|line| line["status"].as_str().unwrap().to_owned()).collect();
    assert_eq!(status, ["renewed", "renewed", "renewed", "valid"]);

    refused(home.ca(&["server", "nas.other.example"]), 2, &["not below home.example"]);
    refused(home.ca(&["server", "evilhome.example"]), 2, &["not below home.example"]);
    // A certificate that was not issued here, such as one of Let's Encrypt, is not overwritten by mistake.
    let elsewhere = Home::with_authorities();
    for file in ["pki/server.pem", "pki/server-key.pem"] {
        std::fs::copy(elsewhere.path(file), home.path(file)).unwrap();
    }
    let before = home.files();
    refused(home.ca(&["server"]), 7, &["pki/server.pem", "not issued here", "--force"]);
    assert_eq!(home.files(), before);
    home.ca(&["server", "--force"]).not_proved();
}

#[test]
fn renewal_does_not_overwrite_foreign_files() {
    let home = Home::with_authorities();
    home.ca(&["device", "server"]).success();
    // In that folder, the gate's own certificate and key have these names.
    let before = home.files();
    refused(home.ca(&["renew", "server", "--output", "pki"]), 7, &["pki/server.pem", "nothing was written", "--force"]);
    assert_eq!(home.files(), before);
    // Its own key is recognised without the certificate.
    std::fs::remove_file(home.path("devices/server.pem")).unwrap();
    home.ca(&["renew", "server"]).success();
    // Its earlier files are replaced in any folder.
    home.ca(&["renew", "server", "--output", "stick"]).success();
    home.ca(&["renew", "server", "--output", "stick"]).success();
    home.ca(&["renew", "server"]).success();
    assert_eq!(home.devices().last().map(String::as_str), Some("server valid"));
}

#[test]
fn two_devices_never_share_a_file() {
    let home = Home::with_authorities();
    home.ca(&["device", "a-key"]).success();
    home.ca(&["device", "b-compat"]).success();
    let before = home.files();
    for name in ["a", "A", "b", "a-key-key"] {
        refused(home.ca(&["device", name, "--force"]), 2, &["would overwrite files of", "another name"]);
    }
    assert_eq!(home.files(), before);
}
