//! Accepts connections.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection;
use crate::gate::Gate;
use crate::listener::{self, AcceptError, Listener};
use crate::reload::Current;
use crate::telemetry::log::Event;

/// Accepts connections on the current listeners, across reloads, until `retired` is cancelled. Then every connection that was
/// accepted is among `connections`, and the sockets are closed.
pub(super) async fn accept_on_current_listeners(
    mut current: Receiver<Current>,
    gate: Arc<Gate>,
    connections: TaskTracker,
    clients: usize,
    retired: CancellationToken,
) {
    let (clients, failures) = (Arc::new(Semaphore::new(clients)), Arc::<AcceptFailures>::default());
    let mut known: Vec<Arc<Listener>> = Vec::new();
    let mut accepting = JoinSet::new();
    loop {
        let now = current.borrow_and_update().listeners.clone();
        for listener in now.iter().filter(|new| !known.iter().any(|old| Arc::ptr_eq(old, new))) {
            let shared = (Arc::clone(&clients), Arc::clone(&failures));
            accepting.spawn(accept_connections(Arc::clone(listener), Arc::clone(&gate), connections.clone(), shared));
        }
        known = now;
        while accepting.try_join_next().is_some() {}
        match retired.run_until_cancelled(current.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) => return,
            None => break,
        }
    }
    // Between accept and spawn, a task cannot be aborted.
    accepting.shutdown().await;
}

async fn accept_connections(
    listener: Arc<Listener>,
    gate: Arc<Gate>,
    connections: TaskTracker,
    (clients, failures): (Arc<Semaphore>, Arc<AcceptFailures>),
) {
    let failed = |kind, error: &io::Error| {
        gate.metrics.accept_failed(kind);
        if kind == AcceptError::Resources
            && let Some(failures) = failures.count_and_report(Instant::now())
        {
            let listener = listener.name().to_string();
            gate.log.event(&Event::AcceptFailed { listener, failures, error: listener::describe_accept_error(error) });
        }
    };
    // The permit comes first: a connection that is about to be refused needs a descriptor as well.
    while let Ok(permit) = Arc::clone(&clients).acquire_owned().await
        && let Some(accepted) = listener.accept(failed).await
    {
        let serving = connection::serve(accepted, Arc::clone(&gate));
        connections.spawn(async move {
            serving.await;
            drop(permit);
        });
    }
}

/// Counts accepts that failed for lack of descriptors or memory, for one log line a minute.
#[derive(Debug, Default)]
struct AcceptFailures(Mutex<(Option<Instant>, u64)>);

impl AcceptFailures {
    /// Counts a failure. Returns how many there were since the last line if another one is due.
    fn count_and_report(&self, now: Instant) -> Option<u64> {
        const INTERVAL: Duration = Duration::from_secs(60);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (reported, failures) = &mut *state;
        *failures += 1;
        if reported.is_some_and(|reported| now.saturating_duration_since(reported) < INTERVAL) {
            return None;
        }
        *reported = Some(now);
        Some(std::mem::take(failures))
    }
}
