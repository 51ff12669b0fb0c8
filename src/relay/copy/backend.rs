//! What this path needs of a backend: a socket, or TLS over one.

use std::io::{self, IoSlice, IoSliceMut};
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;

use crate::backend_tls::TlsStream;
use crate::sys::stream::Stream;

/// The backend's side of a relay.
pub(in crate::relay) trait Backend: Unpin {
    /// Its socket.
    fn socket(&self) -> &Stream;

    /// Ready when a read may give something.
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads, as `AsyncRead` does. An end without the close_notify that TLS demands is the error `UnexpectedEof`.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>>;

    /// Reads into several buffers, each of them whole before the next one. Pending says that nothing is there; the task is woken only
    /// once [`poll_read_ready`](Self::poll_read_ready) was asked.
    fn poll_read_vectored(&mut self, cx: &mut Context<'_>, buffers: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>>;

    /// Writes some of this.
    fn poll_write(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// Sends what was written and is still held.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends our direction. `complete` if the client has said that it was all; else TLS says nothing of the kind.
    fn poll_end(&mut self, cx: &mut Context<'_>, complete: bool) -> Poll<io::Result<()>>;

    /// Makes the close a reset, so that the backend sees no orderly end.
    fn reset_on_close(&self) {
        self.socket().reset_on_close();
    }
}

impl Backend for Stream {
    fn socket(&self) -> &Stream {
        self
    }

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_read_ready(self, cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Self::poll_read(self, cx, buffer)
    }

    fn poll_read_vectored(&mut self, _: &mut Context<'_>, buffers: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        match self.try_read_vectored(buffers) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            length => Poll::Ready(length),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let written = match pieces {
                [piece] => self.try_write(piece),
                pieces => self.try_write_vectored(pieces),
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_write_ready(cx))?,
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_end(&mut self, _: &mut Context<'_>, _: bool) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown_write())
    }
}

impl Backend for Box<TlsStream> {
    fn socket(&self) -> &Stream {
        TlsStream::socket(self)
    }

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        TlsStream::poll_read_ready(self, cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        TlsStream::poll_read(self, cx, buffer)
    }

    fn poll_read_vectored(&mut self, cx: &mut Context<'_>, buffers: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        TlsStream::poll_read_vectored(self, cx, buffers)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        TlsStream::poll_write(self, cx, pieces)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        TlsStream::poll_flush(self, cx)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>, complete: bool) -> Poll<io::Result<()>> {
        TlsStream::poll_end(self, cx, complete)
    }
}
