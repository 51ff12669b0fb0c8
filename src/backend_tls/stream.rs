//! A connection to a backend with TLS, as a relay uses it.

use std::cell::Cell;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::pki_types::CertificateDer;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::client;

use crate::sys::stream::Stream;

/// How much is read ahead at a time. rustls asks for 4 KiB, which would be four system calls for a record.
const RECORD_AHEAD: usize = 16 * 1024 + 5 + 256;
/// How much where the reader has room for many records: below the size at which the C library asks the kernel for each buffer.
const BULK_AHEAD: usize = 120 * 1024;

/// A connection to a backend with TLS.
#[derive(Debug)]
pub struct TlsStream {
    tls: client::TlsStream<ReadAhead>,
    /// The last read gave something, so that there may be more without the socket being readable.
    maybe_more: bool,
    /// What went wrong behind bytes that were read.
    failed: Option<io::Error>,
}

impl TlsStream {
    pub(super) fn new(tls: client::TlsStream<ReadAhead>) -> Self {
        // Bytes may have come with the end of the handshake.
        Self { tls, maybe_more: true, failed: None }
    }

    /// The connection below.
    pub fn socket(&self) -> &Stream {
        &self.tls.get_ref().0.stream
    }

    /// The certificates that the backend has shown, its own first.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        self.tls.get_ref().1.peer_certificates().unwrap_or_default()
    }

    /// Whether an earlier session was resumed.
    #[cfg(test)]
    pub(super) fn is_resumed(&self) -> bool {
        self.tls.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// Whether a buffer for reading is held.
    #[cfg(test)]
    pub(crate) fn holds_something(&self) -> bool {
        !self.tls.get_ref().0.bytes.is_empty()
    }

    /// Writes all of this and sends it, as the first bytes inside TLS.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    pub async fn write_first(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tls.write_all(bytes).await?;
        self.tls.flush().await
    }

    /// Ready when a read may give something.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.maybe_more || self.failed.is_some() {
            return Poll::Ready(Ok(()));
        }
        self.socket().poll_read_ready(cx)
    }

    /// Reads, as `AsyncRead` does. The end of the stream without a close_notify is the error `UnexpectedEof`.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.tls.get_mut().0.ahead = RECORD_AHEAD;
        self.poll_read_more(cx, buffer)
    }

    /// Reads into several buffers, one after the other, until nothing more is there.
    pub fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        self.tls.get_mut().0.ahead = BULK_AHEAD;
        let mut length = 0;
        for buffer in buffers {
            let mut space = ReadBuf::new(buffer);
            let read = self.poll_read_more(cx, &mut space);
            let (filled, full) = (space.filled().len(), space.remaining() == 0);
            length += filled;
            match read {
                Poll::Pending if length == 0 => return Poll::Pending,
                Poll::Ready(Err(error)) if length == 0 => return Poll::Ready(Err(error)),
                Poll::Ready(Err(error)) => self.failed = Some(error),
                // A record is not always full, and the next one begins a new buffer: nothing is lost.
                Poll::Ready(Ok(())) if full => continue,
                Poll::Pending | Poll::Ready(Ok(())) => {}
            }
            break;
        }
        Poll::Ready(Ok(length))
    }

    fn poll_read_more(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let error = match self.failed.take() {
            Some(error) => error,
            None => {
                let read = Pin::new(&mut self.tls).poll_read(cx, buffer);
                self.maybe_more = read.is_ready();
                let Poll::Ready(Err(error)) = read else { return read };
                error
            }
        };
        // Bytes that came with an alert, and before it, are given to those who read on.
        let before = buffer.filled().len();
        if error.kind() == io::ErrorKind::InvalidData
            && Pin::new(&mut self.tls).poll_read(cx, buffer).is_ready()
            && buffer.filled().len() > before
        {
            self.failed = Some(error);
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(Err(error))
    }

    /// Seals as much of this as there is room for, and sends what the socket accepts.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, pieces)
    }

    /// Sends what is sealed.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    /// Ends our direction: with a close_notify if all was sent that is to be sent, so that the backend can tell a whole stream from a
    /// truncated one.
    pub fn poll_end(&mut self, cx: &mut Context<'_>, complete: bool) -> Poll<io::Result<()>> {
        if complete {
            return Pin::new(&mut self.tls).poll_shutdown(cx);
        }
        ready!(self.poll_flush(cx))?;
        Poll::Ready(self.socket().shutdown_write())
    }

    /// Makes the close a reset until [`settle`](Self::settle) is called.
    pub fn reset_on_close(&self) {
        self.socket().reset_on_close();
    }

    /// Makes the close an orderly one again.
    pub fn settle(&self) {
        if let Stream::Tcp(stream) = self.socket() {
            // On a failure the connection ends in a reset, which is no worse than what it prevents.
            let _ = SockRef::from(stream).set_linger(None);
        }
    }
}

thread_local! {
    /// A large buffer that no connection of this thread needs at the moment.
    static SPARE: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// A socket that is read in larger pieces than it is asked for.
#[derive(Debug)]
pub(super) struct ReadAhead {
    stream: Stream,
    /// `bytes[taken..filled]` was read and not taken yet. Empty while there is nothing to read.
    bytes: Box<[u8]>,
    taken: usize,
    filled: usize,
    ahead: usize,
}

impl ReadAhead {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, bytes: Box::default(), taken: 0, filled: 0, ahead: RECORD_AHEAD }
    }

    /// Reads into an empty buffer.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (self.taken, self.filled) = (0, 0);
        if self.bytes.len() < self.ahead {
            let spare = if self.ahead == BULK_AHEAD { SPARE.take() } else { None };
            self.bytes = spare.unwrap_or_else(|| vec![0; self.ahead].into_boxed_slice());
        }
        let mut space = ReadBuf::new(self.bytes.get_mut(..self.ahead).unwrap_or_default());
        let read = self.stream.poll_read(cx, &mut space);
        self.filled = space.filled().len();
        if self.filled == 0 {
            let bytes = mem::take(&mut self.bytes);
            if bytes.len() == BULK_AHEAD {
                SPARE.set(Some(bytes));
            }
        }
        read
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.taken == self.filled {
            ready!(self.poll_fill(cx))?;
        }
        let rest = self.bytes.get(self.taken..self.filled).unwrap_or_default();
        let rest = rest.get(..rest.len().min(buffer.remaining())).unwrap_or_default();
        buffer.put_slice(rest);
        let taken = rest.len();
        self.taken += taken;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.try_write_vectored(pieces) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.stream.poll_write_ready(cx))?,
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.shutdown_write())
    }
}
