//! Stage 6: connects to a backend of the route. Only the holder of an [`Authorized`] value can do so.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::authorize::Authorized;
use crate::backends::resolver::{Resolver, Unresolved};
use crate::config::checked::Backend;
use crate::model::rejection::{Cause, LookUp, Reason, Rejection, Text};
use crate::sys::socket;
use crate::sys::stream::Stream;

/// An open connection to a backend, with the PROXY protocol header already written if the route sends one.
#[derive(Debug)]
pub struct Dialed {
    /// The permit that led here.
    pub authorized: Authorized,
    /// The connection.
    pub stream: Stream,
    /// The index of the backend among those of the route.
    pub backend: usize,
}

/// What is sent to a backend first.
#[derive(Clone, Copy, Debug)]
pub struct First<'a> {
    /// The PROXY protocol header, if the route sends one.
    pub header: &'a [u8],
    /// The client's first bytes are already there, and follow at once.
    pub payload_waits: bool,
}

/// Connects to the first backend that answers by `deadline`, in the order of the configuration, and writes the header to it.
/// Calls `report` with the index of each backend tried, and why it did not answer if it did not.
///
/// A right can be revoked during a dial, so `allowed` is asked before each connection and before each write of the header.
/// Its refusal ends the dial.
pub async fn dial(
    authorized: Authorized,
    backends: &[Backend],
    first: First<'_>,
    deadline: Instant,
    resolver: &Resolver,
    allowed: impl Fn() -> Result<(), Rejection>,
    mut report: impl FnMut(usize, Result<(), Reason>),
) -> Result<Dialed, Rejection> {
    let mut last = Cause::NoBackends;
    for (index, backend) in backends.iter().enumerate() {
        allowed()?;
        // The remaining time is divided, so that a backend that drops packets leaves time for the next one.
        let rest = u32::try_from(backends.len() - index).unwrap_or(u32::MAX);
        let now = Instant::now();
        let share = now + deadline.saturating_duration_since(now) / rest;
        let failure = match connect_in_time(backend, first, resolver, share, &allowed).await {
            Ok(stream) => {
                report(index, Ok(()));
                return Ok(Dialed { authorized, stream, backend: index });
            }
            Err(Failure::Refused(rejection)) => return Err(rejection),
            Err(failure) => failure,
        };
        last = cause_of(failure, Text::new(backend));
        if !matches!(last, Cause::Shortage { .. }) {
            report(index, Err(last.reason()));
        }
    }
    Err(last.into())
}

enum Failure {
    Unresolved(Unresolved),
    Io(io::Error),
    /// No connection within the time limit.
    TimedOut,
    /// The right was revoked during the dial.
    Refused(Rejection),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Resolves the name, connects, and writes the header, by `deadline`.
async fn connect_in_time(
    backend: &Backend,
    first: First<'_>,
    resolver: &Resolver,
    deadline: Instant,
    allowed: &impl Fn() -> Result<(), Rejection>,
) -> Result<Stream, Failure> {
    let connect = async |addresses: &[SocketAddr]| {
        let stream = tcp(addresses, first.payload_waits).await?;
        send_header(&stream, first.header, allowed).await.map(|()| stream)
    };
    let connected = match backend {
        Backend::Address(address) => timeout_at(deadline, connect(&[*address])).await,
        Backend::Host(host, port) => {
            let found = resolver.resolve(host, deadline).await.map_err(Failure::Unresolved)?;
            let addresses: Vec<SocketAddr> = found.iter().map(|address| with_port(*address, *port)).collect();
            timeout_at(deadline, connect(&addresses)).await
        }
        Backend::Unix(path) => {
            let connect = async {
                let stream = unix(path).await?;
                send_header(&stream, first.header, allowed).await.map(|()| stream)
            };
            timeout_at(deadline, connect).await
        }
    };
    connected.unwrap_or(Err(Failure::TimedOut))
}

const fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

/// Writes the header while that is allowed. An unfinished header ends in a reset, so that undelivered parts of it are
/// discarded.
async fn send_header(
    stream: &Stream,
    header: &[u8],
    allowed: &impl Fn() -> Result<(), Rejection>,
) -> Result<(), Failure> {
    let unfinished = ResetUnlessFinished(Some(stream));
    let mut rest = header;
    loop {
        allowed().map_err(Failure::Refused)?;
        if rest.is_empty() {
            break;
        }
        match stream.try_write(rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|cx| stream.poll_write_ready(cx)).await?;
            }
            Err(error) => return Err(error.into()),
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

/// Connects to the first address that accepts.
async fn tcp(addresses: &[SocketAddr], data_follows: bool) -> io::Result<Stream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match socket::connect(*address, data_follows).await {
            Ok(stream) => {
                debug!(%address, "connected");
                return Ok(Stream::Tcp(stream));
            }
            Err(error) => {
                debug!(%address, %error, "not connected");
                last = error;
            }
        }
    }
    Err(last)
}

