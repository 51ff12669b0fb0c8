//! Kernel TLS end to end: who takes that path, and what becomes of the bytes at the hand-over. tests/vm/run.sh runs this in
//! virtual machines, together with the journey's tests, which take it there without knowing.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

#[expect(dead_code, reason = "the journey's: more than is needed here")]
#[path = "../journey/client.rs"]
mod client;
#[expect(dead_code, reason = "the journey's: more than is needed here")]
#[path = "../journey/home.rs"]
mod home;

mod cost;
mod cut;
mod handover;
