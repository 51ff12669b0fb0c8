//! The identity in the chain that rustls reports.

use std::ptr;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};

use super::config::RouteTls;
use super::observation::Observation;
use super::verifier::Judged;
use crate::admission::Refused;
use crate::model::identity::{Chain, Identity};
use crate::model::rejection::Rejection;

/// An identity and the chain that was verified for it.
pub(super) type Named = (Arc<Identity>, Arc<Chain>);

/// What the verifier of the route accepted during this handshake: on resumption rustls does not call it, but the ticketer has.
pub(super) fn judged(observation: Observation, resumed: bool, tls: &RouteTls) -> Option<Named> {
    let Observation { identity, chain, refusal, restored, .. } = observation;
    if !resumed {
        return identity.zip(chain).filter(|_| refusal.is_none());
    }
    let restored = restored.filter(|restored| ptr::addr_eq(Arc::as_ptr(&restored.by), Arc::as_ptr(&tls.verifier)))?;
    Some((restored.identity, restored.chain))
}

/// The identity in the chain, with what was verified of it. If the client did not send what was [judged], what it sent is judged
/// now.
pub(super) fn identify(
    chain: &[CertificateDer<'_>],
    judged: Option<Named>,
    tls: &RouteTls,
) -> Result<Option<Named>, Refused> {
    let Some((end_entity, intermediates)) = chain.split_first() else { return Ok(None) };
    if let Some(judged) = judged.filter(|(_, judged)| judged.certificates.iter().all(|one| chain.contains(one)))
        && judged.1.certificates.first() == Some(end_entity)
    {
        return Ok(Some(judged));
    }
    let Judged { identity, chain, verdict, .. } = tls.verifier.judge(end_entity, intermediates, UnixTime::now());
    match verdict {
        Ok(()) => Ok(identity.zip(chain)),
        Err(refused) => Err(Refused { identity, ..Rejection::silent(refused.cause).into() }),
    }
}
