//! `doorward why`, `doorward status` and `doorward sessions` at a running gate, and the control socket, which no client of
//! it can use to harm the gate.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

#[expect(dead_code, reason = "shared with tests/journey")]
#[path = "../journey/client.rs"]
mod client;

#[expect(dead_code, reason = "shared with tests/journey")]
#[path = "../journey/home.rs"]
mod home;

mod refusals;
mod socket;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use client::{Client, Hello, client, connect};
use common::backend::Backend;
use common::gate::Gate;
use common::pki::TestPki;
use common::process::{Finished, run, wait_until};
use home::House;

const NAME: &str = "nas.home.example";

fn control_socket(gate: &Gate) -> PathBuf {
    gate.folder().join("control.sock")
}

fn doorward(arguments: &[&str]) -> Finished {
    run(Command::new(env!("CARGO_BIN_EXE_doorward")).args(arguments))
}

#[track_caller]
fn json(gate: &Gate, arguments: &[&str]) -> Value {
    let said = gate.ask(&[arguments, &["--format", "json"]].concat()).success();
    serde_json::from_slice(&said.stdout).unwrap()
}

#[test]
fn sessions_lists_an_open_session_with_its_bytes() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let gate = Gate::start_with_control(
        &House::new(&pki).route("nas", echo.address()).passthrough("mail", echo.address()).config(),
    );
    assert_eq!(gate.ask(&["sessions"]).success().text(), "No connection is open.\n");
    let alice = pki.client("alice-phone");
    let session = Client::admitted(gate.address(), &client(&pki, Some(&alice)), NAME).unwrap();

    let bytes = |count: u64| {
        wait_until("the bytes are counted", || {
            let sessions = json(&gate, &["sessions"]);
            let one = &sessions["sessions"][0];
            (one["bytes_to_backend"] == count && one["bytes_to_client"] == count).then_some(sessions)
        })
    };
    let sessions = bytes(4);
    let one = &sessions["sessions"][0];
    let digest = doorward::model::identity::Sha256::of(&alice.chain()[0]).to_string();
    assert_eq!((&sessions["open"], &one["route"], &one["listener"]), (&1.into(), &"nas".into(), &"public".into()));
    assert_eq!(one["source"], session.tcp().local_addr().unwrap().to_string());
    assert_eq!(one["backend"], echo.address().to_string());
    assert_eq!((&one["certificate"]["name"], &one["certificate"]["verified"]), (&"alice-phone".into(), &true.into()));
    assert_eq!(one["certificate"]["fingerprint"], digest);
    let table = gate.ask(&["sessions"]).success().text();
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..2], ["alice-phone", "nas"], "{table}");
    for _ in 0..10 {
        session.ping().unwrap();
    }
    bytes(44);

    // A passthrough session has no certificate.
    let mut mail = connect(gate.address());
    let hello = Hello { version: 0x0303, suites: &[0x1301], server_name: "mail.home.example" }.record();
    mail.write_all(&hello).unwrap();
    let mut echoed = vec![0; hello.len()];
    mail.read_exact(&mut echoed).unwrap();
    let sessions = json(&gate, &["sessions"]);
    assert_eq!((&sessions["open"], &sessions["sessions"][0]["path"]), (&2.into(), &"raw".into()));
    assert!(sessions["sessions"][0].get("certificate").is_none(), "{sessions}");
    let status = json(&gate, &["status"]);
    let routes: Vec<_> =
        status["routes"].as_array().unwrap().iter().map(|one| (&one["name"], &one["sessions"])).collect();
    assert_eq!(routes, [(&"nas".into(), &1.into()), (&"mail".into(), &1.into())]);
    assert_eq!(status["listeners"][0]["address"], gate.address().to_string());
    assert_eq!(status["pid"], gate.pid());
    assert_eq!(status["config"], gate.folder().join("doorward.toml").to_str().unwrap());
    let text = gate.ask(&["status"]).success().text();
    assert!(text.contains("2 since this process started, 0 of them refused; 2 open now"), "{text}");
    for (name, asked) in [("nas", NAME), ("mail", "mail.home.example")] {
        let route = format!("  route          {name}: {asked} leads to {}; 1 open\n", echo.address());
        assert!(text.contains(&route), "{text}");
    }

    // An orderly end, and a reset.
    session.close_notify();
    session.end();
    client::reset(mail);
    wait_until("no session is open", || (json(&gate, &["sessions"])["open"] == 0).then_some(()));
}

