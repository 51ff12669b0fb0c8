//! What chains cost, in signatures that are checked, and which paths are found.

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

#[test]
fn chains_that_strangers_make_up_cost_two_signatures_at_most() {
    let (root, other) = (Ca::new("Devices"), Ca::new("Other devices"));
    let scene = Scene::new(&[&root.certificate, &other.certificate], Vec::new());
    let forged = Ca::new("Devices");
    let junk: Vec<_> = (0..8).map(|_| forged.below(authority_params("Devices"))).collect();
    let leaf = forged.device(params("stranger"));
    let by_middle = Ca::new("Middle");
    let middles: Vec<_> = (0..8)
        .map(|number| {
            let above = if number % 2 == 0 { &forged } else { &Ca::new("Other devices") };
            by_middle.crossed_by(above, &authority_params("Middle"))
        })
        .collect();
    let middle_leaf = by_middle.device(params("stranger"));
    let ring: Vec<_> = (0..8)
        .map(|number| {
            Ca::new(&format!("Ring {number}"))
                .below(authority_params(&format!("Ring {}", (number + 1) % 8)))
                .certificate
        })
        .collect();
    let ring_leaf = Ca::new("Ring 0").device(params("stranger"));
    let devices: Vec<_> = (0..8).map(|_| forged.device(params("Devices"))).collect();

    let cases: Vec<(&str, &CertificateDer<'_>, Vec<&CertificateDer<'static>>)> = vec![
        ("nothing beside", &leaf, vec![]),
        ("8 of the anchor's name", &leaf, junk.iter().map(|one| &one.certificate).collect()),
        ("8 of one name below two anchors' names", &middle_leaf, middles.iter().collect()),
        ("a ring", &ring_leaf, ring.iter().collect()),
        ("8 that are no authorities", &leaf, devices.iter().collect()),
        ("the anchor itself, 8 times", &leaf, vec![&root.certificate; 8]),
    ];
    for (what, leaf, sent) in &cases {
        for order in orders(sent.len(), 50) {
            let sent: Vec<_> = order.iter().map(|place| sent[*place]).collect();
            let (verdict, cost) = scene.judge(leaf, &sent);
            assert_eq!(verdict.err(), Some(Reason::UnknownCa), "{what}");
            assert!(cost <= 2, "{what}: {cost} signatures");
        }
    }
    let (verdict, cost) = scene.judge(&leaf, &[&junk[0].certificate; 9]);
    assert_eq!((verdict.err(), cost), (Some(Reason::CertificateInvalid), 0), "more than 8");
}

