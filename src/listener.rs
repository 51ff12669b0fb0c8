//! Stage 1: binds the configured addresses and accepts connections.

mod no_ipv6;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::no_ipv6::{ipv4_only, is_missing, machine_has_none, without_ipv6};
use crate::config::checked;
use crate::model::names::Name;
use crate::sys;
use crate::sys::accepted::{AcceptedStream, ListeningSocket};

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
    socket: ListeningSocket,
    closed: CancellationToken,
    /// systemd has opened the socket, and keeps it open for the next start.
    passed: bool,
}

/// A socket that listens, and has no runtime yet: the gate opens them before it starts threads.
#[derive(Debug)]
pub struct Opened {
    settings: checked::Listener,
    /// With the port that the kernel chose.
    address: SocketAddr,
    socket: Socket,
    passed: bool,
}

impl Opened {
    /// Whether these are settings of this socket: name and address are equal.
    fn matches(&self, settings: &checked::Listener) -> bool {
        self.settings.name == settings.name && self.settings.address == settings.address
    }
}

/// A socket that is about to be closed, and its address.
type Closing<'a> = (&'a Socket, SocketAddr);

/// An accepted connection, before any decision.
#[derive(Debug)]
pub struct Accepted {
    /// The socket.
    pub stream: AcceptedStream,
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
    if is_missing(error) {
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
        Self::open_beside(settings, &[]).and_then(Self::start)
    }

    /// The listeners for `wanted`: those of `bound` that match, and new ones. The caller then applies the new settings and
    /// closes the listeners that are no longer wanted; until then all of `bound` continue.
    pub fn rebind(bound: &[Arc<Self>], wanted: &[checked::Listener]) -> Result<Vec<Arc<Self>>, BindError> {
        let closing: Vec<Closing<'_>> = bound
            .iter()
            .filter(|bound| !wanted.iter().any(|one| bound.matches(one)))
            .map(|bound| (bound.socket.get(), bound.address))
            .collect();
        let listener = |one| match bound.iter().find(|bound| bound.matches(one)) {
            Some(stays) => Ok(Arc::clone(stays)),
            None => Self::open_beside(one, &closing).and_then(Self::start).map(Arc::new),
        };
        wanted.iter().map(listener).collect()
    }

