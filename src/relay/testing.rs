//! Test peers on both sides of a relay, over loopback.

use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::task::Poll;
use std::time::Duration;

use rustls::client::ClientConnection;
use socket2::{SockRef, Socket};
use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::{End, Engine};
use crate::tls::record::testing::Random;

/// The timeout for operations that take milliseconds.
const DEADLINE: Duration = Duration::from_secs(30);
/// The factor for the virtual machines of tests/vm, which are emulated.
const EMULATED: u32 = 10;

/// The size of tiny socket buffers and the segment size for them: segments are 64 KiB on loopback, and a window smaller than
/// a segment advances at the pace of timers.
const TINY: u32 = 4096;
const TINY_SEGMENT: u32 = 536;

/// Fails after the timeout.
pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    let factor = if std::env::var_os("GATE_REQUIRE_KTLS").is_some() { EMULATED } else { 1 };
    timeout(DEADLINE * factor, future).await.expect("the operation finishes in time")
}

/// A connection over loopback: the connecting and the accepting socket.
pub(super) async fn pair(tiny: bool) -> (TcpStream, TcpStream) {
    let socket = || {
        let socket = TcpSocket::new_v4().expect("a socket");
        if tiny {
            socket.set_recv_buffer_size(TINY).expect("a socket option");
            socket.set_send_buffer_size(TINY).expect("a socket option");
            SockRef::from(&socket).set_tcp_mss(TINY_SEGMENT).expect("a socket option");
        }
        socket
    };
    let listener = socket();
    listener.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let listener = listener.listen(1).expect("a listener");
    let socket = socket();
    let address = listener.local_addr().expect("an address");
    let (connected, accepted) = tokio::join!(socket.connect(address), listener.accept());
    let (connected, accepted) = (connected.expect("connected"), accepted.expect("accepted").0);
    for socket in [&connected, &accepted] {
        socket.set_nodelay(true).expect("a socket option");
    }
    (connected, accepted)
}

/// Makes the close of `socket` a reset.
pub(super) fn reset(socket: TcpStream) {
    Socket::from(socket.into_std().expect("a socket")).set_linger(Some(Duration::ZERO)).expect("a socket option");
}

/// Runs the engine until it ends.
pub(super) async fn until_end(engine: &mut impl Engine) -> End {
    poll_fn(|cx| engine.poll_move(cx)).await
}

/// Polls the engine once. `None` if it is pending.
pub(super) async fn poll_once(engine: &mut impl Engine) -> Option<End> {
    poll_fn(|cx| {
        Poll::Ready(match engine.poll_move(cx) {
            Poll::Ready(end) => Some(end),
            Poll::Pending => None,
        })
    })
    .await
}

/// Runs the engine until it ends, which returns its end, or until `done`.
pub(super) async fn drive<E: Engine>(engine: &mut E, done: impl Future<Output = ()>) -> Option<End> {
    within(async {
        tokio::select! {
            biased;
            end = poll_fn(|cx| engine.poll_move(cx)) => Some(end),
            () = done => None,
        }
    })
    .await
}

/// The behaviour of one side: it sends, receives, and ends when everything is sent.
pub(super) struct Script<'a> {
    pub(super) send: &'a [u8],
    pub(super) seed: u64,
    /// The most bytes sent or received at a time.
    pub(super) chunk: usize,
    /// Yields to the others between chunks.
    pub(super) slow: bool,
    /// Ends its direction when everything is sent, instead of waiting for the end of the other side.
    pub(super) ends_first: bool,
}

