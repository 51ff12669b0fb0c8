//! The journey of a connection, stage by stage, on the real gate.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

mod client;
mod home;

mod backends;
mod certificates;
mod endings;
mod limits;
mod modes;
mod pitfalls;
mod reasons;
mod resumption;
