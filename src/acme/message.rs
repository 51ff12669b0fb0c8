//! What the gate and the ACME agent tell each other.

use serde::{Deserialize, Serialize};

use crate::model::issuance::Issuance;

/// To the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToAgent {
    /// Order now, whatever the schedule says.
    Renew,
    /// The answer to [`FromAgent::Offer`].
    Offered {
        /// The name.
        name: String,
        /// Why validators of the name are not answered.
        error: Option<String>,
    },
}

/// From the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromAgent {
    /// It runs, with these parts of a sandbox.
    Started {
        /// Their names.
        sandbox: Vec<String>,
    },
    /// Show validators of the name a certificate with this digest (RFC 8737 section 3).
    Offer {
        /// The name.
        name: String,
        /// SHA-256 of the key authorization.
        digest: [u8; 32],
    },
    /// No order is pending.
    Withdraw,
    /// The files of the certificate have been replaced.
    Renewed,
    /// How it goes.
    State(Issuance),
}
