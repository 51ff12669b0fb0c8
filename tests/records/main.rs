//! Records behind the handshake, in any order: what the gate makes of them, against the RFCs and against rustls.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

#[expect(dead_code, reason = "the journey's: more than is needed here")]
#[path = "../journey/client.rs"]
mod client;
#[expect(dead_code, reason = "the journey's: more than is needed here")]
#[path = "../journey/home.rs"]
mod home;

mod differences;
mod forger;
mod pair;

mod live;
mod model;
