//! What the gate cannot do any more once it runs: each forbidden thing is tried in a process that has entered the very sandbox of
//! the gate, and in one that has not, where it must succeed.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

#[expect(dead_code, reason = "shared with the tests of the journey")]
#[path = "../journey/client.rs"]
mod client;
#[expect(dead_code, reason = "shared with the tests of the journey")]
#[path = "../journey/home.rs"]
mod home;

mod attempt;
mod files;
mod gate;
mod sockets;
mod system;

/// The name that clients of these tests ask for.
const NAS: &str = "nas.home.example";
