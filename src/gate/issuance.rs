//! How the orders for the public certificate go: kept, counted, written to the log, and told to the owner.

use std::sync::PoisonError;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Gate;
use crate::explain::clock::Clock;
use crate::explain::finding::{Finding, PublicState};
use crate::model::issuance::{FailedOrder, Issuance, Phase, RenewalOutcome};
use crate::model::names::visible;
use crate::model::notice::NoticeEvent;
use crate::notify::{Told, texts};
use crate::telemetry::log::{Event, detail};

/// The most names, and the most remedies, that are kept.
const LIST_MAX: usize = 100;
/// The longest name, directory and remedy, in characters.
const TEXT_MAX: usize = 512;
/// The longest error, in characters.
const ERROR_MAX: usize = 1000;

/// What messages about the public certificate are about: one for a row of failures, one when time runs out, one when it is over.
const FAILED: &str = "public certificate";
const PRESSING: &str = "public certificate runs out";
const RENEWED: &str = "public certificate renewed";

/// What the owner was told of the row of failures that lasts.
#[derive(Debug, Default)]
pub(super) struct ToldOfRow {
    /// Whether this process knows what was told: the one that it has replaced may have told something.
    is_known: bool,
    /// How many orders had failed when it was last looked, once the owner was told.
    failed: Option<u32>,
    /// That time runs out was told, too.
    pressing: bool,
}

impl Gate {
    /// So the orders for the public certificate go now. What has ended since the last call is counted, logged and told.
    pub(crate) fn issuance_is(&self, issuance: Issuance) {
        let issuance = bounded(issuance);
        let before = self.issuance.send_replace(Some(issuance.clone())).unwrap_or_default();
        // A process that was started again begins at 0.
        let new = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        let (renewed, failed) = (new(issuance.renewed, before.renewed), new(issuance.failed, before.failed));
        self.metrics.acme_renewals(RenewalOutcome::Renewed, renewed);
        self.metrics.acme_renewals(RenewalOutcome::Failed, failed);
        if failed > 0
            && let Some(FailedOrder { directory, error, remedies, in_a_row, .. }) = issuance.failure.clone()
        {
            let next = issuance.next_at.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
            let next = next.and_then(|next| next.format(&Rfc3339).ok());
            let error = detail(&error);
            self.log.event(&Event::CertificateRenewalFailed { directory, error, remedies, in_a_row, next });
        }
        if renewed > 0 {
            let names = issuance.names.iter().cloned().collect();
            self.log.event(&Event::CertificateRenewed { names, directory: issuance.directory });
        }
        self.tell_of_issuance(&Clock::system());
    }

    /// The configuration wants no public certificate any more.
    pub(crate) fn issuance_is_over(&self) {
        self.issuance.send_replace(None);
        *self.issuance_told.lock().unwrap_or_else(PoisonError::into_inner) =
            ToldOfRow { is_known: true, ..ToldOfRow::default() };
    }

    /// The public certificate and how its orders go; `None` if the configuration wants none.
    pub(crate) fn public_certificate(&self) -> Option<PublicState> {
        let certificate = self.metrics.public_certificate()?;
        let issuance = self.issuance.borrow().clone();
        Some(PublicState::new(&certificate, issuance))
    }

    /// Tells the owner of orders that fail: once, once more when the certificate runs out, and when it is over. To be called from
    /// time to time, since it is the clock that makes it pressing.
    pub(crate) fn tell_of_issuance(&self, clock: &Clock) {
        let Some(state) = self.public_certificate() else { return };
        let mut told = self.issuance_told.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(failure) = state.failure() else {
            // One that has begun again, or is under way, says nothing about the row.
            if state.issuance.phase != Phase::Valid {
                return;
            }
            let row = std::mem::replace(&mut *told, ToldOfRow { is_known: true, ..ToldOfRow::default() });
            if let Some(failed) = row.failed {
                let names = state.certificate.names.join(", ");
                let next = state.issuance.next_at.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
                let next = next.map(|at| clock.moment(at));
                self.notices.tell(NoticeEvent::RenewalFailed, RENEWED, || texts::renewed(&names, failed, next));
            }
            return;
        };
        if !told.is_known {
            let lately = self.notices.told();
            let was_told = |subject: &str| {
                lately.iter().any(|told| {
                    told.receiver.is_none() && told.event == NoticeEvent::RenewalFailed && told.subject == subject
                })
            };
            *told = ToldOfRow {
                is_known: true,
                failed: was_told(FAILED).then_some(failure.in_a_row),
                pressing: was_told(PRESSING),
            };
        }
        let pressing = state.is_pressing(clock.now());
        let subject = match (told.failed.is_some(), pressing && !told.pressing) {
            (false, _) => Some(FAILED),
            (true, true) => Some(PRESSING),
            (true, false) => None,
        };
        told.failed = Some(failure.in_a_row);
        told.pressing |= pressing;
        if let Some(subject) = subject {
            let new = |subject: &str| Told {
                receiver: None,
                event: NoticeEvent::RenewalFailed,
                subject: subject.to_owned(),
                ago: Duration::ZERO,
            };
            self.notices.add_told(new(subject));
            if pressing {
                self.notices.add_told(new(PRESSING));
            }
            let text = || texts::found(&Finding::RenewalFailed(state.clone()), clock);
            self.notices.tell(NoticeEvent::RenewalFailed, subject, text);
        }
    }
}

/// The same with every text bounded and safe to print: the process that reports it has read what a server said.
fn bounded(issuance: Issuance) -> Issuance {
    let text = |text: &String| visible(text, TEXT_MAX);
    let failure = issuance.failure.map(|failure| FailedOrder {
        directory: text(&failure.directory),
        error: visible(&failure.error, ERROR_MAX),
        remedies: failure.remedies.iter().take(LIST_MAX).map(text).collect(),
        ..failure
    });
    Issuance {
        directory: text(&issuance.directory),
        names: issuance.names.iter().take(LIST_MAX).map(text).collect(),
        failure,
        ..issuance
    }
}

#[cfg(test)]
mod tests;
