//! The other end: what a device is given, and what it does with it, through a real gate and with real programs.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

mod people;
mod scene;

mod bundle;
mod find;
mod forward;
mod hostile;
mod join;
mod programs;
mod refusals;
mod ssh;
mod stdio;
mod token;
