//! Validators of pending orders (RFC 8737): no limit and no ban turns them away, since a failed validation costs the owner the
//! certificate.
//!
//! They are known by their ClientHello only. While an order is pending, a connection beyond a limit may therefore show it. What is
//! held meanwhile is bounded, and makes room for the next one: the oldest of the source that holds the most is closed. A client
//! that turns out to be no validator is refused as it would have been.

use tokio::sync::Notify;

use super::*;

/// How long the ClientHello of a connection beyond a limit may take while an order is pending. A lost packet comes again by then.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(3);

/// How many validators may come for one name. Public authorities look from five places or more.
const PER_NAME: usize = 16;

/// How many of them from one source. Private servers look several times from one.
const PER_NAME_AND_SOURCE: usize = 4;

/// The most validators at once, however small `limits.handshakes` is.
const FEW: usize = 4;

impl Admission {
    /// A validator of one of so many `names` with a pending order: it is no longer on probation, and its handshake has a place
    /// that other clients cannot need. Notified when another validator needs it.
    pub fn validator(&self, slots: &mut Slots, names: usize) -> Arc<Notify> {
        let bounds = validators(names, &self.rules.load().limits);
        let place = EvictingSlots::take(&self.validators, slots.source, false, bounds);
        let evicted = Arc::clone(&place.evicted);
        (slots.handshake, slots.probation) = (Some(Box::new(place)), None);
        evicted
    }

    /// A connection beyond `limits.connections`, that is refused for it unless it turns out to be a validator. `None` if it
    /// cannot be one.
    pub(super) async fn beyond_limit(
        &self,
        rules: &Rules,
        accepted: Accepted,
        deadline: Instant,
        names: usize,
        known: impl FnOnce(SocketAddr),
        refused: &Rejection,
    ) -> Option<Admitted> {
        if names == 0 {
            return None;
        }
        let Accepted { mut stream, peer, listener, at } = accepted;
        // A proxy sends its header at once.
        let header_deadline = deadline.min(at + PROBATION_HELLO_TIMEOUT);
        let (client, destination) = client_of(&mut stream, peer, &listener, header_deadline).await.ok()?;
        known(client);
        not_listed(&listener, client.ip()).ok()?;
        let source = rules.source(client.ip());
        let place = EvictingSlots::take(&self.beyond_limit, source, false, validators(names, &rules.limits));
        let probation = Probation { validators_only: true, ..Probation::of(refused.clone()) };
        let slots = Slots {
            _connection: None,
            of_source: None,
            handshake: Some(Box::new(place)),
            probation: Some(Box::new(probation)),
            source,
            penalties: Arc::clone(&self.penalties),
            vouches: None,
            without_certificate: None,
        };
        let hello_deadline = deadline.min(at + HELLO_TIMEOUT);
        Some(Admitted { stream, client, destination, listener, at, hello_deadline, slots })
    }
}

/// The bounds of validators for so many names. They are fewer than the handshakes of all clients may be.
fn validators(names: usize, limits: &checked::Limits) -> Bounds {
    Bounds {
        all: names.saturating_mul(PER_NAME).min(limits.handshakes / 2).max(FEW),
        per_source: names.saturating_mul(PER_NAME_AND_SOURCE),
    }
}

/// The bounds of connections on probation that have sent nothing yet. While an order is pending they have more time, so there
/// are fewer of them.
pub(super) fn silent_on_probation(names: usize, limits: &checked::Limits) -> Bounds {
    let Bounds { all, per_source } = SILENT_ON_PROBATION;
    if names == 0 {
        return SILENT_ON_PROBATION;
    }
    Bounds {
        all: all.min(limits.handshakes / 4).max(FEW),
        per_source: per_source.max(names.saturating_mul(PER_NAME_AND_SOURCE)),
    }
}
