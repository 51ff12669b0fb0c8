//! What only one kind of system has. Everything else of the connector is the same everywhere.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::net::tcp::OwnedWriteHalf;

#[cfg(unix)]
use self::unix as system;
#[cfg(windows)]
use self::windows as system;
pub(super) use system::{
    Listener, StatusSocket, ask_status, create_private, others_can_read, others_can_write, stdin, stdout, sync,
};
pub use system::{asked_to_stop, has_terminal, raise_open_files};

/// A stream to read from, of whatever kind.
pub type Reader = Pin<Box<dyn AsyncRead + Send>>;

/// A stream to write to.
pub type Writer = Pin<Box<dyn AsyncWrite + Send>>;

/// What can be listened on.
#[derive(Clone, Copy, Debug)]
pub enum Address<'a> {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket, for this user alone.
    Unix(&'a Path),
}

/// Ends a connection whose other side does not acknowledge for so long what it was sent. Elsewhere, the system decides.
#[cfg_attr(not(target_os = "linux"), expect(unused_variables, reason = "only Linux has it"))]
pub(super) fn bound_silence(socket: &SockRef<'_>, limit: Duration) {
    // Not vital.
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(limit));
}

async fn accept(listener: &TcpListener) -> io::Result<Local> {
    let (stream, _) = listener.accept().await?;
    // Not vital.
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let aborted = Arc::default();
    let writer = TcpWriter { half: Some(writer), aborted: Arc::clone(&aborted) };
    Ok(Local { reader: Box::pin(reader), writer: Box::pin(writer), aborted })
}

/// A connection of a local program.
pub(super) struct Local {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    aborted: Arc<AtomicBool>,
}

impl Local {
    /// Ends it with a reset instead of an end, so that the program does not take what it has for all there was. A unix socket knows no
    /// difference.
    pub(super) fn abort(self) {
        self.aborted.store(true, Ordering::Relaxed);
    }
}

struct TcpWriter {
    half: Option<OwnedWriteHalf>,
    aborted: Arc<AtomicBool>,
}

impl TcpWriter {
    fn half(&mut self) -> io::Result<Pin<&mut OwnedWriteHalf>> {
        self.half.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncWrite for TcpWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.half()?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.half()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.half()?.poll_shutdown(cx)
    }
}

impl Drop for TcpWriter {
    fn drop(&mut self) {
        let Some(half) = self.half.take() else { return };
        if self.aborted.load(Ordering::Relaxed) {
            let _ = SockRef::from(half.as_ref()).set_linger(Some(Duration::ZERO));
            // Otherwise it would send the end first.
            half.forget();
        }
    }
}
