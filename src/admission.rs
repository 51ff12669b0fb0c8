//! Stage 2: limits and source addresses, before a byte is believed.
//!
//! Everything taken here is a guard that gives itself back when dropped, so no way out of a later stage, a panic
//! included, can leak a slot.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::checked;
use crate::listener::Accepted;
use crate::proxy_protocol;
use crate::rejection::{Reason, Rejection};

/// How many locks the table of sources is spread over.
const SHARDS: usize = 16;

/// Who is counted together: an IPv4 address, or an IPv6 /64, which is what one household or one server gets
/// (RFC 6177), so that a source cannot be a new one with every connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

impl Source {
    /// The source that `address` belongs to.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(IpAddr::V4(v4)),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self(IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)))
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(v4) => write!(f, "{v4}"),
            IpAddr::V6(v6) => write!(f, "{v6}/64"),
        }
    }
}

/// What is counted over all connections; it outlives every snapshot of the configuration.
#[derive(Debug)]
pub struct Admission {
    connections: Arc<AtomicUsize>,
    handshakes: Arc<Handshakes>,
    sources: Arc<Sources>,
    rates: Option<DefaultKeyedRateLimiter<Source>>,
    limits: checked::Limits,
}

#[derive(Debug)]
struct Sources {
    shards: Vec<Mutex<HashMap<Source, usize>>>,
}

/// One counted use, given back on drop.
#[derive(Debug)]
pub struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn take(counter: &Arc<AtomicUsize>, limit: usize) -> Option<Slot> {
    let slot = Slot(Arc::clone(counter));
    // Counted first and looked at afterwards: two connections at once cannot both see the last free place.
    (counter.fetch_add(1, Ordering::Relaxed) < limit).then_some(slot)
}

/// One connection of a source, given back on drop.
#[derive(Debug)]
struct SourceSlot {
    sources: Arc<Sources>,
    source: Source,
}

impl Sources {
    fn shard(&self, source: Source) -> Option<&Mutex<HashMap<Source, usize>>> {
        let mut hasher = DefaultHasher::new();
        source.hash(&mut hasher);
        let shards = u64::try_from(self.shards.len()).ok()?;
        self.shards.get(usize::try_from(hasher.finish().checked_rem(shards)?).ok()?)
    }

    fn take(sources: &Arc<Self>, source: Source, limit: usize) -> Option<SourceSlot> {
        let mut shard = sources.shard(source)?.lock().unwrap_or_else(PoisonError::into_inner);
        let held = shard.entry(source).or_insert(0);
        if *held >= limit {
            return None;
        }
        *held += 1;
        Some(SourceSlot { sources: Arc::clone(sources), source })
    }
}

impl Drop for SourceSlot {
    fn drop(&mut self) {
        let Some(shard) = self.sources.shard(self.source) else { return };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = shard.get_mut(&self.source) {
            *held -= 1;
            // Nothing is kept about a source without connections: memory is bounded by the connections.
            if *held == 0 {
                shard.remove(&self.source);
            }
        }
    }
}

/// The handshakes in progress, by source; the oldest of each first.
///
/// When all places are taken, the source that holds the most gives up its oldest. Whoever fills the places with
/// connections that say nothing so drives out themselves: a client that goes on needs its place for milliseconds.
#[derive(Debug, Default)]
struct Handshakes {
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    count: usize,
    next: u64,
    sources: HashMap<Source, VecDeque<(u64, Arc<Notify>)>>,
}

/// One handshake in progress, given back on drop.
#[derive(Debug)]
struct HandshakeSlot {
    handshakes: Arc<Handshakes>,
    source: Source,
    number: u64,
    evicted: Arc<Notify>,
}

impl Handshakes {
    fn take(handshakes: &Arc<Self>, source: Source, limit: usize) -> HandshakeSlot {
        let evicted = Arc::new(Notify::new());
        let mut pending = handshakes.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.count >= limit {
            pending.evict();
        }
        let number = pending.next;
        pending.next += 1;
        pending.count += 1;
        pending.sources.entry(source).or_default().push_back((number, Arc::clone(&evicted)));
        HandshakeSlot { handshakes: Arc::clone(handshakes), source, number, evicted }
    }
}

