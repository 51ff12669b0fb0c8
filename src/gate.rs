//! What all connections of a running gate share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rustls::pki_types::UnixTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::backends::resolver::Resolver;
use crate::close::CloseReason;
use crate::descriptors::Descriptors;
use crate::identity::Chain;
use crate::names::Name;
use crate::rejection::Rejection;
use crate::relay::{Order, Support};
use crate::snapshot::Snapshot;
use crate::telemetry::log::Log;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refusals::Refusals;
use crate::telemetry::sessions::{Session, Sessions};
use crate::telemetry::tally::Tally;
use crate::telemetry::whom::Whom;

/// What all connections of a running gate share.
#[derive(Debug)]
pub(crate) struct Gate {
    /// The configuration of now; a connection loads it once.
    pub(crate) snapshot: ArcSwap<Snapshot>,
    /// The limits, and what counts towards them.
    pub(crate) admission: Admission,
    /// What the kernel takes over.
    pub(crate) kernel: Support,
    /// The file descriptors that the process may have.
    pub(crate) descriptors: Descriptors,
    /// The addresses of backends; what it knows outlasts every snapshot.
    pub(crate) resolver: Resolver,
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
            descriptors: Descriptors::of_a_gate(),
            resolver: Resolver::system(1),
            metrics,
            log,
            refusals: Arc::default(),
            sessions: Arc::default(),
            tally: Arc::default(),
            draining: CancellationToken::new(),
            ids: AtomicU64::new(1),
        }
    }

    /// How many connections there were: each has taken a number.
    pub(crate) fn accepted(&self) -> u64 {
        self.ids.load(Ordering::Relaxed) - 1
    }

    /// Cuts every session that would not be let in now by the snapshot of now; `at` is when somebody wanted that.
    pub(crate) fn review(&self, at: Instant) -> Reviewed {
        let (snapshot, now) = (self.snapshot.load_full(), UnixTime::now());
        let mut reviewed = Reviewed::default();
        let (sessions, _) = self.sessions.newest(usize::MAX);
        for session in sessions {
            *if judge(&session, &snapshot, now, at) { &mut reviewed.kept } else { &mut reviewed.cut } += 1;
        }
        reviewed
    }

    /// Whether somebody whom the snapshot `under` lets in is let in still: to be asked before a backend is reached for him. Who
    /// loses his right while that is done is found by [`look_again`](Self::look_again), and so is he whose route is gone.
    pub(crate) fn lets_in_still(&self, route: &Name, chain: Option<&Chain>, under: &Snapshot) -> Result<(), Rejection> {
        let snapshot = self.snapshot.load();
        if std::ptr::eq(&raw const **snapshot, under) {
            return Ok(());
        }
        let verdict = snapshot.route(route).map_or(Ok(()), |route| route.lets_in(chain, UnixTime::now()));
        verdict.map_err(|(reason, detail)| Rejection::silent(reason, detail))
    }

    /// Looks at a session again that was let in by the snapshot `under` and has just taken its place. Whoever has put another
    /// snapshot there meanwhile may have reviewed the sessions before this one was among them.
    pub(crate) fn look_again(&self, session: &Session, under: &Arc<Snapshot>) {
        let snapshot = self.snapshot.load_full();
        if !Arc::ptr_eq(&snapshot, under) {
            judge(session, &snapshot, UnixTime::now(), Instant::now());
        }
    }

    /// Cuts the sessions that are meant, and says which these are.
    pub(crate) fn cut(&self, whom: &Whom) -> Vec<Arc<Session>> {
        let at = Instant::now();
        let (mut sessions, _) = self.sessions.newest(usize::MAX);
        sessions.retain(|session| {
            whom.means(session, self.admission.source(session.source.ip()))
                && session.relay.order(Order { reason: CloseReason::CutByHand, detail: None, at })
        });
        sessions
    }

    /// Looks again at the sessions of which a certificate has expired, unless their route keeps them. It may be one that
    /// nobody needs: a client sends along what it likes.
    pub(crate) fn end_expired(&self, now: UnixTime) {
        let (snapshot, at) = (self.snapshot.load_full(), Instant::now());
        for session in self.sessions.expired(now.as_secs()) {
            if snapshot.ends_expired(&session.route) {
                judge(&session, &snapshot, now, at);
            }
        }
    }

    /// A number for a connection.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }
}

/// What became of the sessions under another snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reviewed {
    /// They go on.
    pub(crate) kept: usize,
    /// They end.
    pub(crate) cut: usize,
}

/// Whether a session may go on; if not, it is cut.
fn judge(session: &Session, snapshot: &Snapshot, now: UnixTime, at: Instant) -> bool {
    let verdict = snapshot.keeps(&session.route, session.chain.as_deref(), now);
    verdict.map_err(|(reason, detail)| session.relay.order(Order { reason, detail: Some(detail), at })).is_ok()
}