#[test]
fn forged_chains_with_a_genuine_intermediate_cost_four_signatures_at_most() {
    let root = Ca::new("Devices");
    let scene = Scene::new(&[&root.certificate], Vec::new());
    let genuine = root.below(authority_params("Genuine"));
    let between = Ca::new("Between");
    let above = [Ca::new("Genuine"), Ca::new("Devices")];
    let forged: Vec<_> =
        above.iter().flat_map(|above| (0..3).map(|_| above.below(authority_params("Between")).certificate)).collect();
    let sent: Vec<_> = [&genuine.certificate].into_iter().chain(&forged).collect();
    for (turn, order) in orders(sent.len(), 200).into_iter().enumerate() {
        let sent: Vec<_> = order.iter().map(|place| sent[*place]).collect();
        let (verdict, cost) = scene.judge(&between.device(params("stranger")), &sent);
        assert_eq!(verdict.err(), Some(Reason::UnknownCa));
        // That the genuine one is right is checked once.
        assert!(cost <= if turn < 10 { 4 } else { 3 }, "{cost} signatures");
    }
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

#[test]
fn a_flood_of_forged_chains_costs_two_signatures_on_p256_each_whatever_the_keys_are() {
    for (kind, key, most) in KEYS {
        let root = Ca::with_key("Devices", key());
        let scene = Scene::new(&[&root.certificate], Vec::new());
        let genuine = root.below_with_key(authority_params("Genuine"), key());
        let between = Ca::new("Between");
        let above = [Ca::with_key("Genuine", key()), Ca::with_key("Devices", key())];
        let forged: Vec<_> = above
            .iter()
            .flat_map(|above| (0..3).map(|_| above.below(authority_params("Between")).certificate))
            .collect();
        let sent: Vec<_> = [&genuine.certificate].into_iter().chain(&forged).collect();
        let leaf = between.device(params("stranger"));
        // What all clients share is used up first.
        let costs: Vec<_> = (0..60).map(|_| scene.judge(&leaf, &sent).1).collect();
        assert!(costs[40..].iter().filter(|cost| **cost > most).count() <= 3, "{kind}: {costs:?}");
        assert!(costs.iter().all(|cost| *cost <= 4), "{kind}: {costs:?}");
        assert!(costs[59] > 0, "{kind}: the first signature is always checked");
        // A device that was never seen before still gets in.
        scene.admits(kind, &genuine.device(params("phone")), &[&genuine.certificate]);
        scene.admits(kind, &root.device(params("tablet")), &[]);
    }
}

#[test]
fn paths_of_real_hierarchies_are_found_whatever_the_keys_are() {
    // Without the last, which take seconds to make.
    for (kind, key, _) in &KEYS[..5] {
        let (old, new) = (Ca::with_key("Root", key()), Ca::with_key("Root", key()));
        let middle = new.below_with_key(authority_params("Middle"), key());
        let by_old = middle.crossed_by(&old, &authority_params("Middle"));
        let namesake = new.below_with_key(authority_params("Middle"), key());
        for sent in [vec![&by_old, &middle.certificate], vec![&by_old, &namesake.certificate, &middle.certificate]] {
            let scene = Scene::new(&[&new.certificate], Vec::new());
            scene.admits(&format!("{kind}, {} beside", sent.len()), &middle.device(params("alice")), &sent);
        }
    }
}

#[test]
fn an_intermediate_that_was_right_once_vouches_for_no_forged_one() {
    let root = Ca::new("Root");
    let scene = Scene::new(&[&root.certificate], Vec::new());
    let genuine = root.below(authority_params("Middle"));
    scene.admits("the genuine one", &genuine.device(params("phone")), &[&genuine.certificate]);
    let forged = Ca::new("Root").below(authority_params("Middle"));
    let phone = forged.device(params("phone"));
    scene.refuses("a forged one", Reason::UnknownCa, &phone, &[&forged.certificate]);
    scene.refuses("both", Reason::UnknownCa, &phone, &[&genuine.certificate, &forged.certificate]);
    // One bit of a known certificate changed.
    let mut changed = genuine.certificate.to_vec();
    *changed.last_mut().expect("a byte") ^= 1;
    let changed = CertificateDer::from(changed);
    scene.refuses("a changed one", Reason::UnknownCa, &genuine.device(params("tablet")), &[&changed]);
}

/// So many extensions that say nothing, each with so many bytes.
fn with_extensions(mut params: CertificateParams, count: u64, bytes: usize) -> CertificateParams {
    params.custom_extensions.extend(
        (0..count).map(|number| CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55_555, number], vec![7; bytes])),
    );
    params
}

#[test]
fn certificates_beyond_36_kib_in_all_are_refused_unread() {
    let root = Ca::new("Devices");
    let scene = Scene::new(&[&root.certificate], Vec::new());
    let device = |bytes| root.device(with_extensions(params("phone"), 1, bytes));
    let (large, too_large) = (device(30_000), device(36 * 1024));
    scene.admits("30 kB", &large, &[]);
    let beside = root.below(with_extensions(authority_params("Beside"), 1, 8_000)).certificate;
    for (what, leaf, sent) in [("one of 36 KiB", &too_large, vec![]), ("30 kB and 8 kB beside", &large, vec![&beside])]
    {
        let (verdict, cost) = scene.judge(leaf, &sent);
        assert_eq!((verdict.err(), cost), (Some(Reason::CertificateInvalid), 0), "{what}");
    }
}

#[test]
fn a_certificate_with_more_than_64_extensions_is_refused_unread() {
    let root = Ca::new("Devices");
    let scene = Scene::new(&[&root.certificate], Vec::new());
    let device = |count| root.device(with_extensions(params("phone"), count, 0));
    let bare = device(0);
    let (_, bare) = X509Certificate::from_der(&bare).expect("a certificate");
    let without = u64::try_from(bare.extensions().len()).expect("a few");
    scene.admits("64 extensions", &device(64 - without), &[]);
    let (verdict, cost) = scene.judge(&device(65 - without), &[]);
    assert_eq!((verdict.err(), cost), (Some(Reason::CertificateInvalid), 0));
    let refused = acceptance::alone(&device(65 - without), UnixTime::now()).expect_err("the same everywhere");
    assert_eq!(refused.cause.reason(), Reason::CertificateInvalid);

    let middle = root.below(with_extensions(authority_params("Middle"), 65, 0));
    scene.refuses("an issuer with 65", Reason::UnknownCa, &middle.device(params("phone")), &[&middle.certificate]);
}

