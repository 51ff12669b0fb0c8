//! What happens on a connection to a backend before payload: the PROXY protocol header, and TLS where the backend speaks it.

use std::future::poll_fn;
use std::io;

use crate::backend_tls::{BackendTls, TlsStream};
use crate::config::checked::HeaderPlace;
use crate::model::rejection::{BackendTlsFault, Rejection};
use crate::sys::stream::Stream;

/// What is sent to a backend first.
#[derive(Clone, Copy, Debug)]
pub struct First<'a> {
    /// The PROXY protocol header, if the route sends one.
    pub header: &'a [u8],
    /// The application protocol that the client has chosen, for a backend with TLS.
    pub protocol: Option<&'a [u8]>,
    /// The client's first bytes are already there, and follow at once.
    pub payload_waits: bool,
}

/// An open connection to a backend.
#[derive(Debug)]
pub enum Connection {
    /// A socket.
    Plain(Stream),
    /// TLS over one. In a box: most connections have none.
    Tls(Box<TlsStream>),
}

impl Connection {
    /// The socket.
    pub fn socket(&self) -> &Stream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) => tls.socket(),
        }
    }
}

/// Why a connection is not opened.
#[derive(Debug)]
pub(super) enum Failed {
    Io(io::Error),
    Tls(BackendTlsFault),
    /// The right was revoked meanwhile.
    Refused(Rejection),
}

/// TLS with one of the backends of a route.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tls<'a> {
    pub(super) tls: &'a BackendTls,
    /// The index of the backend.
    pub(super) backend: usize,
}

/// Sends a connected backend what comes before payload. `allowed` is asked before each write.
pub(super) async fn open(
    stream: Stream,
    tls: Option<Tls<'_>>,
    first: First<'_>,
    allowed: &impl Fn() -> Result<(), Rejection>,
) -> Result<Connection, Failed> {
    let Some(Tls { tls, backend }) = tls else {
        send_header(&stream, first.header, allowed).await?;
        return Ok(Connection::Plain(stream));
    };
    // On the heap, since few connections need it.
    Box::pin(async move {
        let (before, inside) = match tls.header() {
            HeaderPlace::Before => (first.header, &[][..]),
            HeaderPlace::Inside => (&[][..], first.header),
        };
        send_header(&stream, before, allowed).await?;
        let mut stream = tls.connect(stream, backend, first.protocol).await.map_err(Failed::Tls)?;
        allowed().map_err(Failed::Refused)?;
        if !inside.is_empty() {
            stream.reset_on_close();
            stream.write_first(inside).await.map_err(Failed::Io)?;
            allowed().map_err(Failed::Refused)?;
            stream.settle();
        }
        Ok(Connection::Tls(stream))
    })
    .await
}

/// Writes the header while that is allowed. An unfinished header ends in a reset, so that undelivered parts of it are
/// discarded.
async fn send_header(
    stream: &Stream,
    header: &[u8],
    allowed: &impl Fn() -> Result<(), Rejection>,
) -> Result<(), Failed> {
    let unfinished = ResetUnlessFinished(Some(stream));
    let mut rest = header;
    loop {
        allowed().map_err(Failed::Refused)?;
        if rest.is_empty() {
            break;
        }
        match stream.try_write(rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|cx| stream.poll_write_ready(cx)).await.map_err(Failed::Io)?;
            }
            Err(error) => return Err(Failed::Io(error)),
        }
    }
    unfinished.finish();
    Ok(())
}

/// Resets the connection when dropped, unless [`finish`](Self::finish) was called.
struct ResetUnlessFinished<'a>(Option<&'a Stream>);

impl ResetUnlessFinished<'_> {
    fn finish(mut self) {
        self.0 = None;
    }
}

impl Drop for ResetUnlessFinished<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.0 {
            stream.reset_on_close();
        }
    }
}
