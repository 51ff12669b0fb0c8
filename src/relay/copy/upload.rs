//! From the client to the backend: records are opened in place and their plaintext is written from the same buffer.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::{Backend, TlsCopy, key_limit_reached};
use crate::model::close::CloseReason;
use crate::model::rejection::Side;
use crate::relay::buffers::{Buffer, Size};
use crate::relay::{AfterCloseNotify, End, ROUNDS_MAX, client_reset, truncation};
use crate::tls::record::{Opened, PLAINTEXT_MAX};

/// The most slices written by one system call: the number of full records in a large buffer.
const SLICES_MAX: usize = Size::Large.records();

/// From the client to the backend.
#[derive(Debug, Default)]
pub(super) struct Upload {
    pub(super) buffer: Option<Buffer>,
    /// `buffer[..filled]` was received, `buffer[opened..filled]` is still sealed.
    pub(super) filled: usize,
    pub(super) opened: usize,
    /// Plaintext in `buffer[..opened]` that has not been written to the backend.
    pub(super) plaintext: VecDeque<Range<usize>>,
    /// The last read filled the buffer, so the next one uses a large buffer.
    pub(super) want_large: bool,
    pub(super) ended: bool,
    pub(super) shut: bool,
    /// The client has ended by a close_notify: nothing that it sent is missing.
    pub(super) complete: bool,
    pub(super) after_close_notify: AfterCloseNotify,
    /// The error of the backend that accepts nothing more. What it has sent is still delivered. Until the client ends, its
    /// bytes are read and discarded: closing a socket with unread bytes causes a reset (RFC 1122 section 4.2.2.13), which
    /// could overtake the backend's last bytes.
    pub(super) write_error: Option<io::Error>,
}

impl<B: Backend> TlsCopy<B> {
    /// Ready when this direction has ended.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        for _ in 0..ROUNDS_MAX {
            if !self.up.plaintext.is_empty() {
                ready!(self.poll_write_backend(cx));
                continue;
            }
            if self.up.ended {
                self.up.release();
                if !self.up.shut {
                    // Fails only if the backend is already gone.
                    let _ = ready!(self.backend.poll_end(cx, self.up.complete));
                    self.up.shut = true;
                }
                return self.poll_after_close_notify(cx).map(Ok);
            }
            if self.open_records()? {
                continue;
            }
            // Nothing more is taken from the client while the backend has not been sent what was taken before.
            if self.up.write_error.is_none()
                && let Err(error) = ready!(self.backend.poll_flush(cx))
            {
                self.backend_failed(error);
                continue;
            }
            ready!(self.poll_read_client(cx))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Opens complete records. False if there was none and more must be read.
    fn open_records(&mut self) -> Result<bool, End> {
        let Self { session, up, down, control, .. } = self;
        // One answer serves all requests received before it is sent (RFC 8446 section 4.6.3), so answers to a client that
        // never reads do not accumulate. Nothing may be sent after a close_notify.
        let may_answer = |control: &[u8]| control.is_empty() && !down.ended;
        let Some(buffer) = up.buffer.as_mut() else { return Ok(false) };
        let before = up.opened;
        while up.plaintext.len() < SLICES_MAX && !up.ended {
            let sealed = buffer.get_mut(up.opened..up.filled).unwrap_or_default();
            let opened = match session.open(sealed) {
                Ok(opened) => opened,
                Err(error) => return Err(self.reject(error)),
            };
            match opened {
                Opened::Incomplete(_) => break,
                Opened::Data { consumed, .. } if up.write_error.is_some() => up.opened += consumed,
                Opened::Data { consumed, plaintext } => {
                    up.plaintext.push_back(up.opened + plaintext.start..up.opened + plaintext.end);
                    up.opened += consumed;
                }
                Opened::Nothing { consumed } => up.opened += consumed,
                Opened::KeyUpdateRequested { consumed } => {
                    up.opened += consumed;
                    if may_answer(control) {
                        session.update_key(control).map_err(key_limit_reached)?;
                    }
                }
                Opened::Renegotiation { consumed } => {
                    up.opened += consumed;
                    if may_answer(control) {
                        session.no_renegotiation(control).map_err(key_limit_reached)?;
                    }
                }
                Opened::Closed { consumed } => {
                    up.opened += consumed;
                    (up.ended, up.complete, up.after_close_notify) = (true, true, AfterCloseNotify::Nothing);
                    self.first_ended.get_or_insert(Side::Client);
                }
                Opened::Alert(alert) => {
                    return Err(End::because(CloseReason::ClientReset, format!("alert {alert}")));
                }
            }
        }
        Ok(up.opened > before)
    }

