//! The other end: what a device is given, and what it does with it, as users run it.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

mod people;

mod bundle;
mod find;
mod hostile;
mod join;
mod ssh;
