//! A device whose key is in a token: from the key to the renewed certificate, as the manual has it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::process::{Finished, run, run_with_input};
use crate::common::token::{PIN, Token};
use crate::home::{Home, refused};
use crate::house::{House, RENEW, config};

/// A home, and a user with a token.
pub(crate) struct Tokened {
    pub(crate) house: House,
    pub(crate) token: Token,
    user: tempfile::TempDir,
}

/// `doorward` as this user runs it.
fn doorward(user: &Path, token: &Token, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.args(arguments).env("HOME", user).env("XDG_CONFIG_HOME", user);
    token.with(&mut command);
    command
}

/// A request of the token, in a file.
fn request(user: &Path, token: &Token, home: &Home) -> PathBuf {
    let file = home.path("laptop.csr");
    let request = run(&mut doorward(user, token, &["join", "--request", &token.uri()])).success();
    fs::write(&file, &request.stdout).unwrap();
    file
}

impl Tokened {
    fn new(kind: &str) -> Self {
        Self::with(kind, |_, _, _| ())
    }

    /// Does something before the gate starts.
    fn with(kind: &str, before: impl FnOnce(&Path, &Token, &Home)) -> Self {
        let home = Home::with_authorities();
        let nas = crate::common::backend::Backend::echo();
        // Where devices are told what there is.
        fs::write(home.path("doorward.toml"), config(&home, &nas, "")).unwrap();
        let (token, user) = (Token::of(kind), tempfile::tempdir().unwrap());
        before(user.path(), &token, &home);
        Self { house: House::at(home, ""), token, user }
    }

    pub(crate) fn doorward(&self, arguments: &[&str]) -> Command {
        doorward(self.user.path(), &self.token, arguments)
    }

    fn request(&self) -> PathBuf {
        request(self.user.path(), &self.token, &self.house.home)
    }

    fn device(&self, name: &str, request: &str, more: &[&str]) -> Finished {
        self.house.home.ca(&[&["device", name, "--request", request], more].concat())
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.user.path().join("doorward/homes")
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder().join("nas.home.example.doorward")
    }

    pub(crate) fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    /// The way of a new device.
    pub(crate) fn joined(kind: &str) -> Self {
        // The gate knows it from its start on: only devices of the inventory renew.
        let tokened = Self::with(kind, |user, token, home| {
            let request = request(user, token, home);
            home.ca(&["device", "alice-laptop", "--request", request.to_str().unwrap()]).success();
        });
        let file = tokened.house.home.path("devices/alice-laptop.doorward");
        // The gate of a test has no name and no port that devices know.
        let text = fs::read_to_string(&file).unwrap();
        let address = tokened.house.gate.address();
        let port = text.lines().find(|line| line.starts_with("port = ")).unwrap();
        let here = format!("address = \"{}\"\nport = {}", address.ip(), address.port());
        fs::write(&file, text.replace(port, &here)).unwrap();
        run(&mut tokened.doorward(&["join", file.to_str().unwrap(), "--key", &tokened.token.uri()])).success();
        tokened
    }

    pub(crate) fn connects(&self) {
        let back = run_with_input(&mut self.doorward(&["connect", "nas"]), b"through").success();
        assert_eq!(back.text(), "through");
    }

    fn serials(&self) -> Vec<Value> {
        self.house
            .home
            .list()
            .iter()
            .filter(|line| line["kind"] == "device")
            .map(|line| line["serial"].clone())
            .collect()
    }
}

