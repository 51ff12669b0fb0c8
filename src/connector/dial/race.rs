//! Connects to the first address of a host that answers (Happy Eyeballs, RFC 8305).

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::connector::fault::Unreached;
use crate::connector::platform;

/// How long an address has before the next one is tried beside it (RFC 8305 section 8).
const DELAY: Duration = Duration::from_millis(250);

/// The most addresses that are tried.
const ADDRESSES_MAX: usize = 8;

/// How long a connection is silent before the kernel asks whether the gate is still there, and how often it asks: a laptop that slept, or
/// changed its network, learns within a minute that the connection is gone.
const KEEPALIVE: Duration = Duration::from_secs(30);
const QUESTIONS: u32 = 3;

/// How long the gate has to acknowledge what it was sent. Nothing is asked meanwhile, and the kernel would send it again for a quarter of
/// an hour.
const ACKNOWLEDGED: Duration = Duration::from_secs(60);

/// Connects to a host.
pub(super) async fn connect(host: &str, port: u16, deadline: Instant) -> Result<(TcpStream, SocketAddr), Unreached> {
    let looked_up = timeout_at(deadline, lookup_host((host, port))).await;
    let found = looked_up.map_err(|_| Unreached::Name("no answer in time".to_owned()))?;
    let found: Vec<SocketAddr> = found.map_err(|error| Unreached::Name(look_up_text(&error)))?.collect();
    let addresses = interleaved(found);
    if addresses.is_empty() {
        return Err(Unreached::Name("it has no address".to_owned()));
    }
    let tried: Vec<SocketAddr> = addresses.iter().copied().collect();
    match timeout_at(deadline, race(addresses)).await {
        Ok(Ok((stream, address))) => {
            prepare(&stream);
            Ok((stream, address))
        }
        Ok(Err(failures)) => Err(Unreached::Addresses(failures)),
        Err(_) => Err(Unreached::Timeout(tried)),
    }
}

async fn race(
    mut addresses: VecDeque<SocketAddr>,
) -> Result<(TcpStream, SocketAddr), Vec<(SocketAddr, io::ErrorKind)>> {
    let mut attempts = JoinSet::new();
    let mut failures = Vec::new();
    loop {
        if let Some(address) = addresses.pop_front() {
            attempts.spawn(async move { (address, TcpStream::connect(address).await) });
        }
        let next = async { if addresses.is_empty() { std::future::pending().await } else { sleep(DELAY).await } };
        tokio::select! {
            ended = attempts.join_next() => match ended {
                Some(Ok((address, Ok(stream)))) => return Ok((stream, address)),
                Some(Ok((address, Err(error)))) => failures.push((address, error.kind())),
                Some(Err(_)) => {}
                None => return Err(failures),
            },
            () = next => {}
        }
    }
}

/// What was found, alternating between the families, in the order of the resolver (RFC 8305 section 4).
fn interleaved(found: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_ipv6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (mut one, mut other): (VecDeque<_>, VecDeque<_>) =
        found.into_iter().partition(|address| address.is_ipv6() == first_is_ipv6);
    let mut addresses = VecDeque::new();
    while addresses.len() < ADDRESSES_MAX && !(one.is_empty() && other.is_empty()) {
        addresses.extend(one.pop_front());
        addresses.extend(other.pop_front());
    }
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

/// The resolver's words without its prefix, the same on every system.
fn look_up_text(error: &io::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("failed to lookup address information: ").unwrap_or(&text).to_owned()
}

fn prepare(stream: &TcpStream) {
    // None is vital.
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / QUESTIONS);
    let _ = socket.set_tcp_keepalive(&keepalive.with_retries(QUESTIONS));
    platform::bound_silence(&socket, ACKNOWLEDGED);
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn parsed(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn families_alternate_from_the_resolvers_first() {
        let found = parsed(&["[::1]:1", "[::2]:1", "[::3]:1", "127.0.0.1:1"]);
        let expected = parsed(&["[::1]:1", "127.0.0.1:1", "[::2]:1", "[::3]:1"]);
        assert_eq!(Vec::from(interleaved(found)), expected);
        assert!(interleaved(Vec::new()).is_empty());
        let many: Vec<SocketAddr> = (1..40).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        assert_eq!(Vec::from(interleaved(many.clone())), many[..ADDRESSES_MAX]);
    }

    #[tokio::test]
    async fn refused_address_is_followed_by_the_next_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        // Bound, and not listening.
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (_, address) = race([closed, alive].into()).await.unwrap();
        assert_eq!(address, alive);
        let failures = race([closed].into()).await.unwrap_err();
        assert_eq!(failures, [(closed, io::ErrorKind::ConnectionRefused)]);
    }

    #[tokio::test]
    async fn name_without_an_address_is_told_from_an_address_without_a_gate() {
        let deadline = Instant::now() + Duration::from_secs(20);
        let unreached = connect("gate.invalid", 443, deadline).await.unwrap_err();
        assert!(matches!(unreached, Unreached::Name(_)), "{unreached:?}");
    }
}
