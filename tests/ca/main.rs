//! `doorward ca` as users run it: a process, a folder, and what other programs say about its files.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

mod home;
mod in_force;

mod broken;
mod browsers;
mod checked;
mod disk;
mod encrypted;
mod folder;
mod gate;
mod guest;
mod hostile;
mod inspect;
mod issue;
mod killed;
mod named_devices;
mod names;
mod readers;
mod revoke;
mod revoked;
mod together;
mod upgraded;
