//! Session tickets that do not outlive the rights of the certificate in them.
//!
//! rustls restores the client's chain from a ticket and does not call the verifier. So a ticket could outlive the rights of
//! its certificate, or carry those of a lax route to a strict one. Three barriers are in the way, each behind the other:
//!
//! 1. **The key.** It belongs to one route, by name, and to one [digest](settings_digest::digest) of its settings. A reload
//!    keeps it for the route of the same name with the same digest, and for no other: a ticket resumes nothing under other
//!    settings, nor on another route. The process has no other copy of it, and there are as many keys as routes in force.
//!    With `[tickets]`, keys are [derived](super::shared_tickets) from name, digest and a file that gates share, so the same
//!    holds among those gates.
//! 2. **The verdict.** A ticket is honoured only if the verifier of the snapshot in force admits the chain in it now, as
//!    [`RouteVerifier::judge`] says, which judges full handshakes as well: trust, dates, revocation lists, `deny`, `allow`.
//!    A refused one is ignored. Then the handshake is a full one, in which the client is told what is wrong, or shows the
//!    certificate that has replaced the refused one.
//! 3. **The chain that rustls reports** after the handshake is what the permit is for. [`identify`](mod@super::identify) takes
//!    the verdict only if it is about that chain and was given in this handshake, by the verifier of this route in this
//!    snapshot; else it judges the chain itself.
//!
//! What a resumed handshake does not repeat is the proof that the client holds its key, so each ticket contains the time of
//! its end: twelve hours after that proof, or when its certificate expires. A renewed ticket keeps the end of the first.
//! The gate does not show its certificate again, either, so that is in the digest. Of one that an ACME server issued, only that it
//! is one: it is replaced every few weeks, and no client's rights change with it.
//!
//! The verdict alone would be right under any settings, so the digest can do without whatever it covers. It has the settings
//! all the same, as a second barrier, except for what revocation lists contain. Lists are renewed on a schedule, and handed
//! over the control socket, while no setting changes. Such a list takes rights from those that it names and from no other,
//! so all other devices keep their tickets.

use std::sync::Arc;

use rustls::Error;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ProducesTickets;

use super::observation::Restored;
use super::shared_tickets::SharedTicketer;
use super::suites::Suites;
use super::verifier::{Judged, RouteVerifier};
use super::{observation, settings_digest};
use crate::config::checked::{Terminate, TicketSecret};
use crate::model::identity::Sha256;
use crate::model::names::Name;
use crate::model::ticket::TicketOutcome;

/// The longest session put into a ticket. The client's chain is in it: three certificates take 2 to 5 KB. Clients carry a
/// ticket in their next ClientHello, and rustls' own stumbles over two that are longer than a record.
const SESSION_MAX: usize = 12 * 1024;

/// How many tickets of one ClientHello are looked at. Clients send one; hundreds fit, and each costs some cryptography before
/// anything is known of the client.
const TRIED_MAX: u8 = 4;

/// The key of one route's tickets.
#[derive(Clone, Debug)]
pub(super) struct TicketKey {
    settings: Sha256,
    /// Whether other gates have it as well.
    shared: bool,
    sealed: Arc<dyn ProducesTickets>,
}

impl TicketKey {
    /// The key of the route of this name: one from the `shared` ones, if there are any; else that of `former`, which is of the
    /// route of the same name in the snapshot before, if the settings are the same; else a new one.
    pub(super) fn of(
        name: &Name,
        route: &Terminate,
        suites: &Suites,
        shared: &[TicketSecret],
        former: Option<&Self>,
    ) -> Result<Self, Error> {
        let settings = settings_digest::digest(route, suites.strength);
        if !shared.is_empty() {
            let ticketer = SharedTicketer::new(shared, name, &settings);
            let ticketer = ticketer.map_err(|error| Error::General(format!("session tickets: {error}")))?;
            return Ok(Self { settings, shared: true, sealed: Arc::new(ticketer) });
        }
        // A shared key that is not in the configuration any more opens nothing.
        match former.filter(|former| !former.shared && former.settings == settings) {
            Some(former) => Ok(former.clone()),
            None => Ok(Self { settings, shared: false, sealed: Ticketer::new()? }),
        }
    }
}

/// The ticketer of one route of one snapshot.
#[derive(Debug)]
pub(super) struct Tickets {
    key: TicketKey,
    verifier: Arc<RouteVerifier>,
}

/// A certificate in a session: where it begins, and its length.
type Place = [u16; 2];

impl Tickets {
    pub(super) fn new(key: TicketKey, verifier: Arc<RouteVerifier>) -> Self {
        Self { key, verifier }
    }

