//! Trust anchors and revocation lists: which client certificates are verified, and which are revoked.

mod anchors;
mod budget;
mod chain_cache;
mod others;
mod path;
mod renewed;
mod revocation_lists;

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, DistinguishedName, Error, ExtendedKeyPurpose, OtherError};
use x509_parser::certificate::Validity as Dates;
use x509_parser::prelude::{FromDer, X509Certificate};

use self::anchors::Anchors;
use self::budget::Allowance;
use self::chain_cache::ChainCache;
pub(super) use self::chain_cache::{Validity, Verified};
pub use self::others::OtherAuthorities;
use self::path::{KnownIntermediates, Path};
use self::revocation_lists::Lists;
use super::suites::PROVIDER;
use crate::config::checked::{ClientAuth, RenewalTrust};
use crate::model::identity::{Chain, Identity, Issued, IssuerKey, Serial, Sha256};
use crate::model::rejection::{Cause, CertificateFault};
use crate::pki::validation_errors::{self, Objection as Refused};
use crate::pki::{Algorithms, Parts};

/// The most certificates a client may send beside its own.
const INTERMEDIATES_MAX: usize = 8;

/// The most DER values in the names and extensions of a certificate that is read for its names although nothing vouches for
/// it. Real ones have about a hundred.
const VALUES_MAX: usize = 256;

/// The longest certificate, in bytes, that is hashed and read for its names although nothing vouches for it: what that takes
/// grows with it. Real ones have one to three thousand bytes.
const UNVERIFIED_MAX: usize = 16 * 1024;

/// The authorities of one `[client_auth]`. Routes that have the same one share them: lists may be long, and a device that
/// was seen on one route is known on the others.
#[derive(Debug)]
pub struct Authorities {
    /// Whether certificates are verified, in this mode.
    verifies: bool,
    anchors: Anchors,
    lists: Lists,
    chains: ChainCache,
    intermediates: KnownIntermediates,
    allowance: Allowance,
    algorithms: Algorithms<'static>,
    others: Arc<OtherAuthorities>,
    /// What renewed certificates are judged by, if any are taken.
    renewal: Option<Arc<RenewalTrust>>,
}

/// The trust anchors or revocation lists cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnusableTrust {
    /// A certificate is no trust anchor, or there is none.
    #[error(transparent)]
    Anchor(Error),
    /// A revocation list cannot be read.
    #[error("a revocation list cannot be used: {0}")]
    List(webpki::Error),
}

/// A chain that was refused, and the identity in its first certificate, if that could be read.
type RefusedChain = (Option<Arc<Identity>>, Refused);

impl Authorities {
    /// Those that `client_auth` names. In the modes that do not verify there are none.
    pub fn new(client_auth: &ClientAuth) -> Result<Self, UnusableTrust> {
        Self::with(client_auth, PROVIDER.signature_verification_algorithms.all)
    }

    fn with(client_auth: &ClientAuth, algorithms: Algorithms<'static>) -> Result<Self, UnusableTrust> {
        let verifies = client_auth.mode.verifies();
        let anchors = if verifies {
            Anchors::new(client_auth, algorithms).map_err(UnusableTrust::Anchor)?
        } else {
            Anchors::default()
        };
        if verifies && anchors.is_empty() {
            return Err(UnusableTrust::Anchor(Error::General("no trust anchors".to_owned())));
        }
        let lists = Lists::new(client_auth, algorithms).map_err(UnusableTrust::List)?;
        Ok(Self {
            verifies,
            anchors,
            lists,
            chains: ChainCache::default(),
            intermediates: KnownIntermediates::default(),
            allowance: Allowance::default(),
            algorithms,
            others: Arc::default(),
            renewal: None,
        })
    }

    /// The same, which tells certificates of the owner's other authorities from those of strangers.
    #[must_use]
    pub fn beside(self, others: Arc<OtherAuthorities>) -> Self {
        Self { others, ..self }
    }

    /// The same, which takes certificates as well that were renewed without the owner.
    ///
    /// # Errors
    /// If the certificate of their authority cannot be used.
    pub fn renewing(mut self, renewal: Option<Arc<RenewalTrust>>) -> Result<Self, UnusableTrust> {
        if let Some(renewal) = renewal.filter(|_| self.verifies) {
            self.anchors.add_renewing(&renewal.certificate).map_err(UnusableTrust::Anchor)?;
            self.renewal = Some(renewal);
        }
        Ok(self)
    }

    /// The names of the trust anchors, for the CertificateRequest.
    pub(super) fn names(&self) -> &[DistinguishedName] {
        &self.anchors.names
    }

    /// Whether chains are followed to a trust anchor.
    pub fn verifies(&self) -> bool {
        self.verifies
    }

    /// Which certificates the lists here revoke and those of `other` do not: the first `most` of them (issuer and serial
    /// number), and how many more there are.
    pub fn revoked_beside(&self, other: &Self, most: usize) -> (Vec<(String, Serial)>, usize) {
        self.lists.beside(&other.lists, most)
    }

