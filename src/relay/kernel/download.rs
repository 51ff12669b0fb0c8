//! From the backend to the client: bytes that are spliced into the client's socket are sealed by the kernel.

use std::io;
use std::net::Shutdown;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::time::sleep;

use super::{FILL_MAX, KernelTls, RECORDS_MAX, TCP_POLL_MAX, TCP_POLL_MIN, client_reset, set_key};
use crate::model::close::CloseReason;
use crate::model::rejection::{Alert, Side};
use crate::relay::has_taken_a_reset;
use crate::relay::pipes::{return_pipe, take_pipe};
use crate::relay::{End, ROUNDS_MAX};
use crate::sys::ktls::{self, Direction, Version};
use crate::tls::record::{RESERVED_RECORDS, content};

impl KernelTls {
    pub(super) fn poll_download(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        for _ in 0..ROUNDS_MAX {
            if self.down.shut {
                return Poll::Ready(Ok(()));
            }
            // Nothing may be sent after a close_notify.
            let open = !self.down.ended || self.down.close_notify_due;
            if self.down.key_update_due && open {
                ready!(self.poll_update_key(cx))?;
                continue;
            }
            if self.down.no_renegotiation_due && open {
                ready!(self.poll_send_record(cx, content::ALERT, &[1, 100])).map_err(client_reset)?;
                self.down.no_renegotiation_due = false;
                continue;
            }
            if self.down.pipe.as_ref().is_some_and(|pipe| !pipe.is_empty()) {
                ready!(self.poll_send_data(cx))?;
                continue;
            }
            if self.down.close_notify_due {
                let sent = ready!(self.poll_send_record(cx, content::ALERT, &[1, 0]));
                // If the client has ended too, it may have closed before our close_notify.
                if !self.up.ended {
                    sent.map_err(client_reset)?;
                }
                self.down.close_notify_due = false;
                continue;
            }
            if self.down.ended {
                ready!(self.poll_handed_to_tcp(cx));
                self.down.shut = true;
                // Fails only if the client is already gone.
                let _ = SockRef::from(&*self.client).shutdown(Shutdown::Write);
                continue;
            }
            ready!(self.poll_read_backend(cx))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Splices the pipe into the client's socket, as much as it accepts.
    fn poll_send_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if self.sealed.records_left < RECORDS_MAX && self.is_key_near_limit()? {
            if self.schedule.is_some() && self.sealed.version == Version::Tls13 {
                self.down.key_update_due = true;
                return Poll::Ready(Ok(()));
            }
            self.send_fatal_alert(Alert::INTERNAL_ERROR);
            let detail = "the cipher suite's record limit is reached";
            return Poll::Ready(Err(End::because(CloseReason::TlsError, detail)));
        }
        let Self { client, down, sealed, moved, .. } = self;
        let Some(pipe) = down.pipe.as_mut() else { return Poll::Ready(Ok(())) };
        match client.try_io(Interest::WRITABLE, || pipe.empty(&**client)) {
            Ok(length) => {
                let length = u64::try_from(length).unwrap_or(u64::MAX);
                moved.to_client += length;
                sealed.bytes += length;
                sealed.records_left = sealed.records_left.saturating_sub(length.min(RECORDS_MAX));
                Poll::Ready(Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                client.poll_write_ready(cx).map_err(client_reset)
            }
            Err(error) => Poll::Ready(Err(client_reset(error))),
        }
    }

    /// Updates the count of records from the kernel. True if the key may not seal another full pipe.
    fn is_key_near_limit(&mut self) -> Result<bool, End> {
        let next = ktls::next_record(&self.client, self.sealed.cipher)
            .map_err(|error| End::because(CloseReason::Internal, error))?;
        self.sealed.records_left = self.sealed.limit.saturating_sub(next).saturating_sub(RESERVED_RECORDS);
        Ok(self.sealed.records_left < RECORDS_MAX)
    }

    /// Announces and changes the sending key.
    fn poll_update_key(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        // KeyUpdate with update_not_requested, sealed under the old key.
        ready!(self.poll_send_record(cx, content::HANDSHAKE, &[24, 0, 0, 1, 0])).map_err(client_reset)?;
        self.down.key_update_due = false;
        Poll::Ready(self.change_key().map_err(|error| End::because(CloseReason::Internal, error)))
    }

    fn change_key(&mut self) -> io::Result<()> {
        let Some(schedule) = self.schedule.as_mut() else { return Err(io::ErrorKind::Unsupported.into()) };
        let sealed = ktls::next_record(&self.client, self.sealed.cipher)?;
        let secret = schedule.next_to_send().map_err(io::Error::other)?;
        set_key(&self.client, Direction::Transmit, self.sealed.version, &secret)?;
        self.sealed.earlier_records = self.sealed.earlier_records.wrapping_add(sealed);
        self.sealed.records_left = self.sealed.limit.saturating_sub(RESERVED_RECORDS);
        Ok(())
    }

    /// Sends one record of another type than data.
    fn poll_send_record(&mut self, cx: &mut Context<'_>, kind: u8, message: &[u8]) -> Poll<io::Result<()>> {
        loop {
            match self.client.try_io(Interest::WRITABLE, || ktls::send_record(&self.client, kind, message)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.client.poll_write_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
                Ok(()) => {
                    self.sealed.bytes += u64::try_from(message.len()).unwrap_or_default();
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// Waits until TCP has been handed every sealed byte, so that neither shutdown nor close discards any.
    fn poll_handed_to_tcp(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // An error means that the connection is closed: nothing is left to wait for.
            if self.is_handed_to_tcp().unwrap_or(true) {
                self.down.tcp_poll = None;
                return Poll::Ready(());
            }
            // The TLS layer's own worker fills TCP's free space, and no event reports it, so it is polled.
            let (pause, timer) =
                self.down.tcp_poll.get_or_insert_with(|| (TCP_POLL_MIN, Box::pin(sleep(TCP_POLL_MIN))));
            ready!(timer.as_mut().poll(cx));
            let pause = (*pause * 2).min(TCP_POLL_MAX);
            self.down.tcp_poll = Some((pause, Box::pin(sleep(pause))));
        }
    }

    fn is_handed_to_tcp(&self) -> io::Result<bool> {
        let sealed = &self.sealed;
        let records = sealed.earlier_records.wrapping_add(ktls::next_record(&self.client, sealed.cipher)?);
        let wanted = sealed.tcp_bytes_at_start + sealed.bytes + records * sealed.overhead();
        Ok(ktls::handed_to_tcp(&self.client)? >= wanted)
    }

    fn poll_read_backend(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let Self { backend, up, down, .. } = self;
        let filled = if let Err(error) = ready!(backend.poll_read_ready(cx)) {
            Err(error)
        } else {
            if down.pipe.is_none() {
                down.pipe = Some(take_pipe());
            }
            let Some(pipe) = down.pipe.as_mut() else { return Poll::Ready(Ok(())) };
            backend.try_io(Interest::READABLE, || pipe.fill(&*backend, FILL_MAX))
        };
        match filled {
            Ok(0) => {
                return_pipe(&mut down.pipe);
                (down.ended, down.close_notify_due) = (true, !has_taken_a_reset(up.write_error.as_ref()));
                self.first_ended.get_or_insert(Side::Backend);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return_pipe(&mut down.pipe),
            Err(error) => {
                return_pipe(&mut down.pipe);
                // No close_notify, so that the client sees a truncation (RFC 8446 section 6.1).
                down.ended = true;
                self.backend_failed(error);
                // The other direction may be waiting for this backend.
                cx.waker().wake_by_ref();
            }
        }
        Poll::Ready(Ok(()))
    }
}
