//! One handshake at a time for a source on probation, so that a valid certificate can always vouch for its address, whatever
//! other clients behind it do.
//!
//! Turns are given in the order of the ClientHellos, so a full queue delays a device by as many turns as it has places. A
//! full queue takes no other connection. The pace of turns, for each source and for all together, bounds what they cost the
//! gate.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::model::source::Source;

/// How long a turn lasts at most. From the ClientHello on, a handshake takes one round trip and a signature.
pub(in crate::admission) const TURN: Duration = Duration::from_secs(1);

/// How many connections of a source wait for their turn or have it.
const QUEUE: usize = 16;

/// How many do so in all. The second half is for sources that have none in a queue yet.
const WAITING: usize = 512;

/// How many queues are remembered between two calls of `tidy`.
const QUEUES: usize = 4096;

/// The least time from one turn of a source to its next.
const PACE: Duration = Duration::from_millis(50);

/// The same for all sources together.
const PACE_OF_ALL: Duration = Duration::from_millis(5);

/// The queues of all sources on probation.
#[derive(Debug, Default)]
pub(in crate::admission) struct Turns {
    queues: Mutex<Queues>,
}

#[derive(Debug, Default)]
struct Queues {
    sources: HashMap<Source, Queue>,
    waiting: usize,
    /// When the next turn of any source may begin.
    next: Option<Instant>,
}

#[derive(Debug)]
struct Queue {
    waiting: usize,
    /// When its next turn may begin.
    next: Instant,
    /// One permit, given in order of arrival.
    turn: Arc<Semaphore>,
}

/// A place in a queue, given back on drop.
#[derive(Debug)]
struct Waiting {
    turns: Arc<Turns>,
    source: Source,
}

/// A turn, which ends on drop.
#[derive(Debug)]
pub(in crate::admission) struct Turn {
    _permit: OwnedSemaphorePermit,
    _waiting: Waiting,
}

impl Turns {
    /// Waits for a turn; `None` if the queue is full.
    pub(in crate::admission) async fn wait(turns: &Arc<Self>, source: Source) -> Option<Turn> {
        let (waiting, turn) = Self::enqueue(turns, source, Instant::now())?;
        let permit = turn.acquire_owned().await.ok()?;
        sleep_until(turns.begin(source, Instant::now())).await;
        Some(Turn { _permit: permit, _waiting: waiting })
    }

    /// Forgets queues that are empty and past their pace. To be called now and then.
    pub(in crate::admission) fn tidy(&self, now: Instant) {
        let mut queues = self.queues();
        queues.sources.retain(|_, queue| queue.waiting > 0 || queue.next > now);
        queues.sources.shrink_to_fit();
    }

    fn enqueue(turns: &Arc<Self>, source: Source, now: Instant) -> Option<(Waiting, Arc<Semaphore>)> {
        let mut queues = turns.queues();
        let in_queue = queues.sources.get(&source).map(|queue| queue.waiting);
        let most = if in_queue.is_none_or(|waiting| waiting == 0) { WAITING } else { WAITING / 2 };
        if queues.waiting >= most || in_queue.is_some_and(|waiting| waiting >= QUEUE) {
            return None;
        }
        if in_queue.is_none() && queues.sources.len() >= QUEUES {
            return None;
        }
        let new = || Queue { waiting: 0, next: now, turn: Arc::new(Semaphore::new(1)) };
        let queue = queues.sources.entry(source).or_insert_with(new);
        queue.waiting += 1;
        let turn = Arc::clone(&queue.turn);
        queues.waiting += 1;
        drop(queues);
        Some((Waiting { turns: Arc::clone(turns), source }, turn))
    }

    /// When the turn begins that comes next for `source`.
    fn begin(&self, source: Source, now: Instant) -> Instant {
        let mut queues = self.queues();
        let of_source = queues.sources.get(&source).map_or(now, |queue| queue.next);
        let at = now.max(of_source).max(queues.next.unwrap_or(now));
        queues.next = Some(at + PACE_OF_ALL);
        if let Some(queue) = queues.sources.get_mut(&source) {
            queue.next = at + PACE;
        }
        at
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut queues = self.turns.queues();
        queues.waiting -= 1;
        // The queue stays until it is tidied: its pace holds for the next connection.
        if let Some(queue) = queues.sources.get_mut(&self.source) {
            queue.waiting -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::source::Prefixes;

    fn source(host: usize) -> Source {
        let address = std::net::Ipv4Addr::from_bits(0xc000_0200 + u32::try_from(host).expect("a small number"));
        Source::of(address.into(), Prefixes::default())
    }

    #[tokio::test(start_paused = true)]
    async fn turns_are_given_one_at_a_time_in_order_and_paced() {
        let turns = Arc::<Turns>::default();
        let begun = Instant::now();
        let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
        for number in 0..QUEUE {
            let (turns, told) = (Arc::clone(&turns), told.clone());
            tokio::spawn(async move {
                let turn = Turns::wait(&turns, source(1)).await.expect("a place in the queue");
                told.send((number, begun.elapsed())).expect("the test waits");
                // Some fail at once, some say nothing to the end of their turn.
                if number % 2 == 0 {
                    tokio::time::sleep(TURN).await;
                }
                drop(turn);
            });
        }
        tokio::task::yield_now().await;
        assert!(Turns::wait(&turns, source(1)).await.is_none(), "the queue is full");
        assert!(Turns::wait(&turns, source(2)).await.is_some(), "another source has its own");
        let mut last = Duration::ZERO;
        for number in 0..QUEUE {
            let (turn, at) = order.recv().await.expect("a turn");
            let pause = if number % 2 == 1 { TURN } else { PACE };
            assert_eq!((turn, number == 0 || at >= last + pause), (number, true), "{at:?} after {last:?}");
            last = at;
        }
        assert!(last < TURN * u32::try_from(QUEUE).expect("a few"), "{last:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn all_sources_together_have_a_bound_and_a_pace() {
        let turns = Arc::<Turns>::default();
        let begun = Instant::now();
        let mut held = Vec::new();
        for host in 0..WAITING {
            held.push(Turns::wait(&turns, source(host)).await.expect("a turn"));
        }
        assert!(begun.elapsed() >= PACE_OF_ALL * u32::try_from(WAITING - 1).expect("a few"));
        assert!(Turns::wait(&turns, source(WAITING)).await.is_none());
        drop(held);
        turns.tidy(Instant::now() + PACE);
        let queues = turns.queues();
        assert!(queues.waiting == 0 && queues.sources.is_empty(), "{queues:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_leaves_the_queue_delays_no_other() {
        let turns = Arc::<Turns>::default();
        let first = Turns::wait(&turns, source(1)).await.expect("a turn");
        for _ in 0..QUEUE - 1 {
            let waiting = tokio::time::timeout(Duration::from_millis(1), Turns::wait(&turns, source(1)));
            assert!(waiting.await.is_err(), "the turn is taken");
        }
        drop(first);
        let next = tokio::time::timeout(2 * PACE, Turns::wait(&turns, source(1))).await;
        assert!(next.is_ok_and(|turn| turn.is_some()));
    }
}
