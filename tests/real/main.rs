//! The gate with real programs: Debian's clients, services and certificate tools, used as their manuals say.
//!
//! No test is skipped: if a program is not installed, its test fails and names the package. All packages are listed in
//! `tests/packages`.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

mod walkthrough;

mod answers;
mod backend_tls;
mod caddy;
mod chromium;
mod clients;
mod import;
mod mkcert;
mod postgres;
mod receivers;
mod samba;
mod ssh;
mod suites;
