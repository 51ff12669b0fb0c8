//! Stage 6: to the backend, for whoever holds a permit.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::authorize::Authorized;
use crate::backends::resolver::{Resolver, Unresolved};
use crate::config::checked::Backend;
use crate::model::rejection::{Cause, LookUp, Rejection, Text};
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
///
/// A dial takes time, in which a right can be lost: `allowed` is asked before each connection and before each part of the
/// header, and what it refuses ends the dial.
pub async fn dial(
    authorized: Authorized,
    backends: &[Backend],
    header: &[u8],
    deadline: Instant,
    resolver: &Resolver,
    allowed: impl Fn() -> Result<(), Rejection>,
    mut tried: impl FnMut(usize, bool),
) -> Result<Dialed, Rejection> {
    let mut last = Cause::NoBackends;
    for (index, backend) in backends.iter().enumerate() {
        allowed()?;
        // What is left is shared out, so that a backend that swallows packets leaves time for the next one.
        let rest = u32::try_from(backends.len() - index).unwrap_or(u32::MAX);
        let now = Instant::now();
        let share = now + deadline.saturating_duration_since(now) / rest;
        let failure = match reach(backend, header, resolver, share, &allowed).await {
            Ok(stream) => {
                tried(index, true);
                return Ok(Dialed { authorized, stream, backend: index });
            }
            Err(Failure::Refused(rejection)) => return Err(rejection),
            Err(failure) => failure,
        };
        last = cause_of(failure, Text::new(backend));
        if !matches!(last, Cause::Shortage { .. }) {
            tried(index, false);
        }
    }
    Err(last.into())
}

enum Failure {
    Unresolved(Unresolved),
    Io(io::Error),
    /// There was no connection in time.
    Late,
    /// The right was lost meanwhile.
    Refused(Rejection),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Resolves, connects and writes the header, each by `deadline`: which of them was late is told apart.
async fn reach(
    backend: &Backend,
    header: &[u8],
    resolver: &Resolver,
    deadline: Instant,
    allowed: &impl Fn() -> Result<(), Rejection>,
) -> Result<Stream, Failure> {
    let connect = async |addresses: &[SocketAddr]| {
        let stream = tcp(addresses).await?;
        send_header(&stream, header, allowed).await.map(|()| stream)
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
                send_header(&stream, header, allowed).await.map(|()| stream)
            };
            timeout_at(deadline, connect).await
        }
    };
    connected.unwrap_or(Err(Failure::Late))
}

const fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

/// Writes the header, for as long as it is allowed. One that was begun and not finished goes with a reset: what the backend's
/// machine has not taken yet is thrown away.
async fn send_header(
    stream: &Stream,
    header: &[u8],
    allowed: &impl Fn() -> Result<(), Rejection>,
) -> Result<(), Failure> {
    let unfinished = Unfinished(Some(stream));
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

/// A connection to a backend that is ended by a reset, unless it is finished.
struct Unfinished<'a>(Option<&'a Stream>);

impl Unfinished<'_> {
    fn finish(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.0 {
            stream.reset_on_close();
        }
    }
}

/// Connects to the first address that takes the connection.
async fn tcp(addresses: &[SocketAddr]) -> io::Result<Stream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                debug!(%address, "connected");
                // Small writes leave at once. Keep-alives are for the relay to ask for, once it has lasted.
                stream.set_nodelay(true)?;
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

/// Out of descriptors or memory: no fault of the backend's.
const fn is_shortage(error: Option<i32>) -> bool {
    matches!(error, Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Why this backend was not reached.
fn cause_of(failure: Failure, backend: Text) -> Cause {
    match failure {
        Failure::Refused(rejection) => rejection.cause,
        Failure::Late => Cause::BackendTimeout { backend },
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

    /// A PROXY header that no socket takes at once.
    const HEADER: usize = 64 * 1024 * 1024;

    fn lost() -> Rejection {
        Rejection::silent(Cause::Revoked)
    }

    fn permit() -> Authorized {
        PassthroughPolicy::configured().permit()
    }

    /// A backend that takes no byte yet.
    fn backend() -> (std::net::TcpListener, Backend) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        (listener, Backend::Address(address))
    }

    /// What a backend is sent to the end: how many bytes, and whether the end is a reset.
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
    async fn row_39_a_right_lost_within_the_header_ends_it() {
        let (listener, backend) = backend();
        let deadline = Instant::now() + Duration::from_secs(30);
        // Before the connection, before the header, and then once for each part of it.
        let asked = Cell::new(0);
        let allowed = || {
            asked.set(asked.get() + 1);
            if asked.get() > 2 { Err(lost()) } else { Ok(()) }
        };
        let header = vec![7; HEADER];
        let backends = [backend.clone(), backend];
        let dialed = dial(permit(), &backends, &header, deadline, &Resolver::system(1), allowed, |_, _| {}).await;
        assert_eq!(dialed.map(|_| ()), Err(lost()));
        let (bytes, reset) = received(&listener);
        assert!(bytes < HEADER && reset, "{bytes} bytes, then a reset: {reset}");
        listener.set_nonblocking(true).expect("an option");
        assert!(listener.accept().is_err(), "the next backend was dialled");
    }

    #[tokio::test]
    async fn row_39_a_dial_given_up_within_the_header_is_reset() {
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
                std::pin::pin!(dial(permit(), &backends, &header, deadline, &resolver, allowed, |_, _| {}));
            // Until the socket takes nothing more.
            while asked.get() < 3 {
                let _ = tokio::time::timeout(Duration::from_millis(50), &mut dialing).await;
            }
        }
        let (bytes, reset) = received(&listener);
        assert!(bytes < HEADER && reset, "{bytes} bytes, then a reset: {reset}");
    }

    #[tokio::test]
    async fn a_right_lost_before_the_header_sends_nothing() {
        let (listener, backend) = backend();
        let deadline = Instant::now() + Duration::from_secs(30);
        let asked = Cell::new(0);
        let allowed = || {
            asked.set(asked.get() + 1);
            if asked.get() > 1 { Err(lost()) } else { Ok(()) }
        };
        let dialed = dial(permit(), &[backend], b"alice", deadline, &Resolver::system(1), allowed, |_, _| {}).await;
        assert_eq!(dialed.map(|_| ()), Err(lost()));
        assert_eq!(received(&listener), (0, true));
    }
}
