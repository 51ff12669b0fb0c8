//! What reviews of the gate's security found: each finding as the attack that it was, against the gate as it runs.
//!
//! Every test says what happened before. None of this may ever work again.

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
#[path = "../journey/home.rs"]
mod home;
#[expect(dead_code, reason = "made for the tests on the wire")]
#[path = "../wire/scene.rs"]
mod scene;

mod der;

mod backends;
mod certificates;
mod descriptors;
mod exhaustion;
mod hidden;
mod log;
mod records;
mod resolver;
mod trust;
