//! Stage 2: limits and source addresses, before a byte is believed.
//!
//! Everything taken here is a guard that gives itself back when dropped, so no way out of a later stage, a panic
//! included, can leak a slot.

pub mod descriptors;
pub mod penalties;
mod places;
mod turns;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::penalties::{Quota, Reception, Table, Voucher};
use self::places::{Bounds, Place, Places};
use self::turns::{TURN, Turn, Turns};
use crate::config::checked::{self, Banned};
use crate::listener::Accepted;
use crate::model::identity::{Chain, Identity, Sha256};
use crate::model::rejection::{AddressList, Alert, Cause, Reason, Rejection};
use crate::model::source::Source;
use crate::proxy_protocol;
use crate::sys::socket::{self, Farewell};

/// How many locks the table of sources is spread over.
const SHARDS: usize = 16;

/// How many refused clients of one source get time to read their alert at once.
const LINGERING: usize = 16;

/// Of the connections of sources that have to wait, how many may have said nothing yet: of one source, and in all.
const UNHEARD: Bounds = Bounds { all: 256, per_source: 16 };

/// How long such a connection is waited for. A ClientHello comes right behind the connection, however long the way is.
const UNHEARD_TIMEOUT: Duration = Duration::from_millis(300);

/// What is counted over all connections; it outlives every snapshot of the configuration.
#[derive(Debug)]
pub struct Admission {
    connections: Arc<AtomicUsize>,
    handshakes: Arc<Places>,
    /// Clients that were refused and have yet to read why. They hold no other place.
    lingering: Arc<Places>,
    /// Connections of sources that have to wait.
    unheard: Arc<Places>,
    turns: Arc<Turns>,
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

/// The places that a connection holds.
#[derive(Debug)]
pub struct Slots {
    _connection: Slot,
    of_source: Option<SourceSlot>,
    /// On the heap, as it is over long before the connection is.
    handshake: Option<Box<Place>>,
    /// On the heap, as few connections have it.
    probation: Option<Box<Probation>>,
    source: Source,
    standing: Arc<Table>,
    /// The device that vouches for the source while the connection lasts.
    vouches: Option<Arc<Identity>>,
    /// On the heap, as few connections have it.
    without_certificate: Option<Box<(Slot, Option<SourceSlot>)>>,
}

/// A connection that is refused, unless it shows a valid certificate: its source has to wait, or has all that it may have.
#[derive(Debug)]
struct Probation {
    /// What it is refused for.
    refused: Rejection,
    /// By a reset.
    reset: bool,
    turn: Option<Turn>,
    /// It got its turn: from then on, what becomes of its handshake is what is counted.
    heard: bool,
}

impl Slots {
    /// The handshake is over: its place is free for the next one.
    pub fn handshake_done(&mut self) {
        self.handshake = None;
        if let Some(probation) = &mut self.probation {
            probation.turn = None;
        }
    }

    /// What is notified when the place in the handshakes has to be given up, and what the connection is refused for then.
    pub fn eviction(&self) -> (Arc<Notify>, Rejection) {
        let evicted = self.handshake.as_ref().map_or_else(Arc::default, |place| Arc::clone(&place.evicted));
        let rejection = match &self.probation {
            Some(probation) => probation.refused.clone(),
            None => Rejection::silent(Cause::HandshakeEvicted),
        };
        (evicted, rejection)
    }

