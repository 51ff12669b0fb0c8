//! Events for developers: `DOORWARD_LOG` prints them to stderr, and without it stderr has nothing more than before.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "common/mod.rs"]
mod common;

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use common::DEADLINE;
use common::process::{Daemon, own_loopback, run, wait_until};

/// A route whose backend is looked up and dialled for any client, and refuses.
const ROUTE: &str = "
[[route]]
name = \"raw\"
mode = \"passthrough\"
server_names = [\"raw.home.example\"]
backends = [\"localhost:1\"]
";

fn doorward(folder: &Path, arguments: &[&str]) {
    run(Command::new(env!("CARGO_BIN_EXE_doorward")).args(arguments).current_dir(folder)).success();
}

/// What a gate prints to stderr with this `DOORWARD_LOG`: it is started, dials a backend, is asked, and reloads.
fn stderr_of_a_gate(wanted: Option<&str>) -> String {
    let (home, address) = (tempfile::tempdir().unwrap(), SocketAddrV4::new(own_loopback(), 8443));
    let listen = address.to_string();
    let init = ["init", "--domain", "home.example", "--route", "nas=127.0.0.1:9", "--device", "alice-phone"];
    doorward(home.path(), &[&init[..], &["--listen", &listen]].concat());
    let folder = home.path().join("doorward");
    let config = folder.join("doorward.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    // The kernel is asked for TLS only if it may be used.
    let text = format!("kernel_tls = \"auto\"\n{}{ROUTE}", text.replace("127.0.0.1:9180", "127.0.0.1:0"));
    std::fs::write(&config, text).unwrap();

    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" run 2>stderr.txt", env!("CARGO_BIN_EXE_doorward")]);
    command.current_dir(&folder).env_remove("RUNTIME_DIRECTORY").env_remove("DOORWARD_LOG");
    if let Some(wanted) = wanted {
        command.env("DOORWARD_LOG", wanted);
    }
    let gate = Daemon::start(&mut command, address);
    wait_until("it is ready", || gate.output().contains(" ready\n").then_some(()));

    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(&hello("raw.home.example")).unwrap();
    // A refused passthrough connection is reset: that it ended is enough.
    let _ = client.read_to_end(&mut Vec::new());
    doorward(&folder, &["status"]);
    doorward(&folder, &["reload"]);
    drop(gate);
    std::fs::read_to_string(folder.join("stderr.txt")).unwrap()
}

fn hello(server_name: &'static str) -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), server_name.try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn doorward_log_prints_events_and_nothing_else_changes() {
    let silent = stderr_of_a_gate(None);
    let talking = stderr_of_a_gate(Some("debug"));
    for event in [
        "DEBUG doorward::listener: bound",
        "DEBUG doorward::server::opened: probed kernel TLS",
        "DEBUG doorward::backends::resolver: looked up name=localhost",
        "DEBUG doorward::backends::eyeballs: not connected",
        "DEBUG doorward::control::server: control request request=Status",
        "DEBUG doorward::reload::reloader: reload: reads the configuration",
        "DEBUG doorward::reload::reloader: reload: the new snapshot is in force",
    ] {
        assert!(talking.contains(event), "{event} is not among:\n{talking}");
    }
    let without_events: Vec<_> = talking.lines().filter(|line| !line.contains("DEBUG doorward::")).collect();
    assert_eq!(without_events, Vec::from_iter(silent.lines()));
    assert!(!talking.contains("PRIVATE KEY"), "{talking}");
}

#[test]
fn doorward_log_may_name_a_part_of_the_program() {
    let stderr = stderr_of_a_gate(Some("doorward::control=debug"));
    let events: Vec<_> = stderr.lines().filter(|line| line.contains("DEBUG")).collect();
    assert!(!events.is_empty() && events.iter().all(|line| line.contains("doorward::control::")), "{stderr}");
}

#[test]
fn doorward_log_that_is_not_understood_is_told() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    let said = run(command.args(["check", "--config", "/nowhere"]).env("DOORWARD_LOG", "doorward=loud")).failure();
    assert!(said.stderr.contains("warning: DOORWARD_LOG is not understood: write DOORWARD_LOG=debug\n"), "{said}");
}