/// Its names are read for the log, which takes longer the more it has.
#[test]
fn a_strangers_certificate_is_named_unless_it_is_made_of_hundreds_of_values() {
    let root = Ca::new("Devices");
    let scene = Scene::new(&[&root.certificate], Vec::new());
    let forged = Ca::new("Devices");
    for (count, named) in [(1, true), (100, true), (1000, false)] {
        let mut params = params("stranger");
        params.subject_alt_names = vec![SanType::DnsName("a".try_into().expect("a name")); count];
        let (identity, refused) =
            scene.authorities.verify(&forged.device(params), &[], UnixTime::now()).expect_err("a stranger");
        assert_eq!((identity.is_some(), refused.cause.reason()), (named, Reason::UnknownCa), "{count} names");
    }
}

#[test]
fn a_known_device_costs_no_signature_whatever_it_sends_along() {
    let root = Ca::new("Devices");
    let scene = Scene::new(&[&root.certificate], vec![root.list(&[7], 7, None)]);
    let leaf = root.device(numbered("alice", 8));
    let first = scene.admits("new", &leaf, &[]);
    let junk: Vec<_> = (0..8).map(|_| Ca::new("Devices").certificate).collect();
    for order in orders(8, 50) {
        let sent: Vec<_> = order.iter().map(|place| &junk[*place]).collect();
        let (verdict, cost) = scene.judge(&leaf, &sent);
        assert_eq!(cost, 0, "{order:?}");
        let chain = verdict.expect("it is let in");
        assert!(Arc::ptr_eq(&chain, &first), "sessions share one chain");
        assert_eq!(chain.certificates, std::slice::from_ref(&leaf), "what was not needed is not kept");
    }
}

#[test]
fn paths_of_real_hierarchies_are_found_within_the_budget() {
    let (old, new) = (Ca::new("Root"), Ca::new("Root"));
    let middle = new.below(authority_params("Middle"));
    let by_old = middle.crossed_by(&old, &authority_params("Middle"));
    let namesake = new.below(authority_params("Middle"));
    let low = middle.below(authority_params("Low"));
    let device = middle.device(params("alice"));
    let lower = low.device(params("bob"));
    // New with old, as RFC 4210 has it: the new key of the same name, certified by the old one.
    let rolled = new.crossed_by(&old, &authority_params("Root"));

    let both = Scene::new(&[&old.certificate, &new.certificate], Vec::new());
    both.admits("an authority that was made anew, the old one", &old.device(params("a")), &[]);
    both.admits("an authority that was made anew, the new one", &new.device(params("b")), &[]);

    let scene = Scene::new(&[&new.certificate], Vec::new());
    for (what, leaf, sent) in [
        ("an intermediate", &device, vec![&middle.certificate]),
        ("two of them, in the other order", &lower, vec![&middle.certificate, &low.certificate]),
        ("with the root", &lower, vec![&low.certificate, &middle.certificate, &new.certificate]),
        ("certified twice, the wrong one first", &device, vec![&by_old, &middle.certificate]),
        ("two of one name, the wrong one first", &device, vec![&namesake.certificate, &middle.certificate]),
        ("both", &device, vec![&by_old, &namesake.certificate, &middle.certificate]),
    ] {
        // Without what is known from the case before.
        let scene = Scene::new(&[&new.certificate], Vec::new());
        let (verdict, cost) = scene.judge(leaf, &sent);
        assert!(verdict.is_ok() && cost <= 6, "{what}: {verdict:?}, {cost} signatures");
    }
    scene.refuses("an intermediate that is not sent", Reason::UnknownCa, &device, &[]);
    let scene = Scene::new(&[&old.certificate], Vec::new());
    scene.admits("a new key, certified by the old one", &new.device(params("c")), &[&rolled]);

    let mut deep: Vec<Ca> = vec![Ca::new("Root")];
    for number in 0..6 {
        let next = deep.last().expect("one").below(authority_params(&format!("Level {number}")));
        deep.push(next);
    }
    let leaf = deep.last().expect("one").device(params("deep"));
    let sent: Vec<_> = deep[1..].iter().map(|one| &one.certificate).collect();
    let scene = Scene::new(&[&deep[0].certificate], Vec::new());
    let (verdict, cost) = scene.judge(&leaf, &sent);
    assert_eq!((verdict.map(|chain| chain.certificates.len()).ok(), cost), (Some(7), 7), "six intermediates");
}

