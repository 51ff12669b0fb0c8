//! The small HTTP server parts that the status page and the one-time link share: replies with security headers, bounds for
//! requests, and a bounded number of connections.

mod connections;
mod reply;

pub(crate) use connections::{Load, TIMEOUT, serve_connections, server};
pub(crate) use reply::{HTML, JSON, Policy, Reply, TEXT, reply};
