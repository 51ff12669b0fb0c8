//! Kernel TLS end to end: who takes that path, and what becomes of the bytes at the hand-over. tests/vm/run.sh runs this in
//! virtual machines, together with the journey's tests, which take it there without knowing.

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

mod cost;
mod cut;
mod handover;
