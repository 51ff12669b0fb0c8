//! How a route judges client certificates: the four modes, with Caddy's meaning.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::config::PROVIDER;
use super::{observation, tickets};
use crate::authorize::{Policy, decide};
use crate::config::checked::{ClientAuth, ClientAuthMode, ExpiredRevocationList, RevocationList};
use crate::identity::{Identity, Serial};
use crate::rejection::Reason;

/// The most certificates a client may send beside its own. webpki follows no chain of more than six, but tries every order
/// of those it is given: thirty of one name, which anybody can make, cost it seconds.
const INTERMEDIATES_MAX: usize = 8;

/// The verifier of one route.
#[derive(Debug)]
pub(super) struct RouteVerifier {
    mode: ClientAuthMode,
    /// Follows the chain to a trust anchor (RFC 5280 section 6). Absent in the modes that do not verify.
    chain: Option<Arc<dyn ClientCertVerifier>>,
    /// What all revocation lists together revoke: issuer and serial number. webpki asks the first list that speaks for
    /// an issuer and no other, so a list that was put beside an older one would have no effect.
    revoked: HashMap<Vec<u8>, HashSet<Serial>>,
    /// The first moment, in seconds since 1970, at which a revocation list expires and with it every verdict.
    lists_good_until: Option<u64>,
    algorithms: WebPkiSupportedAlgorithms,
    policy: Arc<Policy>,
}

/// The trust anchors or revocation lists of a route cannot be used.
#[derive(Debug)]
pub enum UnusableTrust {
    /// A certificate is no trust anchor.
    Anchor(Error),
    /// webpki refuses the set: it is empty, or a revocation list cannot be read.
    Builder(VerifierBuilderError),
}

