//! Stage 7: payload, both ways, until both sides have ended.
//!
//! One interface ([`Engine`]) and three paths: [`kernel`] has the kernel seal and open TLS records, [`copy`] does so in user
//! space, [`raw`] forwards the bytes of passthrough routes unchanged. Each drives both directions in one task.

mod buffers;
mod copy;
mod handle;
mod kernel;
#[cfg(test)]
mod path_tests;
mod pipes;
mod raw;
#[cfg(test)]
mod testing;

use std::future::{self, poll_fn};
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use metrics::Counter;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::either::Either;

pub use self::handle::{Handle, Order};
pub use self::kernel::Support;
use crate::backend_tls::TlsStream;
use crate::model::close::{CloseReason, Ending};
use crate::model::rejection::{Cause, Side};
use crate::sys::stream::Stream;
use crate::tls::record::{Keys, Pending, Session};

/// How bytes are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// TLS in the kernel, bytes moved by `splice(2)`.
    Kernel,
    /// TLS in user space.
    Copy,
    /// Bytes forwarded unchanged by `splice(2)`.
    Raw,
}

impl Path {
    /// Every path.
    pub const ALL: &'static [Self] = &[Self::Kernel, Self::Copy, Self::Raw];

    /// The label value in metrics and log lines.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Copy => "copy",
            Self::Raw => "raw",
        }
    }
}

/// How long a relay may last.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Without a byte in either direction.
    pub idle: Duration,
    /// Without a byte, once one side has ended.
    pub half_close: Duration,
    /// In total.
    pub lifetime: Option<Instant>,
}

/// Counters that are incremented as bytes move.
#[derive(Clone, Debug)]
pub struct Meter {
    /// Payload sent to the backend.
    pub to_backend: Counter,
    /// Payload sent to the client.
    pub to_client: Counter,
}

impl Default for Meter {
    /// Counts nothing.
    fn default() -> Self {
        Self { to_backend: Counter::noop(), to_client: Counter::noop() }
    }
}

/// How many bytes may still be undelivered when a client is cut for its close to be orderly. Any link carries this many
/// within a second; with more, the connection is reset.
const UNDELIVERED_MAX: u64 = 64 * 1024;

/// How a relay ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelaySummary {
    /// Why.
    pub reason: CloseReason,
    /// What happened to its right, if it was told to end for that.
    pub cause: Option<Box<Cause>>,
    /// More about it, if there is more to say.
    pub detail: Option<String>,
    /// The path its bytes took.
    pub path: Path,
    /// Payload in bytes.
    pub moved: Moved,
}

impl RelaySummary {
    /// Of a connection that ends before payload moves.
    pub fn without_payload(reason: CloseReason, path: Path) -> Self {
        Self { reason, cause: None, detail: None, path, moved: Moved::default() }
    }
}

/// Payload in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// From the client to the backend.
    pub to_backend: u64,
    /// From the backend to the client.
    pub to_client: u64,
}

/// How many steps one direction takes before the other direction and other connections get their turn.
const ROUNDS_MAX: usize = 16;

/// Moves the bytes of one connection, in both directions.
trait Engine {
    /// The path that it implements.
    const PATH: Path;

    /// Moves what can be moved now. Ready when both sides have ended, or on a failure.
    fn poll_move(&mut self, cx: &mut Context<'_>) -> Poll<End>;

    /// What has been moved so far.
    fn moved(&self) -> Moved;

    /// Whether one side has ended and the other has not.
    fn is_half_closed(&self) -> bool;

    /// The backend's socket.
    fn backend(&self) -> &Stream;

    /// Ends both sides without waiting. The client's stream ends like this where TLS and the socket still permit it, and nothing else
    /// is sent; the backend sees a reset, unless it was told before that the client had ended.
    fn cut(&mut self, ending: Ending);

    /// Makes sure that a client that is cut receives at most [`UNDELIVERED_MAX`] more bytes.
    fn limit_undelivered(&self);
}

/// Why an engine ended.
#[derive(Debug)]
struct End {
    reason: CloseReason,
    cause: Option<Box<Cause>>,
    detail: Option<String>,
}

impl End {
    fn new(reason: CloseReason) -> Self {
        Self { reason, cause: None, detail: None }
    }

