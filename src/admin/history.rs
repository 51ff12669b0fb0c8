//! The last half hour, in steps: what the chart of the status page shows.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::telemetry::metrics::totals::{Counts, Totals};

/// How long a step is.
pub(super) const STEP: Duration = Duration::from_secs(10);

/// How many steps are kept; with the one that has not ended yet, one more is shown. Each has 8 bytes for each reason.
pub(super) const STEPS: usize = 179;

/// What was counted in each step.
#[derive(Debug)]
pub(super) struct History(Mutex<Steps>);

#[derive(Debug)]
struct Steps {
    /// At the end of the last step.
    last: Counts,
    ended: VecDeque<Counts>,
}

impl History {
    /// Begins with the gate. Whatever has been counted by the time the first step ends was counted in it.
    pub(super) fn new() -> Self {
        Self(Mutex::new(Steps { last: Totals::default().now(), ended: VecDeque::with_capacity(STEPS) }))
    }

    /// A step has ended.
    pub(super) fn step(&self, totals: &Totals) {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = totals.now();
        let step = now.since(&steps.last);
        if steps.ended.len() == STEPS {
            steps.ended.pop_front();
        }
        steps.ended.push_back(step);
        steps.last = now;
    }

    /// The counts of now, and what they were made of: each step, the last of which has not ended yet.
    pub(super) fn shown(&self, totals: &Totals) -> (Counts, Vec<Counts>) {
        let steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = totals.now();
        let begun = now.since(&steps.last);
        (now, steps.ended.iter().cloned().chain([begun]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rejection::Reason;

    #[test]
    fn steps_hold_what_was_added_and_only_so_many_are_kept() {
        let totals = Totals::default();
        totals.admitted();
        let history = History::new();
        totals.admitted();
        totals.rejected(Reason::NotTls);
        history.step(&totals);
        totals.admitted();
        totals.admitted();
        let (total, steps) = history.shown(&totals);
        assert_eq!(total.admitted, 4);
        assert_eq!(steps.iter().map(|step| step.admitted).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(steps.iter().map(|step| step.rejected.iter().sum::<u64>()).collect::<Vec<_>>(), [1, 0]);
        for _ in 0..2 * STEPS {
            history.step(&totals);
        }
        assert_eq!(history.shown(&totals).1.len(), STEPS + 1);
    }
}
