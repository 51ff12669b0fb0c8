//! Stage 7: payload, both ways, until both sides have ended.
//!
//! One interface, several paths: [`kernel`] has the kernel seal and open TLS records, [`copy`] does so in user space,
//! [`raw`] passes the bytes of passthrough routes on as they are. Each drives both directions in one task and knows how to
//! end in order.

mod buffers;
mod copy;
mod handle;
mod kernel;
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
use crate::model::close::CloseReason;
use crate::model::rejection::{Cause, Side};
use crate::sys::stream::Stream;
use crate::tls::record::{Keys, Pending, Session};

/// How bytes are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// TLS in the kernel, bytes by `splice(2)`.
    Kernel,
    /// TLS in user space.
    Copy,
    /// Bytes as they are, by `splice(2)`.
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
    /// Without a byte either way.
    pub idle: Duration,
    /// Without a byte, once one side has ended.
    pub half_close: Duration,
    /// In all.
    pub lifetime: Option<Instant>,
}

/// Where bytes are counted as they move.
#[derive(Clone, Debug)]
pub struct Meter {
    /// Payload passed on to the backend.
    pub to_backend: Counter,
    /// Payload passed on to the client.
    pub to_client: Counter,
}

impl Default for Meter {
    /// Nothing is counted.
    fn default() -> Self {
        Self { to_backend: Counter::noop(), to_client: Counter::noop() }
    }
}

/// So many bytes, which any link carries within a second, a client that is cut may still get: what was sent to it before. So
/// it is told in order if it keeps up.
const ON_ITS_WAY: u64 = 64 * 1024;

/// How a relay ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelaySummary {
    /// Why.
    pub reason: CloseReason,
    /// What happened to its right, if it was told to end for that.
    pub cause: Option<Box<Cause>>,
    /// More about it, if there is more to say.
    pub detail: Option<String>,
    /// How its bytes were moved.
    pub path: Path,
    /// Payload in bytes.
    pub moved: Moved,
}

/// Payload in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// From the client to the backend.
    pub to_backend: u64,
    /// From the backend to the client.
    pub to_client: u64,
}

/// Both directions of one connection.
trait Engine {
    /// How it moves bytes.
    const PATH: Path;

    /// Moves what can be moved. Ready when both sides have ended, or when something broke.
    fn poll_move(&mut self, cx: &mut Context<'_>) -> Poll<End>;

    /// What has been moved so far.
    fn moved(&self) -> Moved;

    /// Whether one side has ended and the other has not.
    fn is_half_closed(&self) -> bool;

    /// The backend's socket.
    fn backend(&self) -> &Stream;

    /// Ends both sides as well as can be done at once.
    fn cut(&mut self);

    /// Sees to it that a client that is cut gets no more than is on its way already.
    fn withhold(&self);
}

/// Why an engine stopped.
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

    /// What both directions of a TLS connection come to, once each has been polled. `refused` is what the backend said when
    /// it took nothing more.
    fn of(
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
        // Whatever the client did then, the backend was the first to go.
        Poll::Ready(match refused.take() {
            Some(error) if end.reason != CloseReason::TlsError => Self::because(CloseReason::BackendReset, error),
            _ => end,
        })
    }
}

/// What comes behind a close_notify of the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rest {
    /// Nothing any more.
    #[default]
    Ended,
    /// Nothing yet.
    None,
    /// Bytes, which were ignored.
    Ignored,
}

/// Why the end of the client's stream is none in order, if it is not: it stands inside a record or a handshake message.
fn cut_short(inside_record: bool, inside_message: bool) -> Option<&'static str> {
    match (inside_record, inside_message) {
        (true, _) => Some("ended inside a record"),
        (false, true) => Some("ended inside a handshake message"),
        (false, false) => None,
    }
}

/// The client's side failed.
fn client_broke(error: io::Error) -> End {
    End::because(CloseReason::ClientReset, error)
}

// None of these is an async fn: that would keep its arguments a second time, for as long as the connection lasts.

/// Relays a connection whose TLS the kernel does from now on. Kernel TLS must be attached to `client`, and the client's
/// bytes must stand in it from the first one behind the handshake on; `support` must fit `keys`.
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

/// Relays a connection whose TLS the gate does itself.
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

/// Relays a connection as it is.
pub fn passthrough(
    client: TcpStream,
    backend: Stream,
    limits: Limits,
    handle: Arc<Handle>,
) -> impl Future<Output = RelaySummary> + Unpin {
    run(raw::Splice::new(Stream::Tcp(client), backend), limits, handle)
}

/// When a relay has lasted long enough for its backend to be watched by keep-alives. That takes four calls of
/// the some thirty that a short connection has in all; the client's are inherited from the listener and cost nothing.
const LASTING: Duration = Duration::from_secs(10);

/// Drives an engine to its end.
fn run<E: Engine + Unpin>(
    mut engine: E,
    limits: Limits,
    handle: Arc<Handle>,
) -> impl Future<Output = RelaySummary> + Unpin {
    let mut progress = Instant::now();
    let mut watched = false;
    let mut timer = Box::pin(sleep_until(next_deadline(progress, &engine, limits).min(progress + LASTING)));
    poll_fn(move |cx| {
        // Before anything is moved: who is to be cut moves nothing any more. An engine is told to stop; it is never dropped
        // with bytes in it that nobody counted.
        let mut end = match handle.poll_order(cx) {
            Poll::Ready(Order { reason, cause, .. }) => {
                engine.cut();
                if CloseReason::CUT.contains(&reason) {
                    engine.withhold();
                }
                Poll::Ready(End { reason, cause, detail: None })
            }
            Poll::Pending => engine.poll_move(cx),
        };
        if handle.count(engine.moved()) {
            progress = Instant::now();
        }
        if end.is_pending() {
            end = poll_deadline(cx, timer.as_mut(), progress, &mut engine, limits, &mut watched);
        }
        let End { reason, cause, detail } = ready!(end);
        let moved = engine.moved();
        handle.count(moved);
        Poll::Ready(RelaySummary { reason, cause, detail, path: E::PATH, moved })
    })
}

/// Whether the relay has lasted, or been silent, for too long. The first time that the timer fires, the backend is watched
/// from then on.
fn poll_deadline<E: Engine>(
    cx: &mut Context<'_>,
    mut timer: Pin<&mut Sleep>,
    progress: Instant,
    engine: &mut E,
    limits: Limits,
    watched: &mut bool,
) -> Poll<End> {
    // The timer is not moved at each byte, only when it fires; a half-close may bring its end nearer, though.
    let mut due = next_deadline(progress, engine, limits);
    if due < timer.deadline() {
        timer.as_mut().reset(due);
    }
    loop {
        ready!(timer.as_mut().poll(cx));
        if !mem::replace(watched, true) {
            engine.backend().keep_alive();
        }
        due = next_deadline(progress, engine, limits);
        if due <= Instant::now() {
            engine.cut();
            return Poll::Ready(End::new(match limits.lifetime {
                Some(lifetime) if lifetime <= due => CloseReason::LifetimeLimit,
                _ if engine.is_half_closed() => CloseReason::HalfCloseTimeout,
                _ => CloseReason::IdleTimeout,
            }));
        }
        timer.as_mut().reset(due);
    }
}

fn next_deadline<E: Engine>(progress: Instant, engine: &E, limits: Limits) -> Instant {
    let silence = if engine.is_half_closed() { limits.half_close.min(limits.idle) } else { limits.idle };
    let silent = progress + silence;
    limits.lifetime.map_or(silent, |lifetime| lifetime.min(silent))
}
