//! What was counted in the last half hour, in steps: the data of the status page's chart.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::telemetry::tally::{Counts, Tally};

/// How long a step is.
pub(super) const STEP: Duration = Duration::from_secs(10);

/// How many ended steps are kept; the one that has not ended is shown, too. Each has 8 bytes for each reason.
pub(super) const STEPS: usize = 179;

/// What was counted in each step.
#[derive(Debug)]
pub(super) struct History(Mutex<Steps>);

#[derive(Debug)]
struct Steps {
    /// The counts at the end of the last step.
    last: Counts,
    ended: VecDeque<Counts>,
}

impl History {
    /// Begins with the gate: the first step has all that is counted until it ends.
    pub(super) fn new() -> Self {
        Self(Mutex::new(Steps { last: Tally::default().now(), ended: VecDeque::with_capacity(STEPS) }))
    }

    /// Ends a step and begins the next one.
    pub(super) fn end_step(&self, tally: &Tally) {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = tally.now();
        let step = now.since(&steps.last);
        if steps.ended.len() == STEPS {
            steps.ended.pop_front();
        }
        steps.ended.push_back(step);
        steps.last = now;
    }

    /// The counts of now in all, and in each step, the last of which has not ended yet.
    pub(super) fn counts(&self, tally: &Tally) -> (Counts, Vec<Counts>) {
        let steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = tally.now();
        let begun = now.since(&steps.last);
        (now, steps.ended.iter().cloned().chain([begun]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rejection::Reason;

    #[test]
    fn steps_hold_differences_and_their_number_is_bounded() {
        let tally = Tally::default();
        tally.admitted();
        let history = History::new();
        tally.admitted();
        tally.rejected(Reason::NotTls);
        history.end_step(&tally);
        tally.admitted();
        tally.admitted();
        let (total, steps) = history.counts(&tally);
        assert_eq!(total.admitted, 4);
        assert_eq!(steps.iter().map(|step| step.admitted).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(steps.iter().map(|step| step.rejected.iter().sum::<u64>()).collect::<Vec<_>>(), [1, 0]);
        for _ in 0..2 * STEPS {
            history.end_step(&tally);
        }
        assert_eq!(history.counts(&tally).1.len(), STEPS + 1);
    }
}
