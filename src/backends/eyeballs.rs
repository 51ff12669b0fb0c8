//! Connects to the first of several addresses of one name that accepts: Happy Eyeballs (RFC 8305).

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use crate::model::rejection::Rejection;
use crate::sys::socket;

/// How long an address has to accept before the next one is tried beside it: the "Connection Attempt Delay" that RFC 8305
/// section 5 recommends.
const DELAY: Duration = Duration::from_millis(250);

/// An address that was tried.
#[derive(Debug)]
pub(super) struct Attempt {
    address: SocketAddr,
    /// Why it failed; `None` if it has not answered.
    error: Option<String>,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.address.ip(), self.error.as_deref().unwrap_or("no answer"))
    }
}

/// Why no address was connected to.
#[derive(Debug)]
pub(super) enum Failed {
    /// Each failed; the error of the last one to do so.
    Io(io::Error),
    /// The right was revoked meanwhile.
    Refused(Rejection),
}

/// A connection that is being made.
struct Pending<F> {
    /// Its place in `tried`.
    place: usize,
    connecting: Pin<Box<F>>,
}

/// Connects to the first address that accepts. The first one has a quarter of a second for itself, then the second one is tried
/// beside it, and so on; if one fails, the next one begins at once. Asks `allowed` before each. Notes the addresses in `tried`,
/// also if the future is dropped.
pub(super) async fn connect(
    addresses: &[SocketAddr],
    data_follows: bool,
    allowed: &impl Fn() -> Result<(), Rejection>,
    tried: &mut Vec<Attempt>,
) -> Result<(TcpStream, SocketAddr), Failed> {
    let mut waiting = interleaved(addresses).into_iter();
    let mut pending = Vec::new();
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    loop {
        let next = waiting.next();
        if let Some(address) = next {
            allowed().map_err(Failed::Refused)?;
            pending.push(Pending { place: tried.len(), connecting: Box::pin(socket::connect(address, data_follows)) });
            tried.push(Attempt { address, error: None });
        }
        let first = first_of(&mut pending);
        let ended = if waiting.len() > 0 {
            match timeout(DELAY, first).await {
                Ok(ended) => ended,
                // Another one is tried beside those.
                Err(_) => continue,
            }
        } else {
            first.await
        };
        match ended {
            // None is left.
            None => return Err(Failed::Io(last)),
            Some((place, Ok(stream))) => {
                let Some(attempt) = tried.get(place) else { return Err(Failed::Io(last)) };
                debug!(address = %attempt.address, "connected");
                return Ok((stream, attempt.address));
            }
            Some((place, Err(error))) => {
                if let Some(attempt) = tried.get_mut(place) {
                    debug!(address = %attempt.address, %error, "not connected");
                    attempt.error = Some(error.to_string());
                }
                last = error;
            }
        }
    }
}