impl Pending {
    /// Frees the oldest place of the source that holds the most; among equals, the oldest of all.
    fn evict(&mut self) {
        let oldest = |places: &VecDeque<(u64, Arc<Notify>)>| places.front().map_or(u64::MAX, |(number, _)| *number);
        let most = self.sources.iter().max_by_key(|(_, places)| (places.len(), Reverse(oldest(places))));
        let Some((&source, _)) = most else { return };
        if let Some(number) = self.sources.get(&source).map(oldest)
            && let Some(evicted) = self.remove(source, number)
        {
            // Kept for whoever is not waiting at this moment.
            evicted.notify_one();
        }
    }

    fn remove(&mut self, source: Source, number: u64) -> Option<Arc<Notify>> {
        let places = self.sources.get_mut(&source)?;
        let at = places.iter().position(|(other, _)| *other == number)?;
        let (_, evicted) = places.remove(at)?;
        if places.is_empty() {
            self.sources.remove(&source);
        }
        self.count -= 1;
        Some(evicted)
    }
}

impl Drop for HandshakeSlot {
    fn drop(&mut self) {
        self.handshakes.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(self.source, self.number);
    }
}

/// The places that a connection holds.
#[derive(Debug)]
pub struct Slots {
    _connection: Slot,
    _source: Option<SourceSlot>,
    handshake: Option<HandshakeSlot>,
}

impl Slots {
    /// The handshake is over: its place is free for the next one.
    pub fn handshake_done(&mut self) {
        self.handshake = None;
    }

    /// Is notified when the place in the handshakes has to be given up for somebody else.
    pub fn evicted(&self) -> Arc<Notify> {
        self.handshake.as_ref().map_or_else(Arc::default, |slot| Arc::clone(&slot.evicted))
    }
}

/// A connection within all limits.
#[derive(Debug)]
pub struct Admitted {
    /// The socket; a PROXY protocol header has been taken off it.
    pub stream: TcpStream,
    /// Who connected; from the PROXY protocol header where one is required.
    pub client: SocketAddr,
    /// What the client connected to, if a PROXY protocol header says so.
    destination: Option<SocketAddr>,
    /// Where it arrived.
    pub listener: Arc<checked::Listener>,
    /// When.
    pub at: Instant,
    /// The places it holds.
    pub slots: Slots,
}

impl Admitted {
    /// What the client connected to, for the header that backends are sent.
    pub fn destination(&self) -> SocketAddr {
        self.destination.or_else(|| self.stream.local_addr().ok()).unwrap_or(self.listener.address)
    }
}

impl Admission {
    /// Nothing is held at first.
    pub fn new(limits: checked::Limits) -> Self {
        let rates = limits.connection_rate_per_source.and_then(|rate| {
            let count = NonZeroU32::new(rate.count)?;
            let quota = Quota::with_period(rate.per / count.get())?.allow_burst(count);
            Some(RateLimiter::keyed(quota))
        });
        let shards = std::iter::repeat_with(Mutex::default).take(SHARDS).collect();
        Self {
            connections: Arc::default(),
            handshakes: Arc::default(),
            sources: Arc::new(Sources { shards }),
            rates,
            limits,
        }
    }

    /// Forgets sources that have not connected for a while. To be called now and then.
    pub fn tidy(&self) {
        if let Some(rates) = &self.rates {
            rates.retain_recent();
            rates.shrink_to_fit();
        }
    }

    /// Takes the places a new connection needs, or says which one is not there. Where the listener requires a PROXY
    /// protocol header of this peer, waits for it until `deadline`. Who the client is, is told to `known` before it can be
    /// refused for that.
    pub async fn admit(
        &self,
        accepted: Accepted,
        deadline: Instant,
        known: impl FnOnce(SocketAddr),
    ) -> Result<Admitted, Rejection> {
        let Accepted { stream, peer, listener, at } = accepted;
        let connection = take(&self.connections, self.limits.connections).ok_or_else(|| {
            Rejection::silent(
                Reason::ConnectionLimit,
                format!("limits.connections is {}, and all are in use", self.limits.connections),
            )
        })?;
        let (client, destination) = if listener.proxy_protocol_from.iter().any(|net| net.contains(&peer.ip())) {
            match proxy_protocol::receive(&stream, deadline).await? {
                // LOCAL: the proxy itself asks, for a health check (proxy-protocol.txt 2.2).
                proxy_protocol::Header::Local => (peer, None),
                proxy_protocol::Header::Proxied { source, destination } => (source, Some(destination)),
            }
        } else {
            (peer, None)
        };
        known(client);
        self.admit_source(&listener, client.ip())?;
        let source = Source::of(client.ip());
        let source_slot = match self.limits.connections_per_source {
            None => None,
            Some(limit) => Some(Sources::take(&self.sources, source, limit).ok_or_else(|| {
                Rejection::silent(
                    Reason::SourceLimit,
                    format!("limits.connections_per_source is {limit}, and this source holds as many"),
                )
            })?),
        };
        let handshake = Handshakes::take(&self.handshakes, source, self.limits.handshakes);
        let slots = Slots { _connection: connection, _source: source_slot, handshake: Some(handshake) };
        Ok(Admitted { stream, client, destination, listener, at, slots })
    }