#[test]
fn an_intermediate_that_expired_does_not_hide_one_that_is_valid() {
    let root = Ca::new("Root");
    let middle = root.below(authority_params("Middle"));
    let mut expired = authority_params("Middle");
    expired.not_after = OffsetDateTime::now_utc() - time::Duration::DAY;
    let expired = middle.crossed_by(&root, &expired);
    let leaf = middle.device(params("alice"));
    let scene = Scene::new(&[&root.certificate], Vec::new());
    scene.refuses("expired", Reason::Expired, &leaf, &[&expired]);
    let chain = scene.admits("both", &leaf, &[&expired, &middle.certificate]);
    assert_eq!(chain.certificates, [leaf, middle.certificate]);
}

#[test]
fn what_a_devices_key_signs_is_not_anchored() {
    let root = Ca::new("Devices");
    let middle = root.below(authority_params("Middle"));
    // A stolen phone: its key signs certificates with other names, each with another fingerprint.
    let stolen = root.below(params("alice"));
    let mut expired = params("bob");
    expired.not_after = OffsetDateTime::now_utc() - time::Duration::DAY;
    let scene = Scene::new(&[&root.certificate], Vec::new());
    for (what, leaf, sent, anchored) in [
        ("by a device", stolen.device(params("bob")), vec![&stolen.certificate], false),
        ("by a device, expired", stolen.device(expired.clone()), vec![&stolen.certificate], false),
        ("by an authority, expired", middle.device(expired.clone()), vec![&middle.certificate], true),
        ("by the root, expired", root.device(expired), vec![], true),
        ("by another root", Ca::new("Devices").device(params("bob")), vec![], false),
    ] {
        let sent: Vec<_> = sent.into_iter().cloned().collect();
        let (identity, _) = scene.authorities.verify(&leaf, &sent, UnixTime::now()).expect_err(what);
        assert_eq!(identity.map(|identity| identity.anchored), Some(anchored), "{what}");
    }
}

#[test]
fn a_strangers_unsupported_key_does_not_hide_an_unknown_issuer() {
    /// The last bytes of the object identifiers of P-256 and of P-192, which is not supported.
    const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    const P192: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x01];
    let on_p192 = |certificate: &CertificateDer<'_>| {
        let at = certificate.windows(P256.len()).rposition(|bytes| bytes == P256).expect("a key on P-256");
        CertificateDer::from([&certificate[..at], P192, &certificate[at + P192.len()..]].concat())
    };
    let (root, namesake) = (Ca::new("Devices"), Ca::new("Devices"));
    let forged = namesake.below(authority_params("Middle"));
    let (leaf, sent) = (forged.device(params("bob")), on_p192(&forged.certificate));
    let scene = Scene::new(&[&root.certificate], Vec::new());
    scene.refuses("nothing vouches for the key", Reason::UnknownCa, &leaf, &[&sent]);
    let scene = Scene::new(&[&on_p192(&root.certificate)], Vec::new());
    scene.refuses("a key in trust", Reason::UnsupportedKey, &root.device(params("bob")), &[]);
}

#[test]
fn lists_belong_to_an_authority_by_name_and_key() {
    let (own, friend) = (Ca::new("Devices"), Ca::new("Devices"));
    let (alice, bob) = (own.device(numbered("alice", 1)), friend.device(numbered("bob", 1)));
    let trust = [&own.certificate, &friend.certificate];
    for swapped in [false, true] {
        let mut lists = vec![own.list(&[], 7, None), friend.list(&[1], 7, None)];
        if swapped {
            lists.reverse();
        }
        let scene = Scene::new(&trust, lists);
        scene.admits("alice, whose number only the other list has", &alice, &[]);
        scene.refuses("bob, whose list has that number", Reason::Revoked, &bob, &[]);
    }
    let scene = Scene::new(&trust, vec![own.list(&[], 7, None)]);
    scene.admits("alice with the own list only", &alice, &[]);
    scene.refuses("bob without the list", Reason::RevocationUnknown, &bob, &[]);
    let scene = Scene::new(&trust, vec![own.list(&[], -1, None), friend.list(&[], 7, None)]);
    scene.refuses("alice, whose list has expired", Reason::RevocationListExpired, &alice, &[]);
    scene.admits("bob, whose list has not", &bob, &[]);
}

