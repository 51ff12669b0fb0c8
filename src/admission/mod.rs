//! Stage 2: limits and source addresses, before a byte is believed.
//!
//! Everything taken here is a guard that gives itself back when dropped, so no way out of a later stage, a panic included,
//! can leak a slot.

mod admitted;
pub mod descriptors;
mod limits;
pub mod penalties;
mod slots;
mod validators;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

pub use self::admitted::{Admitted, Last, Parting, Refused};
use self::limits::connections::{ConnectionCount, share_without_certificate};
use self::limits::evicting::{Bounds, EvictingSlots};
use self::limits::per_source::{SourceCounts, SourceSlot};
use self::limits::probation::Turns;
use self::penalties::{Penalty, SourceStatus, Table, Voucher};
use self::slots::Probation;
pub use self::slots::Slots;
use crate::config::checked::{self, Banned};
use crate::listener::Accepted;
use crate::model::identity::{Chain, Identity, Sha256};
use crate::model::rate_limit::Rate;
use crate::model::rejection::{AddressList, Cause, Reason, Rejection};
use crate::model::source::Source;
use crate::proxy_protocol;
use crate::sys::accepted::AcceptedStream;
use crate::sys::socket;

/// How many refused clients of one source get time to read their alert at once.
const LINGERING: usize = 16;

/// How many connections on probation may have sent nothing yet.
const SILENT_ON_PROBATION: Bounds = Bounds { all: 256, per_source: 16 };

/// How long the ClientHello of a connection on probation may take. It comes right behind the connection, however long the
/// distance.
const PROBATION_HELLO_TIMEOUT: Duration = Duration::from_millis(300);

/// The admission stage: what is counted over all connections. It outlives every snapshot of the configuration.
#[derive(Debug)]
pub struct Admission {
    connections: ConnectionCount,
    handshakes: Arc<EvictingSlots>,
    /// Clients that were refused and have not read their alert yet. They hold no other slot.
    lingering: Arc<EvictingSlots>,
    /// Connections on probation that have sent nothing yet.
    silent_on_probation: Arc<EvictingSlots>,
    /// Connections beyond `limits.connections` that may be validators and have sent nothing yet.
    beyond_limit: Arc<EvictingSlots>,
    /// Validators of pending orders, in their handshake.
    validators: Arc<EvictingSlots>,
    turns: Arc<Turns>,
    sources: Arc<SourceCounts>,
    without_certificate: WithoutCertificate,
    penalties: Arc<Table>,
    /// Replaced by a reload, while what is counted stays.
    rules: ArcSwap<Rules>,
}

/// What is allowed.
#[derive(Debug)]
struct Rules {
    connection_rate: Option<Rate>,
    limits: checked::Limits,
}

/// The connections that go on without a valid certificate, to a passthrough route for example. Any client can have such
/// ones.
#[derive(Debug, Default)]
struct WithoutCertificate {
    connections: ConnectionCount,
    sources: Arc<SourceCounts>,
}

impl Rules {
    fn new(limits: checked::Limits) -> Self {
        let connection_rate = limits.connection_rate_per_source.and_then(|rate| Rate::new(rate.count, rate.per));
        Self { connection_rate, limits }
    }

    fn source(&self, client: IpAddr) -> Source {
        Source::of(client, self.limits.source_prefixes)
    }
}

impl Admission {
    /// An admission that holds nothing yet.
    pub fn new(limits: checked::Limits) -> Self {
        Self {
            connections: ConnectionCount::default(),
            handshakes: Arc::default(),
            lingering: Arc::default(),
            silent_on_probation: Arc::default(),
            beyond_limit: Arc::default(),
            validators: Arc::default(),
            turns: Arc::default(),
            sources: Arc::default(),
            without_certificate: WithoutCertificate::default(),
            penalties: Arc::new(Table::new(Instant::now())),
            rules: ArcSwap::from_pointee(Rules::new(limits)),
        }
    }

    /// Applies other limits from now on. What is held stays held, and bans stay in force.
    pub fn change(&self, limits: checked::Limits) {
        self.rules.store(Arc::new(Rules::new(limits)));
    }

    /// Forgets sources whose entries no longer matter. To be called now and then.
    pub fn tidy(&self) {
        let now = Instant::now();
        self.penalties.tidy(now);
        self.turns.tidy(now);
    }

    /// The devices that vouch for a source, with what they showed.
    pub fn vouchers(&self) -> Vec<Voucher> {
        self.penalties.vouchers()
    }

    /// The device of this certificate, if it vouches for the source of `client`.
    pub fn voucher(&self, client: IpAddr, device: &Sha256) -> Option<Voucher> {
        self.penalties.voucher(self.source(client), Instant::now(), device)
    }

