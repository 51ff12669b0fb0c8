//! What rustls' callbacks learn about the connection they are called for.
//!
//! A verifier and a ticketer belong to a whole configuration and are not told which connection they work for; the
//! errors they may return are too coarse for our reasons. But rustls calls them on the thread, and within the call, that
//! drives the connection. So the driver lays the connection's [`Observation`] out for the length of that one call.
//! Nothing is decided by it alone: a permit always comes from the chain that rustls itself reports.

use std::cell::RefCell;
use std::mem;
use std::sync::Arc;

use crate::model::identity::{Chain, Identity};
use crate::model::rejection::Cause;

/// What the callbacks have learnt about one connection.
#[derive(Debug, Default)]
pub(crate) struct Observation {
    /// Whom the presented certificate names, whether it was accepted or not.
    pub(crate) identity: Option<Arc<Identity>>,
    /// The chain that was verified, if it was accepted.
    pub(crate) chain: Option<Arc<Chain>>,
    /// Why the verifier refused, more precisely than its error says.
    pub(crate) refusal: Option<Cause>,
    /// The client takes no signature that the route's key can make.
    pub(crate) unable_to_sign: bool,
    /// Up to when, in seconds since 1970, a session may be resumed without looking at the chain again.
    pub(crate) valid_until: Option<u64>,
}

thread_local! {
    static CURRENT: RefCell<Observation> = RefCell::default();
}

/// Calls `drive` with `observation` laid out for the callbacks.
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
