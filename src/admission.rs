//! Stage 2: limits and source addresses, before a byte is believed.
//!
//! Everything taken here is a guard that gives itself back when dropped, so no way out of a later stage, a panic
//! included, can leak a slot.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::checked::{self, Banned};
use crate::listener::Accepted;
use crate::penalties::{self, Quota, Reception, Table};
use crate::proxy_protocol;
use crate::rejection::{Reason, Rejection};
use crate::source::Source;
use crate::sys::socket;

/// How many locks the table of sources is spread over.
const SHARDS: usize = 16;

/// How many handshakes of a trusted source are spared while others have any. More than these, and the strangers behind its
/// address are those who flood.
const SPARED: usize = 16;

/// What is counted over all connections; it outlives every snapshot of the configuration.
#[derive(Debug)]
pub struct Admission {
    connections: Arc<AtomicUsize>,
    handshakes: Arc<Handshakes>,
    sources: Arc<Sources>,
    without_certificate: WithoutCertificate,
    /// What sources have done lately.
    standing: Arc<Table>,
    /// Can change, while what is counted stays.
    rules: ArcSwap<Rules>,
}

/// What is allowed.
#[derive(Debug)]
struct Rules {
    quota: Option<Quota>,
    limits: checked::Limits,
}

#[derive(Debug)]
struct Sources {
    shards: Vec<Mutex<HashMap<Source, usize>>>,
}

impl Default for Sources {
    fn default() -> Self {
        Self { shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect() }
    }
}

/// The connections that go on without a valid certificate: by way of a passthrough route, say. Anybody can have such ones.
#[derive(Debug, Default)]
struct WithoutCertificate {
    connections: Arc<AtomicUsize>,
    sources: Arc<Sources>,
}

