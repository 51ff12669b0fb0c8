//! Windows: standard input and output are read and written by threads, there are no sockets with paths, and files have the
//! permissions of their folder.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::windows::io::{AsHandle, BorrowedHandle};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_lc_rs::rand;
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::windows;
use tokio::time::{sleep, timeout};

use super::{Address, Local, Reader, Writer};
use crate::sys::standard_output;

/// How much is read or written at a time.
const BUFFER: usize = 64 * 1024;

/// Creates a folder, and those above it. In the profile of the user (`%APPDATA%`, `%USERPROFILE%`), a new folder or file is for this
/// user, the administrators and the system alone: it inherits that.
pub(in crate::connector) fn create_private(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

/// Whether other users may read the file: not below the user's profile, unless this user has changed that.
pub(in crate::connector) const fn others_can_read(_: &File) -> io::Result<bool> {
    Ok(false)
}

/// Whether other users may change the file: as with reading it.
pub(in crate::connector) const fn others_can_write(_: &File) -> io::Result<bool> {
    Ok(false)
}

/// Whether the user can be asked on a console, wherever standard input comes from.
pub fn has_terminal() -> bool {
    File::options().read(true).write(true).open("CONIN$").is_ok()
}

/// The names in a folder are written to the disk with the file: FlushFileBuffers, which has been called, writes its record.
pub(in crate::connector) const fn sync(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Windows has no such limit.
pub const fn raise_open_files() {}

/// Standard input.
pub(in crate::connector) fn stdin() -> Reader {
    let stdin = io::stdin();
    // A console has characters, and not bytes.
    match (stdin.is_terminal(), own(stdin.as_handle())) {
        (false, Ok(file)) => Box::pin(file),
        _ => Box::pin(tokio::io::stdin()),
    }
}

/// Standard output. Its end reaches its reader when it is shut down, not only when the process ends.
pub(in crate::connector) fn stdout() -> Writer {
    let stdout = io::stdout();
    match (stdout.is_terminal(), own(stdout.as_handle())) {
        (false, Ok(file)) => Box::pin(Closing(Some(file))),
        _ => Box::pin(tokio::io::stdout()),
    }
}

/// A handle of our own for the same pipe or file.
fn own(handle: BorrowedHandle<'_>) -> io::Result<tokio::fs::File> {
    let mut file = tokio::fs::File::from_std(File::from(handle.try_clone_to_owned()?));
    file.set_max_buf_size(BUFFER);
    Ok(file)
}

/// Standard output, which is closed for its reader with this: the inherited handle as well.
struct Closing(Option<tokio::fs::File>);

impl AsyncWrite for Closing {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Some(file) => Pin::new(file).poll_write(cx, buf),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().map_or(Poll::Ready(Ok(())), |file| Pin::new(file).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(file) = &mut self.0 else { return Poll::Ready(Ok(())) };
        let done = ready!(Pin::new(file).poll_shutdown(cx));
        self.0 = None;
        standard_output::close();
        Poll::Ready(done)
    }
}

/// A local address that is listened on.
pub(in crate::connector) struct Listener(TcpListener);

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Some(address) => address.fmt(f),
            None => f.write_str("an address"),
        }
    }
}

impl Listener {
    pub(in crate::connector) fn bind(address: Address<'_>) -> io::Result<Self> {
        let Address::Tcp(address) = address else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "Windows has no such sockets; give a port"));
        };
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self(TcpListener::from_std(listener)?))
    }

    pub(in crate::connector) fn address(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }

    pub(in crate::connector) async fn accept(&self) -> io::Result<Local> {
        super::accept(&self.0).await
    }
}

/// How long a program that asks has to show that it may.
const ASKING: Duration = Duration::from_secs(2);

/// What shows that a program is of this user: random bytes in a file that this user alone can read.
const TOKEN: usize = 32;

/// Answers questions of this user: on a port of the loopback, which other users reach as well, to who has read the file.
pub(in crate::connector) struct StatusSocket {
    listener: TcpListener,
    token: [u8; TOKEN],
    path: PathBuf,
}

impl StatusSocket {
    pub(in crate::connector) fn bind(path: &Path) -> io::Result<Self> {
        let folder = path.parent().ok_or(io::ErrorKind::NotFound)?;
        create_private(folder)?;
        let Listener(listener) = Listener::bind(Address::Tcp((Ipv4Addr::LOCALHOST, 0).into()))?;
        let mut token = [0; TOKEN];
        rand::fill(&mut token).map_err(|_| io::Error::other("no random bytes"))?;
        let mut file = NamedTempFile::with_prefix_in(".new-", folder)?;
        file.write_all(&listener.local_addr()?.port().to_be_bytes())?;
        file.write_all(&token)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(Self { listener, token, path: path.to_owned() })
    }

    /// Answers each connection that shows the token with a text.
    pub(in crate::connector) async fn answer(self, text: impl Fn() -> String) {
        loop {
            if let Ok((mut stream, _)) = self.listener.accept().await {
                let mut shown = [0; TOKEN];
                let read = timeout(ASKING, stream.read_exact(&mut shown)).await;
                if matches!(read, Ok(Ok(_)))
                    && aws_lc_rs::constant_time::verify_slices_are_equal(&shown, &self.token).is_ok()
                {
                    let _ = timeout(ASKING, stream.write_all(text().as_bytes())).await;
                }
            }
            // Also after an error, which may last.
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Asks another process of this user.
pub(in crate::connector) async fn ask_status(path: &Path) -> io::Result<String> {
    let file = fs::read(path)?;
    let Some((&[high, low], token)) = file.split_first_chunk().filter(|(_, token)| token.len() == TOKEN) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, u16::from_be_bytes([high, low]))).await?;
    stream.write_all(token).await?;
    let mut text = String::new();
    timeout(ASKING, stream.read_to_string(&mut text)).await??;
    if text.is_empty() { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(text) }
}

/// Waits until the process is asked to end: Ctrl-C, Ctrl-Break, a closed window, the end of the session or of the system.
pub async fn asked_to_stop() {
    let listening = (
        windows::ctrl_c(),
        windows::ctrl_break(),
        windows::ctrl_close(),
        windows::ctrl_logoff(),
        windows::ctrl_shutdown(),
    );
    let (Ok(mut c), Ok(mut pause), Ok(mut close), Ok(mut logoff), Ok(mut shutdown)) = listening else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = c.recv() => {}
        _ = pause.recv() => {}
        _ = close.recv() => {}
        _ = logoff.recv() => {}
        _ = shutdown.recv() => {}
    }
}
