//! Passthrough routes: every byte is forwarded unchanged, much of it by `splice(2)`.

use std::io::{self, IoSliceMut};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;

use super::pipes::{return_pipe, take_buffer, take_pipe};
use super::{End, Engine, Moved, Path, ROUNDS_MAX};
use crate::model::close::{CloseReason, Ending};
use crate::model::rejection::Side;
use crate::sys::splice::{BUFFER, Pipe};
use crate::sys::stream::Stream;

/// How many steps one direction takes before the other direction and other connections get their turn: up to 2 MiB.
const STEPS_MAX: usize = 4;

/// A connection of a passthrough route.
#[derive(Debug)]
pub(super) struct Splice {
    client: Stream,
    backend: Stream,
    up: Direction,
    down: Direction,
    first_ended: Option<Side>,
    /// The error of the backend that accepts nothing more. What it has sent is still delivered. Until the client ends, its
    /// bytes are read and discarded: closing a socket with unread bytes causes a reset (RFC 1122 section 4.2.2.13), which
    /// could overtake the backend's last bytes.
    write_error: Option<io::Error>,
}

/// One direction. A pipe, or a buffer for few bytes, is held only while bytes are in it.
#[derive(Debug, Default)]
struct Direction {
    pipe: Option<Pipe>,
    moved: u64,
    ended: bool,
    /// The last bytes filled a buffer, so the next ones take a pipe.
    bulk: bool,
}

/// Which socket of a direction failed.
enum SpliceError {
    Source(io::Error),
    Destination(io::Error),
}

/// Fills a pipe or buffer. Few bytes leave the socket empty, so tokio waits for the next event, which saves the system call
/// that would return `WouldBlock`. A short move into a pipe says nothing: it may be full of small fragments.
fn fill(pipe: &mut Pipe, from: &Stream) -> io::Result<usize> {
    let mut filled = None;
    let tried = from.try_io(Interest::READABLE, || {
        let bytes = pipe.fill(from, usize::MAX)?;
        filled = Some(bytes);
        let emptied = !pipe.is_pipe() && (1..BUFFER).contains(&bytes);
        if emptied { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(bytes) }
    });
    filled.map_or(tried, Ok)
}

impl Splice {
    pub(super) fn new(client: Stream, backend: Stream) -> Self {
        let (up, down) = (Direction::default(), Direction::default());
        Self { client, backend, up, down, first_ended: None, write_error: None }
    }

    /// From the client to the backend; once the backend accepts nothing more, to nowhere.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SpliceError>> {
        if self.write_error.is_none() {
            match ready!(self.up.poll_move(cx, &self.client, &self.backend)) {
                Err(SpliceError::Destination(error)) => {
                    // The bytes in the pipe cannot be delivered.
                    self.up.pipe = None;
                    self.write_error = Some(error);
                    self.first_ended.get_or_insert(Side::Backend);
                }
                moved => return Poll::Ready(moved),
            }
        }
        self.up.poll_discard(cx, &self.client)
    }
}

impl Direction {
    /// Ready when `from` has ended and all its bytes have been written to `to`.
    fn poll_move(&mut self, cx: &mut Context<'_>, from: &Stream, to: &Stream) -> Poll<Result<(), SpliceError>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..STEPS_MAX {
            if let Some(pipe) = self.pipe.as_mut().filter(|pipe| !pipe.is_empty()) {
                match to.try_io(Interest::WRITABLE, || pipe.empty(to)) {
                    Ok(moved) => self.moved += u64::try_from(moved).unwrap_or(u64::MAX),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready!(to.poll_write_ready(cx)).map_err(SpliceError::Destination)?;
                    }
                    Err(error) => return Poll::Ready(Err(SpliceError::Destination(error))),
                }
                continue;
            }
            // After a buffer has been filled, a pipe; a buffer again once little comes.
            if self.pipe.as_ref().is_some_and(|pipe| pipe.is_pipe() != self.bulk) {
                return_pipe(&mut self.pipe);
            }
            if self.pipe.is_none() {
                ready!(from.poll_read_ready(cx)).map_err(SpliceError::Source)?;
                self.pipe = Some(if self.bulk { take_pipe() } else { take_buffer() });
            }
            let Some(pipe) = self.pipe.as_mut() else { continue };
            match fill(pipe, from) {
                Ok(0) => {
                    self.ended = true;
                    return_pipe(&mut self.pipe);
                    // Fails only if the other side is already gone.
                    let _ = to.shutdown_write();
                    return Poll::Ready(Ok(()));
                }
                Ok(bytes) => self.bulk = bytes >= BUFFER,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return_pipe(&mut self.pipe),
                Err(error) => return Poll::Ready(Err(SpliceError::Source(error))),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads and discards what `from` sends. Ready when it has ended.
    fn poll_discard(&mut self, cx: &mut Context<'_>, from: &Stream) -> Poll<Result<(), SpliceError>> {
        let mut sink = [0; 4096];
        for _ in 0..ROUNDS_MAX {
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            ready!(from.poll_read_ready(cx)).map_err(SpliceError::Source)?;
            match from.try_read_vectored(&mut [IoSliceMut::new(&mut sink)]) {
                Ok(length) => self.ended = length == 0,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(SpliceError::Source(error))),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Engine for Splice {
    const PATH: Path = Path::Raw;

    fn poll_move(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let up = self.poll_upload(cx);
        if up.is_ready() {
            self.first_ended.get_or_insert(Side::Client);
        }
        let down = self.down.poll_move(cx, &self.backend, &self.client);
        if down.is_ready() {
            self.first_ended.get_or_insert(Side::Backend);
        }
        let (reason, error) = match (up, down) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => {
                if let Some(error) = self.write_error.take() {
                    // The client has received everything and an orderly end.
                    return Poll::Ready(End::because(CloseReason::BackendReset, error));
                }
                return Poll::Ready(End::new(match self.first_ended {
                    Some(Side::Backend) => CloseReason::BackendClosed,
                    _ => CloseReason::ClientClosed,
                }));
            }
            (Poll::Ready(Err(SpliceError::Source(error))), _)
            | (_, Poll::Ready(Err(SpliceError::Destination(error)))) => (CloseReason::ClientReset, error),
            (Poll::Ready(Err(SpliceError::Destination(error))), _)
            | (_, Poll::Ready(Err(SpliceError::Source(error)))) => (CloseReason::BackendReset, error),
            _ => return Poll::Pending,
        };
        // A reset is forwarded as one: an orderly end would say that the data is complete.
        self.client.reset_on_close();
        self.backend.reset_on_close();
        Poll::Ready(End::because(reason, error))
    }

    fn moved(&self) -> Moved {
        Moved { to_backend: self.up.moved, to_client: self.down.moved }
    }

    fn is_half_closed(&self) -> bool {
        self.first_ended.is_some()
    }

    fn backend(&self) -> &Stream {
        &self.backend
    }

    /// Both sides are reset, whatever the client could be told inside its TLS, for which the gate has no keys.
    fn cut(&mut self, _: Ending) {
        self.client.reset_on_close();
        self.backend.reset_on_close();
    }

    /// Nothing to do: [`cut`](Self::cut) resets both sides, which discards unsent bytes.
    fn limit_undelivered(&self) {}
}

#[cfg(test)]
mod tests;