    /// Ends the trust that these devices gave their sources.
    pub fn withdraw(&self, devices: &[Voucher]) {
        self.penalties.withdraw(devices);
    }

    /// The sources that are banned or owe something, for another process.
    pub fn penalties(&self) -> Vec<Penalty> {
        self.penalties.penalties(Instant::now())
    }

    /// Adds those of another process.
    pub fn add_penalties(&self, penalties: impl IntoIterator<Item = Penalty>) {
        self.penalties.add(Instant::now(), penalties);
    }

    /// A connection of `client` was rejected: its source may be banned for that.
    pub fn rejected(&self, client: IpAddr, reason: Reason) {
        let cost = reason.cost();
        let rules = self.rules.load();
        if rules.limits.penalties && !cost.is_zero() {
            self.penalties.penalize(rules.source(client), Instant::now(), cost);
        }
    }

    /// Bans the source of `client` at once, whatever `limits.penalties` says, unless a device vouches for it.
    pub fn ban(&self, client: IpAddr) {
        self.penalties.penalize(self.source(client), Instant::now(), penalties::AT_ONCE);
    }

    /// The source that `client` is counted as.
    pub fn source(&self, client: IpAddr) -> Source {
        self.rules.load().source(client)
    }

    /// Takes the slots a new connection needs. Where the listener requires a PROXY protocol header of this peer, waits for
    /// it until `deadline`. The client's address is given to `known` before the connection can be refused for it.
    ///
    /// So many `names` have a pending order. If any has, a connection beyond a limit may show in its ClientHello that it is
    /// a validator.
    ///
    /// # Errors
    ///
    /// The limit that is reached, or why the source may not connect.
    pub async fn admit(
        &self,
        accepted: Accepted,
        deadline: Instant,
        names: usize,
        known: impl FnOnce(SocketAddr),
    ) -> Result<Admitted, Rejection> {
        let rules = self.rules.load_full();
        let limits = &rules.limits;
        let Some(connection) = self.connections.take(limits.connections) else {
            let refused = Rejection::from(Cause::ConnectionLimit { limit: limits.connections });
            let admitted = self.beyond_limit(&rules, accepted, deadline, names, known, &refused).await;
            return admitted.ok_or(refused);
        };
        let Accepted { mut stream, peer, listener, at } = accepted;
        let (client, destination) = client_of(&mut stream, peer, &listener, deadline).await?;
        known(client);
        let source = rules.source(client.ip());
        not_listed(&listener, client.ip())?;
        let (trusted, refused) = self.judge_source(&rules, source);
        let of_source = match limits.connections_per_source {
            Some(limit) if refused.is_none() => self.take_of_source(source, trusted, limit).map(Some),
            _ => Ok(None),
        };
        // All its slots are taken by connections that were let in.
        let validators_only = trusted && of_source.is_err();
        let (of_source, refused) = match of_source {
            Err(rejection) if validators_only && names == 0 => return Err(rejection),
            Err(rejection) => (None, Some(rejection)),
            Ok(of_source) => (of_source, refused),
        };
        let slot = match &refused {
            None => {
                let bounds = Bounds { all: limits.handshakes, per_source: usize::MAX };
                EvictingSlots::take(&self.handshakes, source, trusted, bounds)
            }
            Some(_) => {
                let bounds = validators::silent_on_probation(names, limits);
                EvictingSlots::take(&self.silent_on_probation, source, false, bounds)
            }
        };
        let hello_timeout = if names == 0 { PROBATION_HELLO_TIMEOUT } else { validators::HELLO_TIMEOUT };
        let hello_deadline = if refused.is_some() { deadline.min(at + hello_timeout) } else { deadline };
        let probation = refused.map(|refused| {
            let reset = refused.reason() == Reason::SourceBanned && limits.banned == Banned::Drop;
            Box::new(Probation { reset, validators_only, ..Probation::of(refused) })
        });
        let slots = Slots {
            _connection: Some(connection),
            of_source,
            handshake: Some(Box::new(slot)),
            probation,
            source,
            penalties: Arc::clone(&self.penalties),
            vouches: None,
            without_certificate: None,
        };
        Ok(Admitted { stream, client, destination, listener, at, hello_deadline, slots })
    }

    /// Waits until the connection may go on. One on probation waits for its turn: one at a time of a source may begin a
    /// handshake, and only where a valid certificate is `required`.
    ///
    /// # Errors
    ///
    /// What the connection was put on probation for.
    pub async fn turn(&self, slots: &mut Slots, required: bool) -> Result<(), Rejection> {
        let Some(probation) = &mut slots.probation else { return Ok(()) };
        if !required || probation.validators_only {
            return Err(probation.refused.clone());
        }
        // The queue has a bound of its own.
        slots.handshake = None;
        probation.turn = Some(Turns::wait(&self.turns, slots.source).await.ok_or_else(|| probation.refused.clone())?);
        probation.heard = true;
        Ok(())
    }

