//! `doorward ca` as its users have it: a process, a folder, and what other programs say about the files in it.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

mod home;
mod in_force;

mod broken;
mod browsers;
mod disk;
mod encrypted;
mod gate;
mod hostile;
mod inspect;
mod killed;
mod life;
mod readers;
mod revoked;
mod together;
