//! Socket calls.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::net::RecvFlags;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// Copies what stands at the head of the receive queue into `buffer` and leaves it there (`MSG_PEEK`).
///
/// 0 bytes with a non-empty buffer is the end of the stream.
pub fn peek(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let (_, length) = rustix::net::recv(socket, buffer, RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
    Ok(length)
}

/// Says how many bytes must have come before the socket counts as readable (`SO_RCVLOWAT`, socket(7)).
///
/// The end of the stream and errors make it readable all the same. Linux enlarges the receive buffer if it is
/// smaller than the mark, so callers bound `bytes`.
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

/// What every relayed connection wants: small writes leave at once, and a peer that vanished is found out.
pub fn prepare(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_tcp_nodelay(true)?;
    keep_alive(socket)
}

/// Has the kernel find out whether a silent peer is still there: asked after a minute, given up after another one.
pub fn keep_alive(socket: &impl AsFd) -> io::Result<()> {
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

/// Makes the close of `socket` a reset: whatever was not delivered is thrown away, and the other side can tell
/// that from an orderly end.
pub fn reset_on_close(socket: &TcpStream) {
    // Nothing is lost if it fails: the close is then an orderly one.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// How many bytes that were sent the other side's TCP has not taken yet; our end of the stream counts as one.
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

/// Makes the close of `socket` a reset if more than `bytes` have yet to reach the other side: the kernel would go on
/// delivering them behind it, for minutes to somebody who reads slowly.
pub fn reset_on_close_beyond(socket: &TcpStream, bytes: u64) {
    // On a connection that is no more there is nothing to be delivered.
    if unacknowledged(socket).is_ok_and(|waiting| waiting > bytes) {
        reset_on_close(socket);
    }
}

/// Reads into what room there is in `buffer`. Where less came than fits, tokio is told at once that nothing is left, as its
/// own `AsyncRead` does it: otherwise the next one would have to ask the kernel to find that out.
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

/// How long a client gets to read the last thing it is told, and how many bytes it may send meanwhile: under TLS 1.3 it
/// believes itself in before it is, and may have begun an upload.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_MAX: usize = 1024 * 1024;

/// How long the end of the stream is held back behind it.
const GRACE: Duration = Duration::from_millis(300);

/// Whether a client that was sent the last thing it hears needs time to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The socket can be closed at once: the client has nothing more to say, so the close is an orderly one.
    Close,
    /// See [`linger`].
    Linger,
}

/// Sends the last thing a client hears, at once or not at all: a client whose buffers are full reads nothing.
///
/// An error means that it was not sent.
pub fn send_last(stream: &TcpStream, last: &[u8]) -> io::Result<Farewell> {
    let written = stream.try_write(last)?;
    if written == last.len() { Ok(Farewell::Linger) } else { Err(io::ErrorKind::WouldBlock.into()) }
}

/// As [`send_last`], as the answer to the `judged` bytes that were peeked at: these are taken off the socket. Where nothing
/// stands behind them, the client has nothing more to say before it has heard it.
///
/// An error means that it was not sent.
pub fn send_answer(stream: &TcpStream, judged: usize, last: &[u8]) -> io::Result<Farewell> {
    // One more is asked for: if it is not there, nothing unread is left, and the close is an orderly one, right behind the
    // answer.
    let taken = take_off(stream, judged + 1)?;
    discard(stream, judged.saturating_sub(taken))?;
    let farewell = send_last(stream, last)?;
    Ok(if taken == judged && judged < PEEK_MAX { Farewell::Close } else { farewell })
}

/// Waits until the client has read the last thing it was sent: closing a socket with unread bytes is a reset (RFC 1122
/// section 4.2.2.13), and a reset overtakes what was sent.
///
/// Takes at most a second, and no longer than the client takes to hang up.
pub async fn linger(stream: &TcpStream) {
    let deadline = Instant::now() + LINGER;
    // Chromium, which finds the stream at its end before it has sent its request, never gets to read the alert before that
    // end. Most clients hang up as soon as they have read it, so nothing is lost by waiting.
    let mut left = LINGER_MAX;
    let ended = timeout_at(Instant::now() + GRACE, drain(stream, &mut left)).await;
    if ended.is_err() && SockRef::from(stream).shutdown(Shutdown::Write).is_ok() {
        // Whatever comes of it, the client has had its chance.
        let _ = timeout_at(deadline, drain(stream, &mut left)).await;
    }
}

/// Reads until the client has ended or has sent so many bytes.
async fn drain(stream: &TcpStream, left: &mut usize) -> io::Result<()> {
    while *left > 0 {
        stream.readable().await?;
        // Not kept while waiting.
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
    let _ = take_off(stream, PEEK_MAX);
}

/// The most bytes [`peek_until`] looks at.
pub const PEEK_MAX: usize = 64 * 1024;

/// What to do after a look at the first bytes.
#[derive(Debug)]
pub enum Look<T> {
    /// They are enough: this is the answer.
    Done(T),
    /// Nothing can be said before so many bytes are there in all.
    Wait(usize),
}

thread_local! {
    /// One look at a time on each thread, so no connection that waits holds a buffer.
    static PEEKED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Looks at the first bytes of `stream`, without taking them, until `decide` has an answer.
///
/// `None` is a stream that ended before there was one. `decide` sees all bytes from the first one at each look, at most
/// [`PEEK_MAX`] of them; the kernel wakes us only when as many as it asked for are there (`SO_RCVLOWAT`), so a client
/// that sends byte by byte costs no more than one that does not. Not cancel-safe: the low-water mark may stay.
pub async fn peek_until<T>(stream: &TcpStream, mut decide: impl FnMut(&mut [u8]) -> Look<T>) -> io::Result<Option<T>> {
    let mut mark = 1;
    let answer = loop {
        let ready = stream.ready(Interest::READABLE).await?;
        let look = stream.try_io(Interest::READABLE, || {
            PEEKED.with_borrow_mut(|buffer| {
                buffer.resize(PEEK_MAX, 0);
                let length = peek(stream, buffer)?;
                let Some(bytes) = buffer.get_mut(..length).filter(|bytes| !bytes.is_empty()) else {
                    return Ok(None);
                };
                match decide(bytes) {
                    Look::Done(answer) => Ok(Some(answer)),
                    // The same bytes would be there at every look; what is missing will not come any more.
                    Look::Wait(_) if ready.is_read_closed() => Ok(None),
                    Look::Wait(total) => {
                        let wanted = total.clamp(length + 1, PEEK_MAX);
                        // Only a new mark is set: setting one wakes us if the kernel believes that enough is there, and
                        // it counts bytes behind an urgent one (tcp(7), MSG_OOB), which a peek never gets to. A client
                        // could have us look at the same bytes for ever.
                        if wanted != mark {
                            set_receive_low_water_mark(stream, wanted)?;
                            mark = wanted;
                        }
                        // A peek leaves the socket readable: tokio must be told to wait for the next edge.
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

/// Takes `length` bytes that were peeked at off the socket and throws them away.
pub fn discard(stream: &TcpStream, length: usize) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        left -= take_off(stream, left)?.min(left);
    }
    Ok(())
}

/// Takes at most so many bytes off the socket, and says how many. The end of the stream is an error.
fn take_off(stream: &TcpStream, most: usize) -> io::Result<usize> {
    PEEKED.with_borrow_mut(|buffer| {
        buffer.resize(PEEK_MAX, 0);
        let space = buffer.get_mut(..most.min(PEEK_MAX)).unwrap_or_default();
        // MSG_TRUNC: TCP takes them off and copies nothing (tcp(7)).
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
    async fn a_short_read_is_known_to_be_the_last_one_until_more_comes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut peer = std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut buffer = Vec::with_capacity(10);
        let more = |bytes: &[u8], peer: &mut std::net::TcpStream| peer.write_all(bytes).expect("sent");

        more(b"hello", &mut peer);
        stream.readable().await.expect("bytes");
        assert_eq!(read(&stream, &mut buffer).expect("bytes"), 5);
        // Nobody has told tokio of these yet, so they would be found only by asking the kernel.
        more(b", you", &mut peer);
        let error = read(&stream, &mut buffer).expect_err("it asked");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);

        // A full one says nothing about what is left, and the end is not missed.
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
}
