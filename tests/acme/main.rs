//! Public certificates, with Debian's pebble as the ACME server.
//!
//! | file | shows |
//! |---|---|
//! | `pebble` | the ACME server and its DNS |
//! | `relay` | what is between it and the gate: faults on request, and a list of what was asked |
//! | `agent` | orders without a gate |
//! | `accounts` | new, found again, deactivated, with an external binding |
//! | `certificates` | what a server may issue, and what is not used |
//! | `scene` | a gate whose own port pebble looks at |
//! | `renewed` | orders and renewals while devices come, stay and go |
//! | `extensions` | renewal information and profiles |
//! | `machines` | a clock that is wrong, a folder that cannot be written |
//! | `enrolled` | a home from `init --acme`: curl and Chromium with the public root and the archive alone |
//! | `interrupted` | what happens while an order is under way |
//! | `killed` | kill -9 at every request, and at every system call that changes the disk |
//! | `orders` | one order at a time: every fault of a server, and every status that a killed process can leave |

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

#[expect(dead_code, reason = "shared with tests/journey")]
#[path = "../journey/client.rs"]
mod client;

#[expect(dead_code, reason = "shared with tests/enrolment")]
#[path = "../enrolment/home.rs"]
mod home;

mod accounts;
mod agent;
mod certificates;
mod enrolled;
mod extensions;
mod interrupted;
mod killed;
mod machines;
mod orders;
mod pebble;
mod relay;
mod renewed;
mod scene;
