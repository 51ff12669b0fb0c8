//! The socket's side of a handshake: what is read, peeked at and sent, record by record.

use std::io;
use std::sync::Arc;

use rustix::net::RecvFlags;
use rustls::Error;
use socket2::SockRef;

use super::observation::{Observation, observe};
use crate::model::identity::Identity;
use crate::sys::accepted::AcceptedStream;
use crate::sys::socket;
use crate::tls::driver::{self, Wants};
use crate::tls::record::RECORD_MAX;

/// The most received bytes a handshake may pile up: a message may span records, and rustls takes one of 64 KiB.
const RECEIVED_MAX: usize = 96 * 1024;

/// The most records of a handshake behind the ClientHello. Clients send three to ten, and those with records of 512 bytes
/// send sixty for a chain of 30 kB; each costs as much as hundreds of bytes do.
const RECORDS_MAX: usize = 128;

/// How many bytes are read at once, at least.
const READ: usize = 4096;

/// Room for the gate's flight with one certificate.
const FLIGHT: usize = 2048;

/// The header of a record.
const RECORD_HEADER: usize = 5;

/// A handshake in progress: rustls on the one side, the socket on the other.
pub(super) struct Exchange {
    pub(super) tls: driver::Handshake,
    pub(super) received: Vec<u8>,
    /// How many of the received bytes rustls has been shown. It is shown one record more at a time: what stands behind
    /// the last record of the handshake is payload, and must stay sealed until there is a backend to take it.
    pub(super) fed: usize,
    /// Nothing may be taken off the socket but what rustls was shown: the kernel goes on where the handshake ends.
    pub(super) exact: bool,
    /// If so, how many bytes at the end of what was received are a copy of the head of the socket. Bytes that rustls has
    /// discarded are included.
    peeked: usize,
    /// How many bytes must be in the socket before it counts as readable.
    mark: usize,
    /// How many bytes of the ClientHello rustls has not been shown yet.
    hello: usize,
    /// How many records rustls has been shown behind it.
    records: usize,
    /// Records that can wait.
    pub(super) unsent: Vec<u8>,
    pub(super) observation: Observation,
}

/// Why a handshake goes no further.
pub(super) enum Failure {
    Closed,
    Io(io::Error),
    TooMuch,
    Tls { error: Error, alert: Vec<u8> },
}

