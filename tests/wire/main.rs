//! What comes over the wire before anybody is let in: pieces, silence, other protocols, odd names, old versions.
//!
//! The clients here are mostly bare TCP sockets, with bytes made by hand ([`hello`]). Every refusal is looked at from all
//! sides at once ([`scene::Scene::refused`]): what the client received, the log line, the counters, and that no backend
//! heard of it. When a [`scene::Scene`] ends, a good client must be served and every descriptor must have come back.

// Makes Clippy treat every function here as test code, which may use unwrap().
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests")]
#[path = "../common/mod.rs"]
mod common;

mod hello;
mod scene;

mod early_data;
mod names;
mod nonsense;
mod not_tls;
mod pieces;
mod renegotiation;
mod time;
mod versions;
