//! TLS in user space: one buffer each way, sealed and opened in place, held only while there are bytes in it.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use super::buffers::{Buffer, Size};
use super::{End, Engine, Moved, ON_ITS_WAY, Path, Rest, client_broke, cut_short};
use crate::model::close::CloseReason;
use crate::model::rejection::{Alert, Side};
use crate::sys::socket::reset_on_close_beyond;
use crate::sys::stream::Stream;
use crate::tls::record::{Exhausted, Opened, PLAINTEXT_MAX, Pending, RecordError, Session};

/// How often one direction goes round before the other one and other connections get their turn.
const TURNS: usize = 16;

/// How many pieces one call to the kernel takes at most: as many records as a large buffer has, when they are full.
const PIECES: usize = Size::Large.records();

/// A connection whose TLS the gate does.
#[derive(Debug)]
pub(super) struct TlsCopy {
    client: TcpStream,
    backend: Stream,
    session: Box<Session>,
    up: Up,
    down: Down,
    /// Records that are no payload, sealed and not yet sent: alerts and KeyUpdates. They go out behind what was sealed
    /// before them and ahead of what is sealed after them.
    control: Vec<u8>,
    /// Records that the handshake left: they go out ahead of everything, but not by themselves.
    unsent: Vec<u8>,
    first_ended: Option<Side>,
    moved: Moved,
}

/// From the client to the backend.
#[derive(Debug, Default)]
struct Up {
    buffer: Option<Buffer>,
    /// `buffer[..filled]` was received, `buffer[opened..filled]` is still sealed.
    filled: usize,
    opened: usize,
    /// Plaintext in `buffer[..opened]` that the backend has not taken yet.
    plaintext: VecDeque<Range<usize>>,
    /// The last read filled what it was given: more is worth asking for.
    busy: bool,
    ended: bool,
    shut: bool,
    rest: Rest,
    /// The backend takes nothing more. What it has still to say is delivered all the same, and until the client has
    /// ended too, what it sends is read and dropped: closing a socket with unread bytes is a reset
    /// (RFC 1122 section 4.2.2.13), and could overtake the backend's last words.
    refused: Option<io::Error>,
}

/// From the backend to the client.
#[derive(Debug, Default)]
struct Down {
    buffer: Option<Buffer>,
    /// Sealed records in `buffer` that the client has not taken yet.
    sealed: Range<usize>,
    /// How many bytes of payload were sealed into `buffer`.
    payload: usize,
    busy: bool,
    ended: bool,
    shut: bool,
}

impl TlsCopy {
    pub(super) fn new(client: TcpStream, session: Box<Session>, pending: Pending, backend: Stream) -> Self {
        let Pending { received, unsent } = pending;
        let mut up = Up::default();
        if !received.is_empty() {
            // The handshake reads less at a time than a large buffer holds.
            let (buffer, length) = Buffer::holding(&received);
            up = Up { buffer: Some(buffer), filled: length, ..up };
        }
        Self {
            client,
            backend,
            session,
            up,
            down: Down::default(),
            control: Vec::new(),
            unsent,
            first_ended: None,
            moved: Moved::default(),
        }
    }

    /// One direction: ready when it has ended.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        for _ in 0..TURNS {
            if !self.up.plaintext.is_empty() {
                ready!(self.poll_write_backend(cx));
                continue;
            }
            if self.up.ended {
                self.up.release();
                if !self.up.shut {
                    self.up.shut = true;
                    // A backend that is gone already needs no telling.
                    let _ = self.backend.shutdown_write();
                }
                return self.ignore_rest(cx).map(Ok);
            }
            if self.open_records()? {
                continue;
            }
            ready!(self.poll_read_client(cx))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Opens what is whole. False if nothing came of it and more must be read first.
    fn open_records(&mut self) -> Result<bool, End> {
        let Self { session, up, down, control, .. } = self;
        // One answer serves all requests that came before it is sent (RFC 8446 section 4.6.3), so that a client that
        // asks and never reads piles nothing up. Behind a close_notify nothing may be sent at all.
        let may_answer = |control: &[u8]| control.is_empty() && !down.ended;
        let Some(buffer) = up.buffer.as_mut() else { return Ok(false) };
        let before = up.opened;
        while up.plaintext.len() < PIECES && !up.ended {
            let sealed = buffer.get_mut(up.opened..up.filled).unwrap_or_default();
            let opened = match session.open(sealed) {
                Ok(opened) => opened,
                Err(error) => return Err(self.protest(error)),
            };
            match opened {
                Opened::Incomplete(_) => break,
                Opened::Data { consumed, .. } if up.refused.is_some() => up.opened += consumed,
                Opened::Data { consumed, plaintext } => {
                    up.plaintext.push_back(up.opened + plaintext.start..up.opened + plaintext.end);
                    up.opened += consumed;
                }
                Opened::Nothing { consumed } => up.opened += consumed,
                Opened::KeyUpdateRequested { consumed } => {
                    up.opened += consumed;
                    if may_answer(control) {
                        session.update_key(control).map_err(|_| End::because(CloseReason::TlsError, "keys"))?;
                    }
                }
                Opened::Renegotiation { consumed } => {
                    up.opened += consumed;
                    if may_answer(control) {
                        session.no_renegotiation(control).map_err(|_| End::because(CloseReason::TlsError, "keys"))?;
                    }
                }
                Opened::Closed { consumed } => {
                    up.opened += consumed;
                    (up.ended, up.rest) = (true, Rest::None);
                    self.first_ended.get_or_insert(Side::Client);
                }
                Opened::Alert(alert) => {
                    return Err(End::because(CloseReason::ClientReset, format!("alert {alert}")));
                }
            }
        }
        Ok(up.opened > before)
    }

