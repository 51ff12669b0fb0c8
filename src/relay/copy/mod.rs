//! TLS in user space: one buffer per direction, in which records are sealed and opened, held only while there are bytes in
//! it.

mod backend;
mod download;
mod upload;

use std::net::Shutdown;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::net::TcpStream;

pub(super) use self::backend::Backend;
use self::download::Download;
use self::upload::Upload;
use super::buffers::Buffer;
use super::{End, Engine, Moved, Path, ROUNDS_MAX, UNDELIVERED_MAX};
use crate::model::close::{CloseReason, Ending};
use crate::model::rejection::{Alert, Side};
use crate::sys::socket::reset_on_close_beyond;
use crate::sys::stream::Stream;
use crate::tls::record::{Exhausted, Pending, RecordError, Session};

/// A connection whose records the gate seals and opens itself.
#[derive(Debug)]
pub(super) struct TlsCopy<B = Stream> {
    client: TcpStream,
    backend: B,
    session: Box<Session>,
    up: Upload,
    down: Download,
    /// Sealed alerts and KeyUpdates that have not been sent. They are sent after the payload that was sealed before them and
    /// before the payload that is sealed after them.
    control: Vec<u8>,
    /// Sealed records of the handshake. They are sent before everything else, with the first bytes that must be sent.
    unsent: Vec<u8>,
    first_ended: Option<Side>,
    moved: Moved,
}

impl<B: Backend> TlsCopy<B> {
    pub(super) fn new(client: TcpStream, session: Box<Session>, pending: Pending, backend: B) -> Self {
        let Pending { received, unsent } = pending;
        let mut up = Upload::default();
        if !received.is_empty() {
            // A large buffer holds more than the handshake reads at a time.
            let (buffer, length) = Buffer::holding(&received);
            up = Upload { buffer: Some(buffer), filled: length, ..up };
        }
        Self {
            client,
            backend,
            session,
            up,
            down: Download::default(),
            control: Vec::new(),
            unsent,
            first_ended: None,
            moved: Moved::default(),
        }
    }

    /// Sends the alert for a protocol error and ends.
    fn reject(&mut self, error: RecordError) -> End {
        self.send_fatal_alert(error.0);
        End::because(CloseReason::TlsError, error)
    }

    /// Ends with a fatal alert.
    fn send_fatal_alert(&mut self, alert: Alert) {
        // Nothing may be sent after a close_notify.
        if !self.down.ended {
            let _ = self.session.fatal(alert, &mut self.control);
        }
        self.close_client();
    }

    /// Sends what the socket accepts at once and shuts it down. What the client has sent meanwhile is read first: closing a
    /// socket with unread bytes causes a reset, which could overtake what was sent.
    fn close_client(&mut self) {
        if !self.down.shut && self.send(true).is_ok() {
            let _ = SockRef::from(&self.client).shutdown(Shutdown::Write);
        }
        let mut sink = [0; 4096];
        for _ in 0..ROUNDS_MAX {
            if !matches!(self.client.try_read(&mut sink), Ok(1..)) {
                break;
            }
        }
    }
}

fn key_limit_reached(_: Exhausted) -> End {
    End::because(CloseReason::TlsError, "the cipher suite's record limit is reached")
}

impl<B: Backend> Engine for TlsCopy<B> {
    const PATH: Path = Path::Copy;

    fn poll_move(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let up = self.poll_upload(cx);
        // On an error an alert has been sent, and nothing may follow it.
        let down = if matches!(up, Poll::Ready(Err(_))) { Poll::Pending } else { self.poll_download(cx) };
        // What reading made TLS answer, such as a KeyUpdate. An error is met by the next read or write.
        let _ = self.backend.poll_flush(cx);
        let mut end = ready!(End::combine(up, down, self.first_ended, &mut self.up.write_error));
        if self.down.truncated && end.reason == CloseReason::BackendClosed {
            end.reason = CloseReason::BackendTruncated;
        }
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
        self.backend.socket()
    }

    fn cut(&mut self, ending: Ending) {
        // Payload that is sealed is not sent any more. A record behind it would have a sequence number that the client does not expect.
        if self.down.sealed.is_empty() {
            // The close_notify of a backend that has ended stays the last record.
            if !self.down.ended {
                let Self { session, control, .. } = self;
                let _ = match ending {
                    Ending::Complete => session.close_notify(control),
                    Ending::Alert(alert) => session.fatal(alert, control),
                    Ending::Truncated | Ending::AlertOfTheError => Ok(()),
                };
            }
            self.close_client();
        }
        // The backend was not told that the client has ended, so it must not see an orderly end.
        if !self.up.shut {
            self.backend.reset_on_close();
        }
    }

    fn limit_undelivered(&self) {
        reset_on_close_beyond(&self.client, UNDELIVERED_MAX);
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
