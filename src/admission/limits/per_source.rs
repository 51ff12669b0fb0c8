//! How many connections each source has.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::source::Source;

/// How many locks the table is spread over.
const SHARDS: usize = 16;

/// The number of connections of each source that has any.
#[derive(Debug)]
pub(in crate::admission) struct SourceCounts {
    shards: Vec<Mutex<HashMap<Source, usize>>>,
}

/// One connection of a source, given back on drop.
#[derive(Debug)]
pub(in crate::admission) struct SourceSlot {
    counts: Arc<SourceCounts>,
    source: Source,
}

impl Default for SourceCounts {
    fn default() -> Self {
        Self { shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect() }
    }
}

impl SourceCounts {
    /// One more connection of `source`, unless it has `limit`.
    pub(in crate::admission) fn take(counts: &Arc<Self>, source: Source, limit: usize) -> Option<SourceSlot> {
        let mut shard = counts.shard(source)?.lock().unwrap_or_else(PoisonError::into_inner);
        let held = shard.entry(source).or_insert(0);
        if *held >= limit {
            return None;
        }
        *held += 1;
        Some(SourceSlot { counts: Arc::clone(counts), source })
    }

    fn shard(&self, source: Source) -> Option<&Mutex<HashMap<Source, usize>>> {
        let mut hasher = DefaultHasher::new();
        source.hash(&mut hasher);
        let shards = u64::try_from(self.shards.len()).ok()?;
        self.shards.get(usize::try_from(hasher.finish().checked_rem(shards)?).ok()?)
    }

    /// How many sources have an entry.
    #[cfg(test)]
    pub(in crate::admission) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().map_or(0, |shard| shard.len())).sum()
    }
}

impl Drop for SourceSlot {
    fn drop(&mut self) {
        let Some(shard) = self.counts.shard(self.source) else { return };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = shard.get_mut(&self.source) {
            *held -= 1;
            // A source without connections has no entry, so that memory is bounded by the connections.
            if *held == 0 {
                shard.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::source::Prefixes;

    #[test]
    fn source_without_connections_has_no_entry() {
        let source = |text: &str| Source::of(text.parse().expect("an address"), Prefixes::default());
        let counts = Arc::<SourceCounts>::default();
        let take = |text| SourceCounts::take(&counts, source(text), 2);
        let (first, second) = (take("192.0.2.1"), take("192.0.2.1"));
        assert!(first.is_some() && second.is_some());
        assert!(take("192.0.2.1").is_none());
        assert!(take("192.0.2.2").is_some());
        drop(first);
        assert!(take("192.0.2.1").is_some());
        drop(second);
        assert_eq!(counts.len(), 0);
    }
}
