//! Stage 7: payload, both ways, until both sides have ended.
//!
//! One interface, several paths: [`kernel`] has the kernel seal and open TLS records, [`copy`] does so in user space,
//! [`raw`] passes the bytes of passthrough routes on as they are. Each drives both directions in one task and knows how to
//! end in order.

mod buffers;
mod copy;
mod kernel;
mod pipes;
mod raw;
#[cfg(test)]
mod testing;

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use metrics::Counter;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use self::kernel::Support;
use crate::close::CloseReason;
use crate::record::{Keys, Session};
use crate::rejection::Side;
use crate::sys::stream::Stream;

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

/// How a relay ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelaySummary {
    /// Why.
    pub reason: CloseReason,
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

    /// Ends both sides as well as can be done at once.
    fn cut(&mut self);
}

/// Why an engine stopped.
#[derive(Debug)]
struct End {
    reason: CloseReason,
    detail: Option<String>,
}

impl End {
    fn new(reason: CloseReason) -> Self {
        Self { reason, detail: None }
    }

    fn because(reason: CloseReason, detail: impl ToString) -> Self {
        Self { reason, detail: Some(detail.to_string()) }
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

/// Relays a connection whose TLS the kernel does from now on. Kernel TLS must be attached to `client`, and the client's
/// bytes must stand in it from the first one behind the handshake on; `support` must fit `keys`.
pub async fn in_kernel(
    client: TcpStream,
    keys: Keys,
    support: &Support,
    backend: Stream,
    limits: Limits,
    meter: Meter,
    cut: &CancellationToken,
) -> RelaySummary {
    match kernel::KernelTls::new(client, keys, support, backend) {
        Ok(engine) => run(engine, limits, meter, cut).await,
        Err(End { reason, detail }) => RelaySummary { reason, detail, path: Path::Kernel, moved: Moved::default() },
    }
}

/// Relays a connection whose TLS the gate does itself. `received` are bytes of the client's that came right behind its
/// handshake: records not opened yet.
pub async fn terminated(
    client: TcpStream,
    session: Box<Session>,
    received: Vec<u8>,
    backend: Stream,
    limits: Limits,
    meter: Meter,
    cut: &CancellationToken,
) -> RelaySummary {
    run(copy::TlsCopy::new(client, session, received, backend), limits, meter, cut).await
}

/// Relays a connection as it is.
pub async fn passthrough(
    client: TcpStream,
    backend: Stream,
    limits: Limits,
    meter: Meter,
    cut: &CancellationToken,
) -> RelaySummary {
    run(raw::Splice::new(Stream::Tcp(client), backend), limits, meter, cut).await
}

async fn run<E: Engine>(mut engine: E, limits: Limits, meter: Meter, cut: &CancellationToken) -> RelaySummary {
    let mut counted = Moved::default();
    let mut progress = Instant::now();
    let mut timer = pin!(sleep_until(next_deadline(progress, &engine, limits)));
    let mut cancelled = pin!(cut.cancelled());
    let end = poll_fn(|cx| {
        if let Poll::Ready(end) = engine.poll_move(cx) {
            return Poll::Ready(end);
        }
        let moved = engine.moved();
        if moved != counted {
            meter.to_backend.increment(moved.to_backend - counted.to_backend);
            meter.to_client.increment(moved.to_client - counted.to_client);
            counted = moved;
            progress = Instant::now();
        }
        // An engine is told to stop; it is never dropped with bytes in it that nobody counted.
        if cancelled.as_mut().poll(cx).is_ready() {
            engine.cut();
            return Poll::Ready(End::new(CloseReason::DrainDeadline));
        }
        // The timer is not moved at each byte, only when it fires; a half-close may bring its end nearer, though.
        let mut due = next_deadline(progress, &engine, limits);
        if due < timer.deadline() {
            timer.as_mut().reset(due);
        }
        while timer.as_mut().poll(cx).is_ready() {
            due = next_deadline(progress, &engine, limits);
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
        Poll::Pending
    })
    .await;
    let moved = engine.moved();
    meter.to_backend.increment(moved.to_backend - counted.to_backend);
    meter.to_client.increment(moved.to_client - counted.to_client);
    RelaySummary { reason: end.reason, detail: end.detail, path: E::PATH, moved }
}

fn next_deadline<E: Engine>(progress: Instant, engine: &E, limits: Limits) -> Instant {
    let silence = if engine.is_half_closed() { limits.half_close.min(limits.idle) } else { limits.idle };
    let silent = progress + silence;
    limits.lifetime.map_or(silent, |lifetime| lifetime.min(silent))
}
