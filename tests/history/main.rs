//! The history: what devices did is known after a restart, a kill, an upgrade, and while the disk is full.
//!
//! | file | shows |
//! |---|---|
//! | `restarts` | a stop, a kill at any moment, another configuration, a folder without a gate |
//! | `disk` | a full disk, a folder that cannot be written, two gates with one folder |
//! | `upgrades` | sessions that end in a process that an upgrade has left |
//!
//! Bounds, damaged files and wrong clocks: the unit tests of `history`.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

#[expect(dead_code, reason = "made for the tests of the journey")]
#[path = "../journey/client.rs"]
mod client;
#[expect(dead_code, reason = "made for the tests of the journey")]
#[path = "../journey/home.rs"]
mod home;

mod disk;
mod restarts;
mod upgrades;

use std::path::Path;
use std::process::Command;

use doorward::history::{Visit, visits_of_folder};
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use client::{Client, client};
use common::backend::Backend;
use common::gate::Gate;
use common::pki::TestPki;
use common::process::{run, wait_until};
use home::House;

const NAS: &str = "nas.home.example";

/// A house with one route, whose history is in this folder.
fn config(pki: &TestPki, backend: &Backend, folder: &Path) -> String {
    let house = House::new(pki).route("nas", backend.address()).config();
    format!("watch = \"off\"\n{house}\n[control]\nsocket = \"control.sock\"\n[history]\nfolder = {folder:?}\n")
}

/// A device connects, exchanges four bytes each way with the service, and closes.
#[track_caller]
fn visit(gate: &Gate, pki: &TestPki, device: &str) {
    let client = Client::admitted(gate.address(), &client(pki, Some(&pki.client(device))), NAS).unwrap();
    client.close_notify();
    client.end();
}

/// What `doorward history` says, as JSON.
#[track_caller]
fn told(gate: &Gate) -> Vec<Value> {
    let finished = gate.ask(&["history", "--format", "json"]).success();
    let answer: Value = serde_json::from_slice(&finished.stdout).unwrap();
    answer["visits"].as_array().unwrap().clone()
}

/// The visits in the files.
fn written(folder: &Path) -> Vec<Visit> {
    let now = OffsetDateTime::now_utc();
    visits_of_folder(folder, now - Duration::days(1), now).unwrap_or_default()
}

/// Waits until so many connections of a device are in the files.
#[track_caller]
fn wait_written(folder: &Path, device: &str, connections: u64) {
    wait_until("the connections are in the files", || {
        let of_device = written(folder).into_iter().filter(|visit| &*visit.device == device);
        (of_device.map(|visit| visit.connections).sum::<u64>() == connections).then_some(())
    });
}

/// `doorward history` with this configuration, while no gate runs.
fn without_gate(config: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    run(command.arg("history").args(arguments).arg("--config").arg(config).env("TZ", "UTC")).success().text()
}
