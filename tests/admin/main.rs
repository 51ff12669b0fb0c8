//! The monitoring listener: its replies, and that hostile clients of it do not disturb the gate.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

// Clients and gates of other tests.
#[expect(dead_code, reason = "made for the tests of the journey")]
#[path = "../journey/client.rs"]
mod client;
#[expect(dead_code, reason = "made for the tests on the wire")]
#[path = "../wire/hello.rs"]
mod hello;
#[expect(dead_code, reason = "made for the tests of the journey")]
#[path = "../journey/home.rs"]
mod home;

mod http;

mod limits;
mod metrics;
mod page;
mod strangers;