    /// When the handshake has to be over at the latest.
    pub fn handshake_deadline(&self, deadline: Instant) -> Instant {
        if self.probation.is_some() { deadline.min(Instant::now() + TURN) } else { deadline }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        if let Some(device) = &self.vouches {
            self.standing.leave(self.source, Instant::now(), &device.fingerprint);
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
    /// When its ClientHello has to be there.
    pub hello_deadline: Instant,
    /// The places it holds.
    pub slots: Slots,
}

/// The last thing that a client is sent.
#[derive(Clone, Copy, Debug)]
pub enum Last<'a> {
    /// Nothing.
    Nothing,
    /// An alert before any key exists, as the answer to so many bytes that were peeked at.
    Plain(Alert, usize),
    /// These records; the alert in them, if it is known which one that is.
    Records(&'a [u8], Option<Alert>),
}

/// A connection that is refused. It holds no place any more, and what the client is told has been sent, so all that is left to
/// do is to record it, and to give the client time to read.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub rejection: Rejection,
    /// The certificate that was shown, if one was. For the log: it need not have been verified.
    pub identity: Option<Arc<Identity>>,
    /// What is left of the connection. Closed only when it has been recorded.
    pub parting: Option<Parting>,
}

/// A client that was sent the last thing it hears.
#[derive(Debug)]
pub struct Parting {
    stream: TcpStream,
    source: Source,
    /// It has yet to read it.
    lingers: bool,
}

impl Parting {
    /// Closes the connection, unless its client is to be given time to read.
    pub fn lingers(self) -> Option<Self> {
        self.lingers.then_some(self)
    }
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        Self { rejection, identity: None, parting: None }
    }
}

impl Admitted {
    /// What the client connected to, for the header that backends are sent.
    pub fn destination(&self) -> SocketAddr {
        self.destination.or_else(|| self.stream.local_addr().ok()).unwrap_or(self.listener.address)
    }

    /// Refuses the connection: gives back its places and sends the client the last thing it hears.
    pub fn refuse(self, rejection: Rejection, last: Last<'_>) -> Refused {
        match self.slots.probation.as_deref() {
            Some(Probation { refused, reset, heard: false, .. }) => {
                if *reset {
                    socket::reset_on_close(&self.stream);
                }
                let rejection = refused.clone();
                Refused { rejection, identity: None, parting: Some(self.part(Last::Nothing).1) }
            }
            _ => {
                let (alert, parting) = self.part(last);
                Refused { rejection: Rejection { alert, ..rejection }, identity: None, parting: Some(parting) }
            }
        }
    }

    /// Gives back all places and sends the client the last thing it hears. Says which alert was sent.
    pub fn part(self, last: Last<'_>) -> (Option<Alert>, Parting) {
        let Self { stream, slots, .. } = self;
        let source = slots.source;
        // First of all: the next connection finds them free.
        drop(slots);
        let (sent, alert) = match last {
            Last::Nothing | Last::Records([], _) => (Ok(Farewell::Close), None),
            Last::Plain(alert, judged) => {
                (socket::send_answer(&stream, judged, &alert.plaintext_record()), Some(alert))
            }
            Last::Records(records, alert) => (socket::send_last(&stream, records), alert),
        };
        let lingers = sent.as_ref().is_ok_and(|farewell| *farewell == Farewell::Linger);
        (alert.filter(|_| sent.is_ok()), Parting { stream, source, lingers })
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
            lingering: Arc::default(),
            unheard: Arc::default(),
            turns: Arc::default(),
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
        let now = Instant::now();
        self.standing.tidy(now);
        self.turns.tidy(now);
    }

    /// The devices that vouch for a source, with what they showed.
    pub fn vouchers(&self) -> Vec<Voucher> {
        self.standing.vouchers()
    }

    /// The device of this certificate, if it vouches for the source of `client`.
    pub fn voucher(&self, client: IpAddr, device: &Sha256) -> Option<Voucher> {
        self.standing.voucher(self.source(client), Instant::now(), device)
    }

    /// These devices vouch for no source any more.
    pub fn withdraw(&self, devices: &[Voucher]) {
        self.standing.withdraw(devices);
    }

