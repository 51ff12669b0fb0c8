//! Services behind the gate.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use socket2::{Domain, Socket, Type};

use super::process::wait_until;

/// The sockets of [`kept_address`].
static KEPT: Mutex<Vec<Socket>> = Mutex::new(Vec::new());

/// An address with a port of the kernel's choice that stays this process' own to its end: while none listens there, connections
/// are refused, and no other test is given the port. A program that sets SO_REUSEADDR, as servers do, can listen there.
pub(crate) fn kept_address(address: impl Into<SocketAddr>) -> SocketAddr {
    let address = address.into();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    let bound = socket.local_addr().unwrap().as_socket().unwrap();
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
    bound
}

/// The same, unless a port is given.
fn with_port(address: impl ToSocketAddrs) -> SocketAddr {
    let address = address.to_socket_addrs().unwrap().next().unwrap();
    if address.port() == 0 { kept_address(address) } else { address }
}

/// A TCP service on threads of its own, which counts who came and what they sent, and ends when it is dropped.
pub(crate) struct Backend {
    address: SocketAddr,
    state: Arc<State>,
    acceptor: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    stopping: AtomicBool,
    accepted: AtomicU64,
    received: AtomicU64,
    /// Every connection, so that dropping the backend ends the threads that serve them.
    connections: Mutex<Vec<TcpStream>>,
}

/// Sends this to a service that echoes, and gets it back.
#[track_caller]
pub(crate) fn echoed(mut stream: &TcpStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, text);
}

impl Backend {
    /// Sends back what it receives, and ends when the other side has ended.
    pub(crate) fn echo() -> Self {
        Self::echo_at(LOOPBACK)
    }

    /// The same, at an address of the caller's choice.
    pub(crate) fn echo_at(address: impl ToSocketAddrs) -> Self {
        Self::serve(address, |mut stream, state| {
            state.each_read(stream, |bytes| stream.write_all(bytes).is_ok());
            let _ = stream.shutdown(Shutdown::Write);
        })
    }

    /// Takes everything, says nothing, and ends when the other side has ended.
    pub(crate) fn sink() -> Self {
        Self::serve(LOOPBACK, |stream, state| {
            state.each_read(stream, |_| true);
            let _ = stream.shutdown(Shutdown::Write);
        })
    }

    /// Accepts and then neither reads nor writes nor ends.
    pub(crate) fn mute() -> Self {
        Self::serve(LOOPBACK, |_, _| ())
    }

    /// Answers the first request of every connection with `page`, and ends (HTTP/1.1 with `Connection: close`).
    pub(crate) fn http(page: impl Into<Vec<u8>>) -> Self {
        Self::http_at(LOOPBACK, page)
    }

    /// As [`Backend::http`], at an address of the caller's choice.
    pub(crate) fn http_at(address: impl ToSocketAddrs, page: impl Into<Vec<u8>>) -> Self {
        let page = page.into();
        Self::serve(address, move |mut stream, state| {
            let mut request = Vec::new();
            state.each_read(stream, |bytes| {
                request.extend_from_slice(bytes);
                !request.windows(4).any(|end| end == b"\r\n\r\n")
            });
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n",
                page.len()
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&page));
            let _ = stream.shutdown(Shutdown::Write);
            // Whatever else the client sends is read, or the kernel would answer it with a reset that could overtake
            // the page.
            state.each_read(stream, |_| true);
        })
    }

    /// A service of the caller's own: `handler` is called on a thread of its own for every connection, which stays open
    /// until the backend is dropped, unless `handler` shuts it down.
    pub(crate) fn serve(
        address: impl ToSocketAddrs,
        handler: impl Fn(&TcpStream, &Handling<'_>) + Send + Sync + 'static,
    ) -> Self {
        let address = with_port(address);
        let listener = TcpListener::bind(address).unwrap();
        let state = Arc::<State>::default();
        let handler = Arc::new(handler);
        let shared = Arc::clone(&state);
        let acceptor = thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let stream = Arc::new(stream);
                shared.accepted.fetch_add(1, Ordering::SeqCst);
                if let Ok(clone) = stream.try_clone() {
                    shared.connections.lock().unwrap_or_else(PoisonError::into_inner).push(clone);
                }
                let (state, handler) = (Arc::clone(&shared), Arc::clone(&handler));
                thread::spawn(move || handler(&stream, &Handling(&state)));
            }
        });
        Self { address, state, acceptor: Some(acceptor) }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has accepted. After a refusal this must be what it was before.
    pub(crate) fn accepted(&self) -> u64 {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// How many bytes it has received, all connections together.
    pub(crate) fn received(&self) -> u64 {
        self.state.received.load(Ordering::SeqCst)
    }

    /// Waits until it has received `count` bytes in all.
    #[track_caller]
    pub(crate) fn wait_received(&self, count: u64) {
        wait_until(&format!("the backend has received {count} bytes"), || (self.received() >= count).then_some(()));
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::SeqCst);
        for connection in self.state.connections.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        // Wakes the acceptor, which then sees that it is over.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// What a handler may do besides using its connection.
pub(crate) struct Handling<'a>(&'a State);

impl Handling<'_> {
    /// Reads until the other side ends or `take` returns `false`, and counts what was read.
    pub(crate) fn each_read(&self, mut stream: &TcpStream, mut take: impl FnMut(&[u8]) -> bool) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            self.0.received.fetch_add(count as u64, Ordering::SeqCst);
            if !take(&buffer[..count]) {
                return;
            }
        }
    }
}

const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// A listener with a full queue that never accepts: the kernel drops the SYN, as a firewall would.
pub(crate) struct FullBacklog {
    pub(crate) address: SocketAddr,
    _listener: Socket,
    _waiting: Vec<Socket>,
}

impl FullBacklog {
    pub(crate) fn new() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// At this address.
    pub(crate) fn at(address: SocketAddr) -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.set_reuse_address(true).unwrap();
        listener.bind(&with_port(address).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let waiting = (0..4).map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            // In progress, for ever.
            let _ = socket.connect(&address);
            socket
        });
        Self { address: address.as_socket().unwrap(), _waiting: waiting.collect(), _listener: listener }
    }
}
