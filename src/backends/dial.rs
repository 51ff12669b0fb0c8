//! Stage 6: connects to a backend of the route. Only the holder of an [`Authorized`] value can do so.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::eyeballs::{self, Attempt};
use super::health::Checked;
pub use super::opened::Connection;
pub use super::opened::First;
use super::opened::{self, Tls, open};
use super::pool::{Backends, Full, Pool, RETRY_TIMEOUT, Slot};
use super::resolver::{Resolver, Unresolved};
use crate::authorize::Authorized;
use crate::backend_tls::BackendTls;
use crate::config::checked::Backend;
use crate::model::rejection::{BackendTlsFault, Cause, LookUp, Reason, Rejection, Text};
use crate::sys::socket;
use crate::sys::stream::Stream;

/// An open connection to a backend, with the PROXY protocol header already written if the route sends one.
#[derive(Debug)]
pub struct Dialed {
    /// The permit that led here.
    pub authorized: Authorized,
    /// The connection.
    pub connection: Connection,
    /// The index of the backend among those of the route.
    pub backend: usize,
    /// Its place among the connections of the backend, if those are counted.
    pub slot: Option<Slot>,
}

/// What is known of backends, and how their names are resolved. Outlives configurations.
#[derive(Clone, Debug)]
pub struct Directory {
    /// Their addresses.
    pub resolver: Resolver,
    /// Which of them answer, and how many connections they have.
    pub pool: Pool,
    /// Those that are checked.
    pub checks: watch::Sender<Vec<Arc<Checked>>>,
}

impl Directory {
    /// With the system's resolver and at most `threads` look-ups at the same time.
    pub fn new(threads: usize) -> Self {
        Self { resolver: Resolver::system(threads), pool: Pool::default(), checks: watch::Sender::default() }
    }
}

/// Connects to the first backend that answers by `deadline`, in the order of the route's strategy, and writes the header to it.
/// Calls `report` with the index of each backend tried, and why it did not answer if it did not.
///
/// A right can be revoked during a dial, so `allowed` is asked before each connection and before each write of the header.
/// Its refusal ends the dial.
pub async fn dial(
    authorized: Authorized,
    backends: &Backends,
    first: First<'_>,
    deadline: Instant,
    directory: &Directory,
    allowed: impl Fn() -> Result<(), Rejection>,
    report: impl FnMut(usize, Result<(), Reason>),
) -> Result<Dialed, Rejection> {
    let connected = connect(&authorized, backends, first, deadline, directory, allowed, report).await;
    connected.map(|(connection, backend, slot)| Dialed { authorized, connection, backend, slot })
}

/// As [`dial`], for the holder of this permit.
pub(super) async fn connect(
    _permit: &Authorized,
    backends: &Backends,
    first: First<'_>,
    deadline: Instant,
    directory: &Directory,
    allowed: impl Fn() -> Result<(), Rejection>,
    mut report: impl FnMut(usize, Result<(), Reason>),
) -> Result<(Connection, usize, Option<Slot>), Rejection> {
    let mut last = Cause::NoBackends;
    let order = backends.healthy(directory.pool.order(backends))?;
    for (place, &index) in order.iter().enumerate() {
        let Some(backend) = backends.get(index) else { continue };
        allowed()?;
        // Taken before the connection is made, so that there are never more, however many clients come at once.
        let slot = match directory.pool.reserve(backends, index) {
            Ok(slot) => slot,
            Err(Full { limit }) => {
                // What another one failed for says more.
                if matches!(last, Cause::NoBackends) {
                    last = Cause::BackendFull { backend: Text::new(backend), limit };
                }
                continue;
            }
        };
        // The remaining time is divided, so that a backend that drops packets leaves time for the next one.
        let rest = u32::try_from(order.len() - place).unwrap_or(u32::MAX);
        let now = Instant::now();
        let share = now + deadline.saturating_duration_since(now) / rest;
        let mut tried = Vec::new();
        let tls = backends.tls().map(|tls| Tls { tls, backend: index });
        let failure = match connect_in_time(backend, tls, first, &directory.resolver, share, &allowed, &mut tried).await
        {
            Ok(connection) => {
                report(index, Ok(()));
                let counted = directory.pool.connected(backends, index, slot);
                return Ok((connection, index, counted));
            }
            Err(Failure::Refused(rejection)) => return Err(rejection),
            Err(failure) => failure,
        };
        drop(slot);
        last = cause_of(failure, label(backend, &tried));
        if !matches!(last, Cause::Shortage { .. }) {
            report(index, Err(last.reason()));
            if let Some(retry) = directory.pool.failed(backends, index) {
                let (resolver, tls) = (directory.resolver.clone(), backends.tls().cloned());
                tokio::spawn(retry.run(move |backend| {
                    let deadline = Instant::now() + RETRY_TIMEOUT;
                    let probing = probe(backend, tls.clone().map(|tls| (tls, index)), resolver.clone(), deadline);
                    async { probing.await == Probed::Accepts }
                }));
            }
        }
    }
    Err(last.into())
}

/// The backend as it is told: with the addresses that were tried, if it has several.
fn label(backend: &Backend, tried: &[Attempt]) -> Text {
    if tried.len() < 2 {
        return Text::new(backend);
    }
    let tried: Vec<String> = tried.iter().map(ToString::to_string).collect();
    Text::new(format!("{backend} ({})", tried.join("; ")))
}

