//! Reloads of a running gate: the configuration is applied whole or not at all, and sessions it no longer admits are cut.
//!
//! | file | shows | of attacks.md |
//! |---|---|---|
//! | `whole` | the whole configuration is applied, or nothing is; `doorward reload` shows every error | 12, 24 |
//! | `listeners` | listeners are added, moved and removed; an address in use refuses the reload | 24 |
//! | `watched` | changed files are reloaded | |
//! | `handed` | revocation lists that come over the control socket | 33 |
//! | `tightened` | a broken configuration does not delay revocations | 34 |
//! | `mounts` | files on file systems and mounts without inotify events are watched as well | 37 |
//! | `tickets` | session tickets are resumed where the settings and the verdict are the same | 18, 41 |
//! | `load` | reloads affect no other connection; one revoked device of many is cut | 24 |
//! | `sessions` | sessions that are no longer admitted are cut on every path, and no others | 25 |
//! | `expected` | a configuration that breaks an `[[expect]]` is refused | |
//! | `expiry` | sessions are cut when their certificate expires, unless the route keeps them | |
//! | `dialling` | a device revoked while backends are dialled reaches none of them | 39 |
//! | `clock` | the clock is set | 26 |
//! | `crafted` | certificates that a chain does not need have no effect | 36 |
//!
//! Each reason for which a session is cut is brought about by `tests/journey/close_reasons.rs`.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

// The clients and the surroundings of the other tests.
#[expect(dead_code, reason = "made for the tests of the journey")]
#[path = "../journey/client.rs"]
mod client;
#[expect(dead_code, reason = "made for the tests of the journey")]
#[path = "../journey/home.rs"]
mod home;
#[path = "../journey/settings.rs"]
mod settings;

mod clock;
mod crafted;
mod crowd;
mod dialling;
mod expected;
mod expiry;
mod handed;
mod listeners;
mod load;
mod mounts;
mod no_ipv6;
mod sessions;
mod tickets;
mod tightened;
mod watched;
mod whole;

use std::process::Command;

use common::gate::Gate;
use common::process::{Finished, run};
use home::House;

const NAS: &str = "nas.home.example";
const SSH: &str = "ssh.home.example";

/// The configuration of a house with a control socket, reloaded on request only.
fn controlled(house: &House<'_>) -> String {
    format!("watch = \"off\"\n{}\n[control]\nsocket = \"control.sock\"\n", house.config())
}

/// A `doorward` command with the configuration of a gate.
fn doorward(gate: &Gate, arguments: &[&str]) -> Finished {
    let config = gate.folder().join("doorward.toml");
    run(Command::new(env!("CARGO_BIN_EXE_doorward")).args(arguments).arg("--config").arg(config))
}

/// Puts another configuration into the gate's file and has it taken over by `doorward reload`. It may be broken to a degree
/// that it cannot say where the gate's socket is.
fn reload(gate: &Gate, config: &str) -> Finished {
    std::fs::write(gate.folder().join("doorward.toml"), config).unwrap();
    doorward_at_socket(gate, &["reload"])
}

/// A `doorward` command with the socket of a gate.
fn doorward_at_socket(gate: &Gate, arguments: &[&str]) -> Finished {
    let socket = gate.folder().join("control.sock");
    run(Command::new(env!("CARGO_BIN_EXE_doorward")).args(arguments).arg("--socket").arg(socket))
}
