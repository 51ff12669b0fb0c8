//! A listening socket, and its connections, which tokio watches only once something has to be waited for.
//!
//! The first bytes of most clients arrive with the connection. One that is refused because of them never needs the two calls of
//! `epoll_ctl(2)`, and the wake-up for bytes that are there already is saved for all.

use std::io;
use std::net::{SocketAddr, TcpStream as Unwatched};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use socket2::Socket;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use tokio::net::TcpStream;

/// A listening TCP socket.
#[derive(Debug)]
pub struct ListeningSocket(AsyncFd<Socket>);

impl ListeningSocket {
    /// Watches a non-blocking socket that listens. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// Those of `epoll_ctl(2)`.
    pub fn new(socket: Socket) -> io::Result<Self> {
        #[expect(unsafe_code, reason = "AsyncFd requires that the descriptor does not change")]
        // SAFETY: a Socket always gives the same descriptor and owns it, and it is not taken out of the AsyncFd.
        let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// The socket.
    pub fn get(&self) -> &Socket {
        self.0.get_ref()
    }

    /// Waits for the next connection: its socket, and the address of its peer; an IPv4 address is not IPv4-mapped, even on a
    /// dual-stack socket. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of `accept4(2)`.
    pub async fn accept(&self) -> io::Result<(AcceptedStream, SocketAddr)> {
        let accept = |socket: &Socket| {
            let (stream, peer) = rustix::net::acceptfrom_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
            let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok()).ok_or(io::ErrorKind::ConnectionAborted)?;
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            Ok((Unwatched::from(stream).into(), peer))
        };
        self.0.async_io(Interest::READABLE, accept).await
    }
}

/// An accepted TCP connection.
#[derive(Debug)]
pub struct AcceptedStream(State);

#[derive(Debug)]
enum State {
    /// Every call goes to the kernel.
    Unwatched(Unwatched),
    /// A call goes to the kernel only if tokio was told that it may succeed.
    Watched(TcpStream),
    /// tokio could not watch it, and has closed it.
    Lost,
}

impl From<Unwatched> for AcceptedStream {
    /// The socket is non-blocking.
    fn from(stream: Unwatched) -> Self {
        Self(State::Unwatched(stream))
    }
}

impl From<TcpStream> for AcceptedStream {
    fn from(stream: TcpStream) -> Self {
        Self(State::Watched(stream))
    }
}

impl AcceptedStream {
    /// The socket.
    ///
    /// # Errors
    ///
    /// It is closed, because tokio could not watch it.
    pub fn socket(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.0 {
            State::Unwatched(stream) => Ok(stream.as_fd()),
            State::Watched(stream) => Ok(stream.as_fd()),
            State::Lost => Err(lost()),
        }
    }