    /// A connection of `client` was rejected: its source may have to wait for that.
    pub fn rejected(&self, client: IpAddr, reason: Reason) {
        let cost = reason.cost();
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
        let connection =
            take(&self.connections, limits.connections).ok_or(Cause::ConnectionLimit { limit: limits.connections })?;
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
        let (reception, refused) = self.receive(&rules, &listener, client.ip(), source)?;
        let trusted = reception == Reception::Welcome { trusted: true };
        let of_source = match limits.connections_per_source {
            Some(limit) if refused.is_none() => self.take_of_source(source, trusted, limit).map(Some),
            _ => Ok(None),
        };
        let (of_source, refused) = match of_source {
            // All that it has is in use by connections that were let in.
            Err(rejection) if trusted => return Err(rejection),
            Err(rejection) => (None, Some(rejection)),
            Ok(of_source) => (of_source, refused),
        };
        let place = match &refused {
            None => {
                let bounds = Bounds { all: limits.handshakes, per_source: usize::MAX };
                Places::take(&self.handshakes, source, trusted, bounds)
            }
            Some(_) => Places::take(&self.unheard, source, false, UNHEARD),
        };
        let hello_deadline = if refused.is_some() { deadline.min(at + UNHEARD_TIMEOUT) } else { deadline };
        let probation = refused.map(|refused| {
            let reset = refused.reason() == Reason::SourceBanned && limits.banned == Banned::Drop;
            Box::new(Probation { refused, reset, turn: None, heard: false })
        });
        let slots = Slots {
            _connection: connection,
            of_source,
            handshake: Some(Box::new(place)),
            probation,
            source,
            standing: Arc::clone(&self.standing),
            vouches: None,
            without_certificate: None,
        };
        Ok(Admitted { stream, client, destination, listener, at, hello_deadline, slots })
    }

    /// Waits until the connection may go on: at once, but for those of a source that has to wait. Of these, one at a time may begin
    /// a handshake, where a valid certificate is `asked` for, and no other goes on.
    pub async fn turn(&self, slots: &mut Slots, asked: bool) -> Result<(), Rejection> {
        let Some(probation) = &mut slots.probation else { return Ok(()) };
        if !asked {
            return Err(probation.refused.clone());
        }
        // The line has a bound of its own.
        slots.handshake = None;
        probation.turn = Some(Turns::wait(&self.turns, slots.source).await.ok_or_else(|| probation.refused.clone())?);
        probation.heard = true;
        Ok(())
    }

    /// A valid certificate was shown: its device vouches for the source while the connection lasts, and for some hours
    /// afterwards. A source that had to wait does not any more.
    pub fn vouch(&self, slots: &mut Slots, identity: &Arc<Identity>, chain: &Arc<Chain>) -> Result<(), Rejection> {
        if slots.vouches.is_none() {
            self.standing.vouch(slots.source, Instant::now(), identity, chain);
            slots.vouches = Some(Arc::clone(identity));
        }
        if slots.probation.take().is_some()
            && let Some(limit) = self.rules.load().limits.connections_per_source
        {
            slots.of_source = Some(self.take_of_source(slots.source, true, limit)?);
        }
        Ok(())
    }

    /// Gives a client that was refused time to read why. For one too many, the oldest is not waited for any longer.
    pub async fn linger(&self, Parting { stream, source, .. }: Parting) {
        let bounds = Bounds { all: self.rules.load().limits.handshakes, per_source: LINGERING };
        let place = Places::take(&self.lingering, source, false, bounds);
        tokio::select! {
            () = socket::linger(&stream) => {}
            () = place.evicted.notified() => {}
        }
    }

    /// Takes the places of a connection that goes on without a valid certificate, or says which one is not there.
    pub fn without_certificate(&self, slots: &mut Slots) -> Result<(), Rejection> {
        if let Some(probation) = &slots.probation {
            return Err(probation.refused.clone());
        }
        let (places, rules) = (&self.without_certificate, self.rules.load());
        let all = share(rules.limits.connections);
        let connection = take(&places.connections, all).ok_or(Cause::ConnectionShare { share: all })?;
        let source = match rules.limits.connections_per_source.map(share) {
            None => None,
            Some(limit) => {
                Some(Sources::take(&places.sources, slots.source, limit).ok_or(Cause::SourceShare { share: limit })?)
            }
        };
        slots.without_certificate = Some(Box::new((connection, source)));
        Ok(())
    }

