//! The connector for Windows, run by Wine, with a gate on this machine: `tests/all portable` builds it and starts these tests, one
//! after the other.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;
#[path = "../connector/duplex.rs"]
mod duplex;
#[expect(dead_code, reason = "made for the tests of doorward ca")]
#[path = "../ca/home.rs"]
mod home;
#[expect(dead_code, reason = "made for the tests of renewal")]
#[path = "../renewal/house.rs"]
mod house;
#[expect(dead_code, reason = "made for the tests of the connector here")]
#[path = "../connector/scene.rs"]
mod scene;

mod wine;

mod connect;
mod forward;
mod join;