    fn because(reason: CloseReason, detail: impl ToString) -> Self {
        Self { reason, cause: None, detail: Some(detail.to_string()) }
    }

    /// Combines the results of both directions of a TLS connection. `refused` is the error of the last write to the backend.
    fn combine(
        up: Poll<Result<(), Self>>,
        down: Poll<Result<(), Self>>,
        first_ended: Option<Side>,
        refused: &mut Option<io::Error>,
    ) -> Poll<Self> {
        let end = match (up, down) {
            (Poll::Ready(Err(end)), _) | (_, Poll::Ready(Err(end))) => end,
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Self::new(match first_ended {
                Some(Side::Backend) => CloseReason::BackendClosed,
                _ => CloseReason::ClientClosed,
            }),
            _ => return Poll::Pending,
        };
        // The backend failed first, whatever the client did afterwards.
        Poll::Ready(match refused.take() {
            Some(error) if end.reason != CloseReason::TlsError => Self::because(CloseReason::BackendReset, error),
            _ => end,
        })
    }
}

/// Whether a write has taken the news that the backend was reset: a read then finds an end, which the backend has not sent. After one
/// that it has sent, the write fails with another error (EPIPE).
fn has_taken_a_reset(write_error: Option<&io::Error>) -> bool {
    write_error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

/// What the client has sent after its close_notify.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum AfterCloseNotify {
    /// The end of the stream: nothing is left to read.
    #[default]
    EndOfStream,
    /// Nothing yet.
    Nothing,
    /// Bytes, which were ignored.
    Ignored,
}

/// Why the client's stream is truncated, if it is: it ended inside a record or a handshake message.
fn truncation(inside_record: bool, inside_message: bool) -> Option<&'static str> {
    match (inside_record, inside_message) {
        (true, _) => Some("ended inside a record"),
        (false, true) => Some("ended inside a handshake message"),
        (false, false) => None,
    }
}

/// The end after a failed call on the client's socket.
fn client_reset(error: io::Error) -> End {
    End::because(CloseReason::ClientReset, error)
}

// These are not async fns: the future of an async fn would hold its arguments twice for as long as the connection lasts.

/// Relays a connection by kernel TLS, which must be attached to `client`. The socket must still hold every byte that follows
/// the handshake, and `support` must cover `keys`.
pub fn in_kernel(
    client: TcpStream,
    keys: Keys,
    support: &Support,
    backend: Stream,
    limits: Limits,
    handle: Arc<Handle>,
) -> impl Future<Output = RelaySummary> + Unpin + use<> {
    match kernel::KernelTls::new(client, keys, support, backend) {
        Ok(engine) => Either::Left(run(engine, limits, handle)),
        Err(End { reason, cause, detail }) => {
            let (path, moved) = (Path::Kernel, Moved::default());
            Either::Right(future::ready(RelaySummary { reason, cause, detail, path, moved }))
        }
    }
}

/// Relays a connection by TLS in user space.
pub fn terminated(
    client: TcpStream,
    session: Box<Session>,
    pending: Pending,
    backend: Stream,
    limits: Limits,
    handle: Arc<Handle>,
) -> impl Future<Output = RelaySummary> + Unpin {
    run(copy::TlsCopy::new(client, session, pending, backend), limits, handle)
}

/// Relays a connection by TLS in user space, to a backend with TLS of its own.
pub fn terminated_to_tls(
    client: TcpStream,
    session: Box<Session>,
    pending: Pending,
    backend: Box<TlsStream>,
    limits: Limits,
    handle: Arc<Handle>,
) -> impl Future<Output = RelaySummary> + Unpin {
    run(copy::TlsCopy::new(client, session, pending, backend), limits, handle)
}

