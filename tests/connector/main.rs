//! The other end: what a device is given, and what it does with it, through a real gate and with real programs.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

mod duplex;
mod people;
mod scene;

mod bundle;
mod cut;
mod find;
mod forward;
mod hostile;
mod join;
mod matrix;
mod network;
mod programs;
mod refusals;
mod rules;
mod servers;
mod shells;
mod ssh;
mod stdio;
mod token;
