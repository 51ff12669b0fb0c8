//! The identity in the chain that rustls reports.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};

use super::config::RouteTls;
use super::verifier::Judged;
use crate::admission::Refused;
use crate::model::identity::{Chain, Identity};
use crate::model::rejection::Rejection;

/// An identity and the chain that was verified for it.
pub(super) type Named = (Arc<Identity>, Arc<Chain>);

/// The identity in the chain, with what was verified of it. `judged` is what the verifier accepted during this handshake; if
/// the client did not send that, what it sent is judged now. On resumption rustls calls no verifier.
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
