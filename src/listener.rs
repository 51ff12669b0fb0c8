//! Stage 1: sockets. Binds the configured addresses and accepts, whatever happens.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::config::checked;
use crate::names::Name;
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
    /// All but name and address can change.
    settings: Arc<ArcSwap<checked::Listener>>,
    socket: TcpListener,
    backoff: Duration,
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

impl Listener {
    /// Binds and listens. `[::]` takes IPv4 as well.
    pub fn bind(settings: Arc<checked::Listener>) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(settings.address), Type::STREAM, Some(Protocol::TCP))?;
        if settings.address.is_ipv6() {
            socket.set_only_v6(settings.address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))?;
        }
        // A restart binds at once, although connections of the last run are still in TIME_WAIT.
        socket.set_reuse_address(true)?;
        // What is set here, Linux passes on to every accepted socket: once, instead of for each connection.
        sys::socket::prepare(&socket)?;
        socket.set_nonblocking(true)?;
        socket.bind(&settings.address.into())?;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from_std(socket.into())?;
        Ok(Self {
            name: settings.name.clone(),
            settings: Arc::new(ArcSwap::new(settings)),
            socket,
            backoff: BACKOFF_MIN,
        })
    }

    /// The listener's name.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// What it goes by, to be changed from outside: connections to come are treated by what is put there.
    pub fn settings(&self) -> Arc<ArcSwap<checked::Listener>> {
        Arc::clone(&self.settings)
    }

    /// The bound address: with the port the kernel chose, if port 0 was asked for.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Waits for the next connection. Cancel-safe.
    ///
    /// A failure is told to `failed`, waited out where waiting helps, and never ends the loop: a gate that stops
    /// accepting because it once ran out of descriptors would stay shut.
    pub async fn accept(&mut self, failed: impl Fn(AcceptError)) -> Accepted {
        loop {
            match self.socket.accept().await {
                Ok((stream, peer)) => {
                    self.backoff = BACKOFF_MIN;
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    return Accepted { stream, peer, listener: self.settings.load_full(), at: Instant::now() };
                }
                Err(error) if is_of_the_connection(&error) => failed(AcceptError::Connection),
                Err(_) => {
                    failed(AcceptError::Resources);
                    tokio::time::sleep(self.backoff).await;
                    self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use socket2::SockRef;

    use super::*;

    #[tokio::test]
    async fn accepted_sockets_are_prepared_for_relaying() {
        let settings = checked::Listener {
            name: Name::parse("public").expect("a name"),
            address: ([127, 0, 0, 1], 0).into(),
            proxy_protocol_from: Vec::new(),
            allow_sources: Vec::new(),
            deny_sources: Vec::new(),
        };
        let mut listener = Listener::bind(Arc::new(settings)).expect("a listener");
        let client = TcpStream::connect(listener.local_address().expect("an address")).await.expect("a connection");
        let accepted = listener.accept(|error| panic!("{error:?}")).await;
        let socket = SockRef::from(&accepted.stream);
        assert!(socket.tcp_nodelay().expect("an option"));
        assert!(socket.keepalive().expect("an option"));
        assert_eq!(socket.tcp_keepalive_time().expect("an option"), Duration::from_secs(60));
        drop(client);
    }
}
