//! In, renewed, out: what each command writes and says, and what OpenSSL makes of it.

use std::os::unix::fs::MetadataExt;

use doorward::explain::advice;
use doorward::model::rejection::Reason;

use crate::common::process::{run, tool};
use crate::home::{Home, mode, refused};

/// The public key of a certificate, as OpenSSL writes it.
#[track_caller]
fn public_key(home: &Home, certificate: &str) -> String {
    home.openssl(&["x509", "-in", certificate, "-noout", "-pubkey"]).success().text()
}

#[test]
fn init_makes_two_authorities_and_nobody_else_may_read_their_keys() {
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
fn init_replaces_nothing_unless_it_is_told_to() {
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
fn what_init_makes_is_where_ca_goes_on() {
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
fn a_device_gets_what_it_is_set_up_with() {
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
fn keys_of_other_kinds() {
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
fn a_name_means_one_device() {
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
    // Once it is out, the name is free again; its files are not to be lost by mistake.
    home.ca(&["revoke", "alice-phone"]).not_proved();
    refused(home.ca(&["device", "alice-phone"]), 7, &["devices/alice-phone.p12", "--force"]);
    home.ca(&["device", "alice-phone", "--force"]).success();
    assert_eq!(home.devices(), ["alice-phone revoked", "alice-phone valid"]);
}

#[test]
fn a_renewed_device_keeps_its_key_and_its_old_certificate_counts_until_its_end() {
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
fn a_device_whose_key_is_not_here_is_renewed_all_the_same() {
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
fn revoking_a_name_revokes_all_its_certificates_and_openssl_reads_the_list() {
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
    // Once more changes nothing, and is no mistake.
    let again = home.ca(&["revoke", "alice-phone"]).not_proved();
    assert!(again.stderr.contains("already"), "{again}");
    assert_eq!(home.devices(), ["alice-phone revoked", "bob-laptop valid", "alice-phone revoked"]);
}

#[test]
fn one_certificate_by_its_number_its_fingerprint_or_itself() {
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
    // A number that nobody here has heard of goes on the list: the inventory may be younger than the authority.
    home.ca(&["revoke", "--serial", "0123456789abcdef"]).not_proved();
    let list = home.openssl(&["crl", "-in", "pki/clients.crl", "-noout", "-text"]).success().text();
    assert!(list.contains("Serial Number: 0123456789ABCDEF"), "{list}");
}

#[test]
fn numbers_of_lists_grow() {
    let home = Home::with_authorities();
    let number = || {
        let text = home.openssl(&["crl", "-in", "pki/clients.crl", "-noout", "-crlnumber"]).success().text();
        u64::from_str_radix(text.trim().strip_prefix("crlNumber=0x").unwrap(), 16).unwrap()
    };
    // Even where both the inventory and the list of yesterday were put back: no list of yesterday's has a number of today.
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
        home.ca(&["revoke"]).not_proved();
        assert!(number() > last && number() >= seconds);
        last = number();
    }
}

#[test]
fn what_cannot_be_revoked_is_said_with_what_to_do_instead() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    let elsewhere = Home::with_authorities();
    elsewhere.ca(&["device", "stranger"]).success();
    let before = home.files();
    let stranger = elsewhere.path("devices/stranger.pem");
    let stranger = stranger.to_str().unwrap();
    let server = home.list()[0]["serial"].as_str().unwrap().to_owned();
    for (arguments, words) in [
        (&["revoke", "bob-laptop"][..], &["no device named \"bob-laptop\"", "available: alice-phone"][..]),
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
fn the_gates_certificate_is_made_anew_and_keeps_its_key() {
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
    // What it was for stays what it is for.
    home.ca(&["server", "--new-key"]).not_proved();
    assert!(names().contains("DNS:nas.home.example, DNS:ssh.home.example"), "{}", names());
    assert_ne!(key(), old_key);
    let status: Vec<_> = home.list().iter().map(|line| line["status"].as_str().unwrap().to_owned()).collect();
    assert_eq!(status, ["renewed", "renewed", "renewed", "valid"]);

    refused(home.ca(&["server", "nas.other.example"]), 2, &["not below home.example"]);
    refused(home.ca(&["server", "evilhome.example"]), 2, &["not below home.example"]);
    // Somebody else's, Let's Encrypt's say, is not replaced by mistake.
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
fn what_was_issued_can_be_had_again() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    let read = |file: &str| std::fs::read(home.path(file)).unwrap();
    let exported = home.ca(&["export", "alice-phone"]).success();
    assert_eq!(exported.stdout, read("devices/alice-phone.pem"));
    assert_eq!(home.ca(&["export", "--authority", "servers"]).success().stdout, read("pki/server-ca.pem"));
    home.ca(&["export", "alice-phone", "--output", "stick"]).success();
    for file in ["alice-phone.pem", "alice-phone-key.pem"] {
        assert_eq!(read(&format!("stick/{file}")), read(&format!("devices/{file}")), "{file}");
    }
    assert_eq!(mode(&home.path("stick/alice-phone-key.pem")), 0o600);
    refused(home.ca(&["export", "alice-phone", "--output", "stick"]), 7, &["stick/alice-phone.pem", "--force"]);
    // A key that has gone with the device is not here.
    std::fs::remove_dir_all(home.path("devices")).unwrap();
    let exported = home.ca(&["export", "alice-phone", "--output", "stick2"]).success();
    assert!(exported.stderr.contains("The private key is not here"), "{exported}");
    assert!(!home.path("stick2/alice-phone-key.pem").exists());
    // Nor is another one: the device's is elsewhere since it was renewed with a new one.
    home.ca(&["renew", "alice-phone", "--new-key", "--output", "elsewhere"]).success();
    std::fs::create_dir(home.path("devices")).unwrap();
    std::fs::copy(home.path("pki/server-key.pem"), home.path("devices/alice-phone-key.pem")).unwrap();
    let exported = home.ca(&["export", "alice-phone", "--output", "stick3"]).success();
    assert!(exported.stderr.contains("The private key is not here"), "{exported}");
    assert!(!home.path("stick3/alice-phone-key.pem").exists());

    refused(home.ca(&["export", "bob"]), 2, &["no device named \"bob\"", "doorward ca list"]);
    refused(home.ca(&["export", "--authority", "x"]), 2, &["available: servers, devices"]);
}

#[test]
fn files_may_go_to_another_disk() {
    let home = Home::with_authorities();
    let disk = tempfile::tempdir_in("/dev/shm").unwrap();
    let device = |path: &std::path::Path| std::fs::metadata(path).unwrap().dev();
    assert_ne!(device(disk.path()), device(&home.path("pki")), "the same disk");
    let output = disk.path().join("stick");
    home.ca(&["device", "alice-phone", "--output", output.to_str().unwrap()]).success();
    assert_eq!(mode(&output.join("alice-phone-key.pem")), 0o600);
    let certificate = output.join("alice-phone.pem");
    home.openssl(&["verify", "-CAfile", "pki/clients.pem", certificate.to_str().unwrap()]).success();
    assert_eq!(home.devices(), ["alice-phone valid"]);
    assert!(!home.path("pki/.changes").exists() && !home.path("devices").exists());
    // What cannot be written there is found out before anything has changed.
    let before = home.files();
    let taken = disk.path().join("taken");
    std::fs::write(&taken, "").unwrap();
    let failed = home.ca(&["device", "bob-laptop", "--output", taken.join("below").to_str().unwrap()]).failure();
    assert!(failed.stderr.contains("taken"), "{failed}");
    assert_eq!(home.files(), before);
}

#[test]
fn without_the_key_of_an_authority_what_needs_none_goes_on() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    // As the README advises: the key is kept elsewhere.
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
fn without_its_inventory_a_folder_is_left_alone() {
    let home = Home::with_authorities();
    std::fs::remove_file(home.path("pki/inventory.toml")).unwrap();
    let before = home.files();
    refused(home.ca(&["device", "alice-phone"]), 2, &["no inventory.toml", "restore a copy"]);
    refused(home.ca(&["init", "--domain", "home.example"]), 7, &["pki/server-ca.pem"]);
    assert_eq!(home.files(), before);
}

#[test]
fn a_file_that_is_replaced_keeps_its_owner() {
    let home = Home::with_authorities();
    // As for a gate that runs as a user of its own, whose key root renews.
    const NOBODY: u32 = 65534;
    std::os::unix::fs::chown(home.path("pki/server-key.pem"), Some(NOBODY), Some(NOBODY)).unwrap();
    home.ca(&["server", "--new-key"]).not_proved();
    let key = std::fs::metadata(home.path("pki/server-key.pem")).unwrap();
    assert_eq!((key.uid(), key.gid(), key.mode() & 0o7777), (NOBODY, NOBODY, 0o600));
}

#[test]
fn what_the_gate_advises_exists() {
    let home = Home::new();
    let mut advised = 0;
    for &reason in Reason::ALL {
        for rest in advice(reason).split("doorward ca ").skip(1) {
            let command = rest.split(|c: char| !c.is_ascii_lowercase()).next().unwrap();
            home.ca(&[command, "--help"]).success();
            advised += 1;
        }
    }
    assert!(advised > 3, "{advised}");
}

#[test]
fn people_read_a_table() {
    let home = Home::with_authorities();
    home.ca(&["device", "alice-phone"]).success();
    home.ca(&["revoke", "alice-phone"]).not_proved();
    let list = home.ca(&["list"]).success();
    let text = list.text();
    for words in ["name          for     status", "home.example  server  valid", "alice-phone   device  revoked 20"] {
        assert!(text.contains(words), "{words} is missing: {list}");
    }
    assert!(text.contains("authority devices: 3649 days left, 1 revoked (pki/clients.pem)"), "{list}");
}

#[test]
fn what_was_not_made_here_is_not_replaced_by_a_renewal() {
    let home = Home::with_authorities();
    home.ca(&["device", "server"]).success();
    // There the gate's own certificate and key are called the same.
    let before = home.files();
    refused(home.ca(&["renew", "server", "--output", "pki"]), 7, &["pki/server.pem", "nothing was written", "--force"]);
    assert_eq!(home.files(), before);
    // Its own key alone, without the certificate beside it, is what it has had.
    std::fs::remove_file(home.path("devices/server.pem")).unwrap();
    home.ca(&["renew", "server"]).success();
    // What it has had before may be replaced, wherever that is.
    home.ca(&["renew", "server", "--output", "stick"]).success();
    home.ca(&["renew", "server", "--output", "stick"]).success();
    home.ca(&["renew", "server"]).success();
    assert_eq!(home.devices().last().map(String::as_str), Some("server valid"));
}

#[test]
fn two_devices_never_own_one_file() {
    let home = Home::with_authorities();
    home.ca(&["device", "a-key"]).success();
    home.ca(&["device", "b-compat"]).success();
    let before = home.files();
    for name in ["a", "A", "b", "a-key-key"] {
        refused(home.ca(&["device", name, "--force"]), 2, &["would overwrite files of", "another name"]);
    }
    assert_eq!(home.files(), before);
}

#[test]
fn whoever_stops_reading_the_table_gets_no_crash() {
    let home = Home::with_authorities();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended =
        home.doorward().args(["ca", "list"]).stdout(writer).stderr(std::process::Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("error: Broken pipe") && !said.contains("panicked"), "{said}");
}

#[test]
fn links_that_somebody_has_laid_in_the_folder_lead_nowhere() {
    let home = Home::with_authorities();
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(home.path(to), home.path(name)).unwrap();
    std::fs::remove_file(home.path("pki/.lock")).unwrap();
    link("victim", "pki/.lock");
    let failed = home.ca(&["device", "alice-phone"]).failure();
    assert!(failed.stderr.contains("pki/.lock"), "{failed}");
    assert!(!home.path("victim").exists(), "made through the link");
    std::fs::remove_file(home.path("pki/.lock")).unwrap();

    // Changes that were decided elsewhere.
    std::fs::create_dir(home.path("elsewhere")).unwrap();
    std::fs::write(home.path("elsewhere/0"), "evil").unwrap();
    std::fs::write(home.path("elsewhere/list.json"), r#"[{"from":"0","to":"clients.pem"}]"#).unwrap();
    link("elsewhere", "pki/.changes");
    let before = home.files();
    let failed = home.ca(&["device", "alice-phone"]).failure();
    assert!(failed.stderr.contains("pki/.changes"), "{failed}");
    assert_eq!(home.files(), before);
    std::fs::remove_file(home.path("pki/.changes")).unwrap();

    // What is being prepared goes not through a link either.
    link("elsewhere", "pki/.changes.new");
    home.ca(&["device", "alice-phone"]).success();
    assert!(home.path("elsewhere/list.json").exists() && !home.path("pki/.changes.new").exists());
}

#[test]
fn what_another_user_has_decided_is_not_done_with_the_rights_of_this_one() {
    let home = Home::with_authorities();
    // As the gate's own user could, if he were somebody else by now and the folder were his: root would write it anywhere.
    std::fs::create_dir(home.path("pki/.changes")).unwrap();
    std::fs::write(home.path("pki/.changes/0"), "evil").unwrap();
    let list = format!(r#"[{{"from":"0","to":{:?}}}]"#, home.path("victim").display().to_string());
    std::fs::write(home.path("pki/.changes/list.json"), list).unwrap();
    std::os::unix::fs::chown(home.path("pki/.changes"), Some(65534), Some(65534)).unwrap();
    let failed = home.ca(&["list"]).failure();
    for words in ["pki/.changes", "another user"] {
        assert!(failed.stderr.contains(words), "{words} is missing: {failed}");
    }
    assert!(!home.path("victim").exists());
}

#[test]
fn nothing_is_open_to_others_for_even_a_moment() {
    let home = Home::new();
    // The system's answer to what is asked for, not what the files look like in the end; and no umask that helps.
    let traced = |arguments: &[&str]| {
        let mut shell = std::process::Command::new("/bin/sh");
        shell.current_dir(home.path("")).args(["-c", "umask 0 && exec \"$@\"", "sh"]);
        shell.arg(tool("strace", "strace").get_program()).args([
            "-f",
            "-o",
            "trace",
            "-e",
            "trace=open,openat,mkdir,mkdirat",
        ]);
        run(shell.arg(env!("CARGO_BIN_EXE_doorward")).arg("ca").args(arguments)).success();
        let trace = std::fs::read_to_string(home.path("trace")).unwrap();
        let made = trace.lines().filter(|line| line.contains("O_CREAT") || line.contains("mkdir"));
        let made: Vec<String> = made.map(str::to_owned).collect();
        for line in &made {
            let mode = if line.contains("mkdir") { ", 0700)" } else { ", 0600)" };
            assert!(line.contains(mode), "{line}");
        }
        made.len()
    };
    assert!(traced(&["init", "--domain", "home.example"]) > 10);
    assert!(traced(&["device", "alice-phone"]) > 10);
    assert!(traced(&["renew", "alice-phone", "--new-key"]) > 10);
    assert!(traced(&["export", "alice-phone", "--output", "stick"]) > 2);
    std::fs::write(home.path("passphrase"), "correct horse").unwrap();
    assert!(traced(&["passphrase", "--new-passphrase-file", "passphrase"]) > 3);
}

#[test]
fn a_key_that_is_not_the_devices_is_not_handed_out_as_his() {
    let home = Home::with_authorities();
    for name in ["alice-phone", "bob-laptop"] {
        home.ca(&["device", name]).success();
    }
    let [alice, bob] = ["alice-phone", "bob-laptop"].map(|name| home.path(&format!("devices/{name}-key.pem")));
    std::fs::copy(&bob, &alice).unwrap();
    let exported = home.ca(&["export", "alice-phone", "--output", "stick"]).success();
    assert!(exported.stderr.contains("The private key is not here"), "{exported}");
    assert!(!home.path("stick/alice-phone-key.pem").exists());
    let archive = std::fs::read(home.path("devices/alice-phone.p12")).unwrap();
    let renewed = home.ca(&["renew", "alice-phone"]).success();
    assert!(renewed.stderr.contains("The key is not here"), "{renewed}");
    assert_eq!(std::fs::read(home.path("devices/alice-phone.p12")).unwrap(), archive);
    // Nor does an authority sign with the key of another one.
    std::fs::copy(home.path("pki/server-ca-key.pem"), home.path("pki/clients-key.pem")).unwrap();
    let before = home.files();
    for arguments in [&["device", "carol"][..], &["revoke", "alice-phone"]] {
        refused(home.ca(arguments), 1, &["pki/clients-key.pem", "does not match the certificate"]);
    }
    assert_eq!(home.files(), before);
}

#[test]
fn an_authority_whose_name_cannot_be_written_again_is_not_taken_over() {
    let home = Home::new();
    std::fs::create_dir(home.path("mkcert")).unwrap();
    // Two parts in one component: what it signed by us would name another issuer, and no list would speak for it.
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "mkcert/rootCA-key.pem"];
    home.openssl(&[&["req", "-x509", "-subj", "/O=x+CN=y", "-out", "mkcert/rootCA.pem"], &key[..]].concat()).success();
    refused(home.ca(&["import", "--mkcert", "mkcert"]), 1, &["not the certificate of an authority"]);
    assert!(!home.path("pki/mkcert.crl").exists());
}
