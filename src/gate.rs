//! What all connections of a running gate share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::relay::Support;
use crate::snapshot::Snapshot;
use crate::telemetry::log::Log;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refusals::Refusals;
use crate::telemetry::sessions::Sessions;
use crate::telemetry::tally::Tally;

/// What all connections of a running gate share.
#[derive(Debug)]
pub(crate) struct Gate {
    /// The configuration of now; a connection loads it once.
    pub(crate) snapshot: ArcSwap<Snapshot>,
    /// The limits, and what counts towards them.
    pub(crate) admission: Admission,
    /// What the kernel takes over.
    pub(crate) kernel: Support,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) log: Arc<Log>,
    /// Who was turned away lately.
    pub(crate) refusals: Arc<Refusals>,
    /// Who is in.
    pub(crate) sessions: Arc<Sessions>,
    /// How many of both.
    pub(crate) tally: Arc<Tally>,
    /// No connection is let in any more; relays go on.
    pub(crate) draining: CancellationToken,
    /// Relays end as well.
    pub(crate) cut: CancellationToken,
    ids: AtomicU64,
}

impl Gate {
    pub(crate) fn new(
        snapshot: Snapshot,
        admission: Admission,
        kernel: Support,
        metrics: Arc<Metrics>,
        log: Arc<Log>,
    ) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            admission,
            kernel,
            metrics,
            log,
            refusals: Arc::default(),
            sessions: Arc::default(),
            tally: Arc::default(),
            draining: CancellationToken::new(),
            cut: CancellationToken::new(),
            ids: AtomicU64::new(1),
        }
    }

    /// How many connections there were: each has taken a number.
    pub(crate) fn accepted(&self) -> u64 {
        self.ids.load(Ordering::Relaxed) - 1
    }

    /// A number for a connection.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }
}
