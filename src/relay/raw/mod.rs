//! Bytes as they are, from the very first one, by `splice(2)`.

use std::io::{self, IoSliceMut};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;

use super::pipes::{keep_pipe, take_pipe};
use super::{End, Engine, Moved, Path};
use crate::model::close::CloseReason;
use crate::model::rejection::Side;
use crate::sys::splice::Pipe;
use crate::sys::stream::Stream;

/// How often one direction goes round before the other one and other connections get their turn.
const TURNS: usize = 16;

/// A connection of a passthrough route.
#[derive(Debug)]
pub(super) struct Splice {
    client: Stream,
    backend: Stream,
    up: Direction,
    down: Direction,
    first_ended: Option<Side>,
    /// The backend takes nothing more. What it has still to say is delivered all the same, and until the client has
    /// ended too, what it sends is read and dropped: closing a socket with unread bytes is a reset
    /// (RFC 1122 section 4.2.2.13), and could overtake the backend's last words.
    refused: Option<io::Error>,
}

/// One direction. A pipe is held only while bytes are in it.
#[derive(Debug, Default)]
struct Direction {
    pipe: Option<Pipe>,
    moved: u64,
    ended: bool,
}

/// Which socket broke.
enum Broken {
    From(io::Error),
    To(io::Error),
}

impl Splice {
    pub(super) fn new(client: Stream, backend: Stream) -> Self {
        let (up, down) = (Direction::default(), Direction::default());
        Self { client, backend, up, down, first_ended: None, refused: None }
    }

    /// From the client to the backend, as long as that takes anything.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.refused.is_none() {
            match ready!(self.up.poll_move(cx, &self.client, &self.backend)) {
                Err(Broken::To(error)) => {
                    // What is in the pipe will never be delivered.
                    self.up.pipe = None;
                    self.refused = Some(error);
                    self.first_ended.get_or_insert(Side::Backend);
                }
                moved => return Poll::Ready(moved),
            }
        }
        self.up.poll_drop(cx, &self.client)
    }
}

impl Direction {
    /// Ready when `from` has ended and everything it sent has been passed on.
    fn poll_move(&mut self, cx: &mut Context<'_>, from: &Stream, to: &Stream) -> Poll<Result<(), Broken>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..TURNS {
            if let Some(pipe) = self.pipe.as_mut().filter(|pipe| !pipe.is_empty()) {
                match to.try_io(Interest::WRITABLE, || pipe.empty(to)) {
                    Ok(moved) => self.moved += u64::try_from(moved).unwrap_or(u64::MAX),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready!(to.poll_write_ready(cx)).map_err(Broken::To)?;
                    }
                    Err(error) => return Poll::Ready(Err(Broken::To(error))),
                }
                continue;
            }
            if self.pipe.is_none() {
                ready!(from.poll_read_ready(cx)).map_err(Broken::From)?;
                self.pipe = Some(take_pipe());
            }
            let Some(pipe) = self.pipe.as_mut() else { continue };
            match from.try_io(Interest::READABLE, || pipe.fill(from)) {
                Ok(0) => {
                    self.ended = true;
                    keep_pipe(&mut self.pipe);
                    // A socket that is gone already needs no telling.
                    let _ = to.shutdown_write();
                    return Poll::Ready(Ok(()));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    keep_pipe(&mut self.pipe);
                }
                Err(error) => return Poll::Ready(Err(Broken::From(error))),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Direction {
    /// Reads and drops what `from` sends. Ready when it has ended.
    fn poll_drop(&mut self, cx: &mut Context<'_>, from: &Stream) -> Poll<Result<(), Broken>> {
        let mut sink = [0; 4096];
        for _ in 0..TURNS {
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            ready!(from.poll_read_ready(cx)).map_err(Broken::From)?;
            match from.try_read_vectored(&mut [IoSliceMut::new(&mut sink)]) {
                Ok(length) => self.ended = length == 0,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(Broken::From(error))),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Engine for Splice {
    const PATH: Path = Path::Raw;

    fn poll_move(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let up = self.poll_up(cx);
        if up.is_ready() {
            self.first_ended.get_or_insert(Side::Client);
        }
        let down = self.down.poll_move(cx, &self.backend, &self.client);
        if down.is_ready() {
            self.first_ended.get_or_insert(Side::Backend);
        }
        let (reason, error) = match (up, down) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => {
                if let Some(error) = self.refused.take() {
                    // The client has had everything that there was, and an end.
                    return Poll::Ready(End::because(CloseReason::BackendReset, error));
                }
                return Poll::Ready(End::new(match self.first_ended {
                    Some(Side::Backend) => CloseReason::BackendClosed,
                    _ => CloseReason::ClientClosed,
                }));
            }
            (Poll::Ready(Err(Broken::From(error))), _) | (_, Poll::Ready(Err(Broken::To(error)))) => {
                (CloseReason::ClientReset, error)
            }
            (Poll::Ready(Err(Broken::To(error))), _) | (_, Poll::Ready(Err(Broken::From(error)))) => {
                (CloseReason::BackendReset, error)
            }
            _ => return Poll::Pending,
        };
        // A reset is passed on as one: an orderly end would tell the other side that it has everything.
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

    fn cut(&mut self) {
        self.client.reset_on_close();
        self.backend.reset_on_close();
    }

    /// A reset has thrown everything away.
    fn withhold(&self) {}
}

#[cfg(test)]
mod tests;
