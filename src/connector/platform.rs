//! What only one kind of system has. Everything else of the connector is the same everywhere.

use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// A stream to read from, of whatever kind.
pub type Reader = Pin<Box<dyn AsyncRead + Send>>;

/// A stream to write to.
pub type Writer = Pin<Box<dyn AsyncWrite + Send>>;

#[cfg(unix)]
mod system {
    use std::fs::{DirBuilder, File};
    use std::io;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    use std::path::Path;
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    use rustix::fs::{FileType, fstat};
    use tokio::io::AsyncWrite;

    use super::{Reader, Writer};
    use crate::sys::inherited::InheritedSocket;

    /// Standard input, without a thread where the system permits it.
    ///
    /// O_NONBLOCK is not set on what was inherited: it would be set for every process that shares it, such as the shell.
    pub(in crate::connector) fn stdin() -> Reader {
        match Kind::of(rustix::stdio::stdin()) {
            #[cfg(target_os = "linux")]
            Kind::Pipe => {
                // A new description of the same pipe.
                if let Ok(pipe) = tokio::net::unix::pipe::OpenOptions::new().open_receiver("/proc/self/fd/0") {
                    enlarge(&pipe);
                    return Box::pin(pipe);
                }
            }
            Kind::Socket => {
                if let Ok(socket) = InheritedSocket::of(rustix::stdio::stdin()) {
                    return Box::pin(socket);
                }
            }
            _ => {}
        }
        Box::pin(tokio::io::stdin())
    }

    /// Standard output. Its end reaches its reader when it is shut down, not only when the process ends.
    pub(in crate::connector) fn stdout() -> Writer {
        match Kind::of(rustix::stdio::stdout()) {
            #[cfg(target_os = "linux")]
            Kind::Pipe => {
                if let Ok(pipe) = tokio::net::unix::pipe::OpenOptions::new().open_sender("/proc/self/fd/1") {
                    enlarge(&pipe);
                    return Box::pin(Closing(Some(pipe)));
                }
            }
            Kind::Socket => {
                if let Ok(socket) = InheritedSocket::of(rustix::stdio::stdout()) {
                    return Box::pin(Closing(Some(socket)));
                }
            }
            _ => {}
        }
        Box::pin(Closing(Some(tokio::io::stdout())))
    }

    /// Creates a folder that only this user may enter, and those above it.
    pub(in crate::connector) fn create_private(folder: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)
    }

    /// Whether other users of this machine may read the file.
    pub(in crate::connector) fn others_can_read(file: &File) -> io::Result<bool> {
        Ok(file.metadata()?.mode() & 0o077 != 0)
    }

    /// Writes the names of the files in a folder to the disk.
    pub(in crate::connector) fn sync(folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    /// Fewer changes between this process and the other.
    #[cfg(target_os = "linux")]
    fn enlarge(pipe: impl AsFd) {
        /// As much as any user may have.
        const SIZE: usize = 256 * 1024;
        let _ = rustix::pipe::fcntl_setpipe_size(pipe, SIZE);
    }

    enum Kind {
        Pipe,
        Socket,
        Other,
    }

    impl Kind {
        fn of(fd: impl AsFd) -> Self {
            match fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
                Ok(FileType::Fifo) => Self::Pipe,
                Ok(FileType::Socket) => Self::Socket,
                _ => Self::Other,
            }
        }
    }

    /// Standard output, which is closed for its reader with this: the inherited descriptor as well.
    struct Closing<W>(Option<W>);

    impl<W: AsyncWrite + Unpin> AsyncWrite for Closing<W> {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            match &mut self.0 {
                Some(inner) => Pin::new(inner).poll_write(cx, buf),
                None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0.as_mut().map_or(Poll::Ready(Ok(())), |inner| Pin::new(inner).poll_flush(cx))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            let Some(inner) = &mut self.0 else { return Poll::Ready(Ok(())) };
            let done = ready!(Pin::new(inner).poll_shutdown(cx));
            self.0 = None;
            // Nothing else in this process writes to it.
            let nowhere = File::options().write(true).open("/dev/null")?;
            rustix::stdio::dup2_stdout(nowhere)?;
            Poll::Ready(done)
        }
    }
}

#[cfg(not(unix))]
mod system {
    use std::fs::{File, create_dir_all};
    use std::io;
    use std::path::Path;

    use super::{Reader, Writer};

    /// Creates a folder. In the folder of the user's settings, it is the user's alone.
    pub(in crate::connector) fn create_private(folder: &Path) -> io::Result<()> {
        create_dir_all(folder)
    }

    /// The permissions of the user's folder of settings are those of its files.
    pub(in crate::connector) fn others_can_read(_: &File) -> io::Result<bool> {
        Ok(false)
    }

    /// The system does it on its own.
    pub(in crate::connector) fn sync(_: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Standard input, read by a thread.
    pub(in crate::connector) fn stdin() -> Reader {
        Box::pin(tokio::io::stdin())
    }

    /// Standard output. Its reader sees its end when the process ends.
    pub(in crate::connector) fn stdout() -> Writer {
        Box::pin(tokio::io::stdout())
    }
}

pub(super) use system::{create_private, others_can_read, stdin, stdout, sync};