#[test]
fn the_list_of_an_intermediate_is_checked_once_for_its_key() {
    let root = Ca::new("Root");
    let (middle, namesake) = (root.below(authority_params("Middle")), root.below(authority_params("Middle")));
    let lists = || vec![root.list(&[], 7, None), middle.list(&[5], 7, None)];
    let scene = Scene::new(&[&root.certificate], lists());
    let devices: Vec<_> = (10..20).map(|serial| middle.device(numbered("device", serial))).collect();
    let (verdict, cost) = scene.judge(&devices[0], &[&middle.certificate]);
    // The chain, and one for each list.
    assert!(verdict.is_ok() && cost == 4, "{verdict:?}, {cost}");
    for device in &devices[1..] {
        let (verdict, cost) = scene.judge(device, &[&middle.certificate]);
        // The intermediate's own certificate is known.
        assert!(verdict.is_ok() && cost == 1, "{verdict:?}, {cost}");
        assert_eq!(scene.judge(device, &[&middle.certificate]).1, 0, "it is known");
    }
    scene.refuses("revoked", Reason::Revoked, &middle.device(numbered("lost", 5)), &[&middle.certificate]);
    let other = namesake.device(numbered("other", 5));
    scene.refuses("another key of that name", Reason::RevocationUnknown, &other, &[&namesake.certificate]);

    let mut silent = authority_params("Silent");
    silent.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let silent = root.below(silent);
    let issuer =
        Issuer::new(authority_params("Silent"), KeyPair::try_from(silent.issuer.key().serialize_der()).expect("a key"));
    let list = Ca { certificate: silent.certificate.clone(), issuer }.list(&[], 7, None);
    let scene = Scene::new(&[&root.certificate], vec![root.list(&[], 7, None), list]);
    let device = silent.device(params("device"));
    scene.refuses(
        "an intermediate that may not sign lists",
        Reason::RevocationUnknown,
        &device,
        &[&silent.certificate],
    );
}

#[test]
fn every_authority_of_one_name_is_asked() {
    // A household that made its authority anew many times, with devices of each.
    let authorities: Vec<_> = (0..6).map(|_| Ca::new("Devices")).collect();
    let trust: Vec<_> = authorities.iter().map(|ca| &ca.certificate).collect();
    for (number, authority) in authorities.iter().enumerate() {
        let scene = Scene::new(&trust, Vec::new());
        scene.admits(&format!("of authority {number}"), &authority.device(params("alice")), &[]);
    }
}

#[test]
fn a_list_counts_up_to_the_second_before_its_next_update() {
    let root = Ca::new("Devices");
    let (device, list) = (root.device(params("alice")), root.list(&[], 7, None));
    let end = u64::try_from(list.next_update.expect("a date")).expect("after 1970");
    let scene = Scene::new(&[&root.certificate], vec![list]);
    let at = |seconds| scene.authorities.verify(&device, &[], UnixTime::since_unix_epoch(Duration::from_secs(seconds)));
    assert_eq!(at(end - 1).map(|(_, until)| until).ok(), Some(end - 1));
    assert_eq!(at(end).err().map(|(_, refused)| refused.cause.reason()), Some(Reason::RevocationListExpired));
}

#[test]
fn a_list_of_devices_does_not_speak_for_authorities_nor_the_other_way_round() {
    let root = Ca::new("Root");
    let middle = root.below(authority_params("Middle"));
    let (direct, below) = (root.device(params("alice")), middle.device(params("bob")));
    for (scope, admits_device, admits_authority) in
        [(CrlScope::UserCertsOnly, true, false), (CrlScope::CaCertsOnly, false, true)]
    {
        let point = "http://home.example/a.crl";
        let lists = vec![root.scoped_list(&[], 7, Some(point), Some(scope)), middle.list(&[], 7, None)];
        let scene = Scene::new(&[&root.certificate], lists);
        for (what, leaf, sent, admitted) in [
            ("a device of the root", &direct, vec![], admits_device),
            ("an authority of the root", &below, vec![&middle.certificate], admits_authority),
        ] {
            let expected = if admitted { None } else { Some(Reason::RevocationUnknown) };
            assert_eq!(scene.judge(leaf, &sent).0.err(), expected, "{what}, {scope:?}");
        }
    }
}

