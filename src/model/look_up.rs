//! What is known of a host name that the configuration has.

use std::net::IpAddr;

use time::OffsetDateTime;

/// A host name of a backend, and what its look-ups have found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName {
    /// The name.
    pub name: String,
    /// The addresses in use: the last good answer.
    pub addresses: Vec<IpAddr>,
    /// When that answer came; `None` if there is none yet.
    pub answered: Option<OffsetDateTime>,
    /// The last look-up, if it failed.
    pub failed: Option<FailedLookUp>,
}

/// A look-up that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedLookUp {
    /// When.
    pub at: OffsetDateTime,
    /// What the resolver says.
    pub error: String,
}
