//! A device that has joined the home, whose gate renews without the owner.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;

use serde_json::Value;

use super::{der, issuer, make_issuer, ready, revoke, shorten};
use crate::common::backend::kept_address;
use crate::common::process::{run_with_input, wait_until};
use crate::device::User;
use crate::home::{Home, refused};
use crate::house::{House, config};
use doorward::pki::{Parts, origin};

/// A house, and a device that has joined it with a certificate in the last third of its life.
fn house_and_user() -> (House, User) {
    let home = Home::with_authorities();
    make_issuer(&home, &[]);
    let nas = crate::common::backend::Backend::echo();
    let more = issuer(&home, ", days = 30");
    // For what devices are told; beside it, the gate could read the key.
    fs::write(home.path("doorward.toml"), config(&home, &nas, "")).unwrap();
    let made = home.ca(&["device", "alice-laptop", "--format", "json"]).success();
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let before = fs::read_to_string(home.path("devices/alice-laptop.pem")).unwrap();
    shorten(&home, "alice-laptop", 10);
    let house = House::at(home, &more);
    ready(&house.gate);
    let user = User::joined(&house, "alice-laptop", made["password"].as_str().unwrap());
    let short = fs::read_to_string(house.home.path("devices/alice-laptop.pem")).unwrap();
    let text = user.text();
    assert!(text.contains(before.trim()), "{text}");
    fs::write(user.file(), text.replace(before.trim(), short.trim())).unwrap();
    (house, user)
}

fn certificate(user: &User) -> String {
    let text = user.text();
    let from = text.find("\ncertificate = ").unwrap();
    let begin = text[from..].find("-----BEGIN CERTIFICATE-----").unwrap() + from;
    let end = "-----END CERTIFICATE-----";
    text[begin..text[begin..].find(end).unwrap() + begin + end.len()].to_owned()
}

fn is_renewed(user: &User) -> bool {
    origin::of(&Parts::read(&der(&certificate(user))).unwrap()).is_ok()
}

#[test]
fn renew_has_it_at_once_and_tells_what_is_left() {
    let (house, user) = house_and_user();
    assert!(!is_renewed(&user));
    let renewed = user.renew(&[]).success();
    assert!(renewed.stderr.contains("is renewed, valid until 2"), "{renewed}");
    assert!(is_renewed(&user));
    let sent = run_with_input(user.doorward(&["connect", "nas"]).args([] as [&str; 0]), b"through the new one\n");
    assert_eq!(sent.success().text(), "through the new one\n");
    // With a new key, the owner decides as before.
    assert_eq!(user.renew(&["--new-key"]).status.code(), Some(14));
    house.approve_key("alice-laptop");
    user.renew(&[]).success();
    assert!(!is_renewed(&user));
}

#[test]
fn forward_and_connect_renew_without_being_told() {
    let (house, user) = house_and_user();
    let sent = run_with_input(&mut user.doorward(&["connect", "nas"]), b"first\n");
    assert_eq!(sent.success().text(), "first\n");
    let port = kept_address(([127, 0, 0, 1], 0)).port();
    let mut forward = user.doorward(&["forward", &format!("nas=127.0.0.1:{port}")]);
    let mut forward = forward.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(forward.stderr.take().unwrap()).lines();
    // By one of both, whichever came first.
    wait_until("the certificate to be renewed", || is_renewed(&user).then_some(()));
    let mut tunnel = wait_until("the port", || TcpStream::connect(("127.0.0.1", port)).ok());
    tunnel.write_all(b"second\n").unwrap();
    let mut back = [0; 7];
    tunnel.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"second\n");
    house.gate.wait_for_line("the certificate", |line| line["outcome"] == "issued_unattended");
    forward.kill().unwrap();
    forward.wait().unwrap();
    let _ = lines.by_ref().count();
    revoke(&house, "alice-laptop");
    house.gate.hang_up();
    refused(user.renew(&[]), 6, &["revoked"]);
    let sent = run_with_input(&mut user.doorward(&["connect", "nas"]), b"third\n");
    assert!(sent.failure().stderr.contains("revoked"));
}
