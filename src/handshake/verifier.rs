//! How a route judges client certificates: the four modes, with Caddy's meaning.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use super::chains::{self, Chains, Followed, Validity};
use super::config::PROVIDER;
use super::{observation, tickets};
use crate::authorize::{Policy, decide};
use crate::config::checked::{ClientAuth, ClientAuthMode, ExpiredRevocationList, RevocationList};
use crate::identity::{Chain, Identity, NotACertificate, Serial};
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
    known: Chains,
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

/// What became of a chain.
#[derive(Debug)]
pub(super) struct Judged {
    /// Whom it names.
    pub(super) identity: Option<Arc<Identity>>,
    /// The chain, if it is one to go by later. Where many connections show the same one, they share it.
    pub(super) chain: Option<Arc<Chain>>,
    /// Up to when it stays good, in seconds since 1970, as far as anybody can tell now.
    good_until: u64,
    pub(super) verdict: Result<(), Refused>,
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
        Ok(Self {
            mode: client_auth.mode,
            chain,
            revoked,
            lists_good_until,
            algorithms,
            policy,
            known: Chains::default(),
        })
    }

    /// Whether chains are followed to a trust anchor.
    pub(super) fn verifies(&self) -> bool {
        self.chain.is_some()
    }

    /// Whom the lists here revoke and those of `other` do not: the first `most` of them, and how many more there are.
    pub(super) fn revoked_beside(&self, other: &Self, most: usize) -> (Vec<(String, Serial)>, usize) {
        let (mut first, mut count) = (BTreeSet::new(), 0);
        // Where nobody is verified, lists have no effect.
        for (issuer, serials) in self.revoked.iter().filter(|_| self.chain.is_some()) {
            let known = other.revoked.get(issuer);
            for serial in serials.iter().filter(|serial| known.is_none_or(|known| !known.contains(*serial))) {
                count += 1;
                first.insert((issuer, serial));
                if first.len() > most {
                    first.pop_last();
                }
            }
        }
        let name = |issuer| X509Name::from_der(issuer).map(|(_, name)| name.to_string()).unwrap_or_default();
        let more = count - first.len();
        (first.into_iter().map(|(issuer, serial)| (name(issuer), serial.clone())).collect(), more)
    }

    /// Judges a chain: whether it leads to a trust anchor, and whether the route lets its holder in. Whom it names is
    /// told even if it is refused, for the log.
    pub(super) fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Judged {
        let followed = match self.follow(end_entity, intermediates, now) {
            Ok(followed) if followed.revoked => Err((Some(followed.identity), Refused::revoked())),
            followed => followed,
        };
        match followed {
            Ok(Followed { identity, chain, validity, .. }) => {
                let verdict = decide(Some(&identity), &self.policy).map_err(|(reason, detail)| Refused {
                    // The one error that reaches the client as access_denied.
                    error: CertificateError::ApplicationVerificationFailure,
                    reason,
                    detail,
                });
                Judged { identity: Some(identity), chain: Some(chain), good_until: validity.until, verdict }
            }
            // Marked for what it is: only a chain that was followed to its anchor makes a verified identity.
            Err((identity, refused)) => {
                let identity =
                    identity.map(|identity| Arc::new(Identity { verified: false, ..Identity::clone(&identity) }));
                Judged { identity, chain: None, good_until: 0, verdict: Err(refused) }
            }
        }
    }

    /// Follows a chain to a trust anchor, or recalls that it was followed before.
    fn follow(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Followed, (Option<Arc<Identity>>, Refused)> {
        let Some(chain) = &self.chain else {
            // Nobody looks at the dates, so they do not end anything either, unless a reload changes the mode.
            let identity = Identity::from_certificate(end_entity, false).map_err(|error| (None, error.into()))?;
            let chain = chains::kept(end_entity, intermediates, validity(&identity, intermediates, now).until);
            let validity = Validity { from: 0, until: u64::MAX };
            return Ok(Followed { identity: Arc::new(identity), chain, validity, revoked: false });
        };
        let key = chains::key(end_entity, intermediates);
        if let Some(followed) = self.known.recall(&key, now) {
            return Ok(followed);
        }
        let identity = Identity::from_certificate(end_entity, true).map_err(|error| (None, error.into()))?;
        let identity = Arc::new(identity);
        let revoked = match self.follow_anew(&**chain, end_entity, intermediates, now) {
            Ok(()) => false,
            // webpki looks for that last, behind all that could be wrong with the chain.
            Err(refused) if refused.reason == Reason::Revoked => true,
            Err(refused) => return Err((Some(identity), refused)),
        };
        let Validity { from, until } = validity(&identity, intermediates, now);
        let chain = chains::kept(end_entity, intermediates, until);
        let until = self.lists_good_until.map_or(until, |lists| lists.min(until));
        let followed = Followed { identity, chain, validity: Validity { from, until }, revoked };
        self.known.remember(key, followed.clone());
        Ok(followed)
    }

    fn follow_anew(
        &self,
        chain: &dyn ClientCertVerifier,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Refused> {
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
                return Err(Refused::revoked());
            }
        }
        Ok(())
    }
}