    /// One more connection of a source. Behind an address from which a valid certificate came, those who have not shown one
    /// give way.
    fn take_of_source(&self, source: Source, trusted: bool, limit: usize) -> Result<SourceSlot, Rejection> {
        let taken = Sources::take(&self.sources, source, limit).or_else(|| {
            let room = trusted && self.handshakes.evict_from(source);
            // The place of the one that gives way comes back as soon as its task is told.
            room.then(|| Sources::take(&self.sources, source, usize::MAX)).flatten()
        });
        taken.ok_or_else(|| Cause::SourceLimit { limit }.into())
    }

    /// Whether the source may connect; and what its connections are refused for, unless they show a valid certificate.
    fn receive(
        &self,
        rules: &Rules,
        listener: &checked::Listener,
        client: IpAddr,
        source: Source,
    ) -> Result<(Reception, Option<Rejection>), Rejection> {
        if let Some(net) = listener.deny_sources.iter().find(|net| net.contains(&client)) {
            return Err(Rejection::silent(Cause::SourceDenied(AddressList::Denied(*net))));
        }
        if !listener.allow_sources.is_empty() && !listener.allow_sources.iter().any(|net| net.contains(&client)) {
            return Err(Rejection::silent(Cause::SourceDenied(AddressList::NotAllowed)));
        }
        let reception = self.standing.receive(source, Instant::now(), rules.quota);
        let refused = match reception {
            Reception::Welcome { .. } => None,
            Reception::Banned(left) => Some(Rejection::silent(Cause::SourceBanned { left })),
            Reception::TooOften => Some(Rejection::silent(Cause::SourceRate)),
        };
        Ok((reception, refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rejection::HelloFault;
    use crate::model::source::Prefixes;

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
                    assert_eq!(told.reason(), reason, "{told}");
                    vouch(&gate, &mut next);
                }
                // The last place is free again.
                drop(last);
            }
            drop(held);
            assert_eq!(gate.0.without_certificate.connections.load(Ordering::Relaxed), 0);
        }
    }

