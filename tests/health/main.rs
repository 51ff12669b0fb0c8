//! Health checks of backends, and the limit of their connections.
//!
//! | file | shows |
//! |---|---|
//! | `service` | a backend whose answers to checks the test decides |
//! | `checks` | when a backend goes down and comes back, and which connections it gets |
//! | `reloads` | what a reload, an upgrade and the end of the gate do to checks |
//! | `told` | what the log, the metrics, `status`, the page and messages say |
//! | `limit` | `connections_per_backend` |
//! | `real` | sshd, nginx, TLS |
//! | `rows` | attacks.md, rows 21 and 22, with checks |

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

#[expect(dead_code, reason = "shared with tests/journey")]
#[path = "../journey/client.rs"]
mod client;
#[expect(dead_code, reason = "shared with tests/journey")]
#[path = "../journey/home.rs"]
mod home;
#[expect(dead_code, reason = "shared with tests/notify")]
#[path = "../notify/receiver.rs"]
mod receiver;

mod service;

mod checks;
mod limit;
mod real;
mod reloads;
mod rows;
mod told;

/// The server name of most tests.
const NAS: &str = "nas.home.example";

/// Every verified certificate may use the route.
const ANY: &str = "allow = [\"any\"]";

/// The gauge of the checks.
const HEALTHY: &str = "doorward_backend_healthy";
