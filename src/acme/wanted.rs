//! What is ordered, who answers the challenges, and why there is no certificate.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use instant_acme::{CertificateIdentifier, ChallengeType, KeyAuthorization};

use super::remedy::{Obstacle, ProblemFacts};
use super::store::StoreError;
use crate::config::checked::Eab;

/// Answers the challenges of an order.
pub(super) trait Responder {
    /// The challenge that it answers.
    fn challenge(&self) -> ChallengeType;

    /// Answers the challenge of `name`, which may be a wildcard, from now on.
    fn offer(&self, name: &str, answer: &KeyAuthorization) -> impl Future<Output = Result<(), String>>;

    /// Waits until the ACME server can see all that was offered.
    fn settle(&self) -> impl Future<Output = Result<(), String>>;

    /// The order is over.
    fn withdraw(&self) -> impl Future<Output = ()>;
}

/// What is ordered, and where.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The URL of the server's directory.
    pub(super) directory: String,
    /// How the server can reach the owner, as in `mailto:alice@home.example`.
    pub(super) contact: Option<String>,
    /// The names.
    pub(super) names: BTreeSet<String>,
    /// The profile, if the server has several (draft-ietf-acme-profiles).
    pub(super) profile: Option<String>,
    /// For servers that make accounts only with a key of their operator.
    pub(super) eab: Option<Eab>,
    /// The certificate that is replaced, if the server is to know (RFC 9773 section 5).
    pub(super) replaces: Option<CertificateIdentifier<'static>>,
}

/// Why there is no certificate.
#[derive(Debug)]
pub(super) struct Failed {
    /// In words, with those of the server.
    pub(super) error: String,
    /// The server has said that there were too many requests.
    pub(super) rate_limited: bool,
    /// How long it has asked to wait.
    pub(super) retry_after: Option<Duration>,
    /// What is known of the cause, for the remedies.
    pub(super) facts: Box<ProblemFacts>,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self { facts: Box::new(ProblemFacts::obstacle(Obstacle::Storage)), ..Self::new(error) }
    }
}

impl Failed {
    pub(super) fn new(error: impl fmt::Display) -> Self {
        Self { error: error.to_string(), rate_limited: false, retry_after: None, facts: Box::default() }
    }
}