    /// What comes behind a close_notify is ignored (RFC 8446 section 6.1). It is read all the same, to the end of the stream
    /// if there is any: closing a socket with unread bytes is a reset, and could overtake what was sent.
    fn ignore_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut sink = [0; 4096];
        for _ in 0..TURNS {
            let mut space = ReadBuf::new(&mut sink);
            match self.up.rest {
                Rest::Ended => return Poll::Ready(()),
                rest => match Pin::new(&mut self.client).poll_read(cx, &mut space) {
                    Poll::Pending if rest == Rest::Ignored => return Poll::Pending,
                    Poll::Pending => return Poll::Ready(()),
                    Poll::Ready(Ok(())) if !space.filled().is_empty() => self.up.rest = Rest::Ignored,
                    // An error concerns what is still to be sent, and comes up there.
                    Poll::Ready(_) => self.up.rest = Rest::Ended,
                },
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_write_backend(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { backend, up, moved, .. } = self;
        let Some(buffer) = up.buffer.as_ref() else { return Poll::Ready(()) };
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let mut count = 0;
        for (piece, range) in pieces.iter_mut().zip(&up.plaintext) {
            *piece = IoSlice::new(buffer.get(range.clone()).unwrap_or_default());
            count += 1;
        }
        let written = loop {
            let written = match pieces.get(..count).unwrap_or_default() {
                [piece] => backend.try_write(piece),
                pieces => backend.try_write_vectored(pieces),
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = ready!(backend.poll_write_ready(cx)) {
                        break Err(error);
                    }
                }
                written => break written,
            }
        };
        let mut written = match written {
            Ok(written) => written,
            Err(error) => {
                self.refused(error);
                return Poll::Ready(());
            }
        };
        moved.to_backend += u64::try_from(written).unwrap_or(u64::MAX);
        while let Some(range) = up.plaintext.front_mut() {
            let taken = written.min(range.len());
            range.start += taken;
            written -= taken;
            if range.start < range.end {
                break;
            }
            up.plaintext.pop_front();
        }
        Poll::Ready(())
    }

    fn refused(&mut self, error: io::Error) {
        self.up.plaintext.clear();
        self.up.refused = Some(error);
        self.first_ended.get_or_insert(Side::Backend);
    }

    fn poll_read_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        self.up.compact();
        // Without bytes in hand no buffer is held while waiting.
        if self.up.buffer.is_none() {
            ready!(self.client.poll_read_ready(cx)).map_err(client_broke)?;
        }
        let Self { client, session, up, .. } = self;
        let size = if up.busy { Size::Large } else { Size::Small };
        let buffer = up.buffer.get_or_insert_with(|| Buffer::take(size));
        let mut space = ReadBuf::new(buffer.get_mut(up.filled..).unwrap_or_default());
        let room = space.remaining();
        match Pin::new(client).poll_read(cx, &mut space) {
            Poll::Pending => {
                if up.filled == 0 {
                    up.buffer = None;
                }
                Poll::Pending
            }
            // It has read our close_notify and is gone; a client that leaves session tickets unread resets.
            Poll::Ready(Err(_)) if self.down.shut => {
                up.ended = true;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(client_broke(error))),
            Poll::Ready(Ok(())) => {
                let length = space.filled().len();
                if length == 0 {
                    if let Some(detail) = cut_short(up.filled > 0, session.is_inside_message()) {
                        return Poll::Ready(Err(End::because(CloseReason::ClientReset, detail)));
                    }
                    // No close_notify came first. Many clients end so; what they sent is passed on whole, and
                    // what is still on its way to them too.
                    up.ended = true;
                    self.first_ended.get_or_insert(Side::Client);
                } else {
                    up.filled += length;
                    up.busy = length == room || length > PLAINTEXT_MAX;
                }
                Poll::Ready(Ok(()))
            }
        }
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        for _ in 0..TURNS {
            if !self.down.sealed.is_empty() || !self.control.is_empty() {
                ready!(self.poll_write_client(cx))?;
                continue;
            }
            if self.down.shut {
                return Poll::Ready(Ok(()));
            }
            if self.down.ended {
                self.down.shut = true;
                // The client's own end can have been the last thing it did.
                let _ = SockRef::from(&self.client).shutdown(Shutdown::Write);
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_read_backend(cx))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_write_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        loop {
            match self.send() {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.client.poll_write_ready(cx)).map_err(client_broke)?;
                }
                // Both sides have said all they had to say; only our close_notify was not wanted any more.
                Err(_) if self.down.ended && self.down.sealed.is_empty() && self.up.ended => {
                    self.control.clear();
                    return Poll::Ready(Ok(()));
                }
                Err(error) => return Poll::Ready(Err(client_broke(error))),
            }
        }
    }

    /// Sends what is sealed, as far as the client takes it at once.
    fn send(&mut self) -> io::Result<()> {
        let Self { client, session, down, control, unsent, moved, .. } = self;
        let sealed = down.buffer.as_ref().and_then(|buffer| buffer.get(down.sealed.clone())).unwrap_or_default();
        let mut written = if unsent.is_empty() && control.is_empty() {
            client.try_write(sealed)?
        } else {
            client.try_write_vectored(&[IoSlice::new(unsent), IoSlice::new(sealed), IoSlice::new(control)])?
        };
        if !unsent.is_empty() {
            let taken = written.min(unsent.len());
            unsent.drain(..taken);
            written -= taken;
            if unsent.is_empty() {
                *unsent = Vec::new();
            }
        }
        let taken = written.min(down.sealed.len());
        let before = down.payload_before(session);
        down.sealed.start += taken;
        moved.to_client += u64::try_from(down.payload_before(session) - before).unwrap_or_default();
        written -= taken;
        control.drain(..written.min(control.len()));
        if down.sealed.is_empty() {
            down.buffer = None;
        }
        if control.is_empty() {
            *control = Vec::new();
        }
        Ok(())
    }

    fn poll_read_backend(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        ready!(self.backend.poll_read_ready(cx)).map_err(backend_broke)?;
        if self.session.is_worn(Size::Large.records()) {
            // The KeyUpdate goes out before anything is sealed under the key that it announces.
            return Poll::Ready(self.session.update_key(&mut self.control).map_err(|error| {
                self.give_up(Alert::INTERNAL_ERROR);
                exhausted(error)
            }));
        }
        let Self { backend, session, down, control, .. } = self;
        let mut buffer = Buffer::take(if down.busy { Size::Large } else { Size::Small });
        let (before, behind) = (session.before(), session.behind());
        let stride = before + PLAINTEXT_MAX + behind;
        let length = match buffer.size() {
            Size::Small => {
                let payload = buffer.get_mut(before..before + PLAINTEXT_MAX).unwrap_or_default();
                let mut space = ReadBuf::new(payload);
                // Unlike a plain read this one lets tokio conclude from a short read that nothing more is there.
                ready!(backend.poll_read(cx, &mut space)).map(|()| space.filled().len())
            }
            Size::Large => {
                // Each record's payload is read to where it will be sealed.
                let mut pieces = [const { None }; Size::Large.records()];
                for (piece, record) in pieces.iter_mut().zip(buffer.chunks_exact_mut(stride)) {
                    *piece = record.get_mut(before..before + PLAINTEXT_MAX).map(IoSliceMut::new);
                }
                let mut pieces: Vec<IoSliceMut<'_>> = pieces.into_iter().flatten().collect();
                match backend.try_read_vectored(&mut pieces) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        down.busy = false;
                        return Poll::Ready(Ok(()));
                    }
                    length => length,
                }
            }
        };
        let length = match length {
            Ok(length) => length,
            Err(error) => {
                // No close_notify: the client can tell that there was more to come (RFC 8446 section 6.1).
                down.ended = true;
                self.refused(error);
                // The other direction may be waiting for a backend that is no more.
                cx.waker().wake_by_ref();
                return Poll::Ready(Ok(()));
            }
        };
        down.busy = length >= PLAINTEXT_MAX;
        if length == 0 {
            down.ended = true;
            session.close_notify(control).map_err(exhausted)?;
            self.first_ended.get_or_insert(Side::Backend);
            return Poll::Ready(Ok(()));
        }
        let (mut left, mut end) = (length, 0);
        while left > 0 {
            let payload = left.min(PLAINTEXT_MAX);
            let record = end..end + before + payload + behind;
            end = record.end;
            left -= payload;
            session.seal_data(buffer.get_mut(record).unwrap_or_default()).map_err(exhausted)?;
        }
        down.sealed = 0..end;
        down.payload = length;
        down.buffer = Some(buffer);
        Poll::Ready(Ok(()))
    }

    /// Tells the client what it did wrong.
    fn protest(&mut self, error: RecordError) -> End {
        self.give_up(error.0);
        End::because(CloseReason::TlsError, error)
    }

    /// Ends with a fatal alert.
    fn give_up(&mut self, alert: Alert) {
        // Behind a close_notify nothing may be sent.
        if !self.down.ended {
            let _ = self.session.fatal(alert, &mut self.control);
        }
        self.hang_up();
    }

    /// Sends what is sealed, as far as the client takes it at once, and ends. What the client has sent meanwhile is taken
    /// off the socket: closing one with unread bytes is a reset, and could overtake what was sent.
    fn hang_up(&mut self) {
        if !self.down.shut && self.send().is_ok() {
            let _ = SockRef::from(&self.client).shutdown(Shutdown::Write);
        }
        let mut sink = [0; 4096];
        for _ in 0..TURNS {
            if !matches!(self.client.try_read(&mut sink), Ok(1..)) {
                break;
            }
        }
    }
}

