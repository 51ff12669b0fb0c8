//! From the client to the backend: data is spliced out of the client's socket, other records are read by `recvmsg`.

use std::io;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;

use super::{AfterCloseNotify, BATCH_RECORDS, FILL_MAX, KernelTls, MESSAGE_MAX, client_reset, set_key, truncation};
use crate::model::close::CloseReason;
use crate::model::rejection::{Alert, Side};
use crate::relay::pipes::{return_pipe, take_pipe};
use crate::relay::{End, ROUNDS_MAX};
use crate::sys::ktls::{self, Direction, Received};
use crate::tls::record::{Inbound, PLAINTEXT_MAX, RecordError, content};

impl KernelTls {
    /// Ready when this direction has ended.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if self.socket_error.as_mut().is_some_and(|socket_error| socket_error.0.as_mut().poll(cx).is_ready()) {
            self.socket_error = None;
            self.check_socket_error()?;
        }
        for _ in 0..ROUNDS_MAX {
            if self.up.flushing {
                ready!(self.poll_flush(cx));
                continue;
            }
            if self.up.ended {
                if self.up.batched > 0 {
                    self.up.flushing = true;
                    continue;
                }
                return_pipe(&mut self.up.pipe);
                if !self.up.shut {
                    self.up.shut = true;
                    // Fails only if the backend is already gone.
                    let _ = self.backend.shutdown_write();
                }
                return self.poll_after_close_notify(cx).map(Ok);
            }
            if self.up.pipe.is_none() {
                // No pipe is held while waiting for data.
                ready!(self.client.poll_read_ready(cx)).map_err(client_reset)?;
                if self.up.write_error.is_some() {
                    self.discard_record()?;
                    continue;
                }
                self.up.pipe = Some(take_pipe());
            }
            self.take_record()?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads and ignores what follows a close_notify (RFC 8446 section 6.1), because closing a socket with unread bytes
    /// causes a reset, which could overtake what was sent.
    fn poll_after_close_notify(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut sink = [0; MESSAGE_MAX];
        for _ in 0..ROUNDS_MAX {
            match self.up.after_close_notify {
                AfterCloseNotify::EndOfStream => return Poll::Ready(()),
                rest if self.client.poll_read_ready(cx).is_pending() => {
                    return if rest == AfterCloseNotify::Ignored { Poll::Pending } else { Poll::Ready(()) };
                }
                _ => {}
            }
            let client = &self.client;
            match client.try_io(Interest::READABLE, || ktls::receive_record(client, &mut sink, false)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(Received { content_type: Some(_), .. }) => self.up.after_close_notify = AfterCloseNotify::Ignored,
                // Bytes that are no record cannot be read. A write error is reported by the other direction.
                _ => self.up.after_close_notify = AfterCloseNotify::EndOfStream,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Splices one record into the pipe.
    fn take_record(&mut self) -> Result<(), End> {
        let Self { client, up, .. } = self;
        let Some(pipe) = up.pipe.as_mut() else { return Ok(()) };
        let taken = client.try_io(Interest::READABLE, || match pipe.fill(&**client, FILL_MAX) {
            // `WouldBlock` can also mean that the pipe is full; it concerns the socket only if the pipe is empty.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !pipe.is_empty() => Ok(None),
            result => result.map(Some),
        });
        match taken {
            Ok(None) => up.flushing = true,
            Ok(Some(0)) => self.handle_zero_splice()?,
            Ok(Some(length)) => {
                up.batched += 1;
                up.flushing = length < PLAINTEXT_MAX || up.batched == BATCH_RECORDS;
                self.count_data()?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if up.batched > 0 {
                    up.flushing = true;
                } else {
                    return_pipe(&mut up.pipe);
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.take_message()?,
            Err(error) => self.read_failed(error)?,
        }
        Ok(())
    }

    /// `splice` returned 0: the end of the stream, or an empty record.
    fn handle_zero_splice(&mut self) -> Result<(), End> {
        match ktls::receive_record(&self.client, &mut [0; 16], true) {
            Ok(Received { content_type: None, length: 0, .. }) => self.end_of_stream(),
            Ok(Received { content_type: Some(kind), .. }) if kind != content::APPLICATION_DATA => {
                self.empty_record()?;
                self.take_message()
            }
            Ok(_) => self.empty_record(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.empty_record(),
            Err(error) => self.read_failed(error),
        }
    }

    /// The socket has an error, which may concern reading or writing.
    fn check_socket_error(&mut self) -> Result<(), End> {
        match ktls::receive_record(&self.client, &mut [0; 16], true) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock && !self.up.ended => self.read_failed(error),
            // Records are read by the usual path.
            _ => Ok(()),
        }
    }

    fn count_data(&mut self) -> Result<(), End> {
        self.inbound.accept_data().map_err(|error| self.reject(error))
    }

    fn empty_record(&mut self) -> Result<(), End> {
        match self.inbound.accept(content::APPLICATION_DATA, &[]) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.reject(error)),
        }
    }

    /// The stream ended without a close_notify, as many clients do. What they sent is forwarded, and what is still to be
    /// sent to them is sent.
    fn end_of_stream(&mut self) -> Result<(), End> {
        let inside_record = rustix::io::ioctl_fionread(&self.client).is_ok_and(|left| left > 0);
        if let Some(detail) = truncation(inside_record, self.inbound.is_inside_message()) {
            return Err(End::because(CloseReason::ClientReset, detail));
        }
        self.up.ended = true;
        self.first_ended.get_or_insert(Side::Client);
        Ok(())
    }

    /// Reads a record that is not data, up to [`MESSAGE_MAX`] bytes of it.
    fn take_message(&mut self) -> Result<(), End> {
        let mut message = [0; MESSAGE_MAX];
        match ktls::receive_record(&self.client, &mut message, false) {
            Ok(Received { content_type: Some(kind), length, .. }) if kind != content::APPLICATION_DATA => {
                self.handle_message(kind, message.get(..length).unwrap_or_default())
            }
            Ok(_) => Err(self.reject(RecordError(Alert::UNEXPECTED_MESSAGE))),
            // The bytes are no record.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(self.reject(RecordError(Alert::DECODE_ERROR)))
            }
            Err(error) => self.read_failed(error),
        }
    }

    /// Reads a part of a record of any type and discards its data: the backend accepts nothing more.
    fn discard_record(&mut self) -> Result<(), End> {
        let mut message = [0; MESSAGE_MAX];
        let client = &self.client;
        let received = client.try_io(Interest::READABLE, || ktls::receive_record(client, &mut message, false));
        match received {
            Ok(Received { content_type: None, .. }) => self.end_of_stream(),
            Ok(Received { content_type: Some(content::APPLICATION_DATA), length: 0, .. }) => self.empty_record(),
            Ok(Received { content_type: Some(content::APPLICATION_DATA), .. }) => self.count_data(),
            Ok(Received { content_type: Some(kind), length, .. }) => {
                self.handle_message(kind, message.get(..length).unwrap_or_default())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => self.read_failed(error),
        }
    }

    /// Acts on a record that is not data.
    fn handle_message(&mut self, kind: u8, message: &[u8]) -> Result<(), End> {
        match self.inbound.accept(kind, message) {
            Ok(Inbound::Data | Inbound::Nothing) => Ok(()),
            Ok(Inbound::KeyUpdate { requested }) => {
                let Some(schedule) = self.schedule.as_mut() else {
                    // Records after this one cannot be opened.
                    self.send_fatal_alert(Alert::INTERNAL_ERROR);
                    let detail = "the client changed its key, which the kernel supports from Linux 6.14 on";
                    return Err(End::because(CloseReason::TlsError, detail));
                };
                let secret = schedule.next_to_receive().map_err(|error| End::because(CloseReason::Internal, error))?;
                set_key(&self.client, Direction::Receive, self.sealed.version, &secret)
                    .map_err(|error| End::because(CloseReason::Internal, error))?;
                // One answer serves all requests received before it is sent (RFC 8446 section 4.6.3).
                self.down.key_update_due |= requested;
                Ok(())
            }
            Ok(Inbound::Renegotiation) => {
                self.down.no_renegotiation_due = true;
                Ok(())
            }
            Ok(Inbound::Closed) => {
                (self.up.ended, self.up.after_close_notify) = (true, AfterCloseNotify::Nothing);
                self.first_ended.get_or_insert(Side::Client);
                Ok(())
            }
            Ok(Inbound::Alert(alert)) => Err(End::because(CloseReason::ClientReset, format!("alert {alert}"))),
            Err(error) => Err(self.reject(error)),
        }
    }

    /// Reading from the client's socket failed.
    fn read_failed(&mut self, error: io::Error) -> Result<(), End> {
        if error.raw_os_error() == Some(libc::EKEYEXPIRED) && self.inbound.is_inside_message() {
            // From the first byte of a KeyUpdate on, Linux opens no record before it has a new key, not even the next
            // fragment.
            self.send_fatal_alert(Alert::INTERNAL_ERROR);
            let detail = "the client sent a KeyUpdate in several records, which Linux does not support";
            return Err(End::because(CloseReason::TlsError, detail));
        }
        let alert = match error.raw_os_error() {
            Some(libc::EBADMSG) => Alert(20),
            Some(libc::EMSGSIZE) => Alert(22),
            Some(libc::EINVAL | libc::EIO | libc::EKEYEXPIRED) => Alert::UNEXPECTED_MESSAGE,
            // The client closed after our close_notify; unread session tickets turn that into a reset.
            _ if self.down.shut => {
                self.up.ended = true;
                return Ok(());
            }
            _ => return Err(client_reset(error)),
        };
        Err(self.reject(RecordError(alert)))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { backend, up, moved, .. } = self;
        let Some(pipe) = up.pipe.as_mut().filter(|pipe| !pipe.is_empty()) else {
            (up.flushing, up.batched) = (false, 0);
            return Poll::Ready(());
        };
        let error = match backend.try_io(Interest::WRITABLE, || pipe.empty(&*backend)) {
            Ok(length) => {
                moved.to_backend += u64::try_from(length).unwrap_or(u64::MAX);
                return Poll::Ready(());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => match ready!(backend.poll_write_ready(cx)) {
                Ok(()) => return Poll::Ready(()),
                Err(error) => error,
            },
            Err(error) => error,
        };
        self.backend_failed(error);
        Poll::Ready(())
    }

    pub(super) fn backend_failed(&mut self, error: io::Error) {
        // Not returned to the pool: it has bytes in it.
        self.up.pipe = None;
        (self.up.flushing, self.up.batched) = (false, 0);
        self.up.write_error = Some(error);
        self.first_ended.get_or_insert(Side::Backend);
    }
}