impl fmt::Display for UnusableTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anchor(error) => error.fmt(f),
            Self::Builder(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for UnusableTrust {}

/// A certificate that was refused: for rustls, which picks the alert by it, and for us.
#[derive(Debug)]
pub(super) struct Refused {
    error: CertificateError,
    pub(super) reason: Reason,
    pub(super) detail: String,
}

impl RouteVerifier {
    pub(super) fn new(client_auth: &ClientAuth, policy: Arc<Policy>) -> Result<Self, UnusableTrust> {
        let chain = if client_auth.mode.verifies() { Some(chain_verifier(client_auth)?) } else { None };
        let lists_good_until = match client_auth.expired_revocation_list {
            ExpiredRevocationList::Warn => None,
            ExpiredRevocationList::Deny => {
                client_auth.revocation_lists.iter().filter_map(|list| u64::try_from(list.next_update?).ok()).min()
            }
        };
        let algorithms = PROVIDER.signature_verification_algorithms;
        let revoked = revoked(&client_auth.revocation_lists);
        Ok(Self { mode: client_auth.mode, chain, revoked, lists_good_until, algorithms, policy })
    }

    /// Judges a chain: whether it leads to a trust anchor, and whether the route lets its holder in. Whom it names is
    /// told even if it is refused, for the log.
    pub(super) fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> (Option<Arc<Identity>>, Result<(), Refused>) {
        let Ok(identity) = Identity::from_certificate(end_entity, self.mode.verifies()) else {
            let error = CertificateError::BadEncoding;
            let refused = Refused { error, reason: Reason::CertificateInvalid, detail: "not X.509".to_owned() };
            return (None, Err(refused));
        };
        let verdict = self.follow(end_entity, intermediates, now).and_then(|()| {
            decide(Some(&identity), &self.policy).map_err(|(reason, detail)| Refused {
                // The one error that reaches the client as access_denied.
                error: CertificateError::ApplicationVerificationFailure,
                reason,
                detail,
            })
        });
        // Marked for what it is: only a chain that was followed to its anchor makes a verified identity.
        let verified = self.mode.verifies() && !matches!(&verdict, Err(refused) if !refused.is_by_policy());
        (Some(Arc::new(Identity { verified, ..identity })), verdict)
    }

    fn follow(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Refused> {
        let Some(chain) = &self.chain else { return Ok(()) };
        if intermediates.len() > INTERMEDIATES_MAX {
            return Err(Refused {
                error: CertificateError::BadEncoding,
                reason: Reason::CertificateInvalid,
                detail: format!("{} certificates beside the client's own", intermediates.len()),
            });
        }
        match chain.verify_client_cert(end_entity, intermediates, now) {
            Ok(_) => self.ask_every_list(end_entity, intermediates),
            // An authority of the same name, with another key: one that was made anew, or a forged one. Either way no
            // trust anchor vouches for the certificate, and that is what helps whoever reads it. `bad_signature` is left
            // for a client that cannot prove that it holds its key.
            Err(Error::InvalidCertificate(CertificateError::BadSignature)) => Err(Refused {
                error: CertificateError::UnknownIssuer,
                reason: Reason::UnknownCa,
                detail: "an authority of that name is in trust, but another key signed the certificate".to_owned(),
            }),
            Err(Error::InvalidCertificate(error)) => {
                let detail = match &error {
                    // webpki's own word for it, such as CaUsedAsEndEntity, without what rustls wraps around it.
                    CertificateError::Other(inner) => inner.to_string(),
                    _ => error.to_string(),
                };
                let reason = reason_of(&error);
                // Of what has no reason of its own rustls would send some as certificate_unknown, and say so to nobody.
                let error = if reason == Reason::CertificateInvalid { CertificateError::BadEncoding } else { error };
                Err(Refused { reason, detail, error })
            }
            // webpki gives nothing else; if it ever does, it is a refusal all the same.
            Err(other) => Err(Refused {
                error: CertificateError::BadEncoding,
                reason: Reason::CertificateInvalid,
                detail: other.to_string(),
            }),
        }
    }

    fn ask_every_list(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), Refused> {
        if self.revoked.is_empty() {
            return Ok(());
        }
        for certificate in [end_entity].into_iter().chain(intermediates) {
            // What cannot be read here was read by webpki, or is no part of the chain.
            let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { continue };
            let serials = self.revoked.get(certificate.issuer().as_raw());
            if serials.is_some_and(|serials| serials.contains(&Serial::from_be_bytes(certificate.raw_serial()))) {
                return Err(Refused {
                    error: CertificateError::Revoked,
                    reason: Reason::Revoked,
                    detail: CertificateError::Revoked.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Up to when a chain that is good now stays good, in seconds since 1970, as far as anybody can tell now.
    fn valid_until(&self, identity: &Identity, intermediates: &[CertificateDer<'_>]) -> u64 {
        let above = intermediates
            .iter()
            .filter_map(|certificate| Identity::from_certificate(certificate, false).ok())
            .map(|intermediate| intermediate.not_after);
        let chain = above.chain([identity.not_after]).min().and_then(|end| u64::try_from(end).ok()).unwrap_or(0);
        if self.mode.verifies() {
            self.lists_good_until.map_or(chain, |lists| lists.min(chain))
        } else {
            // Nobody looked at the dates, so they do not end anything either.
            u64::MAX
        }
    }
}

impl Refused {
    const fn is_by_policy(&self) -> bool {
        matches!(self.reason, Reason::Denied | Reason::IdentityNotAllowed)
    }
}

/// Lists that cannot be read are refused by webpki.
fn revoked(lists: &[RevocationList]) -> HashMap<Vec<u8>, HashSet<Serial>> {
    let mut revoked: HashMap<Vec<u8>, HashSet<Serial>> = HashMap::new();
    for list in lists {
        let Ok((_, list)) = CertificateRevocationList::from_der(&list.list) else { continue };
        let serials = list.iter_revoked_certificates().map(|entry| Serial::from_be_bytes(entry.raw_serial()));
        revoked.entry(list.issuer().as_raw().to_vec()).or_default().extend(serials);
    }
    revoked
}

fn chain_verifier(client_auth: &ClientAuth) -> Result<Arc<dyn ClientCertVerifier>, UnusableTrust> {
    let mut roots = RootCertStore::empty();
    for anchor in &client_auth.trust {
        roots.add(anchor.certificate.clone()).map_err(UnusableTrust::Anchor)?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&PROVIDER));
    if !client_auth.revocation_lists.is_empty() {
        builder = builder.with_crls(client_auth.revocation_lists.iter().map(|list| list.list.clone()));
    }
    if !client_auth.announce_trust {
        builder = builder.clear_root_hint_subjects();
    }
    // webpki's own default takes an expired list for a good one.
    if client_auth.expired_revocation_list == ExpiredRevocationList::Deny {
        builder = builder.enforce_revocation_expiration();
    }
    builder.build().map_err(UnusableTrust::Builder)
}

/// Our reason for a certificate that rustls refuses.
pub(super) fn reason_of(error: &CertificateError) -> Reason {
    match error {
        CertificateError::UnknownIssuer => Reason::UnknownCa,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Reason::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Reason::NotYetValid,
        CertificateError::Revoked => Reason::Revoked,
        CertificateError::UnknownRevocationStatus => Reason::RevocationUnknown,
        CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
            Reason::RevocationListExpired
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Reason::WrongPurpose,
        CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => Reason::BadSignature,
        CertificateError::ApplicationVerificationFailure => Reason::IdentityNotAllowed,
        // rustls' enum is not exhaustive. What has no reason of its own is refused like the rest.
        _ => Reason::CertificateInvalid,
    }
}

impl ClientCertVerifier for RouteVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    /// Also where the mode would let a client go without, but `allow` would not: then the handshake tells it so.
    fn client_auth_mandatory(&self) -> bool {
        self.mode.requires() || !self.policy.allow.unverified
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.as_ref().map_or(&[], |chain| chain.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let (identity, verdict) = self.judge(end_entity, intermediates, now);
        observation::current(|current| {
            current.valid_until = identity.as_deref().map(|identity| {
                self.valid_until(identity, intermediates).min(now.as_secs().saturating_add(tickets::LIFETIME))
            });
            current.identity = identity;
            match verdict {
                Ok(()) => Ok(ClientCertVerified::assertion()),
                Err(refused) => {
                    current.refusal = Some((refused.reason, refused.detail));
                    Err(Error::InvalidCertificate(refused.error))
                }
            }
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::checked::{Allow, DenyList, TrustAnchor};
    use crate::handshake::observation::{Observation, observe};

    /// Up to when a session may be resumed that begins `now` with this certificate, trusted as it is.
    fn resumable_until(mode: ClientAuthMode, certificate: &CertificateDer<'static>, now: u64) -> Option<u64> {
        let client_auth = ClientAuth {
            mode,
            trust: vec![TrustAnchor { file: "clients.pem".into(), certificate: certificate.clone() }],
            revocation_lists: Vec::new(),
            deny: DenyList::default(),
            expired_revocation_list: ExpiredRevocationList::Deny,
            announce_trust: true,
        };
        let allow = Allow { any: true, unverified: !mode.verifies(), ..Allow::default() };
        let policy = Arc::new(Policy { allow, deny: DenyList::default() });
        let verifier = RouteVerifier::new(&client_auth, policy).expect("an anchor");
        let mut observation = Observation::default();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        observe(&mut observation, || verifier.verify_client_cert(certificate, &[], now)).expect("a good certificate");
        observation.valid_until
    }

    /// It was as long as the certificate, or for ever where nobody looks at dates: a stolen ticket did for a key.
    #[test]
    fn a_session_ends_with_its_certificate_and_after_twelve_hours_at_the_latest() {
        const HOUR: u64 = 3600;
        let now = UnixTime::now().as_secs();
        let at = |seconds: u64| {
            let seconds = i64::try_from(seconds).expect("not that far away");
            time::OffsetDateTime::from_unix_timestamp(seconds).expect("a time")
        };
        for (hours, verifying, not_verifying) in [(1, 1, 12), (12, 12, 12), (13, 12, 12), (24 * 365, 12, 12)] {
            let key = rcgen::KeyPair::generate().expect("a key");
            let mut params = rcgen::CertificateParams::new(vec!["phone.alice".to_owned()]).expect("a name");
            (params.not_before, params.not_after) = (at(now - HOUR), at(now + hours * HOUR));
            let certificate = params.self_signed(&key).expect("a certificate").der().clone();
            for (mode, expected) in [
                (ClientAuthMode::RequireAndVerify, verifying),
                (ClientAuthMode::VerifyIfGiven, verifying),
                (ClientAuthMode::Require, not_verifying),
                (ClientAuthMode::Request, not_verifying),
            ] {
                let until = resumable_until(mode, &certificate, now);
                assert_eq!(until, Some(now + expected * HOUR), "{mode:?}, valid for {hours} h");
            }
        }
    }
}
