//! Stage 6: to the backend, for whoever holds a permit.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use crate::authorize::Authorized;
use crate::backends::resolver::{Addresses, Resolver, Unresolved};
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
        // Not within the timeout of the connection: a name server that is late is no backend that is late.
        let dialed = match addresses(backend, resolver, share).await {
            Ok(addresses) => timeout_at(share, connect(backend, &addresses, header)).await,
            Err(error) => Ok(Err(Failure::Unresolved(error))),
        };
        let (reason, detail) = match dialed {
            Ok(Ok(stream)) => {
                tried(index, true);
                return Ok(Dialed { authorized, stream, backend: index });
            }
            Ok(Err(Failure::Unresolved(error))) if is_shortage(error.raw_os_error()) => {
                (Reason::Internal, error.to_string())
            }
            Ok(Err(Failure::Unresolved(error))) => (Reason::BackendUnresolved, error.to_string()),
            Ok(Err(Failure::Io(error))) => (reason_of(&error), error.to_string()),
            Err(_) => (Reason::BackendTimeout, "no answer within timeouts.dial".to_owned()),
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
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What a backend's name stands for; nothing where it has none.
async fn addresses(backend: &Backend, resolver: &Resolver, deadline: Instant) -> Result<Addresses, Unresolved> {
    match backend {
        Backend::Host(host, _) => resolver.resolve(host, deadline).await,
        Backend::Address(_) | Backend::Unix(_) => Ok(Addresses::default()),
    }
}

async fn connect(backend: &Backend, addresses: &[SocketAddr], header: &[u8]) -> Result<Stream, Failure> {
    let mut stream = match backend {
        Backend::Address(address) => tcp(*address).await?,
        Backend::Host(_, port) => {
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            let mut connected = None;
            for address in addresses {
                match tcp(with_port(*address, *port)).await {
                    Ok(stream) => {
                        connected = Some(stream);
                        break;
                    }
                    Err(error) => last = error,
                }
            }
            connected.ok_or(last)?
        }
        Backend::Unix(path) => unix(path).await?,
    };
    if !header.is_empty() {
        match &mut stream {
            Stream::Tcp(stream) => stream.write_all(header).await?,
            Stream::Unix(stream) => stream.write_all(header).await?,
        }
    }
    Ok(stream)
}

const fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

async fn tcp(address: SocketAddr) -> io::Result<Stream> {
    let stream = TcpStream::connect(address).await?;
    // Small writes leave at once. Keep-alives are for the relay to ask for, once it has lasted.
    stream.set_nodelay(true)?;
    Ok(Stream::Tcp(stream))
}

async fn unix(path: &Path) -> io::Result<Stream> {
    UnixStream::connect(path).await.map(Stream::Unix)
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
