//! A relay as others see it: what it has moved so far, and where it is told to end.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use super::{Meter, Moved};
use crate::model::close::CloseReason;
use crate::model::rejection::Cause;

/// What a relay shares with whoever wants to know of it, or wants it to end. It is there as long as the connection, so it
/// is small.
#[derive(Debug, Default)]
pub struct Handle {
    state: Mutex<State>,
    to_backend: AtomicU64,
    to_client: AtomicU64,
    /// Where the same is counted for all relays of a kind.
    meter: Meter,
}

#[derive(Debug, Default)]
struct State {
    /// The relay's task, once it has looked.
    waker: Option<Waker>,
    order: Option<Box<Order>>,
}

/// What a relay is told.
#[derive(Clone, Debug)]
pub struct Order {
    /// Why it has to end.
    pub reason: CloseReason,
    /// What happened, if there is more to say.
    pub cause: Option<Box<Cause>>,
    /// When somebody wanted that which led to it.
    pub at: Instant,
}

impl Handle {
    /// Of a relay that is yet to begin.
    pub fn new(meter: Meter) -> Self {
        Self { meter, ..Self::default() }
    }

    /// What has been moved so far.
    pub fn moved(&self) -> Moved {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Moved { to_backend: read(&self.to_backend), to_client: read(&self.to_client) }
    }

    /// So much has been moved in all. Says whether that is more than before.
    pub(super) fn count(&self, moved: Moved) -> bool {
        // Nobody else writes to it: no need for anything that keeps other processors waiting.
        let more = |counter: &AtomicU64, now: u64| {
            let more = now.saturating_sub(counter.load(Ordering::Relaxed));
            if more > 0 {
                counter.store(now, Ordering::Relaxed);
            }
            more
        };
        let to_backend = more(&self.to_backend, moved.to_backend);
        let to_client = more(&self.to_client, moved.to_client);
        if to_backend > 0 {
            self.meter.to_backend.increment(to_backend);
        }
        if to_client > 0 {
            self.meter.to_client.increment(to_client);
        }
        to_backend > 0 || to_client > 0
    }

    /// Lets the relay end. Says whether this was the first word: later ones have no effect.
    pub fn order(&self, order: Order) -> bool {
        let mut state = self.lock();
        if state.order.is_some() {
            return false;
        }
        state.order = Some(Box::new(order));
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// What the relay was told, if it was.
    pub fn ordered(&self) -> Option<Order> {
        self.lock().order.as_deref().cloned()
    }

    /// Waits until the connection is told to end, while there is no relay that looks for it.
    pub async fn wait_for_order(&self) -> Order {
        poll_fn(|cx| self.poll_order(cx)).await
    }

    /// Ready once the relay is told to end.
    pub(super) fn poll_order(&self, cx: &Context<'_>) -> Poll<Order> {
        let mut state = self.lock();
        if let Some(order) = &state.order {
            return Poll::Ready(Order::clone(order));
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn order(reason: CloseReason) -> Order {
        Order { reason, cause: None, at: Instant::now() }
    }

    #[tokio::test]
    async fn a_relay_that_waits_is_woken_and_the_first_word_counts() {
        let cut = Arc::new(Handle::default());
        let waiting = Arc::clone(&cut);
        let relay = tokio::spawn(async move { poll_fn(|cx| waiting.poll_order(cx)).await.reason });
        tokio::task::yield_now().await;
        assert!(cut.ordered().is_none());
        assert!(cut.order(order(CloseReason::Revoked)));
        assert!(!cut.order(order(CloseReason::DrainDeadline)));
        assert_eq!(relay.await.expect("the relay"), CloseReason::Revoked);
        assert_eq!(cut.ordered().map(|order| order.reason), Some(CloseReason::Revoked));
    }

    #[test]
    fn what_is_moved_is_counted_once() {
        let handle = Handle::default();
        for (to_backend, to_client, more) in [(3, 0, true), (3, 0, false), (3, 10, true), (4, 11, true)] {
            let moved = Moved { to_backend, to_client };
            assert_eq!((handle.count(moved), handle.moved()), (more, moved));
        }
    }

    #[test]
    fn it_takes_little_memory() {
        assert!(size_of::<Handle>() <= 88, "{} bytes", size_of::<Handle>());
    }
}