    fn admit_source(&self, listener: &checked::Listener, client: IpAddr) -> Result<(), Rejection> {
        if let Some(net) = listener.deny_sources.iter().find(|net| net.contains(&client)) {
            return Err(Rejection::silent(Reason::SourceDenied, format!("deny_sources has {net}")));
        }
        if !listener.allow_sources.is_empty() && !listener.allow_sources.iter().any(|net| net.contains(&client)) {
            return Err(Rejection::silent(Reason::SourceDenied, "allow_sources does not have this address"));
        }
        if let Some(rates) = &self.rates
            && rates.check_key(&Source::of(client)).is_err()
        {
            return Err(Rejection::silent(
                Reason::SourceRate,
                "more connections than limits.connection_rate_per_source allows",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::of(text.parse().expect("an address"))
    }

    #[test]
    fn cgnat_and_ipv6_a_source_is_an_address_or_a_64() {
        assert_eq!(source("2001:db8:1:2:3::4"), source("2001:db8:1:2:ffff::"));
        assert_ne!(source("2001:db8:1:2::"), source("2001:db8:1:3::"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("2001:db8:1:2:3::4").to_string(), "2001:db8:1:2::/64");
        assert_eq!(source("::ffff:192.0.2.1").to_string(), "192.0.2.1");
    }

    #[test]
    fn places_come_back_and_nothing_is_kept_of_a_source_without_connections() {
        let admission = Admission::new(checked::Limits::default());
        let first = Sources::take(&admission.sources, source("192.0.2.1"), 2);
        let second = Sources::take(&admission.sources, source("192.0.2.1"), 2);
        assert!(first.is_some() && second.is_some());
        assert!(Sources::take(&admission.sources, source("192.0.2.1"), 2).is_none());
        assert!(Sources::take(&admission.sources, source("192.0.2.2"), 2).is_some());
        drop(first);
        assert!(Sources::take(&admission.sources, source("192.0.2.1"), 2).is_some());
        drop(second);
        let kept: usize = admission.sources.shards.iter().map(|s| s.lock().map_or(0, |s| s.len())).sum();
        assert_eq!(kept, 0);

        let one = take(&admission.connections, 1);
        assert!(one.is_some() && take(&admission.connections, 1).is_none());
        drop(one);
        assert!(take(&admission.connections, 1).is_some());
    }

    #[test]
    fn slow_handshakes_give_way_the_oldest_of_the_source_that_holds_the_most() {
        let handshakes = Arc::<Handshakes>::default();
        let (flood, other) = (source("192.0.2.1"), source("192.0.2.2"));
        let was_evicted = |slot: &HandshakeSlot| {
            let mut notified = std::pin::pin!(slot.evicted.notified());
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            Future::poll(notified.as_mut(), &mut cx).is_ready()
        };
        let good = Handshakes::take(&handshakes, other, 4);
        let flooding: Vec<_> = (0..3).map(|_| Handshakes::take(&handshakes, flood, 4)).collect();
        let next = Handshakes::take(&handshakes, other, 4);
        assert!(was_evicted(&flooding[0]), "the oldest of those who hold the most");
        let last = Handshakes::take(&handshakes, flood, 4);
        // Two each: the oldest of all goes.
        assert!(was_evicted(&good));
        assert!([&flooding[1], &flooding[2], &next, &last].into_iter().all(|slot| !was_evicted(slot)));
        drop((good, flooding, next, last));
        let pending = handshakes.pending.lock().expect("a lock");
        assert!(pending.count == 0 && pending.sources.is_empty(), "{pending:?}");
    }
}