enum Failure {
    Unresolved(Unresolved),
    Io(io::Error),
    /// No TLS with it.
    Tls(BackendTlsFault),
    /// No connection within the time limit.
    TimedOut,
    /// The right was revoked during the dial.
    Refused(Rejection),
}

impl From<eyeballs::Failed> for Failure {
    fn from(failed: eyeballs::Failed) -> Self {
        match failed {
            eyeballs::Failed::Io(error) => Self::Io(error),
            eyeballs::Failed::Refused(rejection) => Self::Refused(rejection),
        }
    }
}

impl From<opened::Failed> for Failure {
    fn from(failed: opened::Failed) -> Self {
        match failed {
            opened::Failed::Io(error) => Self::Io(error),
            opened::Failed::Tls(fault) => Self::Tls(fault),
            opened::Failed::Refused(rejection) => Self::Refused(rejection),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Resolves the name, connects, speaks TLS if the backend does, and writes the header, by `deadline`.
async fn connect_in_time(
    backend: &Backend,
    tls: Option<Tls<'_>>,
    first: First<'_>,
    resolver: &Resolver,
    deadline: Instant,
    allowed: &impl Fn() -> Result<(), Rejection>,
    tried: &mut Vec<Attempt>,
) -> Result<Connection, Failure> {
    let connected = match backend {
        Backend::Address(address) => {
            let connect = async {
                let stream = Stream::Tcp(socket::connect(*address, first.payload_waits).await?);
                debug!(%address, "connected");
                Ok(open(stream, tls, first, allowed).await?)
            };
            timeout_at(deadline, connect).await
        }
        Backend::Host(host, port) => {
            let found = resolver.resolve(host, deadline).await.map_err(Failure::Unresolved)?;
            let addresses: Vec<SocketAddr> = found.iter().map(|address| with_port(*address, *port)).collect();
            let connect = async {
                let (stream, address) = eyeballs::connect(&addresses, first.payload_waits, allowed, tried).await?;
                resolver.prefer(host, address.ip());
                let stream = Stream::Tcp(stream);
                Ok(open(stream, tls, first, allowed).await?)
            };
            timeout_at(deadline, connect).await
        }
        Backend::Unix(path) => {
            let connect = async {
                let stream = unix(path).await?;
                Ok(open(stream, tls, first, allowed).await?)
            };
            timeout_at(deadline, connect).await
        }
    };
    connected.unwrap_or(Err(Failure::TimedOut))
}

/// Connects to a backend for no client, as [`dial`] does for one. Only health checks do, which send nothing of a client and
/// relay nothing.
pub(super) async fn connect_unasked(
    backend: &Backend,
    tls: Option<Tls<'_>>,
    first: First<'_>,
    resolver: &Resolver,
    deadline: Instant,
) -> Result<Connection, Unconnected> {
    let connected = connect_in_time(backend, tls, first, resolver, deadline, &|| Ok(()), &mut Vec::new()).await;
    connected.map_err(|failure| match failure {
        Failure::Io(error) if is_shortage(error.raw_os_error()) => Unconnected::Shortage,
        Failure::Io(error) => Unconnected::Io(error),
        Failure::TimedOut => Unconnected::TimedOut,
        Failure::Tls(fault) => Unconnected::Tls(fault),
        Failure::Unresolved(Unresolved::NoAnswer) => Unconnected::Unresolved(LookUp::NoAnswer),
        Failure::Unresolved(Unresolved::Failed(error)) if is_shortage(error.raw_os_error()) => Unconnected::Shortage,
        Failure::Unresolved(Unresolved::Failed(error)) => Unconnected::Unresolved(LookUp::Failed((&*error).into())),
        // There is no right that could be revoked.
        Failure::Refused(_) => Unconnected::Shortage,
    })
}

/// Why there is no connection for a health check.
#[derive(Debug)]
pub(super) enum Unconnected {
    /// This machine is out of descriptors or memory.
    Shortage,
    /// The backend did not accept it in time.
    TimedOut,
    /// Its name has no address.
    Unresolved(LookUp),
    /// No TLS with it.
    Tls(BackendTlsFault),
    /// It failed.
    Io(io::Error),
}

/// What a backend does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probed {
    /// It accepts it, and speaks TLS if it is to.
    Accepts,
    /// It accepts it, and TLS fails.
    Faulty,
    /// Its machine refuses it.
    Refuses,
    /// It does not answer, or cannot be reached.
    Silent,
}

/// What a backend, which is that of this index, does with a connection by `deadline`. It is closed at once.
pub(super) async fn probe(
    backend: Backend,
    tls: Option<(BackendTls, usize)>,
    resolver: Resolver,
    deadline: Instant,
) -> Probed {
    let nothing = First { header: &[], protocol: None, payload_waits: false };
    let tls = tls.as_ref().map(|(tls, index)| Tls { tls, backend: *index });
    match connect_in_time(&backend, tls, nothing, &resolver, deadline, &|| Ok(()), &mut Vec::new()).await {
        Ok(_) => Probed::Accepts,
        Err(Failure::Tls(_)) => Probed::Faulty,
        Err(Failure::Io(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Probed::Refuses,
        Err(_) => Probed::Silent,
    }
}

const fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
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
        Failure::Tls(fault) => Cause::BackendTls { backend, fault: Box::new(fault) },
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
mod tests;
