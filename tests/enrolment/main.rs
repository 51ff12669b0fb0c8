//! How a device is set up: what it is given, as the programs read it that it is for, and the link that hands it over.
//!
//! Nothing here is skipped: a program that is not installed fails its test and says which package brings it. All of them
//! are listed in `tests/packages`.

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
mod link;
mod profile;
mod steps;
mod told;