#[test]
fn request_of_a_token_becomes_a_device() {
    let tokened = Tokened::new("EC:prime256v1");
    let request = tokened.request();
    let printed = run(&mut tokened.doorward(&["join", "--request", &tokened.token.uri()])).success();
    let issued = tokened.device("alice-laptop", request.to_str().unwrap(), &[]).success();
    // What the owner compares with what the device says.
    let key = issued.stderr.split("The SHA-256 of its key is ").nth(1).unwrap().split(':').next().unwrap();
    assert!(
        key.len() == 64 && printed.stderr.contains(&format!("The SHA-256 of its key is {key}.")),
        "{issued}{printed}"
    );
    assert!(issued.stderr.contains("Issued a certificate for alice-laptop, valid until "), "{issued}");
    assert!(issued.stderr.contains("There: doorward join alice-laptop.doorward --key URI"), "{issued}");
    let mut files: Vec<_> = fs::read_dir(tokened.house.home.path("devices"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["alice-laptop.doorward", "alice-laptop.pem", "server-ca.crt"], "and no key");
    let text = fs::read_to_string(tokened.house.home.path("devices/alice-laptop.doorward")).unwrap();
    assert!(text.contains("\nkey = \"on the device\"\n") && text.contains(&format!("renewal = \"{RENEW}\"")), "{text}");
    // The names are the owner's, the request has none.
    let subject = tokened.house.home.openssl(&[
        "x509",
        "-noout",
        "-subject",
        "-ext",
        "extendedKeyUsage",
        "-in",
        &tokened.house.home.path("devices/alice-laptop.pem").display().to_string(),
    ]);
    let subject = subject.success().text();
    assert!(subject.contains("CN = alice-laptop") && subject.contains("TLS Web Client Authentication"), "{subject}");

    // One key, one device.
    refused(
        tokened.device("bob-laptop", request.to_str().unwrap(), &[]),
        2,
        &["has a certificate already, which is called alice-laptop"],
    );
    tokened.house.home.ca(&["revoke", "alice-laptop"]);
    refused(
        tokened.device("bob-laptop", request.to_str().unwrap(), &[]),
        2,
        &["is that of alice-laptop, whose certificate is revoked"],
    );
}

#[test]
fn requests_of_any_program_are_taken_and_wrong_ones_are_not() {
    let tokened = Tokened::new("EC:prime256v1");
    let home = &tokened.house.home;
    let path = |name: &str| home.path(name).display().to_string();
    let subject = ["-nodes", "-subj", "/CN=admin/OU=admins", "-addext", "subjectAltName=DNS:nas.home.example"];
    let make = |kind: &[&str], name: &str, form: &str| {
        let (key, out) = (path("other-key.pem"), path(name));
        let begin = [&["req", "-new", "-newkey"], kind, &["-keyout", &key, "-outform", form, "-out", &out]].concat();
        home.openssl(&[&begin[..], &subject].concat()).success();
    };
    make(&["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "one.der", "DER");
    let issued = tokened.device("one", &path("one.der"), &["--format", "json"]).success();
    let issued: Value = serde_json::from_slice(&issued.stdout).unwrap();
    assert_eq!(issued["name"], "one");
    let text =
        home.openssl(&["x509", "-noout", "-text", "-in", issued["certificate"].as_str().unwrap()]).success().text();
    assert!(
        text.contains("Subject: CN = one\n") && !text.contains("nas.home.example") && !text.contains("admins"),
        "{text}"
    );
    // As "ca approve" has it.
    make(&["rsa:1024"], "weak.csr", "PEM");
    refused(tokened.device("weak", &path("weak.csr"), &[]), 2, &["weak.csr: the key is not supported"]);
    let mut changed = fs::read(path("one.der")).unwrap();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(path("changed.der"), changed).unwrap();
    refused(
        tokened.device("changed", &path("changed.der"), &[]),
        2,
        &["the signature of the certificate request is wrong"],
    );
    refused(tokened.device("none", &path("pki/clients.pem"), &[]), 2, &["not a certificate request (PKCS#10)"]);
    refused(tokened.device("none", &path("no-such.csr"), &[]), 2, &["No such file"]);
    fs::write(path("large.csr"), vec![0x30; 1_000_000]).unwrap();
    refused(tokened.device("none", &path("large.csr"), &[]), 2, &["not a certificate request"]);
    // A guest pass with a key of its own.
    make(&["ec", "-pkeyopt", "ec_paramgen_curve:P-384"], "guest.csr", "PEM");
    tokened.device("guest", &path("guest.csr"), &["--for", "3h", "--route", "nas"]).success();
    assert_eq!(tokened.serials().len(), 2);
}

#[test]
fn certificate_is_renewed_with_the_key_of_the_token() {
    for kind in ["EC:prime256v1", "RSA:2048"] {
        let tokened = Tokened::joined(kind);
        tokened.connects();
        let before = tokened.text();
        let renew = |arguments: &[&str]| run(tokened.doorward(&["renew"]).args(arguments));
        refused(
            renew(&["--new-key"]),
            2,
            &["is in a token, where this program makes no keys", "doorward join --request URI"],
        );
        let waits = renew(&[]);
        assert_eq!(waits.status.code(), Some(14), "{waits}");
        assert_eq!(tokened.text(), before);
        // It is the key of the certificate, so the owner need not say that it is the device's.
        tokened.house.ca(&["approve", "--all"]).success();
        let renewed = renew(&[]).success();
        assert!(renewed.stderr.contains("The certificate of alice-laptop for "), "{renewed}");
        let after = tokened.text();
        assert_ne!(after, before);
        assert!(after.contains(&format!("\nkey = {:?}\n", tokened.token.uri())) && !after.contains(PIN), "{after}");
        let (before, after) = (tokened.serials(), tokened.house.gate.wait_closed("renewal", 3));
        assert_eq!(after.last().unwrap()["certificate"]["serial"], before[1], "{kind}");
        tokened.connects();
    }
}

#[test]
fn owner_can_renew_a_device_whose_key_is_elsewhere() {
    let tokened = Tokened::joined("EC:prime256v1");
    let renewed = tokened.house.home.ca(&["renew", "alice-laptop"]).success();
    assert!(
        renewed.stderr.contains("alice-laptop.doorward\n    is for \"doorward join\" on a computer that has the key"),
        "{renewed}"
    );
    let file = tokened.house.home.path("devices/alice-laptop.doorward");
    let text = fs::read_to_string(&file).unwrap();
    let address = tokened.house.gate.address();
    let port = text.lines().find(|line| line.starts_with("port = ")).unwrap();
    fs::write(&file, text.replace(port, &format!("address = \"{}\"\nport = {}", address.ip(), address.port())))
        .unwrap();
    let joined = run(&mut tokened.doorward(&["join", file.to_str().unwrap()])).success();
    assert!(
        joined.stderr.contains(" is replaced: ") && joined.stderr.contains("The key stays in its token"),
        "{joined}"
    );
    tokened.connects();
    // A file that has the key stays.
    tokened.house.home.ca(&["device", "bob-laptop"]).success();
    let own = tokened.house.home.path("devices/bob-laptop.doorward");
    let before = fs::read(&own).unwrap();
    fs::remove_file(tokened.house.home.path("devices/bob-laptop-key.pem")).unwrap();
    let renewed = tokened.house.home.ca(&["renew", "bob-laptop"]).success();
    assert!(!renewed.stderr.contains(".doorward"), "{renewed}");
    assert_eq!(fs::read(&own).unwrap(), before);
}