/// Their share of `limits.connections` and of `limits.connections_per_source`: the other half is left to those who show a
/// certificate.
const fn share(limit: usize) -> usize {
    limit.div_ceil(2)
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
/// When all places are taken, the source that holds the most gives up its oldest; one that is trusted only if it holds many,
/// or nobody else holds any. Whoever fills the places with connections that say nothing so drives out themselves: a client
/// that goes on needs its place for milliseconds.
#[derive(Debug, Default)]
struct Handshakes {
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    count: usize,
    next: u64,
    sources: HashMap<Source, Places>,
}

/// The handshakes of one source.
#[derive(Debug, Default)]
struct Places {
    trusted: bool,
    queue: VecDeque<(u64, Arc<Notify>)>,
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
    fn take(handshakes: &Arc<Self>, source: Source, trusted: bool, limit: usize) -> HandshakeSlot {
        let evicted = Arc::new(Notify::new());
        let mut pending = handshakes.pending();
        if pending.count >= limit {
            pending.evict();
        }
        let number = pending.next;
        pending.next += 1;
        pending.count += 1;
        let places = pending.sources.entry(source).or_default();
        places.trusted = trusted;
        places.queue.push_back((number, Arc::clone(&evicted)));
        drop(pending);
        HandshakeSlot { handshakes: Arc::clone(handshakes), source, number, evicted }
    }

    /// Lets the oldest handshake of `source` give way, if it has any.
    fn evict_from(&self, source: Source) -> bool {
        self.pending().evict_from(source)
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// Frees the oldest place of the source that holds the most; among equals, the oldest of all.
    fn evict(&mut self) {
        let most = self.sources.iter().max_by_key(|(_, places)| {
            let spared = places.trusted && places.queue.len() <= SPARED;
            (!spared, places.queue.len(), Reverse(places.oldest()))
        });
        if let Some((&source, _)) = most {
            self.evict_from(source);
        }
    }

    fn evict_from(&mut self, source: Source) -> bool {
        let evicted = self.sources.get(&source).and_then(Places::oldest).and_then(|number| self.remove(source, number));
        if let Some(evicted) = &evicted {
            // Kept for whoever is not waiting at this moment.
            evicted.notify_one();
        }
        evicted.is_some()
    }

    fn remove(&mut self, source: Source, number: u64) -> Option<Arc<Notify>> {
        let queue = &mut self.sources.get_mut(&source)?.queue;
        let at = queue.iter().position(|(other, _)| *other == number)?;
        let (_, evicted) = queue.remove(at)?;
        if queue.is_empty() {
            self.sources.remove(&source);
        }
        self.count -= 1;
        Some(evicted)
    }
}

impl Places {
    fn oldest(&self) -> Option<u64> {
        self.queue.front().map(|(number, _)| *number)
    }
}

impl Drop for HandshakeSlot {
    fn drop(&mut self) {
        self.handshakes.pending().remove(self.source, self.number);
    }
}

/// The places that a connection holds.
#[derive(Debug)]
pub struct Slots {
    _connection: Slot,
    _source: Option<SourceSlot>,
    /// On the heap, as it is over long before the connection is.
    handshake: Option<Box<HandshakeSlot>>,
    source: Source,
    standing: Arc<Table>,
    vouched: bool,
    /// On the heap, as few connections have it.
    without_certificate: Option<Box<(Slot, Option<SourceSlot>)>>,
}

impl Slots {
    /// The handshake is over: its place is free for the next one.
    pub fn handshake_done(&mut self) {
        self.handshake = None;
    }

    /// A valid certificate was shown: its source is trusted while the connection lasts, and for some hours afterwards.
    pub fn vouch(&mut self) {
        if !self.vouched {
            self.standing.vouch(self.source, Instant::now());
            self.vouched = true;
        }
    }

    /// Is notified when the place in the handshakes has to be given up for somebody else.
    pub fn evicted(&self) -> Arc<Notify> {
        self.handshake.as_ref().map_or_else(Arc::default, |slot| Arc::clone(&slot.evicted))
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        if self.vouched {
            self.standing.leave(self.source, Instant::now());
        }
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

impl Rules {
    fn new(limits: checked::Limits) -> Self {
        let quota = limits
            .connection_rate_per_source
            .and_then(|rate| Some(Quota { each: rate.per.checked_div(rate.count)?, saved: rate.per }));
        Self { quota, limits }
    }

    fn source(&self, client: IpAddr) -> Source {
        Source::of(client, self.limits.source_prefixes)
    }
}

impl Admission {
    /// Nothing is held at first.
    pub fn new(limits: checked::Limits) -> Self {
        Self {
            connections: Arc::default(),
            handshakes: Arc::default(),
            sources: Arc::default(),
            without_certificate: WithoutCertificate::default(),
            standing: Arc::new(Table::new(Instant::now())),
            rules: ArcSwap::from_pointee(Rules::new(limits)),
        }
    }

    /// Goes by other limits from now on. What is held stays held, and who has to wait goes on waiting.
    pub fn change(&self, limits: checked::Limits) {
        self.rules.store(Arc::new(Rules::new(limits)));
    }

    /// Forgets sources of which nothing has to be remembered any more. To be called now and then.
    pub fn tidy(&self) {
        self.standing.tidy(Instant::now());
    }

    /// A connection of `client` was rejected: its source may have to wait for that.
    pub fn rejected(&self, client: IpAddr, reason: Reason) {
        let cost = penalties::cost(reason);
        let rules = self.rules.load();
        if rules.limits.penalties && !cost.is_zero() {
            self.standing.penalize(rules.source(client), Instant::now(), cost);
        }
    }

    /// With whom `client` is counted.
    pub fn source(&self, client: IpAddr) -> Source {
        self.rules.load().source(client)
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
        let rules = self.rules.load_full();
        let limits = &rules.limits;
        let Accepted { stream, peer, listener, at } = accepted;
        let connection = take(&self.connections, limits.connections).ok_or_else(|| {
            Rejection::silent(
                Reason::ConnectionLimit,
                format!("{} connections are open, and no more are taken at once", limits.connections),
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
        let source = rules.source(client.ip());
        let trusted = self.admit_source(&rules, &listener, client.ip(), source).inspect_err(|rejection| {
            if rejection.reason == Reason::SourceBanned && limits.banned == Banned::Drop {
                socket::reset_on_close(&stream);
            }
        })?;
        let source_slot = match limits.connections_per_source {
            None => None,
            Some(limit) => Some(self.take_of_source(source, trusted, limit).ok_or_else(|| {
                Rejection::silent(
                    Reason::SourceLimit,
                    format!("limits.connections_per_source is {limit}, and this source holds as many"),
                )
            })?),
        };
        let slots = Slots {
            _connection: connection,
            _source: source_slot,
            handshake: Some(Box::new(Handshakes::take(&self.handshakes, source, trusted, limits.handshakes))),
            source,
            standing: Arc::clone(&self.standing),
            vouched: false,
            without_certificate: None,
        };
        Ok(Admitted { stream, client, destination, listener, at, slots })
    }

    /// Takes the places of a connection that goes on without a valid certificate, or says which one is not there.
    pub fn without_certificate(&self, slots: &mut Slots) -> Result<(), Rejection> {
        let full = |reason, limit: &str, share: usize| {
            Rejection::silent(
                reason,
                format!(
                    "connections without a valid certificate get half of {limit}, which is {share}, and all of it is in use"
                ),
            )
        };
        let (places, rules) = (&self.without_certificate, self.rules.load());
        let all = share(rules.limits.connections);
        let connection =
            take(&places.connections, all).ok_or_else(|| full(Reason::ConnectionLimit, "limits.connections", all))?;
        let source = match rules.limits.connections_per_source.map(share) {
            None => None,
            Some(limit) => Some(
                Sources::take(&places.sources, slots.source, limit)
                    .ok_or_else(|| full(Reason::SourceLimit, "limits.connections_per_source", limit))?,
            ),
        };
        slots.without_certificate = Some(Box::new((connection, source)));
        Ok(())
    }

    /// One more connection of a source. Behind an address from which a valid certificate came, those who have not shown one
    /// give way.
    fn take_of_source(&self, source: Source, trusted: bool, limit: usize) -> Option<SourceSlot> {
        Sources::take(&self.sources, source, limit).or_else(|| {
            let room = trusted && self.handshakes.evict_from(source);
            // The place of the one that gives way comes back as soon as its task is told.
            room.then(|| Sources::take(&self.sources, source, usize::MAX)).flatten()
        })
    }

    /// Whether the source may connect; and if it may, whether it is trusted.
    fn admit_source(
        &self,
        rules: &Rules,
        listener: &checked::Listener,
        client: IpAddr,
        source: Source,
    ) -> Result<bool, Rejection> {
        if let Some(net) = listener.deny_sources.iter().find(|net| net.contains(&client)) {
            return Err(Rejection::silent(Reason::SourceDenied, format!("deny_sources has {net}")));
        }
        if !listener.allow_sources.is_empty() && !listener.allow_sources.iter().any(|net| net.contains(&client)) {
            return Err(Rejection::silent(Reason::SourceDenied, "allow_sources does not have this address"));
        }
        match self.standing.receive(source, Instant::now(), rules.quota) {
            Reception::Welcome { trusted } => Ok(trusted),
            Reception::Banned(left) => Err(Rejection::silent(
                Reason::SourceBanned,
                format!("its connections were rejected too often: {} s left to wait", left.as_secs() + 1),
            )),
            Reception::TooOften => Err(Rejection::silent(
                Reason::SourceRate,
                "more connections than limits.connection_rate_per_source allows",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Prefixes;

    fn source(text: &str) -> Source {
        Source::of(text.parse().expect("an address"), Prefixes::default())
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

    #[tokio::test]
    async fn half_of_both_limits_can_be_had_without_a_certificate() {
        for (limits, most, reason) in [
            ("connections_per_source = 5", 3, Reason::SourceLimit),
            ("connections_per_source = 1", 1, Reason::SourceLimit),
            ("connections = 8\nconnections_per_source = \"off\"", 4, Reason::ConnectionLimit),
        ] {
            let gate = admission(limits);
            let mut held = Vec::new();
            for _ in 0..2 {
                let last = loop {
                    let Ok(mut admitted) = connect(&gate).await else { panic!("{limits}: {}", held.len()) };
                    match gate.0.without_certificate(&mut admitted.slots) {
                        Ok(()) if held.len() + 1 < most => held.push(admitted),
                        Ok(()) => break admitted,
                        Err(rejection) => panic!("{limits}: {rejection} after {}", held.len()),
                    }
                };
                if most > 1 {
                    let mut next = connect(&gate).await.expect("a place for who shows a certificate");
                    let told = gate.0.without_certificate(&mut next.slots).expect_err("no place without");
                    assert_eq!(told.reason, reason, "{told}");
                    next.slots.vouch();
                }
                // The last place is free again.
                drop(last);
            }
            drop(held);
            assert_eq!(gate.0.without_certificate.connections.load(Ordering::Relaxed), 0);
        }
    }

    fn was_evicted(slot: &HandshakeSlot) -> bool {
        let mut notified = std::pin::pin!(slot.evicted.notified());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        Future::poll(notified.as_mut(), &mut cx).is_ready()
    }

    #[test]
    fn slow_handshakes_give_way_the_oldest_of_the_source_that_holds_the_most() {
        let handshakes = Arc::<Handshakes>::default();
        let (flood, other) = (source("192.0.2.1"), source("192.0.2.2"));
        let take = |source| Handshakes::take(&handshakes, source, false, 4);
        let good = take(other);
        let flooding: Vec<_> = (0..3).map(|_| take(flood)).collect();
        let next = take(other);
        assert!(was_evicted(&flooding[0]), "the oldest of those who hold the most");
        let last = take(flood);
        // Two each: the oldest of all goes.
        assert!(was_evicted(&good));
        assert!([&flooding[1], &flooding[2], &next, &last].into_iter().all(|slot| !was_evicted(slot)));
        drop((good, flooding, next, last));
        let pending = handshakes.pending.lock().expect("a lock");
        assert!(pending.count == 0 && pending.sources.is_empty(), "{pending:?}");
    }

    #[test]
    fn handshakes_of_trusted_sources_give_way_last_unless_they_are_many() {
        let handshakes = Arc::<Handshakes>::default();
        let home = source("192.0.2.1");
        let limit = SPARED + 4;
        let own: Vec<_> = (0..SPARED).map(|_| Handshakes::take(&handshakes, home, true, limit)).collect();
        let strangers: Vec<_> = (2..60)
            .map(|host| Handshakes::take(&handshakes, source(&format!("192.0.2.{host}")), false, limit))
            .collect();
        assert!(!own.iter().any(was_evicted));
        assert_eq!(strangers.iter().filter(|slot| was_evicted(slot)).count(), strangers.len() - 4);
        // Whoever floods from behind the trusted address meets the rule for everybody.
        let more: Vec<_> = (0..100).map(|_| Handshakes::take(&handshakes, home, true, limit)).collect();
        assert!(own.iter().all(was_evicted));
        assert!(!was_evicted(&strangers[57]) && more[..81].iter().all(was_evicted));
    }

    /// An admission with these keys in `[limits]`, and the listener that it stands behind.
    fn admission(limits: &str) -> (Admission, Arc<checked::Listener>) {
        let text = format!(
            "[limits]\n{limits}\n[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"mail\"\n\
             mode = \"passthrough\"\nserver_names = [\"mail.home.example\"]\nbackends = [\"127.0.0.1:993\"]\n"
        );
        let config = crate::config::parse(&text, std::path::Path::new("doorward.toml")).expect("a configuration");
        (Admission::new(config.limits.clone()), Arc::new(config.listeners[0].clone()))
    }

    /// A connection from this machine, as far as admission.
    async fn connect(gate: &(Admission, Arc<checked::Listener>)) -> Result<Admitted, Reason> {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let _client = TcpStream::connect(socket.local_addr().expect("an address")).await.expect("a client");
        let (stream, peer) = socket.accept().await.expect("a connection");
        let at = Instant::now();
        let accepted = Accepted { stream, peer, listener: Arc::clone(&gate.1), at };
        gate.0.admit(accepted, at, |_| {}).await.map_err(|rejection| rejection.reason)
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn fail(gate: &(Admission, Arc<checked::Listener>), times: usize) {
        for _ in 0..times {
            gate.0.rejected(HERE, Reason::Misbehaved);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_fails_too_often_waits_and_is_let_in_again() {
        let gate = admission("");
        fail(&gate, 11);
        assert!(connect(&gate).await.is_ok());
        fail(&gate, 1);
        for _ in 0..60 {
            assert_eq!(connect(&gate).await.map(|_| ()), Err(Reason::SourceBanned));
            gate.0.rejected(HERE, Reason::SourceBanned);
            tokio::time::advance(std::time::Duration::from_secs(1)).await;
        }
        assert!(connect(&gate).await.is_ok());
        // The next time it is twice as long.
        fail(&gate, 12);
        tokio::time::advance(std::time::Duration::from_millis(119_900)).await;
        assert_eq!(connect(&gate).await.map(|_| ()), Err(Reason::SourceBanned));
        tokio::time::advance(std::time::Duration::from_millis(100)).await;
        assert!(connect(&gate).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_showed_a_valid_certificate_never_waits() {
        let gate = admission("");
        let mut owner = connect(&gate).await.expect("nobody is banned yet");
        fail(&gate, 12);
        assert_eq!(connect(&gate).await.map(|_| ()), Err(Reason::SourceBanned));
        owner.slots.vouch();
        drop(owner);
        for _ in 0..11 {
            fail(&gate, 1000);
            assert!(connect(&gate).await.is_ok());
            tokio::time::advance(std::time::Duration::from_secs(60 * 60)).await;
        }
        tokio::time::advance(std::time::Duration::from_secs(60 * 60)).await;
        fail(&gate, 12);
        assert_eq!(connect(&gate).await.map(|_| ()), Err(Reason::SourceBanned));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_where_penalties_are_off() {
        let gate = admission("penalties = \"off\"");
        fail(&gate, 10_000);
        assert!(connect(&gate).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn behind_a_trusted_address_the_silent_give_way_to_who_comes() {
        let gate = admission("connections_per_source = 3");
        let mut owner = connect(&gate).await.expect("a place");
        let silent = [connect(&gate).await.expect("a place"), connect(&gate).await.expect("a place")];
        assert_eq!(connect(&gate).await.map(|_| ()), Err(Reason::SourceLimit));
        owner.slots.handshake_done();
        owner.slots.vouch();
        let second = connect(&gate).await.expect("the oldest of those who are silent gives way");
        assert!(was_evicted(silent[0].slots.handshake.as_ref().expect("it was in a handshake")));
        assert!(!was_evicted(silent[1].slots.handshake.as_ref().expect("it was in a handshake")));
        drop((silent, second));
        // Whoever is in gives way to nobody.
        let mut held = vec![owner];
        for _ in 0..2 {
            let mut next = connect(&gate).await.expect("a place");
            next.slots.handshake_done();
            held.push(next);
        }
        assert_eq!(connect(&gate).await.map(|_| ()), Err(Reason::SourceLimit));
    }
}
