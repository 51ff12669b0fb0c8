//! One handshake at a time for a source that has to wait: a valid certificate can always vouch for its address, whatever
//! strangers behind the same address do.
//!
//! Turns are given in the order in which the ClientHellos came, so as many strangers as fit into the line delay a device by as
//! many turns and no more. A line that is full takes no other connection. What turns cost the gate is bounded by their pace, for each
//! source and for all together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::model::source::Source;

/// How long a turn lasts at most. From the ClientHello on, a handshake takes one round trip and a signature.
pub(in crate::admission) const TURN: Duration = Duration::from_secs(1);

/// How many connections of a source wait for their turn or have it.
const LINE: usize = 16;

/// How many do so in all. The second half is for sources that have none in line yet.
const WAITING: usize = 512;

/// How many lines are remembered between two tidyings.
const LINES: usize = 4096;

/// The least time from one turn of a source to its next.
const PACE: Duration = Duration::from_millis(50);

/// The same for all sources together.
const PACE_OF_ALL: Duration = Duration::from_millis(5);

/// The lines of all sources that have to wait.
#[derive(Debug, Default)]
pub(in crate::admission) struct Turns {
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    sources: HashMap<Source, Line>,
    waiting: usize,
    /// When the next turn of any source may begin.
    next: Option<Instant>,
}

#[derive(Debug)]
struct Line {
    waiting: usize,
    /// When its next turn may begin.
    next: Instant,
    /// One permit, given in order.
    turn: Arc<Semaphore>,
}

/// A place in the line, given back on drop.
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
    /// Waits for a turn; `None` where the line is full.
    pub(in crate::admission) async fn wait(turns: &Arc<Self>, source: Source) -> Option<Turn> {
        let (waiting, turn) = Self::line_up(turns, source, Instant::now())?;
        let permit = turn.acquire_owned().await.ok()?;
        sleep_until(turns.begin(source, Instant::now())).await;
        Some(Turn { _permit: permit, _waiting: waiting })
    }

    /// Forgets the lines that nothing depends on any more. To be called now and then.
    pub(in crate::admission) fn tidy(&self, now: Instant) {
        let mut lines = self.lines();
        lines.sources.retain(|_, line| line.waiting > 0 || line.next > now);
        lines.sources.shrink_to_fit();
    }

    fn line_up(turns: &Arc<Self>, source: Source, now: Instant) -> Option<(Waiting, Arc<Semaphore>)> {
        let mut lines = turns.lines();
        let in_line = lines.sources.get(&source).map(|line| line.waiting);
        let most = if in_line.is_none_or(|waiting| waiting == 0) { WAITING } else { WAITING / 2 };
        if lines.waiting >= most || in_line.is_some_and(|waiting| waiting >= LINE) {
            return None;
        }
        if in_line.is_none() && lines.sources.len() >= LINES {
            return None;
        }
        let new = || Line { waiting: 0, next: now, turn: Arc::new(Semaphore::new(1)) };
        let line = lines.sources.entry(source).or_insert_with(new);
        line.waiting += 1;
        let turn = Arc::clone(&line.turn);
        lines.waiting += 1;
        drop(lines);
        Some((Waiting { turns: Arc::clone(turns), source }, turn))
    }

    /// When the turn begins that comes next for `source`.
    fn begin(&self, source: Source, now: Instant) -> Instant {
        let mut lines = self.lines();
        let of_source = lines.sources.get(&source).map_or(now, |line| line.next);
        let at = now.max(of_source).max(lines.next.unwrap_or(now));
        lines.next = Some(at + PACE_OF_ALL);
        if let Some(line) = lines.sources.get_mut(&source) {
            line.next = at + PACE;
        }
        at
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut lines = self.turns.lines();
        lines.waiting -= 1;
        // The line stays until it is tidied: its pace holds for the connection that comes next.
        if let Some(line) = lines.sources.get_mut(&self.source) {
            line.waiting -= 1;
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
    async fn turns_are_given_one_at_a_time_in_order_and_at_a_pace() {
        let turns = Arc::<Turns>::default();
        let begun = Instant::now();
        let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
        for number in 0..LINE {
            let (turns, told) = (Arc::clone(&turns), told.clone());
            tokio::spawn(async move {
                let turn = Turns::wait(&turns, source(1)).await.expect("a place in the line");
                told.send((number, begun.elapsed())).expect("the test waits");
                // Some fail at once, some say nothing to the end of their turn.
                if number % 2 == 0 {
                    tokio::time::sleep(TURN).await;
                }
                drop(turn);
            });
        }
        tokio::task::yield_now().await;
        assert!(Turns::wait(&turns, source(1)).await.is_none(), "the line is full");
        assert!(Turns::wait(&turns, source(2)).await.is_some(), "another source has its own");
        let mut last = Duration::ZERO;
        for number in 0..LINE {
            let (turn, at) = order.recv().await.expect("a turn");
            let pause = if number % 2 == 1 { TURN } else { PACE };
            assert_eq!((turn, number == 0 || at >= last + pause), (number, true), "{at:?} after {last:?}");
            last = at;
        }
        assert!(last < TURN * u32::try_from(LINE).expect("a few"), "{last:?}");
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
        let lines = turns.lines();
        assert!(lines.waiting == 0 && lines.sources.is_empty(), "{lines:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_the_line_delays_no_other() {
        let turns = Arc::<Turns>::default();
        let first = Turns::wait(&turns, source(1)).await.expect("a turn");
        for _ in 0..LINE - 1 {
            let waiting = tokio::time::timeout(Duration::from_millis(1), Turns::wait(&turns, source(1)));
            assert!(waiting.await.is_err(), "the turn is taken");
        }
        drop(first);
        let next = tokio::time::timeout(2 * PACE, Turns::wait(&turns, source(1))).await;
        assert!(next.is_ok_and(|turn| turn.is_some()));
    }
}