/// When all certificates of a chain are valid that is good `now`.
fn validity(identity: &Identity, intermediates: &[CertificateDer<'_>], now: UnixTime) -> Validity {
    let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
    let mut validity = Validity { from: seconds(identity.not_before), until: seconds(identity.not_after) };
    for certificate in intermediates {
        // One that cannot be read is no part of the chain.
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { continue };
        let dates = certificate.validity();
        let (from, until) = (seconds(dates.not_before.timestamp()), seconds(dates.not_after.timestamp()));
        // Nor is one that is not valid now: many clients send their authority along, which is trusted whatever its dates.
        if from <= now.as_secs() && now.as_secs() <= until {
            validity = Validity { from: validity.from.max(from), until: validity.until.min(until) };
        }
    }
    validity
}

impl Refused {
    fn revoked() -> Self {
        let error = CertificateError::Revoked;
        Self { reason: Reason::Revoked, detail: error.to_string(), error }
    }
}

impl From<NotACertificate> for Refused {
    fn from(_: NotACertificate) -> Self {
        let error = CertificateError::BadEncoding;
        Self { error, reason: Reason::CertificateInvalid, detail: "not X.509".to_owned() }
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
        let Judged { identity, chain, good_until, verdict } = self.judge(end_entity, intermediates, now);
        observation::current(|current| {
            current.valid_until = Some(good_until.min(now.as_secs().saturating_add(tickets::LIFETIME)));
            current.identity = identity;
            match verdict {
                Ok(()) => {
                    current.chain = chain;
                    Ok(ClientCertVerified::assertion())
                }
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
    use crate::config::checked::{Allow, DenyList, ExpiredSession, TrustAnchor};
    use crate::handshake::observation::{Observation, observe};

    /// A verifier that trusts this certificate as it is.
    fn verifier(mode: ClientAuthMode, certificate: &CertificateDer<'static>) -> RouteVerifier {
        let client_auth = ClientAuth {
            mode,
            trust: vec![TrustAnchor { file: "clients.pem".into(), certificate: certificate.clone() }],
            revocation_lists: Vec::new(),
            deny: DenyList::default(),
            expired_revocation_list: ExpiredRevocationList::Deny,
            expired_session: ExpiredSession::Cut,
            announce_trust: true,
        };
        let allow = Allow { any: true, unverified: !mode.verifies(), ..Allow::default() };
        let policy = Arc::new(Policy { allow, deny: DenyList::default() });
        RouteVerifier::new(&client_auth, policy).expect("an anchor")
    }

    /// A certificate that is valid from and up to these seconds.
    fn certificate(from: u64, until: u64) -> CertificateDer<'static> {
        let at = |seconds: u64| {
            let seconds = i64::try_from(seconds).expect("not that far away");
            time::OffsetDateTime::from_unix_timestamp(seconds).expect("a time")
        };
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec!["phone.alice".to_owned()]).expect("a name");
        (params.not_before, params.not_after) = (at(from), at(until));
        params.self_signed(&key).expect("a certificate").der().clone()
    }

    /// Up to when a session may be resumed that begins `now` with this certificate.
    fn resumable_until(mode: ClientAuthMode, certificate: &CertificateDer<'static>, now: u64) -> Option<u64> {
        let verifier = verifier(mode, certificate);
        let mut observation = Observation::default();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        observe(&mut observation, || verifier.verify_client_cert(certificate, &[], now)).expect("a good certificate");
        observation.valid_until
    }

    #[test]
    fn a_chain_that_was_followed_once_is_refused_all_the_same_when_its_time_is_over() {
        const HOUR: u64 = 3600;
        let now = UnixTime::now().as_secs();
        let certificate = certificate(now - HOUR, now + HOUR);
        let verifier = verifier(ClientAuthMode::RequireAndVerify, &certificate);
        let judge = |seconds| {
            let judged = verifier.judge(&certificate, &[], UnixTime::since_unix_epoch(Duration::from_secs(seconds)));
            assert_eq!(judged.identity.expect("it is a certificate").verified, judged.verdict.is_ok());
            judged.verdict.map_err(|refused| refused.reason)
        };
        // Twice each: the second time out of memory, if it is remembered at all.
        for (seconds, verdict) in [
            (now, Ok(())),
            (now + 2 * HOUR, Err(Reason::Expired)),
            (now - 2 * HOUR, Err(Reason::NotYetValid)),
            (0, Err(Reason::NotYetValid)),
            (now + HOUR - 1, Ok(())),
        ] {
            assert_eq!([judge(seconds), judge(seconds)], [verdict, verdict], "at {seconds}, {now} being now");
        }
        let first = verifier.judge(&certificate, &[], UnixTime::now()).identity.expect("an identity");
        let second = verifier.judge(&certificate, &[], UnixTime::now()).identity.expect("an identity");
        assert!(Arc::ptr_eq(&first, &second), "it was remembered");
    }

    #[test]
    fn a_chain_is_good_while_all_of_it_is_but_for_what_is_no_part_of_it() {
        let now = UnixTime::now().as_secs();
        let own = Identity::from_certificate(&certificate(now - 50, now + 50), true).expect("an identity");
        for (from, until, expected) in [
            (now - 90, now + 90, (now - 50, now + 50)),
            (now - 90, now + 20, (now - 50, now + 20)),
            (now - 20, now + 90, (now - 20, now + 50)),
            // Expired, and not valid yet.
            (now - 90, now - 1, (now - 50, now + 50)),
            (now + 1, now + 2, (now - 50, now + 50)),
        ] {
            let at = UnixTime::since_unix_epoch(Duration::from_secs(now));
            let Validity { from, until } = validity(&own, &[certificate(from, until)], at);
            assert_eq!((from, until), expected);
        }
    }

    /// It was as long as the certificate, or for ever where nobody looks at dates: a stolen ticket did for a key.
    #[test]
    fn a_session_ends_with_its_certificate_and_after_twelve_hours_at_the_latest() {
        const HOUR: u64 = 3600;
        let now = UnixTime::now().as_secs();
        for (hours, verifying, not_verifying) in [(1, 1, 12), (12, 12, 12), (13, 12, 12), (24 * 365, 12, 12)] {
            let certificate = certificate(now - HOUR, now + hours * HOUR);
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