impl Down {
    /// How much of the payload stands in records, or parts of them, that the client has taken.
    fn payload_before(&self, session: &Session) -> usize {
        let (before, sealed) = (session.before(), self.sealed.start);
        let stride = before + PLAINTEXT_MAX + session.behind();
        let payload = sealed / stride * PLAINTEXT_MAX + (sealed % stride).saturating_sub(before).min(PLAINTEXT_MAX);
        payload.min(self.payload)
    }
}

impl Up {
    /// Gives everything back that only bytes on the move need.
    fn release(&mut self) {
        self.buffer = None;
        self.plaintext = VecDeque::new();
    }

    /// Makes room behind what is still sealed, and gives the buffer back if that is nothing.
    fn compact(&mut self) {
        let rest = self.opened..self.filled;
        let length = rest.len();
        if length == 0 {
            self.release();
        } else if let Some(buffer) = &mut self.buffer {
            // What is left is less than a record, and fits either size: a client that stops there holds a small one.
            let size = if self.busy { Size::Large } else { Size::Small };
            if buffer.size() != size {
                let mut other = Buffer::take(size);
                for (slot, byte) in other.iter_mut().zip(buffer.get(rest).unwrap_or_default()) {
                    *slot = *byte;
                }
                *buffer = other;
            } else if rest.start > 0 {
                buffer.copy_within(rest, 0);
            }
        }
        (self.opened, self.filled) = (0, length);
    }
}

