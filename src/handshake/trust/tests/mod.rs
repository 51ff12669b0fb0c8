//! Authorities that count the signatures they check, for the tests of this folder.

mod cost;
mod path;
mod renewed;
mod review;
mod revocation;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, CrlScope, CustomExtension, DnType, GeneralSubtree, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, NameConstraints, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};
use time::OffsetDateTime;

use super::*;
use crate::config::checked::{
    ClientAuthMode, DenyList, ExpiredRevocationList, ExpiredSession, RevocationCheck, RevocationList, TrustAnchor,
    TrustKind,
};
use crate::model::rejection::Reason;

/// Counts the signatures that it checks.
#[derive(Debug)]
struct Counted {
    by: &'static dyn SignatureVerificationAlgorithm,
    count: &'static AtomicUsize,
}

impl SignatureVerificationAlgorithm for Counted {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.by.verify_signature(key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.by.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.by.signature_alg_id()
    }
}

struct Ca {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Ca {
    fn new(name: &str) -> Self {
        Self::with_key(name, KeyPair::generate().expect("a key"))
    }

    fn with_key(name: &str, key: KeyPair) -> Self {
        let params = authority_params(name);
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn below(&self, params: CertificateParams) -> Self {
        self.below_with_key(params, KeyPair::generate().expect("a key"))
    }

    fn below_with_key(&self, params: CertificateParams, key: KeyPair) -> Self {
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn device(&self, params: CertificateParams) -> CertificateDer<'static> {
        let key = KeyPair::generate().expect("a key");
        params.signed_by(&key, &self.issuer).expect("a certificate").der().clone()
    }

    /// A certificate for this authority's key by another authority.
    fn crossed_by(&self, other: &Self, params: &CertificateParams) -> CertificateDer<'static> {
        params.signed_by(self.issuer.key(), &other.issuer).expect("a certificate").der().clone()
    }

    fn list(&self, serials: &[u64], days: i64, point: Option<&str>) -> RevocationList {
        self.scoped_list(serials, days, point, None)
    }

    fn scoped_list(&self, serials: &[u64], days: i64, point: Option<&str>, scope: Option<CrlScope>) -> RevocationList {
        let now = OffsetDateTime::now_utc();
        let list = CertificateRevocationListParams {
            this_update: now - time::Duration::days(3),
            next_update: now + time::Duration::days(days),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: point.map(|point| CrlIssuingDistributionPoint {
                distribution_point: CrlDistributionPoint { uris: vec![point.to_owned()] },
                scope,
            }),
            revoked_certs: serials
                .iter()
                .map(|serial| RevokedCertParams {
                    serial_number: SerialNumber::from(*serial),
                    revocation_time: now,
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list").der().clone();
        RevocationList::read(list.to_vec(), std::path::Path::new("clients.crl")).expect("a list")
    }
}

fn numbered(name: &str, serial: u64) -> CertificateParams {
    let mut params = params(name);
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

/// The defaults, with neither trust nor lists.
fn client_auth() -> ClientAuth {
    ClientAuth {
        mode: ClientAuthMode::RequireAndVerify,
        trust: Vec::new(),
        revocation_lists: Vec::new(),
        newer_lists: Vec::new(),
        deny: DenyList::default(),
        loaded_deny: None,
        expired_revocation_list: ExpiredRevocationList::Deny,
        revocation_check: RevocationCheck::Chain,
        expired_session: ExpiredSession::Cut,
        announce_trust: true,
    }
}

/// Authorities that count the signatures they check.
struct Scene {
    authorities: Authorities,
    count: &'static AtomicUsize,
}

impl Scene {
    fn new(trust: &[&CertificateDer<'static>], lists: Vec<RevocationList>) -> Self {
        Self::of(trust.iter().map(|one| (*one, TrustKind::Authority)).collect(), lists)
    }

    fn of(trust: Vec<(&CertificateDer<'static>, TrustKind)>, revocation_lists: Vec<RevocationList>) -> Self {
        let anchor = |(certificate, kind): (&CertificateDer<'static>, TrustKind)| TrustAnchor {
            file: "clients.pem".into(),
            certificate: certificate.clone(),
            kind,
        };
        let trust = trust.into_iter().map(anchor).collect();
        let client_auth = ClientAuth { trust, revocation_lists, ..client_auth() };
        let count: &'static AtomicUsize = Box::leak(Box::default());
        let real = PROVIDER.signature_verification_algorithms.all;
        let counted = real.iter().map(|by| &*Box::leak(Box::new(Counted { by: *by, count })));
        let counted: Vec<_> = counted.map(|one| one as &dyn SignatureVerificationAlgorithm).collect();
        let authorities = Authorities::with(&client_auth, Box::leak(counted.into_boxed_slice())).expect("authorities");
        Self { authorities, count }
    }

    /// The verdict about a chain, and how many signatures it took.
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        sent: &[&CertificateDer<'static>],
    ) -> (Result<Arc<Chain>, Reason>, usize) {
        let sent: Vec<_> = sent.iter().map(|one| (*one).clone()).collect();
        let before = self.count.load(Ordering::Relaxed);
        let verdict = self.authorities.verify(leaf, &sent, UnixTime::now());
        let verdict = verdict.map(|(verified, _)| verified.chain).map_err(|(_, refused)| refused.cause.reason());
        (verdict, self.count.load(Ordering::Relaxed) - before)
    }

    #[track_caller]
    fn admits(&self, what: &str, leaf: &CertificateDer<'_>, sent: &[&CertificateDer<'static>]) -> Arc<Chain> {
        self.judge(leaf, sent).0.unwrap_or_else(|reason| panic!("{what}: {reason}"))
    }

    #[track_caller]
    fn refuses(&self, what: &str, reason: Reason, leaf: &CertificateDer<'_>, sent: &[&CertificateDer<'static>]) {
        let (verdict, _) = self.judge(leaf, sent);
        assert_eq!(verdict.err(), Some(reason), "{what}");
    }
}

/// Every order of up to `n` things, at most `most`.
fn orders(n: usize, most: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for _ in 0..n {
        all = all
            .into_iter()
            .flat_map(|order: Vec<usize>| {
                let rest: Vec<_> = (0..n).filter(|one| !order.contains(one)).collect();
                rest.into_iter().map(move |one| [order.as_slice(), &[one]].concat())
            })
            .take(most)
            .collect();
    }
    all
}

/// Makes keys of one kind.
type MakeKey = fn() -> KeyPair;

/// Keys of each kind, and how many signatures that prove wrong under them cost no more than two on P-256.
const KEYS: [(&str, MakeKey, usize); 6] = [
    ("P-256", || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key"), 2),
    ("P-384", || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key"), 1),
    ("P-521", || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).expect("a key"), 1),
    ("Ed25519", || KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key"), 2),
    ("RSA-2048", || rsa(rcgen::RsaKeySize::_2048), 2),
    ("RSA-4096", || rsa(rcgen::RsaKeySize::_4096), 1),
];

fn rsa(size: rcgen::RsaKeySize) -> KeyPair {
    KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).expect("a key")
}
