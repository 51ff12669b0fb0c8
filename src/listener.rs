//! Stage 1: sockets. Binds the configured addresses and accepts, whatever happens.

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

/// How many connections the kernel holds until we accept them. Linux caps it at `net.core.somaxconn`; tokio's own
/// 128 would turn a burst of browsers away.
const BACKLOG: i32 = 4096;

/// The pause after a failed accept, doubled each time up to [`BACKOFF_MAX`] and reset by a success.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    name: Name,
    /// As configured: port 0 leaves the port to the kernel.
    configured: SocketAddr,
    /// With the port that the kernel chose.
    address: SocketAddr,
    /// All but name and address can change.
    settings: ArcSwap<checked::Listener>,
    socket: TcpListener,
    closed: CancellationToken,
}

/// A connection that was accepted and about which nothing has been decided.
#[derive(Debug)]
pub struct Accepted {
    /// The socket.
    pub stream: TcpStream,
    /// Who connected, with IPv4 addresses as such even on a dual-stack socket.
    pub peer: SocketAddr,
    /// Where it arrived.
    pub listener: Arc<checked::Listener>,
    /// When.
    pub at: Instant,
}

/// Why an accept failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptError {
    /// The connection was gone before it was accepted (`ECONNABORTED` and its like, accept(2)).
    Connection,
    /// The process or the machine is out of descriptors or memory.
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
    /// Which one.
    pub address: SocketAddr,
    /// The configuration's word for it.
    pub what: String,
    /// Why.
    pub error: io::Error,
}

