//! `doorward install`: to a system in a folder, and to this machine with folders of its own (a mount namespace).

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

#[expect(dead_code, reason = "shared with tests/notify")]
#[path = "../notify/receiver.rs"]
mod receiver;

mod handover;
mod image;
mod issuer;
mod machine;
mod notices;
mod removal;
mod service;
