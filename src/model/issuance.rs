//! What is known of the public certificate: which names it is ordered for, where, and how that goes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The state of the orders for a public certificate. Times are in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuance {
    /// The directory of the ACME server, as the configuration names it.
    pub directory: String,
    /// The names that are ordered.
    pub names: BTreeSet<String>,
    /// What is being done.
    pub phase: Phase,
    /// When the next order begins; `None` while one is under way.
    pub next_at: Option<i64>,
    /// How often a certificate was issued since this gate runs.
    pub renewed: u64,
    /// How often an order has failed since this gate runs.
    pub failed: u64,
    /// The last attempt, if it has failed.
    pub failure: Option<FailedOrder>,
}

/// What is being done about the public certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The process that orders it has not said anything yet.
    #[default]
    Starting,
    /// An order is under way at the directory of `trial`.
    Trial,
    /// An order is under way.
    Ordering,
    /// The certificate is in place, and is renewed later.
    Valid,
    /// An order has failed, and another one begins later.
    Failing,
    /// There is no process that could order it.
    Stopped,
}

/// An order that has failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedOrder {
    /// When.
    pub at: i64,
    /// How many orders have failed in a row, this one included.
    pub in_a_row: u32,
    /// The directory where it was placed.
    pub directory: String,
    /// What the server said, or why it could not be asked.
    pub error: String,
    /// What can be done about it, if that is known: one sentence for each thing.
    pub remedies: Vec<String>,
}

/// How an attempt to get a certificate has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalOutcome {
    /// A certificate was issued.
    Renewed,
    /// There is none.
    Failed,
}

impl RenewalOutcome {
    /// Every outcome.
    pub const ALL: [Self; 2] = [Self::Renewed, Self::Failed];

    /// Its label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Renewed => "renewed",
            Self::Failed => "failed",
        }
    }
}
