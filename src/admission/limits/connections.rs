//! How many connections there are in all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A count of connections.
#[derive(Debug, Default)]
pub(in crate::admission) struct ConnectionCount(Arc<AtomicUsize>);

/// One connection, given back on drop.
#[derive(Debug)]
pub(in crate::admission) struct ConnectionSlot(Arc<AtomicUsize>);

impl ConnectionCount {
    /// One more, unless `limit` are taken.
    pub(in crate::admission) fn take(&self, limit: usize) -> Option<ConnectionSlot> {
        let slot = ConnectionSlot(Arc::clone(&self.0));
        // Counted first and compared afterwards: two connections at once cannot both see the last free slot.
        (self.0.fetch_add(1, Ordering::Relaxed) < limit).then_some(slot)
    }

    /// How many are taken.
    #[cfg(test)]
    pub(in crate::admission) fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The part of a limit that connections without a valid certificate may use. The other half is left to those that show one.
pub(in crate::admission) const fn share_without_certificate(limit: usize) -> usize {
    limit.div_ceil(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_slot_is_free_again() {
        let count = ConnectionCount::default();
        let one = count.take(1);
        assert!(one.is_some() && count.take(1).is_none());
        drop(one);
        assert_eq!(count.taken(), 0);
        assert!(count.take(1).is_some());
    }
}
