//! A relay seen from outside: how many bytes it has moved, and the order to close it.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use super::{Meter, Moved};
use crate::model::close::CloseReason;
use crate::model::rejection::Cause;

/// Shared between a relay and the session registry. It lives as long as the connection, so it is small.
#[derive(Debug, Default)]
pub struct Handle {
    state: Mutex<State>,
    to_backend: AtomicU64,
    to_client: AtomicU64,
    /// Counters for all relays of the same route.
    meter: Meter,
}

#[derive(Debug, Default)]
struct State {
    /// Wakes the task of the relay.
    waker: Option<Waker>,
    order: Option<Box<Order>>,
}

/// An order to close a connection.
#[derive(Clone, Debug)]
pub struct Order {
    /// Why it is closed.
    pub reason: CloseReason,
    /// What happened, if there is more to say.
    pub cause: Option<Box<Cause>>,
    /// When the change or command was received that led to it.
    pub at: Instant,
}

impl Handle {
    /// The handle of a relay that has not started.
    pub fn new(meter: Meter) -> Self {
        Self { meter, ..Self::default() }
    }

    /// The payload moved so far.
    pub fn moved(&self) -> Moved {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Moved { to_backend: read(&self.to_backend), to_client: read(&self.to_client) }
    }

    /// Stores the total of moved payload. True if it has grown.
    pub(super) fn count(&self, moved: Moved) -> bool {
        // Only the relay writes here, so a plain store is enough.
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

    /// Orders the relay to close. True for the first order; later ones have no effect.
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

    /// The order that was given, if any.
    pub fn ordered(&self) -> Option<Order> {
        self.lock().order.as_deref().cloned()
    }

    /// Waits for an order, while no relay polls for one.
    pub async fn wait_for_order(&self) -> Order {
        poll_fn(|cx| self.poll_order(cx)).await
    }

    /// Ready once an order is given.
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
    async fn order_wakes_the_relay_and_the_first_one_counts() {
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
    fn moved_bytes_are_counted_once() {
        let handle = Handle::default();
        for (to_backend, to_client, more) in [(3, 0, true), (3, 0, false), (3, 10, true), (4, 11, true)] {
            let moved = Moved { to_backend, to_client };
            assert_eq!((handle.count(moved), handle.moved()), (more, moved));
        }
    }

    #[test]
    fn handle_is_small() {
        assert!(size_of::<Handle>() <= 88, "{} bytes", size_of::<Handle>());
    }
}
