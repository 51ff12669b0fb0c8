//! Session tickets that do not outlive the rights of the certificate they stand for.
//!
//! rustls restores the client's chain from a ticket and does not call the verifier. The keys are those of one route of
//! one snapshot, so within a ticket's life only time can take rights away: a certificate or a revocation list expires.
//! Each ticket therefore carries the time until which the chain in it is valid, at most [`LIFETIME`] from now. After that
//! the ticket is ignored, the handshake is a full one, and the client gets the alert for what is wrong.

use std::sync::Arc;

use rustls::Error;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::UnixTime;
use rustls::server::ProducesTickets;

use super::observation;

/// For how long, in seconds, sessions may be resumed after the handshake in which the client proved that it holds its key.
/// Tickets are renewed when they are used; without an end, a copied ticket would replace the key for good.
pub(super) const LIFETIME: u64 = 12 * 60 * 60;

/// The longest session put into a ticket. The client's chain is in it: three certificates take 2 to 5 KB. Clients carry a
/// ticket in their next ClientHello, and rustls' own stumbles over two that are longer than a record.
const SESSION_MAX: usize = 12 * 1024;

/// A ticketer that binds tickets to the validity of what they restore.
#[derive(Debug)]
pub(super) struct Tickets {
    sealed: Arc<dyn ProducesTickets>,
}

impl Tickets {
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self { sealed: Ticketer::new()? })
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.sealed.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.sealed.lifetime()
    }

    /// No ticket for a connection whose end of validity is not known, nor for one with an outsized chain.
    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        if session.len() > SESSION_MAX {
            return None;
        }
        let until = observation::current(|now| now.valid_until)?;
        let mut bound = Vec::with_capacity(8 + session.len());
        bound.extend(until.to_be_bytes());
        bound.extend(session);
        self.sealed.encrypt(&bound)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let bound = self.sealed.decrypt(ticket)?;
        let (until, session) = bound.split_first_chunk::<8>()?;
        let until = u64::from_be_bytes(*until);
        if UnixTime::now().as_secs() > until {
            return None;
        }
        observation::current(|now| now.valid_until = Some(until));
        Some(session.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::observation::{Observation, observe};

    #[test]
    fn ticket_ends_with_its_certificate() {
        let tickets = Tickets::new().expect("a ticketer");
        let now = UnixTime::now().as_secs();
        for (until, restored) in [(now + 60, true), (now - 1, false)] {
            let mut observation = Observation { valid_until: Some(until), ..Observation::default() };
            let ticket = observe(&mut observation, || tickets.encrypt(b"session")).expect("a ticket");
            let mut later = Observation::default();
            let session = observe(&mut later, || tickets.decrypt(&ticket));
            assert_eq!(session.is_some(), restored);
            assert_eq!(later.valid_until, restored.then_some(until), "a renewed ticket keeps the end of the first");
        }
        assert_eq!(observe(&mut Observation::default(), || tickets.encrypt(b"session")), None);
    }

    #[test]
    fn a_ticket_fits_into_one_record() {
        let tickets = Tickets::new().expect("a ticketer");
        for (length, given) in [(SESSION_MAX, true), (SESSION_MAX + 1, false)] {
            let mut observation = Observation { valid_until: Some(u64::MAX), ..Observation::default() };
            let ticket = observe(&mut observation, || tickets.encrypt(&vec![7; length]));
            assert_eq!(ticket.is_some(), given);
            assert!(ticket.is_none_or(|ticket| ticket.len() < crate::tls::record::PLAINTEXT_MAX));
        }
    }
}
