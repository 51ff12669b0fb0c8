//! Stage 1: binds the configured addresses and accepts connections.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::config::checked;
use crate::model::names::Name;
use crate::sys;

/// How many connections the kernel queues until they are accepted. Linux caps it at `net.core.somaxconn`; tokio's default of
/// 128 would drop connections in a burst.
const BACKLOG: i32 = 4096;

/// The pause after a failed accept, doubled each time up to [`BACKOFF_MAX`] and reset by a success.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    name: Name,
    /// As configured, possibly with port 0.
    configured: SocketAddr,
    /// With the port that the kernel chose.
    address: SocketAddr,
    /// A reload can change everything but name and address.
    settings: ArcSwap<checked::Listener>,
    socket: TcpListener,
    closed: CancellationToken,
    /// systemd has opened the socket, and keeps it open for the next start.
    passed: bool,
}

/// A socket that listens, and has no runtime yet: the gate opens them before it starts threads.
#[derive(Debug)]
pub struct Opened {
    settings: checked::Listener,
    address: SocketAddr,
    socket: Socket,
    passed: bool,
}

/// An accepted connection, before any decision.
#[derive(Debug)]
pub struct Accepted {
    /// The socket.
    pub stream: TcpStream,
    /// The address of the peer; an IPv4 address is not IPv4-mapped, even on a dual-stack socket.
    pub peer: SocketAddr,
    /// The settings of the listener that accepted it.
    pub listener: Arc<checked::Listener>,
    /// When it was accepted.
    pub at: Instant,
}

/// Why an accept failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptError {
    /// The connection ended before it was accepted (`ECONNABORTED` and others, accept(2)).
    Connection,
    /// The process or the machine has run out of descriptors or memory.
    Resources,
}

impl AcceptError {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::Connection, Self::Resources];

    /// The label value in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Resources => "resources",
        }
    }
}

/// An address cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({what}): {error}{}", remedy(error))]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// The listener, as named in the configuration.
    pub what: String,
    /// Why.
    pub error: io::Error,
}

/// What to do about it, on a line of its own; empty if that is not known.
fn remedy(error: &io::Error) -> &'static str {
    if has_no_ipv6(error) {
        return "\n  this machine has no IPv6: write an IPv4 address, such as 127.0.0.1 or 0.0.0.0";
    }
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "\n  another process listens there (a second doorward run?): stop it, or choose another port"
        }
        io::ErrorKind::PermissionDenied => {
            "\n  ports below 1024 need a privilege: choose a higher one, such as 8443, and let the router forward its \
             port 443 to it"
        }
        io::ErrorKind::AddrNotAvailable => {
            "\n  this machine does not have that address: \"[::]:8443\" listens on all it has"
        }
        _ => "",
    }
}

impl Listener {
    /// Binds and listens. `[::]` accepts IPv4 too, and falls back to IPv4 on a machine without IPv6: see
    /// [`Listener::warning`]. Must be called within a tokio runtime.
    pub fn bind(settings: &checked::Listener) -> Result<Self, BindError> {
        Self::bind_beside(settings, &[])
    }

    /// The listeners for `wanted`: those of `bound` that match, and new ones. The caller then applies the new settings and
    /// closes the listeners that are no longer wanted; until then all of `bound` continue.
    pub fn rebind(bound: &[Arc<Self>], wanted: &[checked::Listener]) -> Result<Vec<Arc<Self>>, BindError> {
        let closing: Vec<&Self> =
            bound.iter().map(AsRef::as_ref).filter(|bound| !wanted.iter().any(|one| bound.matches(one))).collect();
        let listener = |one| match bound.iter().find(|bound| bound.matches(one)) {
            Some(stays) => Ok(Arc::clone(stays)),
            None => Self::bind_beside(one, &closing).map(Arc::new),
        };
        wanted.iter().map(listener).collect()
    }

