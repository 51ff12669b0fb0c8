//! From the backend to the client: what is spliced into the client's socket is sealed there.

use std::io;
use std::net::Shutdown;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::time::sleep;

use super::{KEPT_BACK, KernelTls, LOOK_AGAIN, LOOK_AGAIN_MAX, RECORDS_MAX, TURNS, client_broke, set_key};
use crate::model::close::CloseReason;
use crate::model::rejection::{Alert, Side};
use crate::relay::End;
use crate::relay::pipes::{keep_pipe, take_pipe};
use crate::sys::ktls::{self, Direction, Version};
use crate::tls::record::content;

impl KernelTls {
    pub(super) fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        for _ in 0..TURNS {
            if self.down.shut {
                return Poll::Ready(Ok(()));
            }
            // Behind a close_notify nothing may be sent, and no answer is worth waiting for then.
            let open = !self.down.ended || self.down.notify;
            if self.down.update_key && open {
                ready!(self.poll_update_key(cx))?;
                continue;
            }
            if self.down.decline && open {
                ready!(self.poll_send(cx, content::ALERT, &[1, 100])).map_err(client_broke)?;
                self.down.decline = false;
                continue;
            }
            if self.down.pipe.as_ref().is_some_and(|pipe| !pipe.is_empty()) {
                ready!(self.poll_seal(cx))?;
                continue;
            }
            if self.down.notify {
                let sent = ready!(self.poll_send(cx, content::ALERT, &[1, 0]));
                // When both sides have said all they had to say, only our close_notify was not wanted any more.
                if !self.up.ended {
                    sent.map_err(client_broke)?;
                }
                self.down.notify = false;
                continue;
            }
            if self.down.ended {
                ready!(self.poll_given_to_tcp(cx));
                self.down.shut = true;
                // The client's own end can have been the last thing it did.
                let _ = SockRef::from(&*self.client).shutdown(Shutdown::Write);
                continue;
            }
            ready!(self.poll_read_backend(cx))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Has the kernel seal what is in the pipe, as much as the client takes.
    fn poll_seal(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if self.sealed.budget < RECORDS_MAX && self.is_worn()? {
            if self.schedule.is_some() && self.sealed.version == Version::Tls13 {
                self.down.update_key = true;
                return Poll::Ready(Ok(()));
            }
            self.give_up(Alert::INTERNAL_ERROR);
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
                sealed.budget = sealed.budget.saturating_sub(length.min(RECORDS_MAX));
                Poll::Ready(Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                client.poll_write_ready(cx).map_err(client_broke)
            }
            Err(error) => Poll::Ready(Err(client_broke(error))),
        }
    }

    /// Asks the kernel how many records there were. True if the key may not seal a whole pipe more.
    fn is_worn(&mut self) -> Result<bool, End> {
        let next = ktls::next_record(&self.client, self.sealed.cipher)
            .map_err(|error| End::because(CloseReason::Internal, error))?;
        self.sealed.budget = self.sealed.limit.saturating_sub(next).saturating_sub(KEPT_BACK);
        Ok(self.sealed.budget < RECORDS_MAX)
    }

    /// Changes the key that we send with, and says so.
    fn poll_update_key(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        // KeyUpdate, update_not_requested, under the key that it ends.
        ready!(self.poll_send(cx, content::HANDSHAKE, &[24, 0, 0, 1, 0])).map_err(client_broke)?;
        self.down.update_key = false;
        Poll::Ready(self.change_key().map_err(|error| End::because(CloseReason::Internal, error)))
    }

    fn change_key(&mut self) -> io::Result<()> {
        let Some(schedule) = self.schedule.as_mut() else { return Err(io::ErrorKind::Unsupported.into()) };
        let sealed = ktls::next_record(&self.client, self.sealed.cipher)?;
        let secret = schedule.next_to_send().map_err(io::Error::other)?;
        set_key(&self.client, Direction::Transmit, self.sealed.version, &secret)?;
        self.sealed.earlier = self.sealed.earlier.wrapping_add(sealed);
        self.sealed.budget = self.sealed.limit.saturating_sub(KEPT_BACK);
        Ok(())
    }

    /// Sends a record that is no data.
    fn poll_send(&mut self, cx: &mut Context<'_>, kind: u8, message: &[u8]) -> Poll<io::Result<()>> {
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

    /// Waits until everything that was sealed is in TCP's hands, where neither shutdown nor close can harm it.
    fn poll_given_to_tcp(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // On a connection that is no more there is nothing to wait for.
            if self.is_given_to_tcp().unwrap_or(true) {
                self.down.look_again = None;
                return Poll::Ready(());
            }
            // TCP's room is announced to the layer, whose worker then uses it; that worker tells nobody.
            let (pause, timer) = self.down.look_again.get_or_insert_with(|| (LOOK_AGAIN, Box::pin(sleep(LOOK_AGAIN))));
            ready!(timer.as_mut().poll(cx));
            let pause = (*pause * 2).min(LOOK_AGAIN_MAX);
            self.down.look_again = Some((pause, Box::pin(sleep(pause))));
        }
    }

    fn is_given_to_tcp(&self) -> io::Result<bool> {
        let sealed = &self.sealed;
        let records = sealed.earlier.wrapping_add(ktls::next_record(&self.client, sealed.cipher)?);
        let wanted = sealed.given + sealed.bytes + records * sealed.overhead();
        Ok(ktls::given_to_tcp(&self.client)? >= wanted)
    }

    fn poll_read_backend(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let Self { backend, down, .. } = self;
        let filled = if let Err(error) = ready!(backend.poll_read_ready(cx)) {
            Err(error)
        } else {
            if down.pipe.is_none() {
                down.pipe = Some(take_pipe());
            }
            let Some(pipe) = down.pipe.as_mut() else { return Poll::Ready(Ok(())) };
            backend.try_io(Interest::READABLE, || pipe.fill(&*backend))
        };
        match filled {
            Ok(0) => {
                keep_pipe(&mut down.pipe);
                (down.ended, down.notify) = (true, true);
                self.first_ended.get_or_insert(Side::Backend);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => keep_pipe(&mut down.pipe),
            Err(error) => {
                keep_pipe(&mut down.pipe);
                // No close_notify: the client can tell that there was more to come (RFC 8446 section 6.1).
                down.ended = true;
                self.refused(error);
                // The other direction may be waiting for a backend that is no more.
                cx.waker().wake_by_ref();
            }
        }
        Poll::Ready(Ok(()))
    }
}
