//! The other end: `doorward connect` and `doorward forward` through a real gate, and real programs that use them.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

mod scene;

mod forward;
mod programs;
mod refusals;
mod stdio;
