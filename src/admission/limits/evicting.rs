//! Slots that are evicted when they are scarce: the oldest of the source that holds the most.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::model::source::Source;

/// How many slots of a trusted source are spared while others have any. With more than these, the flood comes from strangers
/// behind its address.
pub(in crate::admission) const SPARED: usize = 16;

/// How many slots there are.
#[derive(Clone, Copy, Debug)]
pub(in crate::admission) struct Bounds {
    /// In all.
    pub(in crate::admission) all: usize,
    /// For one source.
    pub(in crate::admission) per_source: usize,
}

/// The slots that are taken, by source; the oldest of each first.
///
/// When all are taken, the source that holds the most loses its oldest; a trusted one only if it holds many, or no other
/// source holds any. A source that fills the slots with silent connections so evicts its own: a client that makes progress
/// needs its slot for milliseconds.
#[derive(Debug, Default)]
pub(in crate::admission) struct EvictingSlots {
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    count: usize,
    next: u64,
    sources: HashMap<Source, Queue>,
}

/// The slots of one source.
#[derive(Debug, Default)]
struct Queue {
    trusted: bool,
    slots: VecDeque<(u64, Arc<Notify>)>,
}

/// One slot, given back on drop.
#[derive(Debug)]
pub(in crate::admission) struct EvictingSlot {
    slots: Arc<EvictingSlots>,
    source: Source,
    number: u64,
    /// Is notified when the slot has to be given up.
    pub(in crate::admission) evicted: Arc<Notify>,
}

impl EvictingSlots {
    /// Takes a slot; where none is free, evicts another one.
    pub(in crate::admission) fn take(slots: &Arc<Self>, source: Source, trusted: bool, bounds: Bounds) -> EvictingSlot {
        let evicted = Arc::new(Notify::new());
        let mut taken = slots.taken();
        if taken.sources.get(&source).is_some_and(|queue| queue.slots.len() >= bounds.per_source) {
            taken.evict_from(source);
        }
        if taken.count >= bounds.all {
            taken.evict();
        }
        let number = taken.next;
        taken.next += 1;
        taken.count += 1;
        let queue = taken.sources.entry(source).or_default();
        queue.trusted = trusted;
        queue.slots.push_back((number, Arc::clone(&evicted)));
        drop(taken);
        EvictingSlot { slots: Arc::clone(slots), source, number, evicted }
    }

    /// Evicts the oldest slot of `source`, if it has any.
    pub(in crate::admission) fn evict_from(&self, source: Source) -> bool {
        self.taken().evict_from(source)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Frees the oldest slot of the source that holds the most; among equals, the oldest of all.
    fn evict(&mut self) {
        let most = self.sources.iter().max_by_key(|(_, queue)| {
            let spared = queue.trusted && queue.slots.len() <= SPARED;
            (!spared, queue.slots.len(), Reverse(queue.oldest()))
        });
        if let Some((&source, _)) = most {
            self.evict_from(source);
        }
    }

    fn evict_from(&mut self, source: Source) -> bool {
        let evicted = self.sources.get(&source).and_then(Queue::oldest).and_then(|number| self.remove(source, number));
        if let Some(evicted) = &evicted {
            // Kept for a connection that is not waiting at this moment.
            evicted.notify_one();
        }
        evicted.is_some()
    }

    fn remove(&mut self, source: Source, number: u64) -> Option<Arc<Notify>> {
        let slots = &mut self.sources.get_mut(&source)?.slots;
        let at = slots.iter().position(|(other, _)| *other == number)?;
        let (_, evicted) = slots.remove(at)?;
        if slots.is_empty() {
            self.sources.remove(&source);
        }
        self.count -= 1;
        Some(evicted)
    }
}

impl Queue {
    fn oldest(&self) -> Option<u64> {
        self.slots.front().map(|(number, _)| *number)
    }
}

impl Drop for EvictingSlot {
    fn drop(&mut self) {
        self.slots.taken().remove(self.source, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::source::Prefixes;

    fn source(text: &str) -> Source {
        Source::of(text.parse().expect("an address"), Prefixes::default())
    }

    fn was_evicted(slot: &EvictingSlot) -> bool {
        let mut notified = std::pin::pin!(slot.evicted.notified());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        Future::poll(notified.as_mut(), &mut cx).is_ready()
    }

    const fn all(all: usize) -> Bounds {
        Bounds { all, per_source: usize::MAX }
    }

    #[test]
    fn oldest_slot_of_the_source_with_the_most_is_evicted() {
        let slots = Arc::<EvictingSlots>::default();
        let (flood, other) = (source("192.0.2.1"), source("192.0.2.2"));
        let take = |source| EvictingSlots::take(&slots, source, false, all(4));
        let good = take(other);
        let flooding: Vec<_> = (0..3).map(|_| take(flood)).collect();
        let next = take(other);
        assert!(was_evicted(&flooding[0]), "the oldest of the source that holds the most");
        let last = take(flood);
        // Two each: the oldest of all goes.
        assert!(was_evicted(&good));
        assert!([&flooding[1], &flooding[2], &next, &last].into_iter().all(|slot| !was_evicted(slot)));
        drop((good, flooding, next, last));
        let taken = slots.taken();
        assert!(taken.count == 0 && taken.sources.is_empty(), "{taken:?}");
    }

    #[test]
    fn slots_of_trusted_sources_are_evicted_last_if_few() {
        let slots = Arc::<EvictingSlots>::default();
        let home = source("192.0.2.1");
        let bounds = all(SPARED + 4);
        let own: Vec<_> = (0..SPARED).map(|_| EvictingSlots::take(&slots, home, true, bounds)).collect();
        let strangers: Vec<_> = (2..60)
            .map(|host| EvictingSlots::take(&slots, source(&format!("192.0.2.{host}")), false, bounds))
            .collect();
        assert!(!own.iter().any(was_evicted));
        assert_eq!(strangers.iter().filter(|slot| was_evicted(slot)).count(), strangers.len() - 4);
        // A flood from behind the trusted address is treated like any other.
        let more: Vec<_> = (0..100).map(|_| EvictingSlots::take(&slots, home, true, bounds)).collect();
        assert!(own.iter().all(was_evicted));
        assert!(!was_evicted(&strangers[57]) && more[..81].iter().all(was_evicted));
    }

    #[test]
    fn source_at_its_bound_loses_its_oldest_slot() {
        let slots = Arc::<EvictingSlots>::default();
        let bounds = Bounds { all: 10, per_source: 2 };
        let other = EvictingSlots::take(&slots, source("192.0.2.2"), false, bounds);
        let flood: Vec<_> = (0..5).map(|_| EvictingSlots::take(&slots, source("192.0.2.1"), false, bounds)).collect();
        assert_eq!(flood.iter().map(was_evicted).collect::<Vec<_>>(), [true, true, true, false, false]);
        assert!(!was_evicted(&other));
        assert_eq!(slots.taken().count, 3);
    }
}
