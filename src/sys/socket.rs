//! Calls on TCP sockets: options, peeking, reading, sending and lingering.

use std::cell::RefCell;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::net::RecvFlags;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

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
pub fn reset_on_close(socket: &TcpStream) {
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

/// Reads into the free capacity of `buffer`. A short read clears tokio's readiness, as its `AsyncRead` does, which saves the
/// system call that would return `WouldBlock`.
pub fn read(stream: &TcpStream, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let room = buffer.capacity() - buffer.len();
    let mut read = None;
    let tried = stream.try_io(Interest::READABLE, || {
        let length = rustix::net::recv(stream, spare_capacity(buffer), RecvFlags::DONTWAIT)?.1;
        read = Some(length);
        if (1..room).contains(&length) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(length) }
    });
    read.map_or(tried, Ok)
}

/// Sends all of `bytes`.
pub async fn send(stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match stream.try_write(rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
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
    /// At once: no unread bytes are left, so the close is an orderly one.
    Close,
    /// See [`linger`].
    Linger,
}

/// Sends the last bytes to a client, if the socket accepts them at once. An error means that they were not sent.
pub fn send_last(stream: &TcpStream, last: &[u8]) -> io::Result<Farewell> {
    let written = stream.try_write(last)?;
    if written == last.len() { Ok(Farewell::Linger) } else { Err(io::ErrorKind::WouldBlock.into()) }
}

/// As [`send_last`], as the answer to the `judged` bytes that were peeked at, which are first removed from the socket. If no
/// byte follows them, the socket can be closed at once.
pub fn send_answer(stream: &TcpStream, judged: usize, last: &[u8]) -> io::Result<Farewell> {
    // One byte more is requested: if there is none, nothing unread is left and the close is an orderly one.
    let taken = remove(stream, judged + 1)?;
    discard(stream, judged.saturating_sub(taken))?;
    let farewell = send_last(stream, last)?;
    Ok(if taken == judged && judged < PEEK_MAX { Farewell::Close } else { farewell })
}

/// Waits, for at most a second, until the client closes: closing a socket with unread bytes causes a reset (RFC 1122 section
/// 4.2.2.13), which could overtake what was sent.
pub async fn linger(stream: &TcpStream) {
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
pub fn take_unread(stream: &TcpStream) {
    // There need not be any.
    let _ = remove(stream, PEEK_MAX);
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
    stream: &TcpStream,
    mut decide: impl FnMut(&mut [u8]) -> Peeked<T>,
) -> io::Result<Option<T>> {
    let mut mark = 1;
    let answer = loop {
        let ready = stream.ready(Interest::READABLE).await?;
        let look = stream.try_io(Interest::READABLE, || {
            PEEK_BUFFER.with_borrow_mut(|buffer| {
                buffer.resize(PEEK_MAX, 0);
                let length = peek(stream, buffer)?;
                let Some(bytes) = buffer.get_mut(..length).filter(|bytes| !bytes.is_empty()) else {
                    return Ok(None);
                };
                match decide(bytes) {
                    Peeked::Done(answer) => Ok(Some(answer)),
                    // The stream has ended, so the missing bytes cannot arrive.
                    Peeked::NeedsBytes(_) if ready.is_read_closed() => Ok(None),
                    Peeked::NeedsBytes(total) => {
                        let wanted = total.clamp(length + 1, PEEK_MAX);
                        // Set only if it differs: setting the mark wakes the task if the kernel counts enough bytes, and it
                        // counts those behind an urgent byte (tcp(7), MSG_OOB), which a peek never reaches. A client could
                        // cause an endless loop.
                        if wanted != mark {
                            set_receive_low_water_mark(stream, wanted)?;
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
    };
    if mark > 1 {
        set_receive_low_water_mark(stream, 1)?;
    }
    Ok(answer)
}

/// Removes `length` bytes that were peeked at from the socket.
pub fn discard(stream: &TcpStream, length: usize) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        left -= remove(stream, left)?.min(left);
    }
    Ok(())
}

/// Removes at most `most` bytes from the socket and returns how many. The end of the stream is an error.
fn remove(stream: &TcpStream, most: usize) -> io::Result<usize> {
    PEEK_BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(PEEK_MAX, 0);
        let space = buffer.get_mut(..most.min(PEEK_MAX)).unwrap_or_default();
        // MSG_TRUNC: TCP discards the bytes without copying them (tcp(7)).
        match rustix::net::recv(stream, space, RecvFlags::DONTWAIT | RecvFlags::TRUNC)? {
            (_, 0) => Err(io::ErrorKind::UnexpectedEof.into()),
            (_, taken) => Ok(taken),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn short_read_clears_the_readiness() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut peer = std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut buffer = Vec::with_capacity(10);
        let more = |bytes: &[u8], peer: &mut std::net::TcpStream| peer.write_all(bytes).expect("sent");

        more(b"hello", &mut peer);
        stream.readable().await.expect("bytes");
        assert_eq!(read(&stream, &mut buffer).expect("bytes"), 5);
        // tokio has not been notified of these bytes, so only a system call would find them.
        more(b", you", &mut peer);
        let error = read(&stream, &mut buffer).expect_err("no system call is made");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);

        // A full read does not clear the readiness, and the end is not missed.
        stream.readable().await.expect("bytes");
        more(b"!", &mut peer);
        assert_eq!(read(&stream, &mut buffer).expect("bytes"), 5);
        assert_eq!(buffer, b"hello, you");
        buffer.clear();
        assert_eq!(read(&stream, &mut buffer).expect("bytes"), 1);
        drop(peer);
        stream.readable().await.expect("the end");
        assert_eq!(read(&stream, &mut buffer).expect("the end"), 0);
    }

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
}
