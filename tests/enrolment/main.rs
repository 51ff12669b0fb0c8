//! How a device is set up: its files, read by the programs that they are for, and the link that hands them over.
//!
//! No test is skipped: if a program is not installed, the test fails and names its package. `tests/packages` lists them.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

mod browser;
mod home;
mod shared;

mod archives;
mod code;
mod languages;
mod link;
mod link_address;
mod link_bundle;
mod link_delivery;
mod messages;
mod profile;
mod public;
mod steps;
mod switch;