impl From<driver::Failure> for Failure {
    fn from(failure: driver::Failure) -> Self {
        match failure {
            driver::Failure::Closed => Self::Closed,
            driver::Failure::Tls { error, alert } => Self::Tls { error, alert },
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Exchange {
    /// Nothing has been received yet; `hello` bytes of ClientHello are in the socket.
    pub(super) fn new(tls: driver::Handshake, hello: usize, exact: bool) -> Self {
        Self {
            tls,
            // The ClientHello fits the first read, and so does what comes right behind it.
            received: Vec::with_capacity(READ.max(hello + RECORD_HEADER)),
            fed: 0,
            exact,
            peeked: 0,
            mark: 1,
            hello,
            records: 0,
            unsent: Vec::new(),
            observation: Observation::default(),
        }
    }

    /// The identity in the certificate of a handshake that failed. The client has not proved to hold its key, so the
    /// identity is not verified, even if it is anchored.
    pub(super) fn presented(&mut self) -> Option<Arc<Identity>> {
        let identity = self.observation.identity.take()?;
        Some(Arc::new(Identity { verified: false, ..Identity::clone(&identity) }))
    }

    /// Runs the handshake. The whole ClientHello has arrived. `answered` is set before anything is sent.
    pub(super) async fn run(&mut self, stream: &mut AcceptedStream, answered: &mut bool) -> Result<(), Failure> {
        if self.exact {
            // The ClientHello is rustls' for certain, so it need not be peeked at again.
            self.received.resize(self.hello, 0);
            let read = stream
                .try_reading(|socket| Ok(rustix::net::recv(socket, &mut self.received[..], RecvFlags::DONTWAIT)?.1));
            self.received.truncate(read.unwrap_or_default());
        }
        let mut out = Vec::with_capacity(FLIGHT);
        loop {
            match self.advance(&mut out)? {
                // The kernel numbers its records from the first one on that has not been sent.
                Wants::Send if self.tls.only_tickets_are_left() && !self.exact => self.unsent.append(&mut out),
                Wants::Send => {
                    *answered = true;
                    stream.send(&out).await?;
                    out.clear();
                }
                Wants::Receive => self.receive(stream).await?,
                Wants::Nothing => return Ok(()),
            }
        }
    }

    /// Takes one more record, from what has been received or from the socket.
    async fn receive(&mut self, stream: &mut AcceptedStream) -> Result<(), Failure> {
        // The ClientHello is there.
        let mut may_be_there = self.hello > 0;
        loop {
            let rest = self.received.get(self.fed..).unwrap_or_default();
            let mut missing = 1;
            if let Some(&[_, _, _, high, low]) = rest.first_chunk::<RECORD_HEADER>() {
                let record = RECORD_HEADER + usize::from(u16::from_be_bytes([high, low]));
                // A length that no record may have is shown to rustls at once, for the alert that belongs to it.
                if rest.len() >= record || record > RECORD_MAX {
                    let shown = record.min(rest.len());
                    self.fed += shown;
                    return self.count(shown);
                }
                missing = record - rest.len();
            }
            if self.received.len() > RECEIVED_MAX {
                return Err(Failure::TooMuch);
            }
            // rustls wants another record, so the part of one that is here will be shown to it for certain.
            self.take_off(stream, 0)?;
            self.wait_for(stream, missing)?;
            if self.records > 0 {
                // A client with Nagle's algorithm holds the end of its flight back until the beginning is acknowledged,
                // which Linux does 40 ms later. Without it the client only waits.
                let _ = SockRef::from(&stream.socket()?).set_tcp_quickack(true);
            }
            if !std::mem::take(&mut may_be_there) {
                stream.readable().await?;
            }
            self.received.reserve(missing.max(READ));
            let read = if self.exact { self.peek(stream) } else { stream.try_read(&mut self.received) };
            match read {
                Ok(0) => return Err(Failure::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Counts a record of so many bytes.
    fn count(&mut self, bytes: usize) -> Result<(), Failure> {
        if self.hello == 0 {
            self.records += 1;
        }
        self.hello = self.hello.saturating_sub(bytes);
        if self.records > RECORDS_MAX { Err(Failure::TooMuch) } else { Ok(()) }
    }

    /// Makes the socket readable only when so many bytes have arrived, or the end: a record wakes the task once, however
    /// small the pieces it arrives in.
    pub(super) fn wait_for(&mut self, stream: &AcceptedStream, bytes: usize) -> io::Result<()> {
        if self.mark != bytes {
            socket::set_receive_low_water_mark(stream.socket()?, bytes)?;
            self.mark = bytes;
        }
        Ok(())
    }

    /// Appends a copy of the head of the socket to what was received.
    fn peek(&mut self, stream: &AcceptedStream) -> io::Result<usize> {
        let start = self.received.len();
        self.received.resize(self.received.capacity(), 0);
        let peeked =
            stream.try_reading(|socket| socket::peek(socket, self.received.get_mut(start..).unwrap_or_default()));
        self.peeked = peeked.as_ref().copied().unwrap_or_default();
        self.received.truncate(start + self.peeked);
        peeked
    }

    /// Takes what was peeked at off the socket, except the last `left` bytes.
    pub(super) fn take_off(&mut self, stream: &AcceptedStream, left: usize) -> io::Result<()> {
        let done = self.peeked.saturating_sub(left);
        self.peeked -= done;
        socket::discard(stream, done)
    }

    /// Lets rustls work until it needs the network. What it has to send is appended to `out`.
    fn advance(&mut self, out: &mut Vec<u8>) -> Result<Wants, Failure> {
        let Self { tls, received, fed, observation, .. } = self;
        Ok(observe(observation, || tls.advance(received, fed, out))?)
    }
}
