//! The status page in a browser, and the one order of all that tells the owner something.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

#[expect(dead_code, reason = "shared with tests/journey")]
#[path = "../journey/client.rs"]
mod client;

#[expect(dead_code, reason = "shared with tests/ca")]
#[path = "../ca/home.rs"]
mod home;

#[expect(dead_code, reason = "shared with tests/notify")]
#[path = "../notify/receiver.rs"]
mod receiver;

mod browser;
mod order;
mod scene;
mod week;
