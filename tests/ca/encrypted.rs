//! Encrypted keys of authorities.

use crate::common::terminal;
use crate::home::{Home, mode, refused};

const PASSPHRASE: &str = "correct horse battery staple";

fn home() -> Home {
    let home = Home::new();
    std::fs::write(home.path("passphrase"), format!("{PASSPHRASE}\nnot this line\n")).unwrap();
    home.ca(&["init", "--domain", "home.example", "--encrypt", "--passphrase-file", "passphrase"]).success();
    home
}

#[test]
fn encrypted_key_signs_only_with_its_passphrase() {
    let home = home();
    for key in ["pki/server-ca-key.pem", "pki/clients-key.pem"] {
        let pem = std::fs::read_to_string(home.path(key)).unwrap();
        assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{pem}");
        assert_eq!(mode(&home.path(key)), 0o600);
        // 600,000 rounds for each guess.
        let parts = home.openssl(&["asn1parse", "-in", key]).success().text();
        for part in ["PBKDF2", "INTEGER           :0927C0", "hmacWithSHA256", "aes-256-cbc"] {
            assert!(parts.contains(part), "{part} is missing: {parts}");
        }
        // OpenSSL reads it, too.
        home.openssl(&["pkey", "-in", key, "-passin", "file:passphrase", "-noout"]).success();
        home.openssl(&["pkey", "-in", key, "-passin", "pass:wrong", "-noout"]).failure();
    }
    let with = ["--passphrase-file", "passphrase"];
    home.ca(&[&["device", "alice-phone"], &with[..]].concat()).success();
    home.ca(&[&["renew", "alice-phone"], &with[..]].concat()).success();
    home.ca(&[&["revoke", "alice-phone"], &with[..]].concat()).not_proved();
    home.ca(&[&["server"], &with[..]].concat()).not_proved();
    assert_eq!(home.devices(), ["alice-phone revoked", "alice-phone revoked"]);

    let before = home.files();
    std::fs::write(home.path("wrong"), "correct horse").unwrap();
    refused(home.ca(&["device", "bob", "--passphrase-file", "wrong"]), 2, &["pki/clients-key.pem", "wrong passphrase"]);
    std::fs::write(home.path("wrong"), "").unwrap();
    refused(
        home.ca(&["init", "--domain", "b.example", "--folder", "b", "--encrypt", "--passphrase-file", "wrong"]),
        2,
        &["an empty passphrase protects nothing"],
    );
    std::fs::remove_file(home.path("wrong")).unwrap();
    assert_eq!(home.files(), before);
}

#[test]
fn passphrase_is_set_changed_and_removed() {
    let home = Home::with_authorities();
    for (file, words) in [("one", "one thing"), ("two", "another")] {
        std::fs::write(home.path(file), words).unwrap();
    }
    let key = || std::fs::read_to_string(home.path("pki/clients-key.pem")).unwrap();
    let public = |password| {
        home.openssl(&["pkey", "-in", "pki/clients-key.pem", "-passin", password, "-pubout"]).success().text()
    };
    let before = public("pass:");
    home.ca(&["passphrase", "--new-passphrase-file", "one"]).success();
    assert!(key().contains("ENCRYPTED"));
    assert_eq!(public("pass:one thing"), before);
    let change = ["passphrase", "--new-passphrase-file", "two", "--passphrase-file"];
    refused(home.ca(&[&change[..], &["two"]].concat()), 2, &["wrong passphrase"]);
    assert_eq!(public("pass:one thing"), before);
    home.ca(&[&change[..], &["one"]].concat()).success();
    assert_eq!(public("pass:another"), before);
    home.ca(&["device", "alice-phone", "--passphrase-file", "two"]).success();
    home.ca(&["passphrase", "--remove", "--passphrase-file", "two"]).success();
    assert!(!key().contains("ENCRYPTED"));
    assert_eq!(mode(&home.path("pki/clients-key.pem")), 0o600);
    home.ca(&["device", "bob-laptop"]).success();
}

#[test]
fn key_encrypted_by_openssl_is_read() {
    let home = Home::with_authorities();
    std::fs::write(home.path("passphrase"), PASSPHRASE).unwrap();
    let key = "pki/clients-key.pem";
    home.openssl(&["pkcs8", "-topk8", "-in", key, "-out", "key.pem", "-passout", "file:passphrase"]).success();
    std::fs::rename(home.path("key.pem"), home.path(key)).unwrap();
    home.ca(&["device", "alice-phone", "--passphrase-file", "passphrase"]).success();
}

/// Runs `doorward ca` on a terminal and types `typed`. Returns what the terminal showed, and the exit code.
fn on_a_terminal(home: &Home, typed: &[&str], arguments: &[&str]) -> (String, i32) {
    terminal::on_a_terminal(home.doorward().arg("ca").args(arguments), typed)
}

#[test]
fn passphrase_prompt_does_not_echo() {
    let home = home();
    let (seen, code) = on_a_terminal(&home, &[PASSPHRASE], &["device", "alice-phone"]);
    assert_eq!(code, 0, "{seen}");
    assert!(seen.contains("Passphrase of the authorities' keys: ") && !seen.contains(PASSPHRASE), "{seen}");
    let (seen, code) = on_a_terminal(&home, &["wrong"], &["device", "bob-laptop"]);
    assert!(code == 2 && seen.contains("wrong passphrase"), "{seen}");
    assert_eq!(home.devices(), ["alice-phone valid"]);

    let init = ["init", "--domain", "b.example", "--folder", "b", "--encrypt"];
    let (seen, code) = on_a_terminal(&home, &["one thing", "another"], &init);
    assert!(code == 2 && seen.contains("passphrases differ"), "{seen}");
    assert!(!home.path("b").exists());
    let (seen, code) = on_a_terminal(&home, &["one thing", "one thing"], &init);
    assert_eq!(code, 0, "{seen}");
    home.openssl(&["pkey", "-in", "b/pki/clients-key.pem", "-passin", "pass:one thing", "-noout"]).success();
}

#[test]
fn passphrase_file_without_encrypt_is_refused() {
    let home = Home::new();
    std::fs::write(home.path("passphrase"), PASSPHRASE).unwrap();
    let before = home.files();
    refused(
        home.ca(&["init", "--domain", "home.example", "--passphrase-file", "passphrase"]),
        2,
        &["--encrypt", "nothing was written"],
    );
    assert_eq!(home.files(), before);
}
