//! The public certificate in words: how it does, and what is the matter with it.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::explain::clock::Clock;
use crate::explain::moment;
use crate::model::issuance::{FailedOrder, Issuance, Phase};
use crate::model::public_certificate::PublicCertificate;
use crate::model::text::{counted, in_words};

/// The most names in a sentence.
const NAMES_MAX: usize = 3;

/// The command that orders at once.
pub(super) const RENEW: &str = "doorward certificate renew";

/// The public certificate, and how its orders go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicState {
    /// What the gate shows.
    pub certificate: PublicCertificate,
    /// How the orders go.
    pub issuance: Issuance,
}

impl PublicState {
    /// Of a gate whose process for orders has not said anything yet if `issuance` is `None`.
    pub fn new(certificate: &PublicCertificate, issuance: Option<Issuance>) -> Self {
        Self { certificate: certificate.clone(), issuance: issuance.unwrap_or_default() }
    }

    /// The latest order, if it has failed.
    pub const fn failure(&self) -> Option<&FailedOrder> {
        self.issuance.failure.as_ref()
    }

    /// Whether the certificate will not be renewed as things are.
    pub fn is_failing(&self) -> bool {
        self.failure().is_some() || self.issuance.phase == Phase::Stopped
    }

    /// Whether the gate shows a temporary certificate, or one that lacks a name.
    pub fn lacks_names(&self) -> bool {
        self.certificate.issued.as_ref().is_none_or(|issued| !issued.lacks.is_empty())
    }

    /// Whether devices refuse it, at least for one of its names.
    pub fn is_refused(&self, now: OffsetDateTime) -> bool {
        let expired = self.certificate.issued.as_ref().is_some_and(|issued| issued.not_after < now.unix_timestamp());
        expired || self.lacks_names()
    }

    /// Whether an order has to succeed now: without one, devices refuse the gate already, or will before the next attempts can help.
    pub fn is_pressing(&self, now: OffsetDateTime) -> bool {
        let now = now.unix_timestamp();
        self.certificate.issued.as_ref().is_none_or(|issued| {
            issued.pressing() <= now || self.issuance.next_at.is_some_and(|next| issued.not_after <= next)
        })
    }

    /// How it does, in a line without a full stop: `Public certificate for nas.home.example: valid until …`.
    pub fn line(&self, clock: &Clock) -> String {
        format!("Public certificate for {}: {}", listed(&self.certificate.names), self.state(clock))
    }

    /// The same without its names.
    pub fn state(&self, clock: &Clock) -> String {
        let Some(issued) = &self.certificate.issued else { return format!("not issued yet{}", self.progress(clock)) };
        let (until, since) = (clock.day_of_seconds(issued.not_after), clock.day_of_seconds(issued.not_before));
        let is_over = issued.not_after < clock.now().unix_timestamp();
        let valid = if is_over { format!("expired on {until}") } else { format!("valid until {until}") };
        let progress = self.progress(clock);
        if issued.is_own {
            return format!("not issued yet, that of your own authority is shown until then ({valid}){progress}");
        }
        let lacks =
            if issued.lacks.is_empty() { String::new() } else { format!(", not yet for {}", listed(&issued.lacks)) };
        format!("{valid}, renewed on {since}{lacks}{progress}")
    }

    /// What is being done about it, with a comma before it.
    fn progress(&self, clock: &Clock) -> String {
        let next = self.issuance.next_at.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
        let next = next.map(|at| clock.moment(at));
        match (self.issuance.phase, self.failure(), next) {
            (Phase::Starting, ..) | (Phase::Failing | Phase::Valid, None, None) => String::new(),
            (Phase::Trial, ..) => ", an order on trial is under way".to_owned(),
            (Phase::Ordering, ..) => ", an order is under way".to_owned(),
            (Phase::Stopped, ..) => ", the process that orders it does not run".to_owned(),
            (_, Some(failure), next) => {
                let next = next.map(|next| format!(", the next one begins {next}")).unwrap_or_default();
                format!(", the last order failed {}{next}", self.at(failure, clock))
            }
            (Phase::Failing | Phase::Valid, None, Some(next)) => format!(", next renewal {next}"),
        }
    }

    /// When it is renewed, in a few words.
    pub fn short(&self, clock: &Clock) -> String {
        let next = self.issuance.next_at.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
        match (self.issuance.phase, next) {
            (Phase::Trial | Phase::Ordering, _) => "being renewed".to_owned(),
            (_, Some(next)) => format!("next renewal {}", clock.since(next)),
            (Phase::Stopped | Phase::Failing, None) => "not renewed".to_owned(),
            (Phase::Starting | Phase::Valid, None) => "renewed automatically".to_owned(),
        }
    }

    fn at(&self, failure: &FailedOrder, clock: &Clock) -> String {
        OffsetDateTime::from_unix_timestamp(failure.at).map_or_else(|_| "earlier".to_owned(), |at| clock.moment(at))
    }

    /// A name that no device trusts the gate for.
    pub(super) fn not_issued_headline(&self) -> String {
        match &self.certificate.issued {
            None => "The public certificate has not been issued yet".to_owned(),
            Some(issued) => format!("The public certificate is not for {} yet", listed(&issued.lacks)),
        }
    }

