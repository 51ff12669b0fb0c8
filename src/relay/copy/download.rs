//! From the backend to the client: payload is read to where it is sealed in place, and sent from there.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::ReadBuf;

use super::{Backend, TlsCopy, key_limit_reached};
use crate::model::close::CloseReason;
use crate::model::rejection::{Alert, Side};
use crate::relay::buffers::{Buffer, Size};
use crate::relay::has_taken_a_reset;
use crate::relay::{End, ROUNDS_MAX, client_reset};
use crate::sys::socket::try_write_before_shutdown;
use crate::tls::record::{PLAINTEXT_MAX, Session};

/// From the backend to the client.
#[derive(Debug, Default)]
pub(super) struct Download {
    pub(super) buffer: Option<Buffer>,
    /// Sealed records in `buffer` that have not been sent.
    pub(super) sealed: Range<usize>,
    /// How many bytes of payload were sealed into `buffer`.
    pub(super) payload: usize,
    /// The last read filled a record, so the next one uses a large buffer.
    pub(super) want_large: bool,
    pub(super) ended: bool,
    pub(super) shut: bool,
    /// The backend has ended without the close_notify that TLS demands.
    pub(super) truncated: bool,
}

impl<B: Backend> TlsCopy<B> {
    pub(super) fn poll_download(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        for _ in 0..ROUNDS_MAX {
            if !self.down.sealed.is_empty() || !self.control.is_empty() {
                ready!(self.poll_write_client(cx))?;
                continue;
            }
            if self.down.shut {
                return Poll::Ready(Ok(()));
            }
            if self.down.ended {
                self.down.shut = true;
                // Fails only if the client is already gone.
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
            // Once the backend has ended, the end of our stream is all that follows.
            match self.send(self.down.ended) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.client.poll_write_ready(cx)).map_err(client_reset)?;
                }
                // Both sides have ended, and the client has closed before our close_notify.
                Err(_) if self.down.ended && self.down.sealed.is_empty() && self.up.ended => {
                    self.control.clear();
                    return Poll::Ready(Ok(()));
                }
                Err(error) => return Poll::Ready(Err(client_reset(error))),
            }
        }
    }

    /// Sends what is sealed, as much as the socket accepts at once. `last` if a shutdown follows.
    pub(super) fn send(&mut self, last: bool) -> io::Result<()> {
        let Self { client, session, down, control, unsent, moved, .. } = self;
        let sealed = down.buffer.as_ref().and_then(|buffer| buffer.get(down.sealed.clone())).unwrap_or_default();
        let buffers = [IoSlice::new(unsent), IoSlice::new(sealed), IoSlice::new(control)];
        let mut written = if last {
            try_write_before_shutdown(client, &buffers)?
        } else if unsent.is_empty() && control.is_empty() {
            client.try_write(sealed)?
        } else {
            client.try_write_vectored(&buffers)?
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
        let before = down.payload_sent(session);
        down.sealed.start += taken;
        moved.to_client += u64::try_from(down.payload_sent(session) - before).unwrap_or_default();
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
        ready!(self.backend.poll_read_ready(cx)).map_err(backend_reset)?;
        if self.session.is_near_limit(Size::Large.records()) {
            // The KeyUpdate is sent before anything is sealed under the new key.
            return Poll::Ready(self.session.update_key(&mut self.control).map_err(|error| {
                self.send_fatal_alert(Alert::INTERNAL_ERROR);
                key_limit_reached(error)
            }));
        }
        let Self { backend, session, up, down, control, .. } = self;
        let mut buffer = Buffer::take(if down.want_large { Size::Large } else { Size::Small });
        let (prefix, suffix) = (session.prefix_length(), session.suffix_length());
        let stride = prefix + PLAINTEXT_MAX + suffix;
        let length = match buffer.size() {
            Size::Small => {
                let payload = buffer.get_mut(prefix..prefix + PLAINTEXT_MAX).unwrap_or_default();
                let mut space = ReadBuf::new(payload);
                // Unlike `try_read`, tokio's `poll_read` takes a short read as the end of the readable data.
                ready!(backend.poll_read(cx, &mut space)).map(|()| space.filled().len())
            }
            Size::Large => {
                // The payload of each record is read to where it is sealed.
                let mut pieces = [const { None }; Size::Large.records()];
                for (piece, record) in pieces.iter_mut().zip(buffer.chunks_exact_mut(stride)) {
                    *piece = record.get_mut(prefix..prefix + PLAINTEXT_MAX).map(IoSliceMut::new);
                }
                let mut pieces: Vec<IoSliceMut<'_>> = pieces.into_iter().flatten().collect();
                let Poll::Ready(length) = backend.poll_read_vectored(cx, &mut pieces) else {
                    down.want_large = false;
                    return Poll::Ready(Ok(()));
                };
                length
            }
        };
        let length = match length {
            Ok(length) => length,
            // Without a close_notify it is not known whether this was all: an attacker between the gate and the backend can end a TCP
            // stream, and an answer in HTTP/1.0 ends with it. Many servers end like that all the same. So the client is told what
            // the gate knows: its stream ends without a close_notify as well, and its program decides as it would without the gate.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                (down.ended, down.truncated) = (true, true);
                self.first_ended.get_or_insert(Side::Backend);
                return Poll::Ready(Ok(()));
            }
            Err(error) => {
                // No close_notify, so that the client sees a truncation (RFC 8446 section 6.1).
                down.ended = true;
                self.backend_failed(error);
                // The other direction may be waiting for this backend.
                cx.waker().wake_by_ref();
                return Poll::Ready(Ok(()));
            }
        };
        down.want_large = length >= PLAINTEXT_MAX;
        if length == 0 {
            down.ended = true;
            if !has_taken_a_reset(up.write_error.as_ref()) {
                session.close_notify(control).map_err(key_limit_reached)?;
            }
            self.first_ended.get_or_insert(Side::Backend);
            return Poll::Ready(Ok(()));
        }
        let (mut left, mut end) = (length, 0);
        while left > 0 {
            let payload = left.min(PLAINTEXT_MAX);
            let record = end..end + prefix + payload + suffix;
            end = record.end;
            left -= payload;
            session.seal_data(buffer.get_mut(record).unwrap_or_default()).map_err(key_limit_reached)?;
        }
        down.sealed = 0..end;
        down.payload = length;
        down.buffer = Some(buffer);
        Poll::Ready(Ok(()))
    }
}

impl Download {
    /// How many bytes of payload are in the records, or parts of records, that have been sent.
    fn payload_sent(&self, session: &Session) -> usize {
        let (prefix, sealed) = (session.prefix_length(), self.sealed.start);
        let stride = prefix + PLAINTEXT_MAX + session.suffix_length();
        let payload = sealed / stride * PLAINTEXT_MAX + (sealed % stride).saturating_sub(prefix).min(PLAINTEXT_MAX);
        payload.min(self.payload)
    }
}

fn backend_reset(error: io::Error) -> End {
    End::because(CloseReason::BackendReset, error)
}
