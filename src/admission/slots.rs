//! What a connection holds while it lasts: its slots, its probation, and the trust that its device gives its source.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::limits::connections::ConnectionSlot;
use super::limits::evicting::EvictingSlot;
use super::limits::per_source::SourceSlot;
use super::limits::probation::{TURN, Turn};
use super::penalties::Table;
use crate::model::identity::Identity;
use crate::model::rejection::{Cause, Rejection};
use crate::model::source::Source;

/// The slots of one connection, given back on drop.
#[derive(Debug)]
pub struct Slots {
    /// A validator may do without one.
    pub(super) _connection: Option<ConnectionSlot>,
    pub(super) of_source: Option<SourceSlot>,
    /// On the heap: the handshake is over long before the connection is.
    pub(super) handshake: Option<Box<EvictingSlot>>,
    /// On the heap: few connections have it.
    pub(super) probation: Option<Box<Probation>>,
    pub(super) source: Source,
    pub(super) penalties: Arc<Table>,
    /// The device that vouches for the source while the connection lasts.
    pub(super) vouches: Option<Arc<Identity>>,
    /// On the heap: few connections have it.
    pub(super) without_certificate: Option<Box<(ConnectionSlot, Option<SourceSlot>)>>,
}

/// A connection that is refused unless it shows a valid certificate: its source is banned, connects too often, or has all
/// the connections it may have.
#[derive(Debug)]
pub(super) struct Probation {
    /// What it is refused for.
    pub(super) refused: Rejection,
    /// It is refused by a reset.
    pub(super) reset: bool,
    pub(super) turn: Option<Turn>,
    /// It got its turn: from then on the outcome of its handshake is its verdict.
    pub(super) heard: bool,
    /// No certificate helps it: the connections it could have are taken by those that showed one.
    pub(super) validators_only: bool,
}

impl Probation {
    pub(super) const fn of(refused: Rejection) -> Self {
        Self { refused, reset: false, turn: None, heard: false, validators_only: false }
    }
}

impl Slots {
    /// The handshake is over: its slot is free for the next one.
    pub fn handshake_done(&mut self) {
        self.handshake = None;
        if let Some(probation) = &mut self.probation {
            probation.turn = None;
        }
    }

    /// What is notified when another connection needs the handshake slot, and what this one is refused for then.
    pub fn eviction(&self) -> (Arc<Notify>, Rejection) {
        let evicted = self.handshake.as_ref().map_or_else(Arc::default, |slot| Arc::clone(&slot.evicted));
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
            self.penalties.leave(self.source, Instant::now(), &device.fingerprint);
        }
    }
}
