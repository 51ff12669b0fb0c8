//! What rustls' callbacks learn about the connection they are called for.
//!
//! A verifier and a ticketer belong to a whole configuration and are not told which connection they work for; the
//! errors they may return are too coarse for our reasons. But rustls calls them on the thread, and within the call, that
//! drives the connection. So the exchange sets the connection's [`Observation`] for the length of that one call.
//! It decides nothing: a permit always comes from the chain that rustls reports.

use std::any::Any;
use std::cell::RefCell;
use std::mem;
use std::sync::Arc;

use crate::model::identity::{Chain, Identity};
use crate::model::rejection::Cause;
use crate::model::ticket::TicketOutcome;

/// What the callbacks have learnt about one connection.
#[derive(Debug, Default)]
pub(crate) struct Observation {
    /// The identity in the presented certificate, accepted or not.
    pub(crate) identity: Option<Arc<Identity>>,
    /// The chain that was verified, if it was accepted.
    pub(crate) chain: Option<Arc<Chain>>,
    /// Why the verifier refused, more precisely than its error says.
    pub(crate) refusal: Option<Cause>,
    /// The client takes no signature that the route's key can make.
    pub(crate) unable_to_sign: bool,
    /// Up to when, in seconds since 1970, the session may be resumed.
    pub(crate) valid_until: Option<u64>,
    /// The chain in the ticket that the client presented, if the route admits it.
    pub(super) restored: Option<Restored>,
    /// How many tickets the client has presented.
    pub(super) tickets_tried: u8,
    /// The outcome of that ticket, as far as is known before the handshake is over.
    pub(crate) ticket: Option<TicketOutcome>,
}

/// A chain that was restored from a ticket and judged.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) identity: Arc<Identity>,
    pub(super) chain: Arc<Chain>,
    /// The verifier that has judged it, to be compared only.
    pub(super) by: Arc<dyn Any + Send + Sync>,
}

thread_local! {
    static CURRENT: RefCell<Observation> = RefCell::default();
}

/// Calls `drive` with `observation` set for the callbacks.
pub(crate) fn observe<T>(observation: &mut Observation, drive: impl FnOnce() -> T) -> T {
    CURRENT.set(mem::take(observation));
    let result = drive();
    *observation = CURRENT.take();
    result
}

/// What a callback sees and may add to.
pub(crate) fn current<T>(look: impl FnOnce(&mut Observation) -> T) -> T {
    CURRENT.with_borrow_mut(look)
}