    /// Reads and ignores what follows a close_notify (RFC 8446 section 6.1), because closing a socket with unread bytes
    /// causes a reset, which could overtake what was sent.
    fn poll_after_close_notify(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut sink = [0; 4096];
        for _ in 0..ROUNDS_MAX {
            let mut space = ReadBuf::new(&mut sink);
            match self.up.after_close_notify {
                AfterCloseNotify::EndOfStream => return Poll::Ready(()),
                rest => match Pin::new(&mut self.client).poll_read(cx, &mut space) {
                    Poll::Pending if rest == AfterCloseNotify::Ignored => return Poll::Pending,
                    Poll::Pending => return Poll::Ready(()),
                    Poll::Ready(Ok(())) if !space.filled().is_empty() => {
                        self.up.after_close_notify = AfterCloseNotify::Ignored
                    }
                    // A write error is reported by the other direction.
                    Poll::Ready(_) => self.up.after_close_notify = AfterCloseNotify::EndOfStream,
                },
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_write_backend(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { backend, up, moved, .. } = self;
        let Some(buffer) = up.buffer.as_ref() else { return Poll::Ready(()) };
        let mut pieces = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (piece, range) in pieces.iter_mut().zip(&up.plaintext) {
            *piece = IoSlice::new(buffer.get(range.clone()).unwrap_or_default());
            count += 1;
        }
        let mut written = match ready!(backend.poll_write(cx, pieces.get(..count).unwrap_or_default())) {
            Ok(written) => written,
            Err(error) => {
                self.backend_failed(error);
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

    pub(super) fn backend_failed(&mut self, error: io::Error) {
        self.up.plaintext.clear();
        self.up.write_error = Some(error);
        self.first_ended.get_or_insert(Side::Backend);
    }

    fn poll_read_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        self.up.compact();
        // No buffer is held while waiting for data.
        if self.up.buffer.is_none() {
            ready!(self.client.poll_read_ready(cx)).map_err(client_reset)?;
        }
        let Self { client, session, up, .. } = self;
        let size = if up.want_large { Size::Large } else { Size::Small };
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
            // The client closed after our close_notify; unread session tickets turn that into a reset.
            Poll::Ready(Err(_)) if self.down.shut => {
                up.ended = true;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(client_reset(error))),
            Poll::Ready(Ok(())) => {
                let length = space.filled().len();
                if length == 0 {
                    if let Some(detail) = truncation(up.filled > 0, session.is_inside_message()) {
                        return Poll::Ready(Err(End::because(CloseReason::ClientReset, detail)));
                    }
                    // The stream ended without a close_notify, as many clients do. What they sent is forwarded, and what
                    // is still to be sent to them is sent.
                    up.ended = true;
                    self.first_ended.get_or_insert(Side::Client);
                } else {
                    up.filled += length;
                    up.want_large = length == room || length > PLAINTEXT_MAX;
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl Upload {
    /// Frees everything that an idle connection does not need.
    fn release(&mut self) {
        self.buffer = None;
        self.plaintext = VecDeque::new();
    }

    /// Moves the incomplete record to the start of the buffer, or frees the buffer if there is none.
    fn compact(&mut self) {
        let rest = self.opened..self.filled;
        let length = rest.len();
        if length == 0 {
            self.release();
        } else if let Some(buffer) = &mut self.buffer {
            // Less than a record is left, which fits a small buffer: a client that stops here holds no large one.
            let size = if self.want_large { Size::Large } else { Size::Small };
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
