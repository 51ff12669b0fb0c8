//! From the client to the backend: what is data is spliced out of the client's socket, and `recvmsg` takes the rest.

use std::io;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;

use super::{GATHERED, KernelTls, MESSAGE_MAX, Rest, TURNS, client_broke, cut_short, set_key};
use crate::model::close::CloseReason;
use crate::model::rejection::{Alert, Side};
use crate::relay::End;
use crate::relay::pipes::{keep_pipe, take_pipe};
use crate::sys::ktls::{self, Direction, Received};
use crate::tls::record::{Meaning, PLAINTEXT_MAX, RecordError, content};

impl KernelTls {
    /// One direction: ready when it has ended.
    pub(super) fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if self.errors.as_mut().is_some_and(|errors| errors.0.as_mut().poll(cx).is_ready()) {
            self.errors = None;
            self.look_for_error()?;
        }
        for _ in 0..TURNS {
            if self.up.passing_on {
                ready!(self.poll_pass_on(cx));
                continue;
            }
            if self.up.ended {
                if self.up.gathered > 0 {
                    self.up.passing_on = true;
                    continue;
                }
                keep_pipe(&mut self.up.pipe);
                if !self.up.shut {
                    self.up.shut = true;
                    // A backend that is gone already needs no telling.
                    let _ = self.backend.shutdown_write();
                }
                return self.ignore_rest(cx).map(Ok);
            }
            if self.up.pipe.is_none() {
                // Without bytes in hand no pipe is held while waiting.
                ready!(self.client.poll_read_ready(cx)).map_err(client_broke)?;
                if self.up.refused.is_some() {
                    self.drop_record()?;
                    continue;
                }
                self.up.pipe = Some(take_pipe());
            }
            self.take_record()?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// What comes behind a close_notify is ignored (RFC 8446 section 6.1). It is read all the same, to the end of the stream
    /// if there is any: closing a socket with unread bytes is a reset, and could overtake what was sent.
    fn ignore_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut sink = [0; MESSAGE_MAX];
        for _ in 0..TURNS {
            match self.up.rest {
                Rest::Ended => return Poll::Ready(()),
                rest if self.client.poll_read_ready(cx).is_pending() => {
                    return if rest == Rest::Ignored { Poll::Pending } else { Poll::Ready(()) };
                }
                _ => {}
            }
            let client = &self.client;
            match client.try_io(Interest::READABLE, || ktls::receive_record(client, &mut sink, false)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(Received { content_type: Some(_), .. }) => self.up.rest = Rest::Ignored,
                // What is no record cannot be read, and an error of what is still to be sent comes up there.
                _ => self.up.rest = Rest::Ended,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes one record into the pipe.
    fn take_record(&mut self) -> Result<(), End> {
        let Self { client, up, .. } = self;
        let Some(pipe) = up.pipe.as_mut() else { return Ok(()) };
        let taken = client.try_io(Interest::READABLE, || match pipe.fill(&**client) {
            // That can also mean that the pipe is full; only an empty one says something about the socket.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !pipe.is_empty() => Ok(None),
            result => result.map(Some),
        });
        match taken {
            Ok(None) => up.passing_on = true,
            Ok(Some(0)) => self.look()?,
            Ok(Some(length)) => {
                up.gathered += 1;
                up.passing_on = length < PLAINTEXT_MAX || up.gathered == GATHERED;
                self.data()?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if up.gathered > 0 {
                    up.passing_on = true;
                } else {
                    keep_pipe(&mut up.pipe);
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.take_message()?,
            Err(error) => self.client_failed(error)?,
        }
        Ok(())
    }

    /// `splice` gave 0: the end, or an empty record.
    fn look(&mut self) -> Result<(), End> {
        match ktls::receive_record(&self.client, &mut [0; 16], true) {
            Ok(Received { content_type: None, length: 0, .. }) => self.fin(),
            Ok(Received { content_type: Some(kind), .. }) if kind != content::APPLICATION_DATA => {
                self.empty_record()?;
                self.take_message()
            }
            Ok(_) => self.empty_record(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.empty_record(),
            Err(error) => self.client_failed(error),
        }
    }

    /// The socket has an error, which need not be one of what it is read for.
    fn look_for_error(&mut self) -> Result<(), End> {
        match ktls::receive_record(&self.client, &mut [0; 16], true) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock && !self.up.ended => self.client_failed(error),
            // What there is comes the usual way.
            _ => Ok(()),
        }
    }

    fn data(&mut self) -> Result<(), End> {
        self.course.data().map_err(|error| self.protest(error))
    }

    fn empty_record(&mut self) -> Result<(), End> {
        match self.course.take(content::APPLICATION_DATA, &[]) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.protest(error)),
        }
    }

    /// The stream has ended without a close_notify. Many clients end so; what they sent is passed on whole, and what is
    /// still on its way to them too.
    fn fin(&mut self) -> Result<(), End> {
        let inside_record = rustix::io::ioctl_fionread(&self.client).is_ok_and(|left| left > 0);
        if let Some(detail) = cut_short(inside_record, self.course.is_inside_message()) {
            return Err(End::because(CloseReason::ClientReset, detail));
        }
        self.up.ended = true;
        self.first_ended.get_or_insert(Side::Client);
        Ok(())
    }

    /// Takes a record that is no data, or as much of it as is taken at once.
    fn take_message(&mut self) -> Result<(), End> {
        let mut message = [0; MESSAGE_MAX];
        match ktls::receive_record(&self.client, &mut message, false) {
            Ok(Received { content_type: Some(kind), length, .. }) if kind != content::APPLICATION_DATA => {
                self.heed(kind, message.get(..length).unwrap_or_default())
            }
            Ok(_) => Err(self.protest(RecordError(Alert::UNEXPECTED_MESSAGE))),
            // There is no record: what came has no header of one.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(self.protest(RecordError(Alert::DECODE_ERROR)))
            }
            Err(error) => self.client_failed(error),
        }
    }

    /// Takes a part of a record, of whatever type, for nobody.
    fn drop_record(&mut self) -> Result<(), End> {
        let mut message = [0; MESSAGE_MAX];
        let client = &self.client;
        let received = client.try_io(Interest::READABLE, || ktls::receive_record(client, &mut message, false));
        match received {
            Ok(Received { content_type: None, .. }) => self.fin(),
            Ok(Received { content_type: Some(content::APPLICATION_DATA), length: 0, .. }) => self.empty_record(),
            Ok(Received { content_type: Some(content::APPLICATION_DATA), .. }) => self.data(),
            Ok(Received { content_type: Some(kind), length, .. }) => {
                self.heed(kind, message.get(..length).unwrap_or_default())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => self.client_failed(error),
        }
    }

    /// Does what a message that is no data asks for.
    fn heed(&mut self, kind: u8, message: &[u8]) -> Result<(), End> {
        match self.course.take(kind, message) {
            Ok(Meaning::Data | Meaning::Nothing) => Ok(()),
            Ok(Meaning::KeyUpdate { requested }) => {
                let Some(schedule) = self.schedule.as_mut() else {
                    // No record that follows can be opened any more.
                    self.give_up(Alert::INTERNAL_ERROR);
                    let detail = "the client changed its key, which Linux follows from 6.14 on";
                    return Err(End::because(CloseReason::TlsError, detail));
                };
                let secret = schedule.next_to_receive().map_err(|error| End::because(CloseReason::Internal, error))?;
                set_key(&self.client, Direction::Receive, self.sealed.version, &secret)
                    .map_err(|error| End::because(CloseReason::Internal, error))?;
                // One answer serves all requests that came before it is sent (RFC 8446 section 4.6.3).
                self.down.update_key |= requested;
                Ok(())
            }
            Ok(Meaning::Renegotiation) => {
                self.down.decline = true;
                Ok(())
            }
            Ok(Meaning::Closed) => {
                (self.up.ended, self.up.rest) = (true, Rest::None);
                self.first_ended.get_or_insert(Side::Client);
                Ok(())
            }
            Ok(Meaning::Alert(alert)) => Err(End::because(CloseReason::ClientReset, format!("alert {alert}"))),
            Err(error) => Err(self.protest(error)),
        }
    }

    /// The client's socket gave an error on reading.
    fn client_failed(&mut self, error: io::Error) -> Result<(), End> {
        if error.raw_os_error() == Some(libc::EKEYEXPIRED) && self.course.is_inside_message() {
            // From its first byte on Linux opens nothing before there is a new key: not even the rest.
            self.give_up(Alert::INTERNAL_ERROR);
            let detail = "the client sent a KeyUpdate in several records, which Linux does not follow";
            return Err(End::because(CloseReason::TlsError, detail));
        }
        let deserved = match error.raw_os_error() {
            Some(libc::EBADMSG) => Alert(20),
            Some(libc::EMSGSIZE) => Alert(22),
            Some(libc::EINVAL | libc::EIO | libc::EKEYEXPIRED) => Alert::UNEXPECTED_MESSAGE,
            // It has read our close_notify and is gone; a client that leaves session tickets unread resets.
            _ if self.down.shut => {
                self.up.ended = true;
                return Ok(());
            }
            _ => return Err(client_broke(error)),
        };
        Err(self.protest(RecordError(deserved)))
    }

    fn poll_pass_on(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { backend, up, moved, .. } = self;
        let Some(pipe) = up.pipe.as_mut().filter(|pipe| !pipe.is_empty()) else {
            (up.passing_on, up.gathered) = (false, 0);
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
        self.refused(error);
        Poll::Ready(())
    }

    pub(super) fn refused(&mut self, error: io::Error) {
        // Not given back: it has bytes in it.
        self.up.pipe = None;
        (self.up.passing_on, self.up.gathered) = (false, 0);
        self.up.refused = Some(error);
        self.first_ended.get_or_insert(Side::Backend);
    }
}