/// What to do about it, on a line of its own; empty if that is not known.
fn remedy(error: &io::Error) -> &'static str {
    if is_without_ipv6(error) {
        return "\n  this machine has no IPv6: write an IPv4 address, such as 127.0.0.1 or 0.0.0.0";
    }
    match error.kind() {
        io::ErrorKind::AddrInUse => "\n  another program listens there: stop it, or choose another port",
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
    /// Binds and listens. `[::]` takes IPv4 as well, and alone where the machine has no IPv6: see [`Listener::warning`]. To be
    /// called within a tokio runtime.
    pub fn bind(settings: &checked::Listener) -> Result<Self, BindError> {
        Self::bind_beside(settings, &[])
    }

    /// What `wanted` asks for: of the `bound` listeners those that stay, and new ones. Nobody's rules have changed, and all
    /// of `bound` go on, until they are told to.
    pub fn rebind(bound: &[Arc<Self>], wanted: &[checked::Listener]) -> Result<Vec<Arc<Self>>, BindError> {
        let leaving: Vec<&Self> =
            bound.iter().map(AsRef::as_ref).filter(|bound| !wanted.iter().any(|one| bound.is(one))).collect();
        let listener = |one| match bound.iter().find(|bound| bound.is(one)) {
            Some(stays) => Ok(Arc::clone(stays)),
            None => Self::bind_beside(one, &leaving).map(Arc::new),
        };
        wanted.iter().map(listener).collect()
    }

    /// Binds even where one that is about to leave still listens, as `[::]:8443` is in the way of `127.0.0.1:8443`.
    fn bind_beside(settings: &checked::Listener, leaving: &[&Self]) -> Result<Self, BindError> {
        let in_the_way: Vec<&Self> =
            leaving.iter().copied().filter(|one| one.port_is(settings.address.port())).collect();
        // Linux lets sockets share a port if each asks for it and all are of one user (SO_REUSEPORT, socket(7)). No listener
        // asks otherwise: of two gates that were started by mistake, the second one is told.
        for one in &in_the_way {
            let _ = SockRef::from(&one.socket).set_reuse_port(true);
        }
        let shared = !in_the_way.is_empty();
        let bound = Self::try_bind(settings, settings.address, shared).or_else(|error| {
            let every = settings.address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            if every && is_without_ipv6(&error) {
                let address = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), settings.address.port());
                Self::try_bind(settings, address, shared)
            } else {
                Err(error)
            }
        });
        let what = || format!("listener {:?}", settings.name.as_str());
        bound.map_err(|error| BindError { address: settings.address, what: what(), error })
    }

    fn try_bind(settings: &checked::Listener, address: SocketAddr, shared: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))?;
        }
        // A restart binds at once, although connections of the last run are still in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        // What is set here, Linux passes on to every accepted socket: once, instead of for each connection.
        sys::socket::prepare(&socket)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from_std(socket.into())?;
        debug!(listener = %settings.name, %address, shared, "bound");
        Ok(Self {
            name: settings.name.clone(),
            configured: settings.address,
            address: socket.local_addr()?,
            settings: ArcSwap::from_pointee(settings.clone()),
            socket,
            closed: CancellationToken::new(),
        })
    }

    /// The listener's name.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// The bound address: with the port the kernel chose, if port 0 was asked for.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the owner has to know about where it listens.
    pub fn warning(&self) -> Option<String> {
        (self.address.is_ipv4() && self.configured.is_ipv6()).then(|| {
            format!(
                "this machine has no IPv6: the listener {:?} takes IPv4 only, on {}, instead of {}",
                self.name.as_str(),
                self.address,
                self.configured
            )
        })
    }

    /// Whether it is this one of a configuration. Everything but name and address can change.
    pub fn is(&self, settings: &checked::Listener) -> bool {
        self.name == settings.name && self.configured == settings.address
    }

    /// Connections to come are treated by these settings.
    pub fn follow(&self, settings: &checked::Listener) {
        self.settings.store(Arc::new(settings.clone()));
    }

    /// Takes no more connections, from now on: what the kernel has accepted and the gate has not is reset.
    pub fn close(&self) {
        self.closed.cancel();
        // It stays open for as long as somebody holds it, but nobody can connect any more.
        let _ = SockRef::from(&self.socket).shutdown(Shutdown::Both);
    }

    fn port_is(&self, port: u16) -> bool {
        self.address.port() == port
    }

    /// Waits for the next connection; none comes once it is closed. Cancel-safe.
    ///
    /// A failure is told to `failed`, waited out where waiting helps, and never ends the loop: a gate that stops
    /// accepting because it once ran out of descriptors would stay shut.
    pub async fn accept(&self, failed: impl Fn(AcceptError, &io::Error)) -> Option<Accepted> {
        let mut backoff = BACKOFF_MIN;
        loop {
            match self.closed.run_until_cancelled(self.socket.accept()).await? {
                Ok((stream, peer)) => {
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    return Some(Accepted { stream, peer, listener: self.settings.load_full(), at: Instant::now() });
                }
                // What close() does to the socket is no failure.
                Err(_) if self.closed.is_cancelled() => return None,
                Err(error) if is_of_the_connection(&error) => failed(AcceptError::Connection, &error),
                Err(error) => {
                    failed(AcceptError::Resources, &error);
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }
}

/// Whether the kernel knows no IPv6 (`ipv6.disable=1`, or none built in). `socket(2)` then gives EAFNOSUPPORT.
fn is_without_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// Errors that Linux passes on from the connection that was to be accepted (accept(2), "Error handling").
fn is_of_the_connection(error: &io::Error) -> bool {
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

/// An error of accept(2) with what to do about it.
pub fn explained(error: &io::Error) -> String {
    let remedy = match error.raw_os_error() {
        Some(libc::EMFILE) => {
            ": raise the limit of open files, LimitNOFILE= in a systemd unit, --ulimit nofile= of docker run, ulimit -n in a shell"
        }
        Some(libc::ENFILE) => ": the machine has no more open files to give, raise the sysctl fs.file-max",
        Some(libc::ENOBUFS | libc::ENOMEM) => {
            ": the machine or the service is out of memory, see MemoryMax= of its unit"
        }
        _ => "",
    };
    format!("{error}{remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(name: &str, address: &str) -> checked::Listener {
        checked::Listener {
            name: Name::parse(name).expect("a name"),
            address: address.parse().expect("an address"),
            proxy_protocol_from: Vec::new(),
            allow_sources: Vec::new(),
            deny_sources: Vec::new(),
        }
    }

    async fn takes(listener: &Listener, at: SocketAddr) {
        let client = TcpStream::connect(at).await.expect("a connection");
        let accepted = listener.accept(|_, error| panic!("{error:?}")).await.expect("it is open");
        assert_eq!(accepted.peer, client.local_addr().expect("an address"));
    }

    #[tokio::test]
    async fn accepted_sockets_are_prepared_for_relaying() {
        let listener = Listener::bind(&settings("public", "127.0.0.1:0")).expect("a listener");
        let client = TcpStream::connect(listener.address()).await.expect("a connection");
        let accepted = listener.accept(|_, error| panic!("{error:?}")).await.expect("it is open");
        let socket = SockRef::from(&accepted.stream);
        assert!(socket.tcp_nodelay().expect("an option"));
        assert!(socket.keepalive().expect("an option"));
        assert_eq!(socket.tcp_keepalive_time().expect("an option"), Duration::from_secs(60));
        drop(client);
    }

    #[tokio::test]
    async fn one_that_is_closed_takes_nobody_although_somebody_holds_it() {
        let listener = Listener::bind(&settings("public", "127.0.0.1:0")).expect("a listener");
        let waiting = TcpStream::connect(listener.address()).await.expect("a connection");
        listener.close();
        assert!(listener.accept(|_, error| panic!("{error:?}")).await.is_none());
        let refused = TcpStream::connect(listener.address()).await.expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        waiting.readable().await.expect("an event");
        let reset = waiting.try_read(&mut [0]).expect_err("it was never taken");
        assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
    }

    /// Wider and narrower, IPv4 and IPv6, and another name for the same address: what an owner changes about a listener.
    #[tokio::test]
    async fn what_leaves_is_not_in_the_way_of_what_comes() {
        let first = Listener::bind(&settings("public", "127.0.0.1:0")).expect("a listener");
        let port = first.address().port();
        let mut bound = vec![Arc::new(first)];
        for (name, ip) in
            [("public", "[::]"), ("public", "0.0.0.0"), ("public", "127.0.0.1"), ("other", "127.0.0.1"), ("x", "[::]")]
        {
            let wanted = [settings(name, &format!("{ip}:{port}"))];
            let new = Listener::rebind(&bound, &wanted).unwrap_or_else(|error| panic!("{name} {ip}: {error}"));
            assert!(!Arc::ptr_eq(&new[0], &bound[0]));
            bound[0].close();
            takes(&new[0], ([127, 0, 0, 1], port).into()).await;
            // Another gate that is started there by mistake does not get it.
            let second = Listener::bind(&settings(name, &format!("{ip}:{port}"))).expect_err("it is taken").error;
            assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
            bound = new;
        }
    }

    #[tokio::test]
    async fn what_stays_is_the_same_socket_and_a_port_of_somebody_else_is_told() {
        let bound = vec![Arc::new(Listener::bind(&settings("public", "127.0.0.1:0")).expect("a listener"))];
        let taken = Listener::bind(&settings("other", "127.0.0.1:0")).expect("a listener");
        let wanted = [settings("public", "127.0.0.1:0"), settings("second", "[::1]:0")];
        let new = Listener::rebind(&bound, &wanted).expect("both");
        assert!(Arc::ptr_eq(&new[0], &bound[0]));
        takes(&new[1], new[1].address()).await;

        let wanted = [settings("second", &taken.address().to_string())];
        let error = Listener::rebind(&bound, &wanted).expect_err("it is taken").to_string();
        let expected = format!("cannot listen on {} (listener \"second\"): Address already in use", taken.address());
        assert!(error.starts_with(&expected), "{error}");
        takes(&bound[0], bound[0].address()).await;
    }
}