/// Waits for the first one to end, and takes it out.
async fn first_of<F: Future<Output = io::Result<TcpStream>>>(
    pending: &mut Vec<Pending<F>>,
) -> Option<(usize, io::Result<TcpStream>)> {
    poll_fn(|cx| {
        for index in 0..pending.len() {
            let Some(one) = pending.get_mut(index) else { continue };
            if let Poll::Ready(result) = one.connecting.as_mut().poll(cx) {
                let place = one.place;
                drop(pending.swap_remove(index));
                return Poll::Ready(Some((place, result)));
            }
        }
        if pending.is_empty() { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

/// The addresses with the two families in turn, beginning with that of the first one (RFC 8305 section 4).
fn interleaved(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut same, mut other) = (Vec::new(), Vec::new());
    for address in addresses {
        if address.is_ipv6() == is_v6 { &mut same } else { &mut other }.push(*address);
    }
    let mut other = other.into_iter();
    let mut all = Vec::with_capacity(addresses.len());
    for address in same {
        all.push(address);
        all.extend(other.next());
    }
    all.extend(other);
    all
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;
    use std::net::{IpAddr, Ipv4Addr, TcpListener};

    use rustix::net::sockopt;
    use tokio::time::Instant;

    use super::*;
    use crate::model::rejection::Cause;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn families_take_turns_beginning_with_the_first() {
        let all = ["[fd00::1]:1", "[fd00::2]:1", "[fd00::3]:1", "192.0.2.1:1"].map(address);
        let expected = ["[fd00::1]:1", "192.0.2.1:1", "[fd00::2]:1", "[fd00::3]:1"].map(address);
        assert_eq!(interleaved(&all), expected);
        let reversed: Vec<SocketAddr> = all.iter().rev().copied().collect();
        assert_eq!(interleaved(&reversed), ["192.0.2.1:1", "[fd00::3]:1", "[fd00::2]:1", "[fd00::1]:1"].map(address));
        assert_eq!(interleaved(&[]), []);
    }

    /// A listener of this address that swallows further connections: its queue is full.
    pub(in crate::backends) fn full(ip: Ipv4Addr, port: u16) -> (socket2::Socket, Vec<socket2::Socket>) {
        let new = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        let listener = new();
        listener.bind(&SocketAddr::from((ip, port)).into()).expect("a port");
        listener.listen(0).expect("it listens");
        let there = listener.local_addr().expect("an address");
        let fill = (0..4).map(|_| {
            let socket = new();
            socket.set_nonblocking(true).expect("an option");
            let _ = socket.connect(&there);
            socket
        });
        let fill = fill.collect();
        (listener, fill)
    }

    #[tokio::test]
    async fn address_that_swallows_packets_does_not_hold_up_the_next() {
        let good = TcpListener::bind("127.0.0.1:0").expect("a port");
        let there = good.local_addr().expect("an address");
        let (_bad, _fill) = full(Ipv4Addr::new(127, 0, 0, 2), there.port());
        let bad = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), there.port());
        let (begun, mut tried) = (Instant::now(), Vec::new());
        let (stream, address) = connect(&[bad, there], false, &|| Ok(()), &mut tried).await.expect("the second one");
        assert_eq!((address, stream.peer_addr().expect("a peer")), (there, there));
        // The first one has its time alone, and no more; a retransmission of the kernel comes after a second.
        assert!(begun.elapsed() >= DELAY, "{:?}", begun.elapsed());
        assert_eq!(
            tried.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["127.0.0.2: no answer", "127.0.0.1: no answer"]
        );
        assert!(sockopt::socket_error(&stream).expect("an option").is_ok());
    }

    #[tokio::test]
    async fn failure_begins_the_next_at_once_and_the_last_is_told() {
        let gone = crate::sys::test_port::kept();
        let good = TcpListener::bind("127.0.0.1:0").expect("a port");
        let there = good.local_addr().expect("an address");
        let mut tried = Vec::new();
        let (_, address) = connect(&[gone, gone, there], false, &|| Ok(()), &mut tried).await.expect("the last one");
        assert_eq!(address, there);
        tried.clear();
        let failed = connect(&[gone, gone], false, &|| Ok(()), &mut tried).await.expect_err("none");
        assert!(matches!(&failed, Failed::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused), "{failed:?}");
        assert!(tried.iter().all(|attempt| attempt.to_string().contains("refused")), "{tried:?}");
    }

    #[tokio::test]
    async fn right_lost_between_two_addresses_ends_the_dial() {
        let gone = crate::sys::test_port::kept();
        let asked = Cell::new(0);
        let allowed = || {
            asked.set(asked.get() + 1);
            if asked.get() > 1 { Err(Rejection::silent(Cause::Revoked)) } else { Ok(()) }
        };
        let failed = connect(&[gone, gone], false, &allowed, &mut Vec::new()).await.expect_err("it is refused");
        assert!(matches!(failed, Failed::Refused(_)), "{failed:?}");
    }
}
