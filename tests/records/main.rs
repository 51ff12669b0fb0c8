//! Records after the handshake, in any order: the gate compared with the RFCs and with rustls.

// Makes Clippy treat every function here as test code, which may use unwrap().
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests")]
#[path = "../common/mod.rs"]
mod common;

#[expect(dead_code, reason = "shared with tests/journey")]
#[path = "../journey/client.rs"]
mod client;
#[expect(dead_code, reason = "shared with tests/journey")]
#[path = "../journey/home.rs"]
mod home;

mod differences;
mod forger;
mod pair;

mod live;
mod model;