fn exhausted(_: Exhausted) -> End {
    End::because(CloseReason::TlsError, "the cipher suite's record limit is reached")
}

fn backend_broke(error: io::Error) -> End {
    End::because(CloseReason::BackendReset, error)
}

impl Engine for TlsCopy {
    const PATH: Path = Path::Copy;

    fn poll_move(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let up = self.poll_up(cx);
        // If that is an error, the client has been told, and nothing may follow.
        let down = if matches!(up, Poll::Ready(Err(_))) { Poll::Pending } else { self.poll_down(cx) };
        let end = ready!(End::of(up, down, self.first_ended, &mut self.up.refused));
        if matches!(end.reason, CloseReason::ClientReset | CloseReason::TlsError) {
            self.backend.reset_on_close();
        }
        Poll::Ready(end)
    }

    fn moved(&self) -> Moved {
        self.moved
    }

    fn is_half_closed(&self) -> bool {
        self.first_ended.is_some()
    }

    fn backend(&self) -> &Stream {
        &self.backend
    }

    fn cut(&mut self) {
        // close_notify says that nothing follows; that is true only if nothing was left half sent.
        if self.down.sealed.is_empty() {
            if !self.down.ended {
                let _ = self.session.close_notify(&mut self.control);
            }
            self.hang_up();
        }
        // The client has not said that it was done, so the backend is not told so.
        if !self.up.ended {
            self.backend.reset_on_close();
        }
    }

    fn withhold(&self) {
        reset_on_close_beyond(&self.client, ON_ITS_WAY);
    }
}

#[cfg(test)]
mod tests;
