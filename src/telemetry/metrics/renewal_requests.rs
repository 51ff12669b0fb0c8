//! The series of devices that ask for their next certificate.

use metrics::Counter;

use super::Metrics;
use super::register::Register;
use crate::model::renewal::RequestOutcome;
use crate::telemetry::names;

/// A counter for each outcome, in the order of [`RequestOutcome::ALL`].
pub(super) struct RenewalRequests([Counter; RequestOutcome::ALL.len()]);

impl RenewalRequests {
    pub(super) fn new(register: &Register<'_>) -> Self {
        let counter =
            |outcome: RequestOutcome| register.counter(names::RENEWAL_REQUESTS, &[("outcome", outcome.label())]);
        Self(RequestOutcome::ALL.map(counter))
    }
}

impl Metrics {
    /// A device has asked for its next certificate, and was answered like this.
    pub fn renewal_asked(&self, outcome: RequestOutcome) {
        if let Some(counter) = self.renewal_requests.0.get(outcome as usize) {
            counter.increment(1);
        }
    }
}