    /// A valid certificate was shown: its device vouches for the source while the connection lasts and for some hours
    /// afterwards. That ends the probation, and a ban of the source.
    ///
    /// # Errors
    ///
    /// The source has all the connections it may have.
    pub fn vouch(&self, slots: &mut Slots, identity: &Arc<Identity>, chain: &Arc<Chain>) -> Result<(), Rejection> {
        if slots.vouches.is_none() {
            self.penalties.vouch(slots.source, Instant::now(), identity, chain);
            slots.vouches = Some(Arc::clone(identity));
        }
        if slots.probation.take().is_some()
            && let Some(limit) = self.rules.load().limits.connections_per_source
        {
            slots.of_source = Some(self.take_of_source(slots.source, true, limit)?);
        }
        Ok(())
    }

    /// Gives a client that was refused time to read its alert. At the limit, the oldest such client is closed.
    pub async fn linger(&self, Parting { mut stream, source, .. }: Parting) {
        let bounds = Bounds { all: self.rules.load().limits.handshakes, per_source: LINGERING };
        let slot = EvictingSlots::take(&self.lingering, source, false, bounds);
        tokio::select! {
            () = socket::linger(&mut stream) => {}
            () = slot.evicted.notified() => {}
        }
    }

    /// Takes the slots of a connection that goes on without a valid certificate.
    ///
    /// # Errors
    ///
    /// The share that is used up, or what the connection is on probation for.
    pub fn without_certificate(&self, slots: &mut Slots) -> Result<(), Rejection> {
        if let Some(probation) = &slots.probation {
            return Err(probation.refused.clone());
        }
        let (taken, rules) = (&self.without_certificate, self.rules.load());
        let all = share_without_certificate(rules.limits.connections);
        let connection = taken.connections.take(all).ok_or(Cause::ConnectionShare { share: all })?;
        let source = match rules.limits.connections_per_source.map(share_without_certificate) {
            None => None,
            Some(limit) => Some(
                SourceCounts::take(&taken.sources, slots.source, limit).ok_or(Cause::SourceShare { share: limit })?,
            ),
        };
        slots.without_certificate = Some(Box::new((connection, source)));
        Ok(())
    }

    /// One more connection of a source. Of a trusted source, the oldest connection that has shown no certificate is evicted
    /// for it.
    fn take_of_source(&self, source: Source, trusted: bool, limit: usize) -> Result<SourceSlot, Rejection> {
        let taken = SourceCounts::take(&self.sources, source, limit).or_else(|| {
            let room = trusted && self.handshakes.evict_from(source);
            // The slot of the evicted connection is free as soon as its task is notified.
            room.then(|| SourceCounts::take(&self.sources, source, usize::MAX)).flatten()
        });
        taken.ok_or_else(|| Cause::SourceLimit { limit }.into())
    }

    /// Whether the source is trusted, and what its connections are refused for unless they show a valid certificate.
    fn judge_source(&self, rules: &Rules, source: Source) -> (bool, Option<Rejection>) {
        match self.penalties.connects(source, Instant::now(), rules.connection_rate) {
            SourceStatus::Allowed { trusted } => (trusted, None),
            SourceStatus::Banned(left) => (false, Some(Rejection::silent(Cause::SourceBanned { left }))),
            SourceStatus::RateLimited => (false, Some(Rejection::silent(Cause::SourceRate))),
        }
    }
}

/// The client's address, and what it connected to if a PROXY protocol header says so.
async fn client_of(
    stream: &mut AcceptedStream,
    peer: SocketAddr,
    listener: &checked::Listener,
    deadline: Instant,
) -> Result<(SocketAddr, Option<SocketAddr>), Rejection> {
    if !listener.proxy_protocol_from.iter().any(|net| net.contains(&peer.ip())) {
        return Ok((peer, None));
    }
    Ok(match proxy_protocol::receive(stream, deadline).await? {
        // LOCAL: the proxy's own connection, for a health check (proxy-protocol.txt 2.2).
        proxy_protocol::Header::Local => (peer, None),
        proxy_protocol::Header::Proxied { source, destination } => (source, Some(destination)),
    })
}

/// The listener takes connections of this address.
fn not_listed(listener: &checked::Listener, client: IpAddr) -> Result<(), Rejection> {
    if let Some(net) = listener.deny_sources.iter().find(|net| net.contains(&client)) {
        return Err(Rejection::silent(Cause::SourceDenied(AddressList::Denied(*net))));
    }
    if !listener.allow_sources.is_empty() && !listener.allow_sources.iter().any(|net| net.contains(&client)) {
        return Err(Rejection::silent(Cause::SourceDenied(AddressList::NotAllowed)));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
