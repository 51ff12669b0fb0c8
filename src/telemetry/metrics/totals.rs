//! How many connections were admitted and rejected, for the status page. The series have the same counts, but can only be
//! read as text.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::rejection::Reason;

/// Counts from the start of the gate.
#[derive(Debug)]
pub struct Totals {
    admitted: AtomicU64,
    /// In the order of [`Reason::ALL`].
    rejected: Vec<AtomicU64>,
}

/// The counts of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Admitted: payload began to move.
    pub admitted: u64,
    /// Rejected, in the order of [`Reason::ALL`].
    pub rejected: Vec<u64>,
}

impl Default for Totals {
    fn default() -> Self {
        Self { admitted: AtomicU64::new(0), rejected: Reason::ALL.iter().map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Totals {
    /// One more was admitted.
    pub fn admitted(&self) {
        self.admitted.fetch_add(1, Ordering::Relaxed);
    }

    /// One more was rejected.
    pub fn rejected(&self, reason: Reason) {
        let index = Reason::ALL.iter().position(|other| *other == reason);
        if let Some(count) = index.and_then(|index| self.rejected.get(index)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counts of now.
    pub fn now(&self) -> Counts {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts { admitted: count(&self.admitted), rejected: self.rejected.iter().map(count).collect() }
    }
}

impl Counts {
    /// What has been added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let rejected = self.rejected.iter().zip(&earlier.rejected).map(|(now, then)| now.saturating_sub(*then));
        Self { admitted: self.admitted.saturating_sub(earlier.admitted), rejected: rejected.collect() }
    }
}
