//! A word to one relay from outside: that it has to end, and why.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use crate::close::CloseReason;

/// Where a relay is told to end. It is there as long as the connection, so it is small.
#[derive(Debug, Default)]
pub struct Cut {
    state: Mutex<State>,
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
    /// More about it, if there is more to say.
    pub detail: Option<String>,
    /// When somebody wanted that which led to it.
    pub at: Instant,
}

impl Cut {
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

    /// Ready once the relay is told to end.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Order> {
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
    use std::future::poll_fn;
    use std::sync::Arc;

    use super::*;

    fn order(reason: CloseReason) -> Order {
        Order { reason, detail: None, at: Instant::now() }
    }

    #[tokio::test]
    async fn a_relay_that_waits_is_woken_and_the_first_word_counts() {
        let cut = Arc::new(Cut::default());
        let waiting = Arc::clone(&cut);
        let relay = tokio::spawn(async move { poll_fn(|cx| waiting.poll(cx)).await.reason });
        tokio::task::yield_now().await;
        assert!(cut.ordered().is_none());
        assert!(cut.order(order(CloseReason::Revoked)));
        assert!(!cut.order(order(CloseReason::DrainDeadline)));
        assert_eq!(relay.await.expect("the relay"), CloseReason::Revoked);
        assert_eq!(cut.ordered().map(|order| order.reason), Some(CloseReason::Revoked));
    }

    #[test]
    fn it_takes_little_memory() {
        assert!(size_of::<Cut>() <= 40, "{} bytes", size_of::<Cut>());
    }
}