    /// Opens the sockets of `wanted` but for those that systemd has `passed`, which are adopted: each has the name of a listener.
    ///
    /// # Errors
    /// If an address cannot be bound, or a socket that was passed fits no listener.
    pub fn open(passed: Vec<(String, Socket)>, wanted: &[checked::Listener]) -> Result<Vec<Opened>, BindError> {
        let mut adopted = Self::adopt(passed, wanted)?;
        let mut open = |one: &checked::Listener| match adopted.iter().position(|other| other.settings.name == one.name)
        {
            Some(at) => Ok(adopted.swap_remove(at)),
            None => Self::open_beside(one, &[]),
        };
        wanted.iter().map(&mut open).collect()
    }

    /// The listener of an open socket. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the runtime does not take it.
    pub fn start(opened: Opened) -> Result<Self, BindError> {
        let Opened { settings, address, socket, passed } = opened;
        let error = |error| BindError { address, what: describe(&settings), error };
        Ok(Self {
            name: settings.name.clone(),
            configured: settings.address,
            address: socket.local_addr().map_err(error)?.as_socket().unwrap_or(address),
            socket: TcpListener::from_std(socket.into()).map_err(error)?,
            closed: CancellationToken::new(),
            passed,
            settings: ArcSwap::from_pointee(settings),
        })
    }

    /// Binds while listeners on the same port, which are about to close, are still open: `[::]:8443` conflicts with
    /// `127.0.0.1:8443`.
    fn bind_beside(settings: &checked::Listener, closing: &[&Self]) -> Result<Self, BindError> {
        Self::open_beside(settings, closing).and_then(Self::start)
    }