/// Relays a connection unchanged.
pub fn passthrough(
    client: TcpStream,
    backend: Stream,
    limits: Limits,
    handle: Arc<Handle>,
) -> impl Future<Output = RelaySummary> + Unpin {
    run(raw::Splice::new(Stream::Tcp(client), backend), limits, handle)
}

/// The age at which TCP keep-alive is switched on for the backend. It takes four system calls, which a short connection of
/// about thirty should not pay. The client's socket inherits keep-alive from the listener.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(10);

/// Drives an engine to its end.
fn run<E: Engine + Unpin>(
    mut engine: E,
    limits: Limits,
    handle: Arc<Handle>,
) -> impl Future<Output = RelaySummary> + Unpin {
    let mut progress = Instant::now();
    let mut keep_alive = false;
    let mut half_closed = false;
    let mut timer = Box::pin(sleep_until(next_deadline(progress, &engine, limits).min(progress + KEEP_ALIVE_AFTER)));
    poll_fn(move |cx| {
        // Asked before anything is moved, so that a session that is cut moves nothing more. The engine is stopped, not
        // dropped, so that every byte is counted.
        let mut end = match handle.poll_order(cx) {
            Poll::Ready(Order { reason, cause, .. }) => {
                let ending = reason.ending();
                engine.cut(ending);
                // Its right is gone.
                if matches!(ending, Ending::Alert(_)) {
                    engine.limit_undelivered();
                }
                Poll::Ready(End { reason, cause, detail: None })
            }
            Poll::Pending => engine.poll_move(cx),
        };
        let moved = handle.count(engine.moved());
        // From its end on, the other side has the whole time, however long there was no byte before.
        let has_ended = !mem::replace(&mut half_closed, engine.is_half_closed()) && half_closed;
        if moved || has_ended {
            progress = Instant::now();
        }
        if end.is_pending() {
            end = poll_deadline(cx, timer.as_mut(), progress, &mut engine, limits, &mut keep_alive);
        }
        let End { reason, cause, detail } = ready!(end);
        let moved = engine.moved();
        handle.count(moved);
        Poll::Ready(RelaySummary { reason, cause, detail, path: E::PATH, moved })
    })
}

/// Ready when a time limit is reached. Also switches on keep-alive for the backend, the first time that the timer fires.
fn poll_deadline<E: Engine>(
    cx: &mut Context<'_>,
    mut timer: Pin<&mut Sleep>,
    progress: Instant,
    engine: &mut E,
    limits: Limits,
    keep_alive: &mut bool,
) -> Poll<End> {
    // The timer is not reset for each byte, only when it fires or when a half-close shortens the limit.
    let mut due = next_deadline(progress, engine, limits);
    if due < timer.deadline() {
        timer.as_mut().reset(due);
    }
    loop {
        ready!(timer.as_mut().poll(cx));
        if !mem::replace(keep_alive, true) {
            engine.backend().keep_alive();
        }
        due = next_deadline(progress, engine, limits);
        if due <= Instant::now() {
            let reason = match limits.lifetime {
                Some(lifetime) if lifetime <= due => CloseReason::LifetimeLimit,
                _ if engine.is_half_closed() => CloseReason::HalfCloseTimeout,
                _ => CloseReason::IdleTimeout,
            };
            engine.cut(reason.ending());
            return Poll::Ready(End::new(reason));
        }
        timer.as_mut().reset(due);
    }
}

fn next_deadline<E: Engine>(progress: Instant, engine: &E, limits: Limits) -> Instant {
    let silence = if engine.is_half_closed() { limits.half_close.min(limits.idle) } else { limits.idle };
    let silent = progress + silence;
    limits.lifetime.map_or(silent, |lifetime| lifetime.min(silent))
}