    /// The local address.
    ///
    /// # Errors
    ///
    /// Those of `getsockname(2)`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            State::Unwatched(stream) => stream.local_addr(),
            State::Watched(stream) => stream.local_addr(),
            State::Lost => Err(lost()),
        }
    }

    /// The socket, watched by tokio from now on.
    ///
    /// # Errors
    ///
    /// Those of `epoll_ctl(2)`: the connection is closed then.
    pub fn watched(&mut self) -> io::Result<&TcpStream> {
        if matches!(self.0, State::Unwatched(_))
            && let State::Unwatched(stream) = std::mem::replace(&mut self.0, State::Lost)
        {
            self.0 = State::Watched(TcpStream::from_std(stream)?);
        }
        match &self.0 {
            State::Watched(stream) => Ok(stream),
            State::Unwatched(_) | State::Lost => Err(lost()),
        }
    }

    /// As [`AcceptedStream::watched`].
    ///
    /// # Errors
    ///
    /// Those of `epoll_ctl(2)`.
    pub fn into_watched(mut self) -> io::Result<TcpStream> {
        self.watched()?;
        match self.0 {
            State::Watched(stream) => Ok(stream),
            State::Unwatched(_) | State::Lost => Err(lost()),
        }
    }

    /// Whether the connection was reset, or has ended in both directions.
    pub fn is_gone(&self) -> bool {
        // Both are told without being asked for (poll(2)).
        self.poll().is_none_or(|events| events.intersects(PollFlags::ERR | PollFlags::HUP))
    }

    /// Whether the other side has ended its stream, and nothing that it sent is left to be read.
    pub fn has_ended(&self) -> bool {
        let ended = self.poll().is_some_and(|events| events.contains(PollFlags::RDHUP));
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        ended
            && self.socket().is_ok_and(|socket| matches!(rustix::net::recv(socket, &mut [0; 1][..], peek), Ok((_, 0))))
    }

    /// What is known of the connection; `None` if it is closed.
    fn poll(&self) -> Option<PollFlags> {
        let socket = self.socket().ok()?;
        let mut polled = [PollFd::new(&socket, PollFlags::RDHUP)];
        // An interrupted call says nothing.
        let count = poll(&mut polled, Some(&Timespec::default())).unwrap_or(0);
        let [polled] = polled;
        Some(if count > 0 { polled.revents() } else { PollFlags::empty() })
    }

    /// Waits until the socket is readable. What was known of it before is only said if nothing was tried in between.
    ///
    /// # Errors
    ///
    /// As [`AcceptedStream::watched`].
    pub async fn readable(&mut self) -> io::Result<Ready> {
        self.watched()?.ready(Interest::READABLE).await
    }

    /// Runs `call`, which reads from the socket, if it may succeed.
    ///
    /// # Errors
    ///
    /// Those of `call`. `WouldBlock` from it, or without a call: [`AcceptedStream::readable`] tells when to try again.
    pub fn try_reading<T>(&self, call: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        match &self.0 {
            State::Unwatched(stream) => call(stream.as_fd()),
            State::Watched(stream) => stream.try_io(Interest::READABLE, || call(stream.as_fd())),
            State::Lost => Err(lost()),
        }
    }

    /// Reads into the free capacity of `buffer`. A short read clears tokio's readiness, as its `AsyncRead` does, which saves
    /// the system call that would return `WouldBlock`.
    ///
    /// # Errors
    ///
    /// Those of `recv(2)`.
    pub fn try_read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let room = buffer.capacity() - buffer.len();
        let mut read = None;
        let tried = self.try_reading(|socket| {
            let length = rustix::net::recv(socket, spare_capacity(buffer), RecvFlags::DONTWAIT)?.1;
            read = Some(length);
            if (1..room).contains(&length) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(length) }
        });
        read.map_or(tried, Ok)
    }

    /// Sends as much of `bytes` as the socket takes at once.
    ///
    /// # Errors
    ///
    /// Those of `send(2)`.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.0 {
            State::Unwatched(stream) => {
                Ok(rustix::net::send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
            }
            State::Watched(stream) => stream.try_write(bytes),
            State::Lost => Err(lost()),
        }
    }

    /// Sends all of `bytes`.
    ///
    /// # Errors
    ///
    /// Those of `send(2)`, and as [`AcceptedStream::watched`].
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.try_write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.watched()?.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn lost() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the connection could not be registered with epoll")
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn short_read_clears_the_readiness() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut peer = std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut stream = AcceptedStream::from(stream);
        let mut buffer = Vec::with_capacity(10);
        let more = |bytes: &[u8], peer: &mut std::net::TcpStream| peer.write_all(bytes).expect("sent");

        more(b"hello", &mut peer);
        stream.readable().await.expect("bytes");
        assert_eq!(stream.try_read(&mut buffer).expect("bytes"), 5);
        // tokio has not been notified of these bytes, so only a system call would find them.
        more(b", you", &mut peer);
        let error = stream.try_read(&mut buffer).expect_err("no system call is made");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);

        // A full read does not clear the readiness, and the end is not missed.
        stream.readable().await.expect("bytes");
        more(b"!", &mut peer);
        assert_eq!(stream.try_read(&mut buffer).expect("bytes"), 5);
        assert_eq!(buffer, b"hello, you");
        buffer.clear();
        assert_eq!(stream.try_read(&mut buffer).expect("bytes"), 1);
        drop(peer);
        stream.readable().await.expect("the end");
        assert_eq!(stream.try_read(&mut buffer).expect("the end"), 0);
    }

    #[tokio::test]
    async fn end_of_the_other_side_is_seen_without_reading() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        for (sends, resets) in [(false, false), (true, false), (true, true)] {
            let mut peer =
                std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
            let (stream, _) = listener.accept().await.expect("a connection");
            let stream = AcceptedStream::from(stream);
            if sends {
                peer.write_all(b"hello").expect("sent");
            }
            assert!(!stream.is_gone() && !stream.has_ended());
            if resets {
                socket2::SockRef::from(&peer).set_linger(Some(std::time::Duration::ZERO)).expect("an option");
            }
            // On the loopback interface, what was sent is there when the call returns.
            drop(peer);
            assert_eq!((stream.is_gone(), stream.has_ended()), (resets, !sends), "{sends} {resets}");
        }
    }

    /// What tokio cannot watch is closed, and every call on it fails.
    #[tokio::test]
    async fn unwatchable_socket_is_closed() {
        // epoll(7) takes no regular file.
        let flag = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = std::fs::OpenOptions::new().read(true).custom_flags(flag).open("/proc/self/exe").expect("a file");
        let mut stream = AcceptedStream::from(Unwatched::from(std::os::fd::OwnedFd::from(file)));
        assert!(stream.socket().is_ok());
        assert!(stream.watched().is_err());
        assert!(stream.socket().is_err() && stream.local_addr().is_err());
        let mut buffer = Vec::with_capacity(10);
        for result in [stream.try_write(b"hello"), stream.try_read(&mut buffer), stream.readable().await.map(|_| 0)] {
            assert_eq!(result.expect_err("it is closed").kind(), io::ErrorKind::NotConnected);
        }
        assert!(stream.into_watched().is_err());
    }
}
