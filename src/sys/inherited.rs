//! Sockets that were inherited.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketType, recv, send, shutdown, sockopt};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream socket that other processes have as well: each call says that it must not wait, so that O_NONBLOCK, which would be set for
/// all of them, is not needed.
#[derive(Debug)]
pub struct InheritedSocket(AsyncFd<OwnedFd>);

impl InheritedSocket {
    /// The socket behind a descriptor, of which this has its own.
    pub fn of(fd: impl AsFd) -> io::Result<Self> {
        if sockopt::socket_type(&fd)? != SocketType::STREAM {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let own = fcntl_dupfd_cloexec(fd, 3)?;
        #[expect(unsafe_code, reason = "AsyncFd requires that the descriptor does not change")]
        // SAFETY: an OwnedFd always gives the same descriptor and owns it, and it is not taken out of the AsyncFd.
        let registered = unsafe { AsyncFd::register(own) };
        Ok(Self(registered?))
    }
}

impl AsyncRead for InheritedSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let tried = ready.try_io(|fd| {
                let (count, _) = recv(fd, buf.initialize_unfilled(), RecvFlags::DONTWAIT)?;
                Ok(count)
            });
            match tried {
                Ok(Ok(count)) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for InheritedSocket {
    /// After the end of its reader there is no SIGPIPE: Rust's runtime has it ignored.
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            match ready.try_io(|fd| Ok(send(fd, buf, SendFlags::DONTWAIT)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(written) => return Poll::Ready(written),
                Err(_) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match shutdown(self.0.get_ref(), Shutdown::Write) {
            Ok(()) | Err(Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}
