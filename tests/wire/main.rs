//! Input on the wire before a client is authorized: fragments, silence, other protocols, invalid names, old versions.
//!
//! The clients are mostly plain TCP sockets that send handmade bytes ([`hello`]). Every rejection is checked completely
//! ([`scene::Scene::expect_rejection`]): what the client received, the log line, the counters, and that no backend was
//! dialled. When a [`scene::Scene`] ends, a good client must be served and every descriptor must be closed.

// Makes Clippy treat every function here as test code, which may use unwrap().
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests")]
#[path = "../common/mod.rs"]
mod common;

mod hello;
mod scene;

mod acme;
mod cut;
mod deadlines;
mod early_data;
mod fragments;
mod malformed;
mod names;
mod not_tls;
mod renegotiation;
mod versions;
