//! Records behind the handshake, in any order: what the gate makes of them, against the RFCs and against rustls.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

mod differences;
mod forger;
mod pair;

mod model;
