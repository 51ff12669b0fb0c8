//! What the gate and the process tell each other.

use serde::{Deserialize, Serialize};

use crate::model::renewal::Unattended;

/// To the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToRenewer {
    /// Look at the request of this device.
    Look {
        /// As the gate calls it.
        device: String,
    },
}

/// From the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromRenewer {
    /// It runs.
    Started,
    /// It cannot run.
    Unable {
        /// Why.
        error: String,
    },
    /// What was done with the request of this device.
    Done {
        /// As the gate calls it.
        device: String,
        /// What.
        done: Unattended,
    },
}
