//! `doorward renew` on a device that has joined the home.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::process::{Finished, run, wait_until};
use crate::home::{Home, mode, refused};
use crate::house::{House, RENEW, config};

/// The settings of a user who has joined the home as this device.
pub(crate) struct User(tempfile::TempDir);

impl User {
    pub(crate) fn joined(house: &House, device: &str, password: &str) -> Self {
        let user = Self(tempfile::tempdir().unwrap());
        fs::write(user.0.path().join("password"), password).unwrap();
        let file = house.home.path(&format!("devices/{device}.doorward"));
        let password_file = user.0.path().join("password");
        run(user.doorward(&["join"]).arg(&file).arg("--password-file").arg(password_file)).success();
        // The gate of a test has no name and no port that devices know.
        let text = user.text();
        let address = house.gate.address();
        let port = text.lines().find(|line| line.starts_with("port = ")).unwrap();
        let here = format!("address = \"{}\"\nport = {}", address.ip(), address.port());
        fs::write(user.file(), text.replace(port, &here)).unwrap();
        user
    }

    pub(crate) fn doorward(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.env("XDG_CONFIG_HOME", self.0.path()).env("HOME", self.0.path()).args(arguments);
        command
    }

    pub(crate) fn renew(&self, arguments: &[&str]) -> Finished {
        run(self.doorward(&["renew"]).args(arguments))
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.0.path().join("doorward/homes")
    }

    /// The only home.
    pub(crate) fn file(&self) -> PathBuf {
        let files = fs::read_dir(self.folder()).unwrap().map(|entry| entry.unwrap().path());
        files.into_iter().find(|file| file.extension().is_some_and(|ending| ending == "doorward")).unwrap()
    }

    pub(crate) fn home(&self) -> String {
        self.file().file_stem().unwrap().to_str().unwrap().to_owned()
    }

    pub(crate) fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    /// The part of the file with this key.
    fn part(&self, key: &str) -> String {
        let text = self.text();
        text.split(&format!("\n{key} = \"\"\"\n")).nth(1).unwrap().split("\"\"\"").next().unwrap().to_owned()
    }
}

/// A house whose configuration is beside the authorities as well, so that devices are told of the service; and a device.
pub(crate) fn house() -> (House, User) {
    let home = Home::with_authorities();
    let nas = crate::common::backend::Backend::echo();
    fs::write(home.path("doorward.toml"), config(&home, &nas, "")).unwrap();
    let made = home.ca(&["device", "alice-laptop", "--format", "json"]).success();
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let file = fs::read_to_string(home.path("devices/alice-laptop.doorward")).unwrap();
    assert!(file.contains(&format!("renewal = \"{RENEW}\"")), "{file}");
    let house = House::at(home, "");
    let user = User::joined(&house, "alice-laptop", made["password"].as_str().unwrap());
    (house, user)
}

#[test]
fn certificate_is_renewed_once_the_owner_has_approved() {
    let (house, user) = house();
    let before = user.text();
    let waits = user.renew(&[]);
    assert_eq!(waits.status.code(), Some(14), "{waits}");
    assert!(waits.stderr.contains("doorward ca approve alice-laptop"), "{waits}");
    assert_eq!(user.renew(&[]).status.code(), Some(14));
    assert_eq!(user.text(), before);
    house.ca(&["approve", "--all"]).success();
    let renewed = user.renew(&[&user.home()]).success();
    assert!(
        renewed
            .stderr
            .contains(&format!("The certificate of alice-laptop for {} is renewed, valid until 2", user.home())),
        "{renewed}"
    );
    let after = user.text();
    assert_ne!(after, before);
    assert_eq!((mode(&user.file()), fs::read_dir(user.folder()).unwrap().count()), (0o600, 1));
    // The key is the same, and the gate has seen the new certificate.
    assert!(after.contains(&before[before.find("\nkey = ").unwrap()..]), "{after}");
    let serials: Vec<Value> =
        house.home.list().iter().filter(|line| line["kind"] == "device").map(|line| line["serial"].clone()).collect();
    let closed = house.gate.wait_closed("renewal", 4);
    assert_eq!(closed.last().unwrap()["certificate"]["serial"], serials[1], "{closed:?}");
}

#[test]
fn new_key_is_kept_until_there_is_a_certificate_for_it() {
    let (house, user) = house();
    let key = user.part("key");
    let waits = user.renew(&["--new-key"]);
    assert_eq!(waits.status.code(), Some(14), "{waits}");
    let next = user.folder().join(format!("{}.next-key", user.home()));
    assert_eq!(mode(&next), 0o600);
    let listed = house.ca(&["requests", "--format", "json"]).success();
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    // What the owner compares.
    assert!(waits.stderr.contains(listed[0]["key_sha256"].as_str().unwrap()), "{waits}");
    // The key that is waited for, whatever is said now.
    let mut waiting = user.doorward(&["renew", "--wait"]).stderr(Stdio::null()).spawn().unwrap();
    house.approve_key("alice-laptop");
    user.renew(&[]).success();
    wait_until("the other one to end", || waiting.try_wait().unwrap().or_else(|| waiting.kill().ok().and(None)));
    assert!(!next.exists());
    assert_ne!(user.part("key"), key);
}

#[test]
fn refusals_are_told_and_change_nothing() {
    let (house, user) = house();
    let before = user.text();
    assert_eq!(user.renew(&[]).status.code(), Some(14));
    house.ca(&["refuse", "alice-laptop"]).success();
    refused(user.renew(&[]), 6, &["has refused the request", "the owner of the gate has refused this request"]);
    house.ca(&["revoke", "alice-laptop"]).success();
    refused(user.renew(&[]), 6, &["revoked"]);
    house.gate.wait_rejected("certificate", "revoked", 1);
    refused(user.renew(&["elsewhere"]), 2, &["has not joined a home called elsewhere"]);
    assert_eq!(user.text(), before);
    let stranger = User(tempfile::tempdir().unwrap());
    refused(stranger.renew(&[]), 2, &["has not joined a home", "doorward join FILE"]);
}