/// Resident memory in KiB (proc(5), `/proc/PID/status`).
fn memory(gate: &Gate) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn commands_without_a_running_gate_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("control.sock");
    for command in ["why", "status", "sessions"] {
        let said = doorward(&[command, "--socket", missing.to_str().unwrap()]).failure();
        assert_eq!(said.status.code(), Some(8), "{said}");
        assert!(said.stdout.is_empty() && said.stderr.starts_with("error: no gate is running: there is no socket"));
        assert!(said.stderr.contains("start it with \"doorward run\""), "{said}");
    }
    // A socket that a gate has left.
    drop(std::os::unix::net::UnixListener::bind(&missing).unwrap());
    let said = doorward(&["status", "--socket", missing.to_str().unwrap()]).failure();
    assert_eq!(said.status.code(), Some(8));
    assert!(said.stderr.starts_with("error: no gate is running: nothing listens on"), "{said}");

    // Errors elsewhere in the configuration do not matter.
    let config = folder.path().join("doorward.toml");
    let by_config = || doorward(&["status", "--config", config.to_str().unwrap()]).failure();
    std::fs::write(&config, "[[listener]]\nname = 7\n").unwrap();
    let said = by_config();
    assert_eq!(said.status.code(), Some(8));
    assert!(
        said.stderr.contains("add these lines to it, and restart the gate:\n    [control]\n    socket = "),
        "{said}"
    );
    std::fs::write(&config, "[certificate]\nchain = \"nowhere.pem\"\n[control]\nsocket = \"control.sock\"\n").unwrap();
    assert!(by_config().stderr.contains(missing.to_str().unwrap()));
    std::fs::write(&config, "[control]\nsockt = \"control.sock\"\n").unwrap();
    let said = by_config();
    assert_eq!(said.status.code(), Some(3));
    assert!(said.stderr.contains("unknown key \"sockt\""), "{said}");

    for wrong in [&["why", "sha256:nonsense"][..], &["why", ""], &["why", "--count", "0"], &["why", "-n", "101"]] {
        assert_eq!(doorward(wrong).failure().status.code(), Some(2), "{wrong:?}");
    }
}

/// The owner asks what is wrong just when a file has a mistake.
#[test]
fn status_works_while_the_configuration_is_unreadable() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = Gate::start_with_control(&House::new(&pki).route("nas", backend.address()).config());
    let config = gate.folder().join("doorward.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let broken = text.replace("name = \"nas\"", "name = \"nas");
    assert_ne!(broken, text);
    std::fs::write(&config, broken).unwrap();
    let status = doorward(&["status", "--config", config.to_str().unwrap()]).success().text();
    assert!(status.contains("The gate has been running"), "{status}");
}

/// `doorward status | head -0`, or a service whose stderr is closed.
#[test]
fn closed_output_pipes_crash_no_command() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = Gate::start_with_control(&House::new(&pki).route("nas", backend.address()).config());
    let config = gate.folder().join("doorward.toml");
    let broken = gate.folder().join("broken.toml");
    std::fs::write(&broken, "control = 1\n").unwrap();
    let certificate = pki.write("alice.pem", pki.client("alice-phone").chain_pem());
    let (config, broken) = (config.to_str().unwrap(), broken.to_str().unwrap());
    let explain = ["explain", "--config", config, "--server-name", NAME, "--cert", certificate.to_str().unwrap()];
    for (arguments, code) in [
        (&["status", "--config", config][..], 0),
        (&["sessions", "--config", config], 0),
        (&["why", "--config", config], 0),
        (&["reload", "--config", config], 0),
        (&["check", "--config", config], 0),
        (&["check", "--config", broken], 3),
        (&["run", "--config", broken], 3),
        (&["status", "--config", broken], 3),
        (&explain, 0),
        (&["status", "--socket", "/nowhere"], 8),
    ] {
        let pipe = || {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            writer
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        let status = command.args(arguments).stdout(pipe()).stderr(pipe()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}
