//! Devices ask the gate for their next certificate, and the owner decides: EST (RFC 7030) behind the stages of the gate.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;
#[expect(dead_code, reason = "made for the tests of doorward ca")]
#[path = "../ca/home.rs"]
mod home;

mod house;

mod approved;
mod clients;
mod device;
mod hostile;
mod last_third;
mod refused;
mod slow;
mod token;
mod token_due;
mod too_late;
mod unattended;
mod wrong_answers;
