//! Calls on TCP sockets: options, peeking, reading, sending and lingering.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::accepted::AcceptedStream;

/// Copies the first bytes of the receive queue into `buffer` and leaves them there (`MSG_PEEK`). 0 is the end of the stream.
pub fn peek(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let (_, length) = rustix::net::recv(socket, buffer, RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
    Ok(length)
}

/// Sets how many bytes make the socket readable (`SO_RCVLOWAT`, socket(7)). The end of the stream and errors do so too.
///
/// Linux enlarges a receive buffer that is smaller than the mark, so callers bound `bytes`.
#[expect(unsafe_code, reason = "neither socket2 nor rustix offers SO_RCVLOWAT")]
pub fn set_receive_low_water_mark(socket: impl AsFd, bytes: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
    let length = libc::socklen_t::try_from(size_of_val(&value)).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is borrowed for the whole call; the kernel reads `length` bytes at `&value`, which is
    // that long and outlives the call, and keeps no pointer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const value).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the options of every relayed connection: small writes are sent at once, and keep-alive detects a vanished peer.
pub fn prepare(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_tcp_nodelay(true)?;
    keep_alive(socket)
}

/// Connects to a backend. Small writes leave at once. Keep-alives are for the relay to ask for, once it has lasted.
///
/// If `data_follows`, the third packet of TCP's handshake is not sent alone but with those data: one packet less, and the backend
/// wakes once for both. Without data it is sent after 200 ms, so this is not for a backend that may speak first.
pub async fn connect(address: SocketAddr, data_follows: bool) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if data_follows {
        // If it fails, the packet is sent alone.
        let _ = socket.set_tcp_quickack(false);
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    let stream = TcpStream::from_std(socket.into())?;
    let ready = stream.ready(Interest::WRITABLE).await?;
    // A connection that failed can no longer be written to (EPOLLHUP). For the others the system call is saved.
    match if ready.is_write_closed() { stream.take_error()? } else { None } {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

/// Switches on keep-alive: the first probe after a minute of silence, the connection fails after another minute.
pub fn keep_alive(socket: &impl AsFd) -> io::Result<()> {
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

/// Makes the close of `socket` a reset: undelivered bytes are discarded, and the other side sees no orderly end.
pub fn reset_on_close(socket: &impl AsFd) {
    // If it fails, the close is an orderly one.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// How many sent bytes the other side's TCP has not acknowledged; our end of the stream counts as one.
///
/// # Errors
///
/// Those of `ioctl(2)`.
#[expect(unsafe_code, reason = "rustix has no TIOCOUTQ")]
pub fn unacknowledged(socket: impl AsFd) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is borrowed for the whole call; the kernel writes one int (tcp(7), SIOCOUTQ, which is
    // TIOCOUTQ), to a place that is one, and keeps no pointer.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { Ok(u64::try_from(bytes).unwrap_or_default()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the close of `socket` a reset if more than `bytes` bytes are undelivered: after an orderly close the kernel would
/// deliver them to a slow reader for minutes.
pub fn reset_on_close_beyond(socket: &TcpStream, bytes: u64) {
    // On an error the connection is closed and nothing is delivered.
    if unacknowledged(socket).is_ok_and(|waiting| waiting > bytes) {
        reset_on_close(socket);
    }
}

/// Sends as much of `buffers` as the socket takes at once. A shutdown follows when all is sent: the kernel may keep the bytes
/// for it (`MSG_MORE`), so that they leave in one packet.
pub fn try_write_before_shutdown(stream: &TcpStream, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL | SendFlags::MORE;
    stream.try_io(Interest::WRITABLE, || {
        Ok(rustix::net::sendmsg(stream, buffers, &mut SendAncillaryBuffer::default(), flags)?)
    })
}

/// How long a client gets to read its alert, and how many bytes it may send meanwhile: a TLS 1.3 client considers the
/// handshake complete before the gate does, and may have begun an upload.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_MAX: usize = 1024 * 1024;

/// How long the end of the stream is delayed after the alert.
const END_DELAY: Duration = Duration::from_millis(300);

/// How a socket is closed after the last bytes were sent to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// At once: nothing was sent.
    Close,
    /// By [`shutdown_and_close`], with which the last bytes leave: no unread bytes are left, so the close is an orderly one.
    Shutdown,
    /// See [`linger`].
    Linger,
}

/// Sends the last bytes to a client, if the socket accepts them at once. An error means that they were not sent.
pub fn send_last(stream: &AcceptedStream, last: &[u8]) -> io::Result<Farewell> {
    let written = stream.try_write(last)?;
    if written == last.len() { Ok(Farewell::Linger) } else { Err(io::ErrorKind::WouldBlock.into()) }
}

/// As [`send_last`], as the answer to the `judged` bytes that were peeked at, which are first removed from the socket. If no
/// byte follows them, the socket need not linger.
pub fn send_answer(stream: &AcceptedStream, judged: usize, last: &[u8]) -> io::Result<Farewell> {
    // One byte more is requested: if there is none, nothing unread is left and the close is an orderly one.
    let taken = remove(stream.socket()?, judged + 1)?;
    discard(stream, judged.saturating_sub(taken))?;
    if taken != judged || judged >= PEEK_MAX {
        return send_last(stream, last);
    }
    let socket = stream.socket()?;
    if rustix::net::send(socket, last, SendFlags::DONTWAIT | SendFlags::NOSIGNAL | SendFlags::MORE)? < last.len() {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok(Farewell::Shutdown)
}

/// Sends the end of the stream, in one packet with the last bytes, and closes the socket. A close alone would discard them if
/// the client has sent more by now.
pub fn shutdown_and_close(stream: AcceptedStream) {
    // Fails only if the client is already gone.
    let _ = stream.socket().and_then(|socket| SockRef::from(&socket).shutdown(Shutdown::Write));
}

/// Waits, for at most a second, until the client closes: closing a socket with unread bytes causes a reset (RFC 1122 section
/// 4.2.2.13), which could overtake what was sent.
pub async fn linger(stream: &mut AcceptedStream) {
    let Ok(stream) = stream.watched() else { return };
    let deadline = Instant::now() + LINGER;
    // Chromium never reads the alert if the stream ends before it has sent its request, so the end is delayed. Most clients
    // close as soon as they have read the alert.
    let mut left = LINGER_MAX;
    let ended = timeout_at(Instant::now() + END_DELAY, drain(stream, &mut left)).await;
    if ended.is_err() && SockRef::from(stream).shutdown(Shutdown::Write).is_ok() {
        // The result does not matter: the socket is closed next.
        let _ = timeout_at(deadline, drain(stream, &mut left)).await;
    }
}

/// Reads until the client has ended or `left` bytes have been read.
async fn drain(stream: &TcpStream, left: &mut usize) -> io::Result<()> {
    while *left > 0 {
        stream.readable().await?;
        // The buffer is not held while waiting.
        match stream.try_read(&mut [0; 4096]) {
            Ok(0) => break,
            Ok(length) => *left = left.saturating_sub(length),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Throws away what has come and was not read, [`PEEK_MAX`] bytes of it at most: the close of a socket with unread bytes is a
/// reset, which overtakes what was sent. For a socket that is to be closed without waiting for its client.
pub fn take_unread(stream: &AcceptedStream) {
    // There need not be any.
    let _ = stream.socket().and_then(|socket| remove(socket, PEEK_MAX));
}

/// The most bytes [`peek_until`] looks at.
pub const PEEK_MAX: usize = 64 * 1024;

/// The result of looking at the first bytes.
#[derive(Debug)]
pub enum Peeked<T> {
    /// The bytes are sufficient, and this is the answer.
    Done(T),
    /// At least this many bytes are needed in total.
    NeedsBytes(usize),
}

thread_local! {
    /// One buffer per thread, so that a waiting connection holds none.
    static PEEK_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Peeks at the first bytes of `stream` until `decide` has an answer. `None` if the stream ends before.
///
/// `decide` gets all bytes from the first one each time, at most [`PEEK_MAX`] of them. The kernel wakes the task only when
/// the requested number of bytes has arrived (`SO_RCVLOWAT`), so a client that sends byte by byte costs no more than others.
/// Not cancel-safe: the low-water mark may stay.
pub async fn peek_until<T>(
    stream: &mut AcceptedStream,
    mut decide: impl FnMut(&mut [u8]) -> Peeked<T>,
) -> io::Result<Option<T>> {
    let (mut mark, mut ended) = (1, false);
    let answer = loop {
        let look = stream.try_reading(|socket| {
            PEEK_BUFFER.with_borrow_mut(|buffer| {
                buffer.resize(PEEK_MAX, 0);
                let length = peek(socket, buffer)?;
                let Some(bytes) = buffer.get_mut(..length).filter(|bytes| !bytes.is_empty()) else {
                    return Ok(None);
                };
                match decide(bytes) {
                    Peeked::Done(answer) => Ok(Some(answer)),
                    // The stream has ended, so the missing bytes cannot arrive.
                    Peeked::NeedsBytes(_) if ended => Ok(None),
                    Peeked::NeedsBytes(total) => {
                        let wanted = total.clamp(length + 1, PEEK_MAX);
                        // Set only if it differs: setting the mark wakes the task if the kernel counts enough bytes, and it
                        // counts those behind an urgent byte (tcp(7), MSG_OOB), which a peek never reaches. A client could
                        // cause an endless loop.
                        if wanted != mark {
                            set_receive_low_water_mark(socket, wanted)?;
                            mark = wanted;
                        }
                        // A peek leaves the socket readable, so tokio's readiness must be cleared.
                        Err(io::ErrorKind::WouldBlock.into())
                    }
                }
            })
        });
        match look {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => break other?,
        }
        ended = stream.readable().await?.is_read_closed();
    };
    if mark > 1 {
        set_receive_low_water_mark(stream.socket()?, 1)?;
    }
    Ok(answer)
}

/// Removes `length` bytes that were peeked at from the socket.
pub fn discard(stream: &AcceptedStream, length: usize) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        left -= remove(stream.socket()?, left)?.min(left);
    }
    Ok(())
}

/// Removes at most `most` bytes from the socket and returns how many. The end of the stream is an error.
fn remove(socket: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    PEEK_BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(PEEK_MAX, 0);
        let space = buffer.get_mut(..most.min(PEEK_MAX)).unwrap_or_default();
        // MSG_TRUNC: TCP discards the bytes without copying them (tcp(7)).
        match rustix::net::recv(socket, space, RecvFlags::DONTWAIT | RecvFlags::TRUNC)? {
            (_, 0) => Err(io::ErrorKind::UnexpectedEof.into()),
            (_, taken) => Ok(taken),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// Whether a listener has the connection as soon as `connect` returns, before anything is sent. `None` if that took so long
    /// that it says nothing.
    async fn is_open_at_once(data_follows: bool) -> Option<bool> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("an option");
        let begun = Instant::now();
        let stream = connect(listener.local_addr().expect("an address"), data_follows).await.expect("a connection");
        assert!(stream.nodelay().expect("an option"));
        let open = listener.accept().is_ok();
        let in_time = begun.elapsed() < Duration::from_millis(100);
        if !open {
            stream.try_write(b"hello").expect("sent");
            assert!(listener.accept().is_ok(), "the data open it");
        }
        in_time.then_some(open)
    }

    #[tokio::test]
    async fn handshake_ends_with_the_data_that_follow() {
        for (data_follows, at_once) in [(false, true), (true, false)] {
            let mut seen = None;
            while seen.is_none() {
                seen = is_open_at_once(data_follows).await;
            }
            assert_eq!(seen, Some(at_once));
        }
    }

    #[tokio::test]
    async fn refused_connection_is_an_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        for data_follows in [false, true] {
            let error = connect(address, data_follows).await.expect_err("it is closed");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
    }

    /// Without a runtime nothing can be registered with epoll.
    #[test]
    fn bytes_that_are_there_need_no_registration() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut peer = std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        peer.write_all(b"hello").expect("sent");
        let (stream, _) = listener.accept().expect("a connection");
        while stream.peek(&mut [0; 8]).expect("bytes") < 5 {}
        stream.set_nonblocking(true).expect("an option");
        let mut stream = AcceptedStream::from(stream);
        {
            let looked = std::pin::pin!(peek_until(&mut stream, |bytes| Peeked::Done(bytes.len())));
            let polled = looked.poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(polled, Poll::Ready(Ok(Some(5)))), "{polled:?}");
        }
        assert_eq!(send_answer(&stream, 5, b"bye").expect("sent"), Farewell::Shutdown);
        peer.set_nonblocking(true).expect("an option");
        assert_eq!(peer.read(&mut [0; 8]).expect_err("it waits").kind(), io::ErrorKind::WouldBlock);
        // The client may have sent more by now.
        peer.write_all(b"more").expect("sent");
        shutdown_and_close(stream);
        peer.set_nonblocking(false).expect("an option");
        let mut answer = Vec::new();
        peer.read_to_end(&mut answer).expect("the end");
        assert_eq!(answer, b"bye");
    }

    #[tokio::test]
    async fn last_bytes_leave_with_the_shutdown() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let stream = connect(listener.local_addr().expect("an address"), false).await.expect("a connection");
        let (mut peer, _) = listener.accept().expect("a connection");
        peer.set_nonblocking(true).expect("an option");
        let buffers = [IoSlice::new(b"by"), IoSlice::new(b""), IoSlice::new(b"e")];
        assert_eq!(try_write_before_shutdown(&stream, &buffers).expect("sent"), 3);
        // On the loopback interface, what was sent is there when the call returns.
        let error = peer.read(&mut [0; 8]).expect_err("it waits");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        SockRef::from(&stream).shutdown(Shutdown::Write).expect("an open socket");
        let mut last = Vec::new();
        peer.read_to_end(&mut last).expect("the end");
        assert_eq!(last, b"bye");
    }
}
