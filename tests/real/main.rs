//! The gate among the programs it was made for: Debian's own clients, services and certificate tools, unchanged, each
//! used as its manual says.
//!
//! Nothing here is skipped: a program that is not installed fails its test and says which package brings it. All of them
//! are listed in `tests/packages`.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

mod walkthrough;

mod caddy;
mod chromium;
mod clients;
mod import;
mod mkcert;
mod samba;
mod ssh;