    /// Whether a list revokes a certificate of a chain that was verified once, by these authorities or by former ones. A
    /// look-up for each certificate.
    pub fn revoke(&self, chain: &Chain) -> bool {
        self.lists.revoke(chain)
    }

    /// Follows a chain to a trust anchor, or recalls that it was followed before; and asks the revocation lists. With the
    /// last second, since 1970, in which that holds as far as is known now.
    pub(super) fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(Verified, u64), RefusedChain> {
        if !self.verifies {
            // The dates are not looked at, so they do not end anything either, unless a reload changes the mode.
            return Ok((unverified(end_entity)?, u64::MAX));
        }
        let verified = self.follow(end_entity, sent, now)?;
        match self.lists.clear(&verified.chain, now) {
            // A list expires at the second that it names.
            Ok(until) => Ok((verified.clone(), verified.validity.until.min(until.saturating_sub(1)))),
            Err(refused) => Err((Some(verified.identity), refused)),
        }
    }

    fn follow(
        &self,
        end_entity: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Verified, RefusedChain> {
        // The identity in a certificate that nothing vouches for: for the log.
        let leaf = Parts::read(end_entity);
        let named = || {
            leaf.filter(|leaf| !leaf.has_more_values_than(VALUES_MAX))?;
            unverified(end_entity).ok().map(|one| one.identity)
        };
        if sent.len() > INTERMEDIATES_MAX {
            return Err((named(), Refused::invalid(CertificateFault::TooManyCertificates(sent.len()))));
        }
        let bytes = sent.iter().fold(end_entity.len(), |bytes, one| bytes + one.len());
        if bytes > Chain::BYTES_MAX {
            return Err((named(), Refused::invalid(CertificateFault::ChainTooLong { bytes, most: Chain::BYTES_MAX })));
        }
        if end_entity.len() <= UNVERIFIED_MAX
            && let Some(verified) = self.chains.recall(&Sha256::of(end_entity), sent, now)
        {
            return Ok(verified);
        }
        if let Some(refused) = leaf.and_then(|leaf| validation_errors::unwieldy(&leaf)) {
            return Err((None, refused));
        }
        let own =
            webpki::EndEntityCert::try_from(end_entity).map_err(|error| (named(), refused(error, end_entity, None)))?;
        let leaf = leaf.ok_or_else(|| (named(), Refused::unreadable()))?;
        let identity = || Identity::from_certificate(end_entity, true).map_err(|_| (None, Refused::unreadable()));
        if self.anchors.pins(end_entity) {
            let identity = Arc::new(identity()?);
            let validity = pinned(&identity, end_entity, now).map_err(|error| {
                let refused = validation_errors::objection(Error::InvalidCertificate(error), end_entity, None);
                (Some(Arc::clone(&identity)), refused)
            })?;
            let issued = Issued { issuer: leaf.issuer.to_vec(), key: None, serial: identity.serial.clone() };
            let chain = Chain::new(vec![end_entity.clone().into_owned()], vec![issued], validity.until);
            return Ok(self.chains.remember(Verified { identity, chain: Arc::new(chain), validity }));
        }
        let found = path::find(leaf, sent, &self.anchors, self.algorithms, &self.intermediates, &self.allowance, now);
        let path = found.map_err(|none| {
            let of_other_authority = !none.anchored && self.others.vouch_for(&leaf, sent);
            let anchored = |identity: Arc<Identity>| {
                Arc::new(Identity { anchored: none.anchored, of_other_authority, ..Identity::clone(&identity) })
            };
            let error = path::alone(&own, now).err().unwrap_or(none.error);
            (named().map(anchored), refused(error, end_entity, none.key))
        })?;
        let mut identity = identity()?;
        identity.name_constrained =
            path.anchor.constrains_names || path.certificates.iter().skip(1).any(Parts::constrains_names);
        let mut validity = path.certificates.iter().map(validity).reduce(Validity::and).unwrap_or(Validity::NEVER);
        let mut issued = issued(&path);
        if path.anchor.renews {
            let judged = self.renewal.as_deref().ok_or_else(Refused::unreadable);
            let judged =
                judged.and_then(|trust| renewed::judge(&leaf, &identity, end_entity, &self.anchors, trust, now));
            let renewed = judged.map_err(|refused| (Some(Arc::new(identity.clone())), refused))?;
            identity.origin = Some(Box::new(renewed.origin));
            validity = validity.and(renewed.validity);
            issued = renewed.issued;
        }
        let certificates = path.certificates.iter().map(|one| CertificateDer::from(one.der.to_vec())).collect();
        let chain = Arc::new(Chain::new(certificates, issued, validity.until));
        Ok(self.chains.remember(Verified { identity: Arc::new(identity), chain, validity }))
    }
}

/// Why there is no path. `issuer_key`: see [`validation_errors::objection`].
fn refused(error: webpki::Error, end_entity: &CertificateDer<'_>, issuer_key: Option<&[u8]>) -> Refused {
    if let webpki::Error::MaximumSignatureChecksExceeded = error {
        return Refused { cause: Cause::NoPathInFirst, error: CertificateError::UnknownIssuer };
    }
    validation_errors::objection(Error::InvalidCertificate(certificate_error(error)), end_entity, issuer_key)
}

/// What a certificate says that nothing vouches for.
fn unverified(certificate: &CertificateDer<'_>) -> Result<Verified, RefusedChain> {
    if certificate.len() > UNVERIFIED_MAX {
        return Err((None, Refused::invalid(CertificateFault::UnverifiedTooLong(certificate.len()))));
    }
    let identity = Identity::from_certificate(certificate, false).map_err(|_| (None, Refused::unreadable()))?;
    let until = seconds(identity.not_after);
    let chain = Chain::new(vec![certificate.clone().into_owned()], Vec::new(), until);
    Ok(Verified { identity: Arc::new(identity), chain: Arc::new(chain), validity: Validity::ALWAYS })
}

/// Who issued each certificate of a path, and the trust anchor's, if that issuer is in `trust`, too.
fn issued(path: &Path<'_>) -> Vec<Issued> {
    let issuers = path.certificates.iter().skip(1).map(|issuer| (issuer.key, issuer.signs_lists()));
    // Of a trust anchor neither webpki nor any other library asks whether it may sign lists: mkcert's may not.
    let issuers = issuers.chain([(path.anchor.key.as_slice(), true)]);
    let issued = path.certificates.iter().zip(issuers).map(|(certificate, (spki, signs_lists))| Issued {
        issuer: certificate.issuer.to_vec(),
        key: Some(IssuerKey { spki: spki.to_vec(), digest: Sha256::of(spki), signs_lists }),
        serial: Serial::from_be_bytes(certificate.serial),
    });
    issued.chain(path.anchor.issued.iter().cloned()).collect()
}

/// When a certificate is valid.
fn validity(certificate: &Parts<'_>) -> Validity {
    // webpki has read it before.
    Dates::from_der(certificate.validity).map_or(Validity::NEVER, |(_, dates)| Validity {
        from: seconds(dates.not_before.timestamp()),
        until: seconds(dates.not_after.timestamp()),
    })
}

fn seconds(time: i64) -> u64 {
    u64::try_from(time).unwrap_or(0)
}

/// Whether a certificate that is itself in `trust` is valid now and for clients. webpki has no path for it.
fn pinned(identity: &Identity, certificate: &CertificateDer<'_>, now: UnixTime) -> Result<Validity, CertificateError> {
    let validity = Validity { from: seconds(identity.not_before), until: seconds(identity.not_after) };
    let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    if now.as_secs() < validity.from {
        return Err(CertificateError::NotValidYetContext { time: now, not_before: at(validity.from) });
    }
    if now.as_secs() > validity.until {
        return Err(CertificateError::ExpiredContext { time: now, not_after: at(validity.until) });
    }
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let usage = certificate.extended_key_usage().map_err(|_| CertificateError::BadEncoding)?;
    if usage.is_some_and(|usage| !usage.value.client_auth) {
        return Err(CertificateError::InvalidPurpose);
    }
    Ok(validity)
}

/// As webpki's errors are told: a list has the certificate.
pub(super) fn revoked() -> Refused {
    Refused { cause: Cause::Revoked, error: CertificateError::Revoked }
}

/// As rustls has it, whose own function for that is private.
fn certificate_error(error: webpki::Error) -> CertificateError {
    use webpki::Error as E;
    let purpose = |values: Vec<usize>| match values.as_slice() {
        webpki::KeyUsage::CLIENT_AUTH_REPR => ExtendedKeyPurpose::ClientAuth,
        webpki::KeyUsage::SERVER_AUTH_REPR => ExtendedKeyPurpose::ServerAuth,
        _ => ExtendedKeyPurpose::Other(values),
    };
    match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CertNotValidYet { time, not_before } => CertificateError::NotValidYetContext { time, not_before },
        E::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        E::InvalidCertValidity => CertificateError::Expired,
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        E::RequiredEkuNotFoundContext(context) => CertificateError::InvalidPurposeContext {
            required: ExtendedKeyPurpose::ClientAuth,
            presented: context.present.into_iter().map(purpose).collect(),
        },
        E::UnsupportedSignatureAlgorithmContext(context) => CertificateError::UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id: context.signature_algorithm_id,
            supported_algorithms: context.supported_algorithms,
        },
        E::UnsupportedSignatureAlgorithmForPublicKeyContext(context) => {
            CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
                signature_algorithm_id: context.signature_algorithm_id,
                public_key_algorithm_id: context.public_key_algorithm_id,
            }
        }
        other => CertificateError::Other(OtherError(Arc::new(other))),
    }
}

#[cfg(test)]
mod tests;