    fn was_evicted(admitted: &Admitted) -> bool {
        let (evicted, _) = admitted.slots.eviction();
        let mut notified = std::pin::pin!(evicted.notified());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        Future::poll(notified.as_mut(), &mut cx).is_ready()
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

    /// A connection from this machine, as far as admission. What is only heard in its turn counts as refused.
    async fn connect(gate: &(Admission, Arc<checked::Listener>)) -> Result<Admitted, Reason> {
        let admitted = heard(gate).await?;
        match &admitted.slots.probation {
            Some(probation) => Err(probation.refused.reason()),
            None => Ok(admitted),
        }
    }

    /// The same, also where it is only heard in its turn.
    async fn heard(gate: &(Admission, Arc<checked::Listener>)) -> Result<Admitted, Reason> {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let _client = TcpStream::connect(socket.local_addr().expect("an address")).await.expect("a client");
        let (stream, peer) = socket.accept().await.expect("a connection");
        let at = Instant::now();
        let accepted = Accepted { stream, peer, listener: Arc::clone(&gate.1), at };
        gate.0.admit(accepted, at, |_| {}).await.map_err(|rejection| rejection.reason())
    }

    fn vouch(gate: &(Admission, Arc<checked::Listener>), admitted: &mut Admitted) {
        let Voucher { identity, chain } = penalties::testing::device(1);
        gate.0.vouch(&mut admitted.slots, &identity, &chain).expect("a place");
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn fail(gate: &(Admission, Arc<checked::Listener>), times: usize) {
        for _ in 0..times {
            gate.0.rejected(HERE, Reason::Misbehaved);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_valid_certificate_ends_a_ban_in_its_turn() {
        let gate = admission("banned = \"drop\"");
        fail(&gate, 12);
        let mut owner = heard(&gate).await.expect("it is heard");
        let stranger = heard(&gate).await.expect("it is heard");
        assert!(gate.0.turn(&mut owner.slots, true).await.is_ok());
        // A stranger with a turn holds up those behind it for a second, however long timeouts.handshake is.
        let (now, hour) = (Instant::now(), Duration::from_secs(3600));
        assert_eq!(owner.slots.handshake_deadline(now + hour), now + TURN);
        assert_eq!(owner.slots.handshake_deadline(now), now);
        // What does not ask for a certificate is not for a source that has to wait, nor is a route that takes others as well.
        let mut third = heard(&gate).await.expect("it is heard");
        let refused = gate.0.turn(&mut third.slots, false).await.expect_err("refused");
        assert_eq!(refused.reason(), Reason::SourceBanned);
        assert_eq!(gate.0.without_certificate(&mut owner.slots).expect_err("refused").reason(), Reason::SourceBanned);
        // Whatever is wrong with what it says, it is refused for the ban, and told nothing.
        let plain = Last::Plain(Alert::DECODE_ERROR, 5);
        let Refused { rejection, parting, .. } =
            stranger.refuse(Rejection::silent(Cause::Malformed(HelloFault::Truncated)), plain);
        assert_eq!((rejection.reason(), rejection.alert), (Reason::SourceBanned, None));
        assert!(parting.and_then(Parting::lingers).is_none());

        owner.slots.handshake_done();
        vouch(&gate, &mut owner);
        assert!(connect(&gate).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_with_all_its_connections_is_heard_in_turn() {
        let gate = admission("connections_per_source = 2");
        let silent = [connect(&gate).await.expect("a place"), connect(&gate).await.expect("a place")];
        assert_eq!(connect(&gate).await.map(|_| ()), Err(Reason::SourceLimit));
        let mut owner = heard(&gate).await.expect("it is heard");
        gate.0.turn(&mut owner.slots, true).await.expect("a turn");
        owner.slots.handshake_done();
        vouch(&gate, &mut owner);
        assert!(was_evicted(&silent[0]) && !was_evicted(&silent[1]), "the oldest that says nothing gives way");
        drop((owner, silent));
        let kept: usize = gate.0.sources.shards.iter().map(|s| s.lock().map_or(0, |s| s.len())).sum();
        assert_eq!(kept, 0);
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
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(connect(&gate).await.is_ok());
        // The next time it is twice as long.
        fail(&gate, 12);
        tokio::time::advance(Duration::from_millis(119_900)).await;
        assert_eq!(connect(&gate).await.map(|_| ()), Err(Reason::SourceBanned));
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(connect(&gate).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_showed_a_valid_certificate_never_waits() {
        let gate = admission("");
        let mut owner = connect(&gate).await.expect("nobody is banned yet");
        fail(&gate, 12);
        assert_eq!(connect(&gate).await.map(|_| ()), Err(Reason::SourceBanned));
        vouch(&gate, &mut owner);
        drop(owner);
        for _ in 0..11 {
            fail(&gate, 1000);
            assert!(connect(&gate).await.is_ok());
            tokio::time::advance(Duration::from_secs(60 * 60)).await;
        }
        tokio::time::advance(Duration::from_secs(60 * 60)).await;
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
        vouch(&gate, &mut owner);
        let second = connect(&gate).await.expect("the oldest of those who are silent gives way");
        assert!(was_evicted(&silent[0]) && !was_evicted(&silent[1]));
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

    #[tokio::test]
    async fn a_source_has_16_clients_at_most_that_read_their_alert() {
        let admission = Admission::new(checked::Limits::default());
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (mut clients, mut lingering) = (Vec::new(), Vec::new());
        for _ in 0..=LINGERING {
            clients.push(TcpStream::connect(socket.local_addr().expect("an address")).await.expect("a client"));
            let (stream, peer) = socket.accept().await.expect("a connection");
            let source = admission.source(peer.ip());
            lingering.push(Box::pin(admission.linger(Parting { stream, source, lingers: true })));
        }
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        // The last one takes its place, and the first one gives way.
        for one in &mut lingering {
            assert!(one.as_mut().poll(&mut cx).is_pending());
        }
        assert!(lingering.remove(0).as_mut().poll(&mut cx).is_ready());
        for one in &mut lingering {
            assert!(one.as_mut().poll(&mut cx).is_pending());
        }
    }
}