impl Script<'_> {
    async fn pause(&self, random: &mut Random) {
        if self.slow {
            for _ in 0..random.below(8) {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Runs a script on a socket without TLS. Returns what was received.
pub(super) async fn play(stream: &TcpStream, script: Script<'_>) -> io::Result<Vec<u8>> {
    let mut random = Random(script.seed);
    let (mut sent, mut received, mut ended, mut shut) = (0, Vec::new(), false, false);
    let mut part = vec![0; script.chunk];
    while !(ended && shut) {
        if sent == script.send.len() && !shut && (script.ends_first || ended) {
            SockRef::from(stream).shutdown(std::net::Shutdown::Write)?;
            shut = true;
            continue;
        }
        script.pause(&mut random).await;
        let wish = wish(sent < script.send.len(), !ended);
        let ready = stream.ready(wish).await?;
        if ready.is_writable() && sent < script.send.len() {
            let most = script.send.len().min(sent + 1 + random.below(script.chunk));
            sent += done(stream.try_write(&script.send[sent..most]))?.unwrap_or(0);
        }
        if ready.is_readable() && !ended {
            let most = 1 + random.below(script.chunk);
            if let Some(length) = done(stream.try_read(&mut part[..most]))? {
                received.extend_from_slice(&part[..length]);
                ended = length == 0;
            }
        }
    }
    Ok(received)
}

fn wish(write: bool, read: bool) -> Interest {
    match (write, read) {
        (true, true) => Interest::READABLE | Interest::WRITABLE,
        (true, false) => Interest::WRITABLE,
        _ => Interest::READABLE,
    }
}

fn done<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// A rustls client on a socket.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    pub(super) tls: ClientConnection,
}

/// A socket for rustls: reads and writes at most so many bytes, without waiting.
struct Limited<'a>(&'a TcpStream, usize);

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.1);
        self.0.try_read(&mut buffer[..most])
    }
}

impl Write for Limited<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(&bytes[..bytes.len().min(self.1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Client {
    /// Seals and sends.
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.tls.writer().write_all(bytes).expect("memory");
        self.flush().await.expect("sent");
    }

    /// Sends the sealed records.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.stream.writable().await?;
            done(self.tls.write_tls(&mut Limited(&self.stream, usize::MAX)))?;
        }
        Ok(())
    }

    /// Sends a close_notify and keeps the socket open.
    pub(super) async fn send_close_notify(&mut self) {
        self.tls.send_close_notify();
        self.flush().await.expect("sent");
    }

    /// Receives at least `length` bytes.
    pub(super) async fn receive(&mut self, length: usize) -> Vec<u8> {
        let mut received = Vec::new();
        while received.len() < length {
            let more = self.take_some(&mut received).await.expect("records");
            assert!(more || received.len() >= length, "ended after {} bytes", received.len());
        }
        received
    }

    /// Receives until the close_notify.
    pub(super) async fn receive_all(&mut self) -> io::Result<Vec<u8>> {
        let mut received = Vec::new();
        self.take_all(&mut received).await?;
        Ok(received)
    }

    /// As [`receive_all`](Self::receive_all); on an error, `received` holds what was received before it.
    pub(super) async fn take_all(&mut self, received: &mut Vec<u8>) -> io::Result<()> {
        while self.take_some(received).await? {}
        Ok(())
    }

    /// Receives some bytes. False at the end; an end without close_notify is an error.
    pub(super) async fn take_some(&mut self, received: &mut Vec<u8>) -> io::Result<bool> {
        self.stream.readable().await?;
        self.take_now(received, usize::MAX)
    }

    fn take_now(&mut self, received: &mut Vec<u8>, most: usize) -> io::Result<bool> {
        if done(self.tls.read_tls(&mut Limited(&self.stream, most)))?.is_some() {
            self.tls.process_new_packets().map_err(io::Error::other)?;
        }
        let mut part = [0; 1 << 14];
        loop {
            match done(self.tls.reader().read(&mut part))? {
                None => return Ok(true),
                Some(0) => return Ok(false),
                Some(length) => received.extend_from_slice(&part[..length]),
            }
        }
    }

    /// Runs a script. Returns what was received.
    pub(super) async fn play(&mut self, script: Script<'_>) -> io::Result<Vec<u8>> {
        let mut random = Random(script.seed);
        let (mut sent, mut received, mut ended, mut shut) = (0, Vec::new(), false, false);
        while !(ended && shut && !self.tls.wants_write()) {
            if !self.tls.wants_write() && !shut {
                if sent < script.send.len() {
                    let most = script.send.len().min(sent + 1 + random.below(script.chunk));
                    sent += self.tls.writer().write(&script.send[sent..most])?;
                } else if script.ends_first || ended {
                    self.tls.send_close_notify();
                    shut = true;
                }
            }
            script.pause(&mut random).await;
            let ready = self.stream.ready(wish(self.tls.wants_write(), !ended)).await?;
            if ready.is_writable() && self.tls.wants_write() {
                done(self.tls.write_tls(&mut Limited(&self.stream, 1 + random.below(script.chunk))))?;
            }
            if ready.is_readable() && !ended {
                ended = !self.take_now(&mut received, 1 + random.below(script.chunk))?;
            }
        }
        Ok(received)
    }
}