    pub(super) fn not_issued_sentence(&self) -> String {
        let shown = match &self.certificate.issued {
            None => "The gate shows a temporary certificate of its own, and devices do not trust it yet.".to_owned(),
            Some(issued) => {
                format!("Devices that connect to {} refuse the gate until it is.", listed(&issued.lacks))
            }
        };
        let how = match self.issuance.phase {
            _ if self.failure().is_some() => " The last order has failed.".to_owned(),
            Phase::Stopped => " The process that orders it does not run.".to_owned(),
            Phase::Trial => format!(" An order on trial is under way at {}.", self.issuance.directory),
            Phase::Ordering => format!(" An order is under way at {}.", self.issuance.directory),
            Phase::Starting | Phase::Valid | Phase::Failing => " It is being ordered.".to_owned(),
        };
        format!("{shown}{how}")
    }

    pub(super) fn failed_headline(&self, clock: &Clock) -> String {
        let left = |until: i64| until.saturating_sub(clock.now().unix_timestamp());
        match (&self.certificate.issued, self.failure()) {
            (Some(issued), _) if left(issued.not_after) < 0 => {
                "The public certificate has expired and could not be renewed".to_owned()
            }
            (Some(issued), _) if self.is_pressing(clock.now()) => format!(
                "The public certificate expires in {} and could not be renewed",
                in_words(left(issued.not_after))
            ),
            (Some(issued), Some(_)) if !issued.is_own => "The public certificate could not be renewed".to_owned(),
            (_, Some(_)) => "The public certificate could not be ordered".to_owned(),
            (_, None) => "The public certificate is not renewed".to_owned(),
        }
    }

    pub(super) fn failed_sentence(&self, clock: &Clock) -> String {
        let until = self.certificate.issued.as_ref().map(|issued| {
            let day = clock.day_of_seconds(issued.not_after);
            if issued.not_after < clock.now().unix_timestamp() {
                format!(" The one in use expired on {day}: devices refuse the gate.")
            } else {
                format!(" The one in use is valid until {day}.")
            }
        });
        let until = until.unwrap_or_default();
        let Some(failure) = self.failure() else {
            return format!("The process that orders it does not run.{until}");
        };
        let count = match failure.in_a_row {
            0 | 1 => "The order".to_owned(),
            count => format!("The last of {}", counted(u64::from(count), "order")),
        };
        let next = self.issuance.next_at.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
        let next = match (self.issuance.phase, next) {
            (Phase::Trial | Phase::Ordering, _) => " Another one is under way.".to_owned(),
            (_, Some(at)) => format!(" The next one begins {}.", clock.moment(at)),
            (_, None) => String::new(),
        };
        let (at, directory) = (self.at(failure, clock), &failure.directory);
        let error = failure.error.trim_end_matches('.');
        format!("{count} failed {at} at {directory}: {error}.{until}{next}")
    }

    pub(super) fn advice(&self) -> String {
        match self.failure() {
            Some(failure) if !failure.remedies.is_empty() => failure.remedies.join(" "),
            Some(_) => format!("To try again at once: {RENEW}."),
            None => "The log says why it has ended; it is started again with the gate.".to_owned(),
        }
    }

    /// What other programs are told.
    pub fn told(&self, clock: &Clock) -> ToldCertificate {
        let Issuance { directory, phase, next_at, renewed, failed, failure, .. } = self.issuance.clone();
        let issued = self.certificate.issued.as_ref();
        ToldCertificate {
            line: self.line(clock),
            names: self.certificate.names.clone(),
            file: self.certificate.file.clone(),
            directory,
            phase,
            temporary: issued.is_none(),
            issuer: issued.map(|issued| issued.issuer.clone()),
            valid_from: issued.map(|issued| moment(issued.not_before)),
            valid_until: issued.map(|issued| moment(issued.not_after)),
            lacks: issued.map(|issued| issued.lacks.clone()).unwrap_or_default(),
            next_at: next_at.map(moment),
            renewed,
            failed,
            failure: failure.map(|failure| ToldFailure {
                at: moment(failure.at),
                in_a_row: failure.in_a_row,
                directory: failure.directory,
                error: failure.error,
                remedies: failure.remedies,
            }),
        }
    }
}

/// The public certificate in answers and in JSON. Times are as in RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldCertificate {
    /// How it does, for people.
    pub line: String,
    /// The names that it is for.
    pub names: Vec<String>,
    /// The file that it is kept in.
    pub file: String,
    /// Where it is ordered.
    pub directory: String,
    /// What is being done about it.
    pub phase: Phase,
    /// The gate shows a temporary certificate of its own, since none has been issued yet.
    pub temporary: bool,
    /// The authority, as the certificate names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Since when it is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<String>,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<String>,
    /// Names that it does not cover yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
    /// When the next order begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<String>,
    /// How often it was issued since the gate runs.
    pub renewed: u64,
    /// How many orders have failed since.
    pub failed: u64,
    /// The latest order, if it has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<ToldFailure>,
}

/// An order that has failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldFailure {
    /// When.
    pub at: String,
    /// How many have failed in a row, this one included.
    pub in_a_row: u32,
    /// Where it was placed.
    pub directory: String,
    /// What the ACME server said, or why it could not be asked.
    pub error: String,
    /// What can be done about it.
    pub remedies: Vec<String>,
}

/// Some names, and how many more there are.
fn listed(names: &[String]) -> String {
    let first = names.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_MAX) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
