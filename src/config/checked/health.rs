//! `health` of a route.

use std::time::Duration;

/// How the backends of a route are checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Health {
    /// From the beginning of a check to the beginning of the next one.
    pub every: Duration,
    /// So many checks in a row must pass for an unhealthy backend to be healthy.
    pub rise: u32,
    /// So many checks in a row must fail for a healthy backend to be unhealthy.
    pub fall: u32,
    /// How long a check may take.
    pub timeout: Duration,
    /// What the backend is sent.
    pub send: Vec<u8>,
    /// What its answer must begin with; empty if no answer is waited for.
    pub expect: Vec<u8>,
    /// Whether a TLS handshake comes first.
    pub tls: bool,
}
