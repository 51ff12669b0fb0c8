//! Upgrades: a running gate is replaced by a new process, and no connection is refused or lost.
//!
//! | file | shows |
//! |---|---|
//! | `load` | ten upgrades under load: every connect succeeds, and every byte arrives |
//! | `rights` | cut, revoke and reload reach the sessions of processes that upgrades have left |
//! | `broken` | a new process that ends, hangs or has another configuration leaves the old one serving |
//! | `ends` | SIGTERM, and the end of processes |
//! | `sandboxed` | each process enters a sandbox of its own, and the launcher has none |
//! | `state` | what is handed over: counters, bans, ids, descriptors, listeners |
//! | `manager` | systemd's view, with a socket that is read as systemd reads its own |
//! | `second` | a second `run` names the process of the first; process 1 is not replaced |

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

#[expect(dead_code, reason = "made for the tests of the journey")]
#[path = "../journey/client.rs"]
mod client;
#[expect(dead_code, reason = "made for the tests of the journey")]
#[path = "../journey/home.rs"]
mod home;

mod broken;
mod ends;
mod load;
mod manager;
mod rights;
mod sandboxed;
mod scene;
mod second;
mod state;
