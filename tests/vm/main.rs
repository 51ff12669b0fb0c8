//! Kernel TLS end to end: which connections use it, and that no byte is lost at the hand-over. tests/vm/run.sh runs these
//! tests and tests/journey in virtual machines whose kernels have TLS.

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
mod mounted;