    fn open_beside(settings: &checked::Listener, closing: &[&Self]) -> Result<Opened, BindError> {
        let conflicting: Vec<&Self> =
            closing.iter().copied().filter(|one| one.has_port(settings.address.port())).collect();
        // Linux lets sockets of one user share a port if each sets SO_REUSEPORT (socket(7)). Set only here, so that a second
        // gate that is started by mistake gets an error.
        for one in &conflicting {
            let _ = SockRef::from(&one.socket).set_reuse_port(true);
        }
        let shared = !conflicting.is_empty();
        let bound = Self::try_bind(settings, settings.address, shared).or_else(|error| {
            let all_interfaces = settings.address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            if all_interfaces && has_no_ipv6(&error) {
                let address = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), settings.address.port());
                Self::try_bind(settings, address, shared)
            } else {
                Err(error)
            }
        });
        bound.map_err(|error| BindError { address: settings.address, what: describe(settings), error })
    }

    fn try_bind(settings: &checked::Listener, address: SocketAddr, shared: bool) -> io::Result<Opened> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))?;
        }
        // A restart can bind while connections of the last run are in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        // Accepted sockets inherit these options, which saves system calls for each connection.
        sys::socket::prepare(&socket)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        debug!(listener = %settings.name, %address, shared, "bound");
        Ok(Opened { settings: settings.clone(), address, socket, passed: false })
    }

    /// The sockets that systemd has opened, each with the name of a listener of the configuration.
    ///
    /// # Errors
    /// If there is no such listener, or it has another address: a client would be served under the wrong rules, or not at all.
    fn adopt(passed: Vec<(String, Socket)>, wanted: &[checked::Listener]) -> Result<Vec<Opened>, BindError> {
        let mut adopted: Vec<Opened> = Vec::new();
        for (name, socket) in passed {
            let local = socket.local_addr().ok().and_then(|address| address.as_socket());
            let address = local.unwrap_or_else(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0));
            let listener = (|| {
                let listens = local.is_some() && socket.is_listener()? && socket.r#type()? == Type::STREAM;
                if !listens {
                    return Err(io::Error::other("it does not listen for TCP connections: use ListenStream="));
                }
                let settings = wanted.iter().find(|one| one.name.as_str() == name).ok_or_else(|| {
                    io::Error::other("no listener has this name: FileDescriptorName= must be that of one")
                })?;
                if settings.address != address {
                    return Err(io::Error::other(format!(
                        "the configuration has {}: ListenStream= and address must be the same",
                        settings.address
                    )));
                }
                if adopted.iter().any(|other| other.settings.name == settings.name) {
                    return Err(io::Error::other("another socket has this name: one ListenStream= for each"));
                }
                sys::socket::prepare(&socket)?;
                socket.set_nonblocking(true)?;
                // systemd's default may be shorter.
                socket.listen(BACKLOG)?;
                Ok(Opened { settings: settings.clone(), address, socket, passed: true })
            })();
            let what = || format!("socket {name:?} of systemd");
            adopted.push(listener.map_err(|error| BindError { address, what: what(), error })?);
        }
        Ok(adopted)
    }

    /// The listener's name.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// The bound address, with the port that the kernel chose if the configuration has port 0.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A warning for the owner if it listens elsewhere than configured.
    pub fn warning(&self) -> Option<String> {
        (self.address.is_ipv4() && self.configured.is_ipv6()).then(|| {
            format!(
                "this machine has no IPv6: listener {:?} accepts IPv4 only, on {} instead of {}",
                self.name.as_str(),
                self.address,
                self.configured
            )
        })
    }

    /// Whether these are settings of this listener: name and address are equal.
    pub fn matches(&self, settings: &checked::Listener) -> bool {
        self.name == settings.name && self.configured == settings.address
    }

    /// Applies new settings to future connections.
    pub fn set_settings(&self, settings: &checked::Listener) {
        self.settings.store(Arc::new(settings.clone()));
    }

    /// Stops accepting. Connections in the kernel's queue are reset; those of a socket that systemd has opened wait for the
    /// next start.
    pub fn close(&self) {
        self.closed.cancel();
        if self.passed {
            return;
        }
        // The socket stays open while it is referenced, but refuses connections.
        let _ = SockRef::from(&self.socket).shutdown(Shutdown::Both);
    }

    fn has_port(&self, port: u16) -> bool {
        self.address.port() == port
    }

    /// Waits for the next connection. `None` once the listener is closed. Cancel-safe.
    ///
    /// Failures are passed to `failed` and never end the loop, or a gate that once ran out of descriptors would stay closed.
    /// After a shortage of resources it pauses.
    pub async fn accept(&self, failed: impl Fn(AcceptError, &io::Error)) -> Option<Accepted> {
        let mut backoff = BACKOFF_MIN;
        loop {
            match self.closed.run_until_cancelled(self.socket.accept()).await? {
                Ok((stream, peer)) => {
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    return Some(Accepted { stream, peer, listener: self.settings.load_full(), at: Instant::now() });
                }
                // The error is caused by close().
                Err(_) if self.closed.is_cancelled() => return None,
                Err(error) if is_connection_error(&error) => failed(AcceptError::Connection, &error),
                Err(error) => {
                    failed(AcceptError::Resources, &error);
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }
}

/// A listener in an error.
fn describe(settings: &checked::Listener) -> String {
    format!("listener {:?}", settings.name.as_str())
}

/// Whether the error means that the kernel has no IPv6 (`ipv6.disable=1`, or not built in).
fn has_no_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// Whether the error concerns only the connection that was being accepted (accept(2), "Error handling").
fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::TimedOut
    )
}

/// The text of an error of accept(2), with its remedy.
pub fn describe_accept_error(error: &io::Error) -> String {
    let remedy = match error.raw_os_error() {
        Some(libc::EMFILE) => {
            ": raise the limit of open files (systemd: LimitNOFILE=, docker run: --ulimit nofile=, shell: ulimit -n)"
        }
        Some(libc::ENFILE) => ": the machine has reached its limit of open files, raise the sysctl fs.file-max",
        Some(libc::ENOBUFS | libc::ENOMEM) => ": the machine or the service is out of memory (systemd: MemoryMax=)",
        _ => "",
    };
    format!("{error}{remedy}")
}

#[cfg(test)]
mod tests;