#[test]
fn an_intermediate_that_a_list_names_is_revoked_however_lists_are_asked_for() {
    let root = Ca::new("Root");
    let middle = root.below({
        let mut params = authority_params("Middle");
        params.serial_number = Some(SerialNumber::from(40_u64));
        params
    });
    let device = middle.device(params("alice"));
    let anchor = |ca: &Ca| TrustAnchor {
        file: "clients.pem".into(),
        certificate: ca.certificate.clone(),
        kind: TrustKind::Authority,
    };
    let verdict = |trust: &[&Ca], lists: &[(&Ca, &[u64])], revocation_check| {
        let list = |(ca, serials): &(&Ca, &[u64])| {
            let mut list = ca.list(serials, 7, None);
            let signed_by = trust.iter().find(|one| one.certificate == ca.certificate);
            list.signer = signed_by.and_then(|one| Parts::read(&one.certificate)).map(|one| Sha256::of(one.key));
            list
        };
        let client_auth = ClientAuth {
            trust: trust.iter().map(|ca| anchor(ca)).collect(),
            revocation_lists: lists.iter().map(list).collect(),
            revocation_check,
            ..client_auth()
        };
        let authorities = Authorities::new(&client_auth).expect("authorities");
        let sent = [middle.certificate.clone()];
        authorities.verify(&device, &sent, UnixTime::now()).err().map(|(_, refused)| refused.cause.reason())
    };
    use RevocationCheck::{Chain, Leaf};
    for (what, trust, lists, chain, leaf) in [
        ("its own list only", &[&root][..], &[(&middle, &[][..])][..], Some(Reason::RevocationUnknown), None),
        (
            "the root's list only",
            &[&root],
            &[(&root, &[])],
            Some(Reason::RevocationUnknown),
            Some(Reason::RevocationUnknown),
        ),
        ("both lists", &[&root], &[(&middle, &[]), (&root, &[])], None, None),
        (
            "revoked by the root",
            &[&root],
            &[(&middle, &[]), (&root, &[40])],
            Some(Reason::Revoked),
            Some(Reason::Revoked),
        ),
        ("in trust beside the root", &[&root, &middle], &[(&middle, &[]), (&root, &[])], None, None),
        (
            "in trust, revoked by the root",
            &[&root, &middle],
            &[(&middle, &[]), (&root, &[40])],
            Some(Reason::Revoked),
            Some(Reason::Revoked),
        ),
    ] {
        assert_eq!(verdict(trust, lists, Chain), chain, "{what}, chain");
        assert_eq!(verdict(trust, lists, Leaf), leaf, "{what}, leaf");
    }
}

#[test]
fn a_list_for_some_distribution_points_speaks_for_no_other_certificates() {
    let root = Ca::new("Devices");
    let at = |point: &str, serial| {
        let mut params = numbered("device", serial);
        params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![point.to_owned()] }];
        root.device(params)
    };
    let scene = Scene::new(&[&root.certificate], vec![root.list(&[9], 7, Some("http://home.example/a.crl"))]);
    scene.admits("of the point", &at("http://home.example/a.crl", 1), &[]);
    scene.admits("of no point", &root.device(numbered("device", 2)), &[]);
    scene.refuses("of another point", Reason::RevocationUnknown, &at("http://home.example/b.crl", 3), &[]);
    scene.refuses("revoked", Reason::Revoked, &at("http://home.example/a.crl", 9), &[]);
    // Each point has to be current, but of two lists for one point the later one counts.
    let stale = |days| {
        let lists = vec![root.list(&[], -1, Some("http://home.example/a.crl")), root.list(&[], 7, days)];
        Scene::new(&[&root.certificate], lists)
    };
    let device = root.device(numbered("device", 4));
    stale(Some("http://home.example/a.crl")).admits("a later list", &device, &[]);
    stale(Some("http://home.example/b.crl")).refuses("a stale point", Reason::RevocationListExpired, &device, &[]);
}

