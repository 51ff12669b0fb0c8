//! How a route judges client certificates: the four modes, with Caddy's meaning.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::observation;
use super::suites::PROVIDER;
use super::trust::{Authorities, Verified};
use crate::authorize::{Policy, decide};
use crate::model::identity::{Chain, Identity};
use crate::model::rejection::Cause;
use crate::pki::validation_errors::{self, Objection as Refused};

/// For how long, in seconds, sessions may be resumed after the handshake in which the client proved that it holds its key.
/// Tickets are renewed when they are used; without an end, a copied ticket would replace the key for good.
pub(super) const SESSION_LIFETIME: u64 = 12 * 60 * 60;

/// The verifier of one route.
#[derive(Debug)]
pub(super) struct RouteVerifier {
    pub(super) authorities: Arc<Authorities>,
    algorithms: WebPkiSupportedAlgorithms,
    policy: Arc<Policy>,
}

/// The result for a chain.
#[derive(Debug)]
pub(super) struct Judged {
    /// The identity in its first certificate.
    pub(super) identity: Option<Arc<Identity>>,
    /// The chain that was verified. Where many connections show the same one, they share it.
    pub(super) chain: Option<Arc<Chain>>,
    /// Until when it stays valid, in seconds since 1970, as far as is known now.
    pub(super) good_until: u64,
    pub(super) verdict: Result<(), Refused>,
}

impl RouteVerifier {
    /// `authorities` and `policy` are of the same `client_auth`.
    pub(super) fn new(authorities: Arc<Authorities>, policy: Arc<Policy>) -> Self {
        Self { authorities, algorithms: PROVIDER.signature_verification_algorithms, policy }
    }

    /// Judges a client that shows no certificate.
    pub(super) fn judge_without_certificate(&self) -> Result<(), Cause> {
        decide(None, &self.policy)
    }

    /// Judges a chain: whether it leads to a trust anchor, and whether the route lets its holder in. The
    /// identity is returned even if it is refused, for the log.
    pub(super) fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Judged {
        let verified = self.authorities.verify(end_entity, intermediates, now);
        let verified =
            verified.and_then(|(verified, good_until)| match validation_errors::own_key(&verified.identity) {
                Ok(()) => Ok((verified, good_until)),
                // No CertificateVerify by this key could be checked, whatever issued the certificate.
                Err(refused) => Err((Some(verified.identity), refused)),
            });
        match verified {
            Ok((Verified { identity, chain, .. }, good_until)) => {
                let verdict = decide(Some(&identity), &self.policy).map_err(|cause| Refused {
                    // The one error that reaches the client as access_denied.
                    error: CertificateError::ApplicationVerificationFailure,
                    cause,
                });
                Judged { identity: Some(identity), chain: Some(chain), good_until, verdict }
            }
            // Marked for what it is: only a chain that was followed to its anchor makes a verified identity.
            Err((identity, refused)) => {
                let identity =
                    identity.map(|identity| Arc::new(Identity { verified: false, ..Identity::clone(&identity) }));
                Judged { identity, chain: None, good_until: 0, verdict: Err(refused) }
            }
        }
    }
}

impl ClientCertVerifier for RouteVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    /// Also where the mode would let a client go without, but `allow` would not: then the handshake tells it so.
    fn client_auth_mandatory(&self) -> bool {
        self.policy.requires_certificate()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authorities.names()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let Judged { identity, chain, good_until, verdict } = self.judge(end_entity, intermediates, now);
        observation::current(|current| {
            current.valid_until = Some(good_until.min(now.as_secs().saturating_add(SESSION_LIFETIME)));
            current.identity = identity;
            match verdict {
                Ok(()) => {
                    current.chain = chain;
                    Ok(ClientCertVerified::assertion())
                }
                Err(refused) => {
                    current.refusal = Some(refused.cause);
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
    use crate::config::checked::{
        Allow, ClientAuth, ClientAuthMode, DenyList, ExpiredRevocationList, ExpiredSession, RevocationCheck,
        TrustAnchor, TrustKind,
    };
    use crate::handshake::observation::{Observation, observe};
    use crate::model::rejection::Reason;

    /// A verifier that trusts this certificate as it is.
    fn verifier(mode: ClientAuthMode, certificate: &CertificateDer<'static>) -> RouteVerifier {
        let client_auth = ClientAuth {
            mode,
            trust: vec![TrustAnchor {
                file: "clients.pem".into(),
                certificate: certificate.clone(),
                kind: TrustKind::Pinned,
            }],
            revocation_lists: Vec::new(),
            newer_lists: Vec::new(),
            deny: DenyList::default(),
            loaded_deny: None,
            expired_revocation_list: ExpiredRevocationList::Deny,
            revocation_check: RevocationCheck::Chain,
            expired_session: ExpiredSession::Cut,
            announce_trust: true,
        };
        let allow = Allow { any: true, unverified: !mode.verifies(), ..Allow::default() };
        let policy = Arc::new(Policy {
            route: crate::model::names::Name::parse("nas").expect("a name"),
            mode,
            allow,
            deny: DenyList::default(),
        });
        RouteVerifier::new(Arc::new(Authorities::new(&client_auth).expect("an anchor")), policy)
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
    fn known_chain_is_refused_once_it_expires() {
        const HOUR: u64 = 3600;
        let now = UnixTime::now().as_secs();
        let certificate = certificate(now - HOUR, now + HOUR);
        let verifier = verifier(ClientAuthMode::RequireAndVerify, &certificate);
        let judge = |seconds| {
            let judged = verifier.judge(&certificate, &[], UnixTime::since_unix_epoch(Duration::from_secs(seconds)));
            assert_eq!(judged.identity.expect("it is a certificate").verified, judged.verdict.is_ok());
            judged.verdict.map_err(|refused| refused.cause.reason())
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

    /// It once lasted as long as the certificate, or without end in modes that do not verify: a stolen ticket replaced the
    /// key.
    #[test]
    fn session_ends_with_its_certificate_or_after_twelve_hours() {
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
