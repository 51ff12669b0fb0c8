//! The series of messages to the owner.

use metrics::Counter;

use super::Metrics;
use super::register::Register;
use crate::model::notice::{NoticeEvent, NoticeOutcome};
use crate::telemetry::names;

/// A counter for each event and outcome, in the order of their `ALL`.
pub(super) struct Notices([[Counter; NoticeOutcome::ALL.len()]; NoticeEvent::ALL.len()]);

impl Notices {
    pub(super) fn new(register: &Register<'_>) -> Self {
        let counter = |event: NoticeEvent, outcome: NoticeOutcome| {
            register.counter(names::NOTICES, &[("event", event.label()), ("outcome", outcome.label())])
        };
        Self(NoticeEvent::ALL.map(|event| NoticeOutcome::ALL.map(|outcome| counter(event, outcome))))
    }
}

impl Metrics {
    /// So many events that the owner is sent messages about had this outcome.
    pub fn notices(&self, event: NoticeEvent, outcome: NoticeOutcome, count: u64) {
        let counter = self.notices.0.get(event as usize).and_then(|outcomes| outcomes.get(outcome as usize));
        if let Some(counter) = counter {
            counter.increment(count);
        }
    }
}
