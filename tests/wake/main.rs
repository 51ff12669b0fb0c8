//! A NAS that sleeps: the gate wakes it for a verified device, and for that alone.
//!
//! Each test has a network of its own, see [`network`]: what wakes the NAS is the packet that was seen on its wire.

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

mod interrupted;
mod network;
mod waking;

use std::sync::Arc;
use std::thread;

use rustls::ClientConfig;

use client::{Client, End};
use common::gate::Gate;
use common::pki::TestPki;
use home::House;
use network::{MAC, NAS};

const NAME: &str = "nas.home.example";

/// A configuration whose route `nas` wakes the NAS, with these further keys of `wake`.
fn config(pki: &TestPki, keys: &str) -> String {
    with_client_auth(pki, "", keys)
}

fn with_client_auth(pki: &TestPki, client_auth: &str, keys: &str) -> String {
    let wake = format!("allow = [\"any\"]\nwake = {{ mac = \"{MAC}\"{keys} }}");
    let house = House::new(pki).client_auth(client_auth).route_with("nas", &[&NAS.to_string()], &wake);
    format!("watch = \"off\"\n{}\n[control]\nsocket = \"control.sock\"\n", house.config())
}

/// A device that connects, and waits for the answer of the NAS.
fn visit(gate: &Gate, device: &Arc<ClientConfig>) -> thread::JoinHandle<Result<Client, End>> {
    let (address, device) = (gate.address(), Arc::clone(device));
    thread::spawn(move || Client::admitted(address, &device, NAME))
}

/// What `doorward status` says of the machine of the route.
fn machine(gate: &Gate) -> String {
    let status = gate.ask(&["status", "--format", "json"]).success();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    status["routes"][0]["machine"].as_str().unwrap().to_owned()
}

/// How many attempts to wake the NAS have ended so.
#[track_caller]
fn wait_wakes(gate: &Gate, outcome: &str, count: f64) {
    gate.wait_metric("doorward_wakes_total", &[("route", "nas"), ("outcome", outcome)], count);
}
