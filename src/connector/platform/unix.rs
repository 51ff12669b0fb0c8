//! Unix: system calls, signals, sockets with paths.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::fs::{FileType, fstat};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};

use super::{Address, Local, Reader, Writer};
use crate::sys::inherited::InheritedSocket;

/// Standard input, without a thread where the system permits it.
///
/// O_NONBLOCK is not set on what was inherited: it would be set for every process that shares it, such as the shell.
pub(in crate::connector) fn stdin() -> Reader {
    match Kind::of(rustix::stdio::stdin()) {
        #[cfg(target_os = "linux")]
        // Not one with a name: after its last writer has left, epoll(7) reports no end to a description that is opened then.
        Kind::Pipe if is_anonymous("/proc/self/fd/0") => {
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

/// Raises the limit of open files as far as this process may: every session has two.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // Refused or not, what is in force counts.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Whether a pipe has no name in the file system.
#[cfg(target_os = "linux")]
fn is_anonymous(link: &str) -> bool {
    fs::read_link(link).is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"pipe:["))
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

/// Whether other users of this machine may change the file. Root trusts the owners of the files that it is given.
pub(in crate::connector) fn others_can_write(file: &File) -> io::Result<bool> {
    const ROOT: u32 = 0;
    let metadata = file.metadata()?;
    let user = rustix::process::geteuid().as_raw();
    Ok(metadata.mode() & 0o022 != 0 || user != ROOT && ![ROOT, user].contains(&metadata.uid()))
}

/// Whether the user can be asked on a terminal, wherever standard input comes from.
pub fn has_terminal() -> bool {
    File::options().read(true).write(true).open("/dev/tty").is_ok()
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

/// A local address that is listened on.
pub(in crate::connector) enum Listener {
    Tcp(TcpListener),
    Unix(UnixSocket),
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.address()) {
            (_, Some(address)) => address.fmt(f),
            (Self::Tcp(_), None) => f.write_str("an address"),
            (Self::Unix(socket), None) => write!(f, "unix:{}", socket.path.display()),
        }
    }
}

impl Listener {
    pub(in crate::connector) fn bind(address: Address<'_>) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(TcpListener::from_std(listener)?))
            }
            Address::Unix(path) => UnixSocket::bind(path).map(Self::Unix),
        }
    }

    /// The TCP address, if it is one.
    pub(in crate::connector) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    pub(in crate::connector) async fn accept(&self) -> io::Result<Local> {
        match self {
            Self::Tcp(listener) => super::accept(listener).await,
            Self::Unix(socket) => {
                let (reader, writer) = socket.listener.accept().await?.0.into_split();
                Ok(Local { reader: Box::pin(reader), writer: Box::pin(writer), aborted: Arc::default() })
            }
        }
    }
}

/// A unix socket for this user alone, which is removed with this.
pub(in crate::connector) struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl UnixSocket {
    fn bind(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => return Err(io::ErrorKind::AddrInUse.into()),
            Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            // Of a process that was killed.
            Ok(_) => fs::remove_file(path)?,
            Err(_) => {}
        }
        // It gets its name once no other user can connect.
        let hidden = path.with_extension(format!("new-{}", std::process::id()));
        let _ = fs::remove_file(&hidden);
        let listener = UnixListener::bind(&hidden)?;
        fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600))?;
        fs::rename(&hidden, path)?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Answers questions of this user.
pub(in crate::connector) struct StatusSocket(UnixSocket);

impl StatusSocket {
    pub(in crate::connector) fn bind(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        UnixSocket::bind(path).map(Self)
    }

    /// Answers each connection with a text.
    pub(in crate::connector) async fn answer(self, text: impl Fn() -> String) {
        loop {
            if let Ok((mut stream, _)) = self.0.listener.accept().await {
                let _ = stream.write_all(text().as_bytes()).await;
            }
            // Also after an error, which may last.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

/// Asks another process of this user.
pub(in crate::connector) async fn ask_status(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    UnixStream::connect(path).await?.read_to_string(&mut text).await?;
    Ok(text)
}

/// Waits until the process is asked to end.
pub async fn asked_to_stop() {
    let signals = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let [Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)] = signals else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
    }
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
