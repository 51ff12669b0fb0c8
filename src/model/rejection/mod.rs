//! Why a connection was rejected: vocabulary, without a word for people.
//!
//! Four words, each for one thing:
//! * a [`Reason`] is what is counted: the metric's label, its alert, what it costs the source;
//! * a [`Cause`] is what happened in this case, with its data; every cause belongs to one reason;
//! * a [`Rejection`] is a stage's answer: the cause and the alert that was sent. It has no reason of its own that could
//!   contradict the cause;
//! * a [`Refusal`](crate::explain::recent::Refusal) is a rejection that is over, with when, where and of which client.
//!
//! Reasons and causes are rows of `reasons.rs`. Their texts are made in [`explain`](crate::explain) and nowhere else.

#[macro_use]
mod macros;
mod backend_tls;
mod cause_data;
mod check;
mod reasons;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;

pub use self::backend_tls::{BackendCertificateFault, BackendTlsFault};
pub use self::cause_data::{
    AddressList, CertificateFault, DenyEntry, HelloFault, IoError, ListFault, LookUp, Protocol, ProxyHeaderFault,
    RenewedFault, Side, Signer, Stage, Text,
};
pub use self::check::{Answer, CheckFailure, FailedCheck, Health};
pub use self::reasons::{Cause, Reason};
pub use super::alert::Alert;

/// A rejection: what happened, and what the client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// What happened.
    pub cause: Cause,
    /// The alert that was sent, if one was and its description is known. Whether the client has read it is not known.
    pub alert: Option<Alert>,
}

impl Rejection {
    /// A rejection that sends no alert.
    pub const fn silent(cause: Cause) -> Self {
        Self { cause, alert: None }
    }

    /// The reason that is counted.
    pub const fn reason(&self) -> Reason {
        self.cause.reason()
    }
}

impl From<Cause> for Rejection {
    fn from(cause: Cause) -> Self {
        Self::silent(cause)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason().fmt(f)
    }
}
