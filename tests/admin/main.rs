//! The listener for those who watch: what it says, and what it owes the gate when it is met with strangers.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

// The clients and the surroundings of the other tests.
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
mod strangers;
