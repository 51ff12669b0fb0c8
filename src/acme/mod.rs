//! Public certificates: `[certificate.acme]` (RFC 8555).
//!
//! The gate itself answers challenges and nothing else. It holds, for each name with a pending order, the certificate that RFC 8737
//! asks for.
//!
//! | file | does |
//! |---|---|
//! | `challenges` | in the gate: the names with a pending order, and what their validators are shown |
//! | `message` | what the gate and the agent tell each other |
//! | `agent` | the process beside the gate that orders and renews |
//! | `plan`, `schedule` | what it does next, and when |
//! | `remedy` | what can be done about an order that has failed |
//! | `wanted` | what is ordered, who answers challenges, why there is no certificate |
//! | `order` | one order, from the account to the certificate |
//! | `account`, `issued`, `problem` | its parts: the account, the look at the new certificate, what a server refuses |
//! | `responder` | has the gate answer challenges |
//! | `dns` | answers them by records of DNS |
//! | `served` | the certificate in use |
//! | `store` | the files of `[certificate.acme]`'s folder |
//! | `http` | the HTTP client for ACME servers |

mod account;
mod agent;
mod challenges;
pub mod dns;
mod http;
mod issued;
pub mod message;
mod order;
mod plan;
mod problem;
pub mod remedy;
mod responder;
mod schedule;
mod served;
pub(crate) mod store;
mod wanted;

pub use self::agent::{AgentError, agent};
pub use self::challenges::{Challenges, InvalidChallenge};
pub(crate) use self::store::Store;
