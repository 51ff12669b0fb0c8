//! The gate's own defence, on the real gate: who is made to wait, who never is, and who is served while others flood.
//!
//! | file | shows | of attacks.md |
//! |---|---|---|
//! | `bans` | penalties, bans, trust, who is one source | |
//! | `floods` | good clients are served whatever others hold | 3, 31 |
//! | `shared` | the owner gets in from an address that strangers abuse | 43 |
//! | `verdicts` | the verdict that was reached is the one that counts | 40 |
//!
//! What it takes in memory: `tests/memory.rs` (28, 29) and `tests/million_sources.rs`. How penalties and bans grow and
//! pass with time: the unit tests of `penalties` and `admission`.

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

mod bans;
mod floods;
mod shared;
mod verdicts;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rustls::ClientConfig;

use client::{Client, End, connect_from};
use common::gate::Gate;

const NAS: &str = "nas.home.example";

/// An address of this machine.
const fn loopback(c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, c, d))
}

/// Connects from an address and gets an answer from the service behind the gate.
fn admitted_from(source: IpAddr, gate: &Gate, config: &Arc<ClientConfig>) -> Result<Client, End> {
    let client = Client::on(connect_from(source, gate.address()), config, NAS);
    client.handshake()?;
    client.ping()?;
    Ok(client)
}
