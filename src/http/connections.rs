//! The connections of a small HTTP listener: how many there are at once, how long each lasts, and how large a request is.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// More open connections than this are a high load. Prometheus needs one, a browser a few.
const HIGH_LOAD: usize = 8;

/// How long a connection keeps its slot while others wait for one. A scrape takes a few milliseconds; a thousand connections
/// that send nothing have all had a slot, and lost it, after 1.6 s.
const GRACE: Duration = Duration::from_millis(100);

/// For the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For a request and its reply. Prometheus waits for 10 s at most by default.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// For requests that were accepted when the listener is closed. A reply takes milliseconds.
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// After an error of accept(2), such as EMFILE, which the next call would return at once.
const RETRY: Duration = Duration::from_millis(100);
/// The most a request may have before its head ends; hyper takes no less.
const BUFFER: usize = 8 * 1024;
/// The most header fields a request may have. Browsers send some 15.
const HEADERS: usize = 64;

/// HTTP/1 with one request a connection, and bounds for it.
pub(crate) fn server() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(BUFFER)
        .max_headers(HEADERS);
    http
}

/// How many connections a listener has when one is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// As many as the clients that the listener is for.
    Normal,
    /// More than that: strangers are among them, or a browser that loads over and over.
    High,
}

/// Accepts connections, at most `slots` at once, until `closed` is cancelled; then the listener is closed, and those that were
/// accepted get a moment to end. `serve` returns the task of one, or `None` to close it at once. The task is aborted when its
/// slot is needed and it has had it for long enough.
pub(crate) async fn serve_connections<Served>(
    listener: TcpListener,
    slots: usize,
    closed: &CancellationToken,
    mut serve: impl FnMut(TcpStream, SocketAddr, Load) -> Option<Served>,
) where
    Served: Future<Output = ()> + Send + 'static,
{
    let mut slots = ConnectionSlots::new(slots);
    loop {
        let next = async {
            // Until a slot is free, new connections wait in the kernel's queue.
            slots.wait().await;
            listener.accept().await
        };
        let Some(accepted) = closed.run_until_cancelled(next).await else { break };
        let Ok((stream, peer)) = accepted else {
            sleep(RETRY).await;
            continue;
        };
        if let Some(served) = serve(stream, peer, slots.load()) {
            slots.spawn(served);
        }
    }
    drop(listener);
    let _ = timeout(END_TIMEOUT, async { while slots.tasks.join_next().await.is_some() {} }).await;
}

/// The slots of a listener and the connections that hold them.
#[derive(Debug)]
struct ConnectionSlots {
    count: usize,
    tasks: JoinSet<()>,
    /// Since when each connection holds its slot, the oldest first.
    held: VecDeque<(Instant, AbortHandle)>,
}

impl ConnectionSlots {
    fn new(count: usize) -> Self {
        Self { count, tasks: JoinSet::new(), held: VecDeque::new() }
    }

    /// Waits until a slot is free. If all are held, the oldest connection is closed once it has had its [`GRACE`].
    async fn wait(&mut self) {
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

    fn load(&self) -> Load {
        if self.held.len() > HIGH_LOAD { Load::High } else { Load::Normal }
    }

    /// Gives a slot to a connection. One must be free, see [`ConnectionSlots::wait`].
    fn spawn(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(connection);
        self.held.push_back((Instant::now(), task));
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const COUNT: usize = 64;

    #[tokio::test(start_paused = true)]
    async fn oldest_connection_is_closed_after_its_grace() {
        let mut slots = ConnectionSlots::new(COUNT);
        assert_eq!(slots.load(), Load::Normal);
        for _ in 0..COUNT {
            timeout(Duration::ZERO, slots.wait()).await.expect("a free slot");
            slots.spawn(pending());
        }
        let begun = Instant::now();
        slots.wait().await;
        let waited = begun.elapsed();
        assert_eq!(slots.load(), Load::High);
        assert!(waited >= GRACE && waited < 2 * GRACE, "{waited:?}");
        assert_eq!(slots.held.len(), COUNT - 1);
    }

    #[tokio::test(start_paused = true)]
    async fn ended_connection_frees_its_slot_at_once() {
        let mut slots = ConnectionSlots::new(COUNT);
        for count in 1..=COUNT {
            slots.spawn(async move {
                if count < COUNT {
                    pending().await
                }
            });
        }
        timeout(GRACE / 2, slots.wait()).await.expect("a free slot");
        assert_eq!(slots.held.len(), COUNT - 1);
    }
}
