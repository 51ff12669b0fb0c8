//! Small HTTP listeners: how many may be connected at once, and how long and how large a request may be.

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Connections at once, unless fewer are to be had. Prometheus needs one, a browser a few.
const PLACES: usize = 64;

/// More connections than this are a crowd.
const CROWD: usize = 8;

/// How long nobody has to make room. A scrape takes a few milliseconds; a thousand connections that do nothing have all
/// had their turn, and lost it, after 1.6 s.
const GRACE: Duration = Duration::from_millis(100);

/// For the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For a request and its answer: nobody stays longer. Prometheus itself waits for 10 s at most, unless it is told otherwise.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// The most a request may have before its head ends; hyper takes no less.
const BUFFER: usize = 8 * 1024;
/// The most header fields a request may have. Browsers send some 15.
const HEADERS: usize = 64;

/// HTTP/1 with one request a connection, and bounds for it.
pub(crate) fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(BUFFER)
        .max_headers(HEADERS);
    http
}

/// The places, and who has them.
#[derive(Debug)]
pub(crate) struct Places {
    count: usize,
    tasks: JoinSet<()>,
    /// Since when, the oldest first.
    held: VecDeque<(Instant, AbortHandle)>,
}

impl Default for Places {
    fn default() -> Self {
        Self::new(PLACES)
    }
}

impl Places {
    /// So many, none of them taken.
    pub(crate) fn new(count: usize) -> Self {
        Self { count, tasks: JoinSet::new(), held: VecDeque::new() }
    }

    /// Waits until a place is free. If all are taken, whoever has one for the longest loses it, after [`GRACE`].
    pub(crate) async fn wait(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.held.retain(|(_, task)| !task.is_finished());
        while let Some((since, oldest)) = self.held.front()
            && self.held.len() >= self.count
        {
            tokio::select! {
                biased;
                Some(_) = self.tasks.join_next() => self.held.retain(|(_, task)| !task.is_finished()),
                () = sleep_until(*since + GRACE) => {
                    oldest.abort();
                    self.held.pop_front();
                }
            }
        }
    }

    /// Whether more are here than have business to be.
    pub(crate) fn crowded(&self) -> bool {
        self.held.len() > CROWD
    }

    /// Gives a place to a connection. There must be one, see [`Places::wait`].
    pub(crate) fn take(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(connection);
        self.held.push_back((Instant::now(), task));
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_makes_room_after_its_grace() {
        let mut places = Places::default();
        for _ in 0..PLACES {
            timeout(Duration::ZERO, places.wait()).await.expect("a free place");
            places.take(pending());
        }
        let begun = Instant::now();
        places.wait().await;
        let waited = begun.elapsed();
        assert!(waited >= GRACE && waited < 2 * GRACE, "{waited:?}");
        assert_eq!(places.held.len(), PLACES - 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_done_makes_room_at_once() {
        let mut places = Places::default();
        for count in 1..=PLACES {
            places.take(async move {
                if count < PLACES {
                    pending().await
                }
            });
        }
        timeout(GRACE / 2, places.wait()).await.expect("a free place");
        assert_eq!(places.held.len(), PLACES - 1);
    }
}