async fn unix(path: &Path) -> io::Result<Stream> {
    let connected = UnixStream::connect(path).await.map(Stream::Unix);
    debug!(path = %path.display(), error = connected.as_ref().err().map(tracing::field::display), "dialled");
    connected
}

/// Whether this machine is out of descriptors or memory, which is no fault of the backend.
const fn is_shortage(error: Option<i32>) -> bool {
    matches!(error, Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Why this backend was not reached.
fn cause_of(failure: Failure, backend: Text) -> Cause {
    match failure {
        Failure::Refused(rejection) => rejection.cause,
        Failure::TimedOut => Cause::BackendTimeout { backend },
        Failure::Unresolved(Unresolved::NoAnswer) => Cause::Unresolved { backend, error: LookUp::NoAnswer },
        Failure::Unresolved(Unresolved::Failed(error)) if is_shortage(error.raw_os_error()) => {
            Cause::Shortage { backend, error: (&*error).into() }
        }
        Failure::Unresolved(Unresolved::Failed(error)) => {
            Cause::Unresolved { backend, error: LookUp::Failed((&*error).into()) }
        }
        Failure::Io(error) if is_shortage(error.raw_os_error()) => Cause::Shortage { backend, error: error.into() },
        Failure::Io(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Cause::BackendRefused { backend, error: error.into() },
            io::ErrorKind::TimedOut => Cause::BackendTimedOut { backend, error: error.into() },
            _ => Cause::BackendUnreachable { backend, error: error.into() },
        },
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Read;
    use std::time::Duration;

    use super::*;
    use crate::authorize::PassthroughPolicy;

    /// The size of a PROXY header that no socket buffer holds.
    const HEADER: usize = 64 * 1024 * 1024;

    fn lost() -> Rejection {
        Rejection::silent(Cause::Revoked)
    }

    fn permit() -> Authorized {
        PassthroughPolicy::configured().permit()
    }

    fn first(header: &[u8]) -> First<'_> {
        First { header, payload_waits: false }
    }

    /// A backend that does not read yet.
    fn backend() -> (std::net::TcpListener, Backend) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        (listener, Backend::Address(address))
    }

    /// How many bytes a backend receives, and whether the connection ends in a reset.
    fn received(listener: &std::net::TcpListener) -> (usize, bool) {
        let (mut stream, _) = listener.accept().expect("it was dialled");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        let (mut bytes, mut buffer) = (0, vec![0; 1024 * 1024]);
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return (bytes, false),
                Ok(count) => bytes += count,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return (bytes, true),
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[tokio::test]
    async fn row_39_right_lost_during_the_header_resets_the_dial() {
        let (listener, backend) = backend();
        let deadline = Instant::now() + Duration::from_secs(30);
        // Asked before the connection, before the header, and once for each write of it.
        let asked = Cell::new(0);
        let allowed = || {
            asked.set(asked.get() + 1);
            if asked.get() > 2 { Err(lost()) } else { Ok(()) }
        };
        let header = vec![7; HEADER];
        let backends = [backend.clone(), backend];
        let dialed =
            dial(permit(), &backends, first(&header), deadline, &Resolver::system(1), allowed, |_, _| {}).await;
        assert_eq!(dialed.map(|_| ()), Err(lost()));
        let (bytes, reset) = received(&listener);
        assert!(bytes < HEADER && reset, "{bytes} bytes, then a reset: {reset}");
        listener.set_nonblocking(true).expect("an option");
        assert!(listener.accept().is_err(), "the next backend was dialled");
    }

    #[tokio::test]
    async fn row_39_dial_dropped_during_the_header_is_reset() {
        let (listener, backend) = backend();
        let deadline = Instant::now() + Duration::from_secs(60);
        let (header, asked) = (vec![7; HEADER], Cell::new(0));
        let allowed = || {
            asked.set(asked.get() + 1);
            Ok(())
        };
        let (backends, resolver) = ([backend], Resolver::system(1));
        {
            let mut dialing =
                std::pin::pin!(dial(permit(), &backends, first(&header), deadline, &resolver, allowed, |_, _| {}));
            // Until the socket's buffer is full.
            while asked.get() < 3 {
                let _ = tokio::time::timeout(Duration::from_millis(50), &mut dialing).await;
            }
        }
        let (bytes, reset) = received(&listener);
        assert!(bytes < HEADER && reset, "{bytes} bytes, then a reset: {reset}");
    }

    #[tokio::test]
    async fn right_lost_before_the_header_sends_nothing() {
        let (listener, backend) = backend();
        let deadline = Instant::now() + Duration::from_secs(30);
        let asked = Cell::new(0);
        let allowed = || {
            asked.set(asked.get() + 1);
            if asked.get() > 1 { Err(lost()) } else { Ok(()) }
        };
        let dialed =
            dial(permit(), &[backend], first(b"alice"), deadline, &Resolver::system(1), allowed, |_, _| {}).await;
        assert_eq!(dialed.map(|_| ()), Err(lost()));
        assert_eq!(received(&listener), (0, true));
    }
}
