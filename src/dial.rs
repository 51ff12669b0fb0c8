//! Stage 6: to the backend, for whoever holds a permit.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use crate::authorize::Authorized;
use crate::backends::resolver::{Resolver, Unresolved};
use crate::config::checked::Backend;
use crate::rejection::{Reason, Rejection};
use crate::sys::stream::Stream;

/// An open connection to a backend; the PROXY protocol header, if the route sends one, is written.
#[derive(Debug)]
pub struct Dialed {
    /// The permit that led here.
    pub authorized: Authorized,
    /// The connection.
    pub stream: Stream,
    /// Which of the route's backends it is.
    pub backend: usize,
}

/// Connects to the first backend that answers, in the order of the configuration, until `deadline`, and writes
/// `header` to it. Each try that is decided is told to `tried`: which backend, and whether it answered.
pub async fn dial(
    authorized: Authorized,
    backends: &[Backend],
    header: &[u8],
    deadline: Instant,
    resolver: &Resolver,
    mut tried: impl FnMut(usize, bool),
) -> Result<Dialed, Rejection> {
    let mut last = Rejection::silent(Reason::Internal, "a route without backends");
    for (index, backend) in backends.iter().enumerate() {
        // What is left is shared out, so that a backend that swallows packets leaves time for the next one.
        let rest = u32::try_from(backends.len() - index).unwrap_or(u32::MAX);
        let now = Instant::now();
        let share = now + deadline.saturating_duration_since(now) / rest;
        let (reason, detail) = match reach(backend, header, resolver, share).await {
            Ok(stream) => {
                tried(index, true);
                return Ok(Dialed { authorized, stream, backend: index });
            }
            Err(Failure::Unresolved(error)) if is_shortage(error.raw_os_error()) => {
                (Reason::Internal, error.to_string())
            }
            Err(Failure::Unresolved(error)) => (Reason::BackendUnresolved, error.to_string()),
            Err(Failure::Io(error)) => (reason_of(&error), error.to_string()),
            Err(Failure::Late) => (Reason::BackendTimeout, "no answer within timeouts.dial".to_owned()),
        };
        if reason != Reason::Internal {
            tried(index, false);
        }
        last = Rejection::silent(reason, format!("{backend}: {detail}"));
    }
    Err(last)
}

enum Failure {
    Unresolved(Unresolved),
    Io(io::Error),
    Late,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Resolves and connects, each by `deadline`: which of the two was late is told apart.
async fn reach(backend: &Backend, header: &[u8], resolver: &Resolver, deadline: Instant) -> Result<Stream, Failure> {
    let connected = match backend {
        Backend::Address(address) => timeout_at(deadline, connect(&[*address], header)).await,
        Backend::Host(host, port) => {
            let found = resolver.resolve(host, deadline).await.map_err(Failure::Unresolved)?;
            let addresses: Vec<SocketAddr> = found.iter().map(|address| with_port(*address, *port)).collect();
            timeout_at(deadline, connect(&addresses, header)).await
        }
        Backend::Unix(path) => timeout_at(deadline, unix(path, header)).await,
    };
    connected.unwrap_or(Err(Failure::Late))
}

const fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

/// Connects to the first address that takes the connection.
async fn connect(addresses: &[SocketAddr], header: &[u8]) -> Result<Stream, Failure> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match tcp(*address).await {
            Ok(stream) => return greet(stream, header).await.map(Stream::Tcp),
            Err(error) => last = error,
        }
    }
    Err(last.into())
}

async fn unix(path: &Path, header: &[u8]) -> Result<Stream, Failure> {
    greet(UnixStream::connect(path).await?, header).await.map(Stream::Unix)
}

/// Sends the PROXY protocol header, if there is one.
async fn greet<S: AsyncWrite + Unpin>(mut stream: S, header: &[u8]) -> Result<S, Failure> {
    if !header.is_empty() {
        stream.write_all(header).await?;
    }
    Ok(stream)
}

async fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Small writes leave at once. Keep-alives are for the relay to ask for, once it has lasted.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Out of descriptors or memory: no fault of the backend's.
const fn is_shortage(error: Option<i32>) -> bool {
    matches!(error, Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

fn reason_of(error: &io::Error) -> Reason {
    if is_shortage(error.raw_os_error()) {
        return Reason::Internal;
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => Reason::BackendRefused,
        io::ErrorKind::TimedOut => Reason::BackendTimeout,
        _ => Reason::BackendUnreachable,
    }
}
