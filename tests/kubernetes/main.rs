//! `deploy/kubernetes`, and a gate that lives as kubelet lets it live.
//!
//! | file | shows |
//! |---|---|
//! | `manifests` | kubectl builds the manifests, the published schemas accept them, and faults are found |
//! | `relations` | labels, ports, folders, times and networks of the manifests fit each other and the gate |
//! | `pod` | (what the next two build on) |
//! | `kubelet` | mounted ConfigMaps and Secrets change while sessions are open; a pod is ended |
//! | `keys` | `doorward generate ticket-key`, and what a gate says of its files |
//! | `tickets` | replicas with shared keys resume the sessions of each other, while the keys are replaced |
//!
//! `tests/reload/watched.rs` changes one link of this kind among other changes of files.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

// The clients and the surroundings of the other tests.
#[expect(dead_code, reason = "made for the tests of the journey")]
#[path = "../journey/client.rs"]
mod client;
#[expect(dead_code, reason = "made for the tests of the journey")]
#[path = "../journey/settings.rs"]
mod settings;

mod keys;
mod kubelet;
mod manifests;
mod pod;
mod relations;
mod tickets;

use std::path::{Path, PathBuf};

use common::folders::copy_folder;
use common::pki::{TestPki, days_from_now};

const NAS: &str = "nas.home.example";

/// What `deploy/kubernetes` has.
fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes")
}

/// A copy of `deploy/kubernetes` with the files that the example leaves to its reader.
fn copied(pki: &TestPki) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&deploy(), copy.path());
    let clients = copy.path().join("example/clients");
    std::fs::create_dir(&clients).unwrap();
    std::fs::write(clients.join("clients.pem"), pki.clients.pem()).unwrap();
    std::fs::write(clients.join("clients.crl"), list(pki, &[])).unwrap();
    copy
}

fn list(pki: &TestPki, revoked: &[u64]) -> String {
    let revoked: Vec<_> = revoked.iter().map(|number| rcgen::SerialNumber::from(*number)).collect();
    pki.clients.revocation_list(&revoked, days_from_now(-1), days_from_now(5))
}
