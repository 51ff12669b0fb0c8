//! Public certificates: `[certificate.acme]` (RFC 8555).
//!
//! The gate itself answers challenges and nothing else. It holds, for each name with a pending order, the certificate that RFC 8737
//! asks for.
//!
//! | file | does |
//! |---|---|
//! | `challenges` | in the gate: the names with a pending order, and what their validators are shown |

mod challenges;
pub mod dns;
mod http;
pub mod message;
mod order;
pub mod schedule;
pub mod store;

pub use self::challenges::{Challenges, InvalidChallenge};
