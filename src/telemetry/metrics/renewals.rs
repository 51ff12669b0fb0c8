//! The series of orders for the public certificate.

use metrics::Counter;

use super::register::Register;
use crate::model::issuance::RenewalOutcome;
use crate::telemetry::names;

/// A counter for each outcome, in the order of [`RenewalOutcome::ALL`].
pub(super) struct Renewals([Counter; RenewalOutcome::ALL.len()]);

impl Renewals {
    pub(super) fn new(register: &Register<'_>) -> Self {
        Self(RenewalOutcome::ALL.map(|outcome| register.counter(names::ACME_RENEWALS, &[("outcome", outcome.label())])))
    }

    pub(super) fn count(&self, outcome: RenewalOutcome, count: u64) {
        if let Some(counter) = self.0.get(outcome as usize) {
            counter.increment(count);
        }
    }
}