#[test]
fn a_review_looks_up_what_was_verified_and_checks_no_signature() {
    let root = Ca::new("Devices");
    let middle = root.below({
        let mut params = authority_params("Middle");
        params.serial_number = Some(SerialNumber::from(40_u64));
        params
    });
    let before = Scene::new(&[&root.certificate], Vec::new());
    let (lost, kept) = (root.device(numbered("lost", 1)), root.device(numbered("kept", 2)));
    let below = middle.device(numbered("below", 1));
    let chains = [
        before.admits("lost", &lost, &[]),
        before.admits("kept", &kept, &[]),
        before.admits("below", &below, &[&middle.certificate]),
    ];
    for (revoked, expected) in
        [(vec![], [false, false, false]), (vec![1], [true, false, false]), (vec![40], [false, false, true])]
    {
        let mut list = root.list(&revoked, 7, None);
        list.signer = Parts::read(&root.certificate).map(|root| Sha256::of(root.key));
        let after = Scene::new(&[&root.certificate], vec![list]);
        let cut = chains.each_ref().map(|chain| after.authorities.revoke(chain));
        assert_eq!(cut, expected, "{revoked:?}");
        assert_eq!(after.count.load(Ordering::Relaxed), 0, "{revoked:?}");
    }
}

#[test]
fn a_pinned_certificate_is_accepted_itself_and_vouches_for_no_other() {
    let root = Ca::new("Other");
    let own = Ca::new("alice");
    let signed = root.device(numbered("alice", 3));
    for (what, pinned, issuer) in [("self-signed", &own.certificate, &own), ("signed", &signed, &root)] {
        let scene = Scene::of(vec![(pinned, TrustKind::Pinned)], Vec::new());
        let chain = scene.admits(what, pinned, &[]);
        assert_eq!(chain.certificates, std::slice::from_ref(pinned));
        let bob = issuer.device(params("bob"));
        scene.refuses(what, Reason::UnknownCa, &bob, &[]);
        scene.refuses(what, Reason::UnknownCa, &bob, &[pinned]);
    }
    // Its dates and purpose count, and so does a list that names it.
    let mut expired = params("alice");
    expired.not_after = OffsetDateTime::now_utc() - time::Duration::DAY;
    let mut server = params("alice");
    server.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    for (params, reason) in [(expired, Reason::Expired), (server, Reason::WrongPurpose)] {
        let pinned = root.device(params);
        Scene::of(vec![(&pinned, TrustKind::Pinned)], Vec::new()).refuses("pinned", reason, &pinned, &[]);
    }
    let scene = Scene::of(vec![(&signed, TrustKind::Pinned)], vec![root.list(&[3], 7, None)]);
    scene.refuses("revoked", Reason::Revoked, &signed, &[]);
    let scene = Scene::of(vec![(&signed, TrustKind::Pinned)], vec![root.list(&[4], 7, None)]);
    scene.admits("with a list that does not name it", &signed, &[]);
}

/// What webpki makes of constraints of each kind, for names of each kind; an identity below says that there are some.
#[test]
fn name_constraints_bind_names_of_their_kind_and_leave_the_subject_free() {
    let permitted = [
        ("dns", GeneralSubtree::DnsName("kids.example".into())),
        ("email", GeneralSubtree::Rfc822Name("kids.example".into())),
        ("ip", GeneralSubtree::IpAddress(rcgen::CidrSubnet::V4([192, 0, 2, 0], [255, 255, 255, 0]))),
    ];
    let san = |kind: &str| match kind {
        "dns" => SanType::DnsName("alice.kids.example".try_into().expect("a name")),
        "other dns" => SanType::DnsName("alice".try_into().expect("a name")),
        "email" => SanType::Rfc822Name("alice@kids.example".try_into().expect("a name")),
        "ip" => SanType::IpAddress([192, 0, 2, 7].into()),
        "other ip" => SanType::IpAddress([198, 51, 100, 7].into()),
        _ => SanType::URI("spiffe://kids.example/alice".try_into().expect("a name")),
    };
    for (constraint, subtree) in permitted {
        for (name, admitted) in [
            (None, true),
            (Some("dns"), true),
            (Some("other dns"), constraint != "dns"),
            // webpki refuses what it cannot check.
            (Some("email"), constraint != "email"),
            (Some("ip"), true),
            (Some("other ip"), constraint != "ip"),
            (Some("uri"), true),
        ] {
            let mut bound = authority_params("Kids");
            bound.name_constraints =
                Some(NameConstraints { permitted_subtrees: vec![subtree.clone()], excluded_subtrees: Vec::new() });
            let root = Ca::new("Root");
            let kids = root.below(bound.clone());
            let anchor = {
                let key = KeyPair::generate().expect("a key");
                let certificate = bound.self_signed(&key).expect("a certificate").der().clone();
                Ca { certificate, issuer: Issuer::new(bound, key) }
            };
            let mut device = params("alice");
            device.subject_alt_names = name.map(san).into_iter().collect();
            for (trust, sent, issuer) in
                [(&root.certificate, vec![&kids.certificate], &kids), (&anchor.certificate, vec![], &anchor)]
            {
                let scene = Scene::new(&[trust], Vec::new());
                let leaf = issuer.device(device.clone());
                let sent: Vec<_> = sent.into_iter().cloned().collect();
                let verdict = scene.authorities.verify(&leaf, &sent, UnixTime::now());
                let constrained = verdict.as_ref().map(|(verified, _)| verified.identity.name_constrained);
                let what = format!("{constraint} constraint, {name:?}");
                match constrained {
                    Ok(constrained) => assert!(admitted && constrained, "{what}"),
                    Err((_, refused)) => {
                        assert!(!admitted && refused.cause.reason() == Reason::CertificateInvalid, "{what}")
                    }
                }
            }
        }
    }
    let root = Ca::new("Root");
    let scene = Scene::new(&[&root.certificate], Vec::new());
    let free = scene.authorities.verify(&root.device(params("alice")), &[], UnixTime::now()).expect("let in");
    assert!(!free.0.identity.name_constrained);
}