    /// The session in a ticket, when it ends, and its chain with the verdict of now.
    fn open(&self, ticket: &[u8], now: UnixTime) -> Result<(Vec<u8>, u64, Restored), TicketOutcome> {
        let sealed = self.key.sealed.decrypt(ticket).ok_or(TicketOutcome::Unknown)?;
        let Bound { until, places, session } = Bound::read(&sealed).ok_or(TicketOutcome::Unknown)?;
        if now.as_secs() > until {
            return Err(TicketOutcome::Expired);
        }
        let chain: Vec<_> = places.iter().map(|place| CertificateDer::from(at(session, *place))).collect();
        let Some((end_entity, intermediates)) = chain.split_first() else { return Err(TicketOutcome::Unknown) };
        match self.verifier.judge(end_entity, intermediates, now) {
            Judged { identity: Some(identity), chain: Some(chain), good_until, verdict: Ok(()) } => {
                let restored = Restored { identity, chain, by: Arc::<RouteVerifier>::clone(&self.verifier) };
                Ok((session.to_vec(), until.min(good_until), restored))
            }
            _ => Err(TicketOutcome::Refused),
        }
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.key.sealed.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.key.sealed.lifetime()
    }

    /// No ticket for a connection whose end of validity is not known, nor for one without a chain or with an outsized one.
    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        if session.len() > SESSION_MAX {
            return None;
        }
        let (until, chain) = observation::current(|now| {
            let chain = now.chain.as_ref().or_else(|| now.restored.as_ref().map(|restored| &restored.chain));
            now.valid_until.zip(chain.map(Arc::clone))
        })?;
        let (end_entity, intermediates) = chain.certificates.split_first()?;
        // Intermediates that the client did not send are not in the session.
        let places = intermediates.iter().filter_map(|one| place(session, one));
        let places = [place(session, end_entity)?].into_iter().chain(places).collect();
        self.key.sealed.encrypt(&Bound { until, places, session }.write()?)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let look = observation::current(|now| {
            now.tickets_tried = now.tickets_tried.saturating_add(1);
            // A verdict has its price as well.
            now.tickets_tried <= TRIED_MAX && now.ticket != Some(TicketOutcome::Refused)
        });
        if !look {
            return None;
        }
        let opened = self.open(ticket, UnixTime::now());
        observation::current(|now| match opened {
            Ok((session, until, restored)) => {
                now.ticket = Some(TicketOutcome::Unused);
                now.valid_until = Some(until);
                now.restored = Some(restored);
                Some(session)
            }
            Err(outcome) => {
                now.ticket = Some(outcome);
                None
            }
        })
    }
}

/// What a ticket seals: rustls' session, when it ends, and where the certificates of its chain are in it. They are found
/// there again without knowing rustls' format, which may change.
#[derive(Debug, PartialEq, Eq)]
struct Bound<'a> {
    until: u64,
    places: Vec<Place>,
    session: &'a [u8],
}

impl<'a> Bound<'a> {
    fn write(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(9 + 4 * self.places.len() + self.session.len());
        bytes.extend(self.until.to_be_bytes());
        bytes.push(u8::try_from(self.places.len()).ok()?);
        bytes.extend(self.places.as_flattened().iter().flat_map(|number| number.to_be_bytes()));
        bytes.extend(self.session);
        Some(bytes)
    }

    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (until, bytes) = bytes.split_first_chunk()?;
        let (&count, bytes) = bytes.split_first()?;
        let (places, session) = bytes.split_at_checked(4 * usize::from(count))?;
        let (places, _) = places.as_chunks::<4>();
        let places = places.iter().map(|[a, b, c, d]| [u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])]);
        Some(Self { until: u64::from_be_bytes(*until), places: places.collect(), session })
    }
}

/// Where a certificate is in a session.
fn place(session: &[u8], certificate: &[u8]) -> Option<Place> {
    let start = session.windows(certificate.len().max(1)).position(|bytes| bytes == certificate)?;
    Some([u16::try_from(start).ok()?, u16::try_from(certificate.len()).ok()?])
}

/// What is at this place; nothing if the session is shorter.
fn at(session: &[u8], [start, length]: Place) -> &[u8] {
    let start = usize::from(start);
    session.get(start..start + usize::from(length)).unwrap_or_default()
}

#[cfg(test)]
impl TicketKey {
    /// Whether tickets of one can be opened with the other.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        const SESSION: &[u8] = b"a session";
        let sealed = self.sealed.encrypt(SESSION).expect("a ticket");
        other.sealed.decrypt(&sealed).as_deref() == Some(SESSION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_found_again_in_a_session() {
        let (one, other) = ([1; 300], [2; 200]);
        let session = [b"before".as_slice(), &one, b"between", &other, b"after"].concat();
        let places: Vec<Place> = [one.as_slice(), &other].iter().filter_map(|it| place(&session, it)).collect();
        assert_eq!(places, [[6, 300], [313, 200]]);
        let bound = Bound { until: 1 << 40, places, session: &session };
        let bytes = bound.write().expect("it is short");
        let read = Bound::read(&bytes).expect("it is whole");
        assert_eq!(read, bound);
        assert_eq!([at(read.session, read.places[0]), at(read.session, read.places[1])], [&one[..], &other]);
        assert_eq!(place(&session, &[3; 9]), None);
        assert_eq!(at(&session, [u16::MAX, u16::MAX]), b"");
        for length in 0..17 {
            assert_eq!(Bound::read(&bytes[..length]), None, "{length} bytes");
        }
    }
}