    /// Opens the sockets of `wanted` but for those that are among `given`, which may have others as well: these are closed here.
    ///
    /// # Errors
    /// If an address cannot be bound.
    pub fn open(given: Vec<Opened>, wanted: &[checked::Listener]) -> Result<Vec<Opened>, BindError> {
        let (mut stay, close): (Vec<Opened>, Vec<Opened>) =
            given.into_iter().partition(|given| wanted.iter().any(|one| given.matches(one)));
        let closing: Vec<Closing<'_>> = close.iter().map(|one| (&one.socket, one.address)).collect();
        let open = |one: &checked::Listener| match stay.iter().position(|given| given.matches(one)) {
            Some(at) => Ok(stay.swap_remove(at)),
            None => Self::open_beside(one, &closing),
        };
        wanted.iter().map(open).collect()
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
            address,
            socket: ListeningSocket::new(socket).map_err(error)?,
            closed: CancellationToken::new(),
            passed,
            settings: ArcSwap::from_pointee(settings),
        })
    }

    /// Binds while listeners on the same port, which are about to close, are still open: `[::]:8443` conflicts with
    /// `127.0.0.1:8443`.
    fn open_beside(settings: &checked::Listener, closing: &[Closing<'_>]) -> Result<Opened, BindError> {
        let port = settings.address.port();
        let conflicting: Vec<&Socket> =
            closing.iter().filter(|(_, address)| address.port() == port).map(|(socket, _)| *socket).collect();
        // Linux lets sockets of one user share a port if each sets SO_REUSEPORT (socket(7)). Set only here, so that a second
        // gate that is started by mistake gets an error.
        for one in &conflicting {
            let _ = one.set_reuse_port(true);
        }
        let shared = !conflicting.is_empty();
        let bound =
            Self::try_bind(settings, settings.address, shared).or_else(|error| match without_ipv6(settings.address) {
                Some(address) if is_missing(&error) => Self::try_bind(settings, address, shared),
                _ => Err(error),
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
        let address = bound_address(&socket)?;
        debug!(listener = %settings.name, %address, shared, "bound");
        Ok(Opened { settings: settings.clone(), address, socket, passed: false })
    }

    /// The sockets that systemd has opened, each with the name of a listener of the configuration.
    ///
    /// # Errors
    /// If there is no such listener, or it has another address: a client would be served under the wrong rules, or not at all.
    pub fn adopt(passed: Vec<(String, Socket)>, wanted: &[checked::Listener]) -> Result<Vec<Opened>, BindError> {
        let mut adopted: Vec<Opened> = Vec::new();
        for (name, socket) in passed {
            let local = socket.local_addr().ok().and_then(|address| address.as_socket());
            let address = local.unwrap_or_else(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0));
            let listener = (|| {
                let settings = wanted.iter().find(|one| one.name.as_str() == name).ok_or_else(|| {
                    io::Error::other("no listener has this name: FileDescriptorName= must be that of one")
                })?;
                check_passed(&socket, settings.address)?;
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

    /// The sockets that another process of the gate has handed over: each with its name, its address in the configuration of
    /// that one, and whether systemd has opened it. Those that `wanted` does not have are for [`open`](Self::open), which closes
    /// them: the other process listens on them until it has ended its part.
    ///
    /// # Errors
    /// If one does not listen for TCP connections.
    pub fn take_over(
        handed: Vec<(String, SocketAddr, bool, Socket)>,
        wanted: &[checked::Listener],
    ) -> Result<Vec<Opened>, BindError> {
        let take = |(name, configured, passed, socket): (String, SocketAddr, bool, Socket)| {
            let opened = || {
                let name = Name::parse(&name).map_err(io::Error::other)?;
                if !(socket.is_listener()? && socket.r#type()? == Type::STREAM) {
                    return Err(io::Error::other("it does not listen for TCP connections"));
                }
                let address = bound_address(&socket)?;
                let of_configuration = wanted.iter().find(|one| one.name == name && one.address == configured);
                let settings = of_configuration.cloned().unwrap_or_else(|| checked::Listener {
                    name: name.clone(),
                    address: configured,
                    proxy_protocol_from: Vec::new(),
                    allow_sources: Vec::new(),
                    deny_sources: Vec::new(),
                });
                socket.set_nonblocking(true)?;
                Ok(Opened { settings, address, socket, passed })
            };
            let what = || format!("socket {name:?} of the running gate");
            opened().map_err(|error| BindError { address: configured, what: what(), error })
        };
        handed.into_iter().map(take).collect()
    }

    /// Its address in the configuration, possibly with port 0.
    pub const fn configured(&self) -> SocketAddr {
        self.configured
    }

    /// Whether systemd has opened the socket.
    pub const fn is_passed(&self) -> bool {
        self.passed
    }

    /// Its socket, for a process that accepts connections there as well.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.get().as_fd()
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
        (self.address.is_ipv4() && self.configured.is_ipv6())
            .then(|| ipv4_only(self.name.as_str(), self.address, self.configured))
    }

    /// What a gate that starts on this machine will say about this listener: the same warning, or why it cannot start.
    pub fn expected_warning(settings: &checked::Listener) -> Option<String> {
        if !settings.address.is_ipv6() || !machine_has_none() {
            return None;
        }
        Some(match without_ipv6(settings.address) {
            Some(address) => ipv4_only(settings.name.as_str(), address, settings.address),
            None => {
                let error = io::Error::from(rustix::io::Errno::AFNOSUPPORT);
                BindError { address: settings.address, what: describe(settings), error }.to_string()
            }
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
        let _ = self.socket.get().shutdown(Shutdown::Both);
    }

    /// Stops accepting and leaves the socket as it is, for another process that has it. Connections in the kernel's queue wait
    /// for that one.
    pub fn release(&self) {
        self.closed.cancel();
    }

    /// Waits for the next connection. `None` once the listener is closed. Cancel-safe.
    ///
    /// Failures are passed to `failed` and never end the loop, or a gate that once ran out of descriptors would stay closed.
    /// After a shortage of resources it pauses.
    pub async fn accept(&self, failed: impl Fn(AcceptError, &io::Error)) -> Option<Accepted> {
        let mut backoff = BACKOFF_MIN;
        loop {
            let accepted = tokio::select! {
                // First: once it is closed, a connection in the queue of a socket that systemd has opened is for the next start.
                biased;
                () = self.closed.cancelled() => return None,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
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

/// Whether a socket that systemd has opened is one for this address of the configuration.
///
/// # Errors
/// If not: why.
pub(crate) fn check_passed(socket: &Socket, configured: SocketAddr) -> io::Result<()> {
    let address = socket.local_addr().ok().and_then(|address| address.as_socket());
    if address.is_none() || !socket.is_listener()? || socket.r#type()? != Type::STREAM {
        return Err(io::Error::other("it does not listen for TCP connections: use ListenStream="));
    }
    // For a ListenStream= without an address, systemd does the same as the gate.
    let falls_back = address.is_some() && without_ipv6(configured) == address && machine_has_none();
    if address != Some(configured) && !falls_back {
        let message = format!("the configuration has {configured}: ListenStream= and address must be the same");
        return Err(io::Error::other(message));
    }
    Ok(())
}

/// The address that a socket is bound to.
fn bound_address(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// A listener in an error.
fn describe(settings: &checked::Listener) -> String {
    format!("listener {:?}", settings.name.as_str())
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