#[test]
fn a_session_with_an_expired_certificate_is_refused_at_its_last_second() {
    let root = Ca::new("Devices");
    let now = UnixTime::now().as_secs();
    let mut short = params("alice");
    short.not_after = OffsetDateTime::from_unix_timestamp(i64::try_from(now + 60).expect("a time")).expect("a time");
    let leaf = root.device(short);
    let scene = Scene::new(&[&root.certificate], Vec::new());
    let at = |seconds| scene.authorities.verify(&leaf, &[], UnixTime::since_unix_epoch(Duration::from_secs(seconds)));
    for (seconds, reason) in [(now, None), (now + 60, None), (now + 61, Some(Reason::Expired))] {
        let verdict = at(seconds);
        assert_eq!(verdict.err().map(|(_, refused)| refused.cause.reason()), reason, "after {} s", seconds - now);
    }
    assert_eq!(at(now).expect("valid").1, now + 60);
}

#[test]
fn only_the_path_counts_for_how_long_a_chain_is_good() {
    let root = Ca::new("Devices");
    let now = OffsetDateTime::now_utc();
    let mut needless = authority_params("Needless");
    needless.not_after = now + time::Duration::minutes(1);
    let needless = Ca::new("Other").below(needless).certificate;
    let mut short = authority_params("Short");
    short.not_after = now + time::Duration::minutes(2);
    let short = root.below(short);
    let scene = Scene::new(&[&root.certificate], Vec::new());
    let (long, below) = (root.device(params("alice")), short.device(params("bob")));
    let until = |chain: Arc<Chain>| i64::try_from(chain.good_until).expect("a time") - now.unix_timestamp();
    assert!(until(scene.admits("a needless one", &long, &[&needless])) > 3600);
    assert_eq!(until(scene.admits("an intermediate", &below, &[&short.certificate, &needless])), 120);
}

/// The file may be the only one that names a device: what revoked it must not be taken back while the gate runs.
#[test]
fn what_a_superseded_list_of_the_files_names_stays_revoked() {
    let root = Ca::new("Devices");
    let older = root.list(&[7], 1, None);
    let newer = RevocationList { number: Some(Serial::from_be_bytes(&[2])), ..root.list(&[8], 2, None) };
    let key = |list: &RevocationList| {
        crate::config::checked::NewerList::new(list.clone(), Some(root.certificate.clone())).list
    };
    let trust = vec![TrustAnchor {
        file: "clients.pem".into(),
        certificate: root.certificate.clone(),
        kind: TrustKind::Authority,
    }];
    let newer_lists = vec![Arc::new(crate::config::checked::NewerList {
        list: key(&newer),
        authority: Some(root.certificate.clone()),
    })];
    let client_auth = ClientAuth { trust, revocation_lists: vec![key(&older)], newer_lists, ..client_auth() };
    let current: Vec<_> = client_auth.current_lists().iter().map(|list| list.number_in_words()).collect();
    assert_eq!(current, [Some("2".to_owned())]);
    let authorities = Authorities::new(&client_auth).expect("authorities");
    for (serial, refused) in [(7, Some(Reason::Revoked)), (8, Some(Reason::Revoked)), (9, None)] {
        let verdict = authorities.verify(&root.device(numbered("phone", serial)), &[], UnixTime::now());
        assert_eq!(verdict.err().map(|(_, refused)| refused.cause.reason()), refused, "{serial}");
    }
}
