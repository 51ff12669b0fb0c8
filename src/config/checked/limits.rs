//! `[timeouts]` and `[limits]`.

use std::time::Duration;

use crate::model::source::Prefixes;

/// How long each phase may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to a complete ClientHello.
    pub client_hello: Duration,
    /// From the ClientHello to the end of the handshake.
    pub handshake: Duration,
    /// For reaching a backend, all of a route's together.
    pub dial: Duration,
    /// Without a byte either way.
    pub idle: Duration,
    /// From accept to the end; `None` is without limit.
    pub lifetime: Option<Duration>,
    /// Without a byte, once one side has ended.
    pub half_close: Duration,
    /// For connections to end when the gate shuts down.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            client_hello: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            dial: Duration::from_secs(5),
            idle: Duration::from_secs(2 * 60 * 60),
            lifetime: None,
            half_close: Duration::from_secs(60),
            drain: Duration::from_secs(30),
        }
    }
}

/// How much is taken on at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one source; `None` is without limit.
    pub connections_per_source: Option<usize>,
    /// New connections of one source; `None` is without limit.
    pub connection_rate_per_source: Option<Rate>,
    /// Handshakes in progress.
    pub handshakes: usize,
    /// Whether a source whose connections are rejected again and again has to wait.
    pub penalties: bool,
    /// How the connections of a source that has to wait are ended.
    pub banned: Banned,
    /// Who is one source.
    pub source_prefixes: Prefixes,
}

/// How connections of a banned source are ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Banned {
    /// As all others are.
    Close,
    /// By a reset (RFC 9293 section 3.10.4, ABORT): nothing is left of the connection on the gate's machine.
    Drop,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_source: Some(256),
            connection_rate_per_source: Some(Rate { count: 50, per: Duration::from_secs(1) }),
            handshakes: 512,
            penalties: true,
            banned: Banned::Close,
            source_prefixes: Prefixes::default(),
        }
    }
}

/// So many in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many, at least 1.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}
