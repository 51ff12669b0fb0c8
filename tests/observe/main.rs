//! What `deploy/` has for those who watch the gate, against a gate that turns people away for every reason there is:
//! Prometheus with its rules, every query of the dashboard, fail2ban, CrowdSec.

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

mod alertmanager;
mod crowdsec;
mod dashboard;
mod everywhere;
mod fail2ban;
mod logged;
mod prometheus;
mod scene;

use std::path::{Path, PathBuf};

/// A file below `deploy/`.
fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}
