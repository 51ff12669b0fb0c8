//! Client certificates of every kind that a client may show, in both TLS versions: attacks.md rows 11, 13 and 14.

use std::sync::Arc;
use std::time::Duration;

use doorward::model::rejection::{Alert, Reason};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair,
    NameConstraints, SanType, SubjectPublicKeyInfo,
};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{ClientConfig, Error, SignatureAlgorithm, SignatureScheme};
use time::OffsetDateTime;

use crate::client::{Client, End, Shown, TLS13, VERSIONS, showing, signing_key};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::common::process::{run_with_input, tool};
use crate::home::{House, Watch, assert_admitted, assert_refused};

const NAME: &str = "nas.home.example";

/// A gate with one route, which lets in every verified certificate.
struct Scene {
    pki: TestPki,
    backend: Backend,
    gate: Gate,
}

impl Scene {
    fn new() -> Self {
        Self::with(|house, backend| house.route("nas", backend.address()))
    }

    fn with(arrange: impl for<'a> FnOnce(House<'a>, &Backend) -> House<'a>) -> Self {
        let pki = TestPki::new();
        let backend = Backend::echo();
        let gate = arrange(House::new(&pki), &backend).open();
        Self { pki, backend, gate }
    }

    /// A client that shows this is refused, in both versions.
    #[track_caller]
    fn refuses(&self, what: &str, reason: Reason, alert: Alert, shown: &Arc<Shown>) {
        for version in VERSIONS {
            let config = showing(&self.pki, Arc::clone(shown) as Arc<dyn ResolvesClientCert>, &[version]);
            eprintln!("{what}, {:?}", version.version);
            assert_refused(&self.gate, &self.backend, reason, alert, || {
                Client::admitted(self.gate.address(), &config, NAME)
            });
        }
    }

    /// A client that shows this is let in, in both versions.
    #[track_caller]
    fn admits(&self, what: &str, shown: &Arc<Shown>) {
        for version in VERSIONS {
            let config = showing(&self.pki, Arc::clone(shown) as Arc<dyn ResolvesClientCert>, &[version]);
            eprintln!("{what}, {:?}", version.version);
            assert_admitted(&self.gate, || Client::admitted(self.gate.address(), &config, NAME));
        }
    }
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// These certificates, with the key of that one.
fn chain_of(certified: &Certified, chain: Vec<CertificateDer<'static>>) -> Arc<Shown> {
    Shown::new(chain, signing_key(certified.key()))
}

fn odd(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = Certified::for_clients("alice-phone");
    change(&mut params);
    params
}

fn odd_authority(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = Authority::for_authorities("Phones of home.example");
    change(&mut params);
    params
}

fn extension(critical: bool, content: Vec<u8>) -> CustomExtension {
    // An OCTET STRING (X.690 section 8.7) below an unused arc.
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    let content = [&[0x04, 0x84], &length[..], &content].concat();
    let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55_555, 1], content);
    extension.set_criticality(critical);
    extension
}

#[test]
fn nobody_without_a_certificate() {
    let scene = Scene::new();
    let nothing = Shown::certificate(&scene.pki.client("alice-phone"));
    nothing.nothing_more();
    scene.refuses("no certificate", Reason::CertificateRequired, Alert::CERTIFICATE_REQUIRED, &nothing);
}

#[test]
fn nobody_whom_no_trust_anchor_vouches_for() {
    let scene = Scene::new();
    let unknown = |what: &str, shown: &Arc<Shown>| scene.refuses(what, Reason::UnknownCa, Alert::UNKNOWN_CA, shown);

    let key = KeyPair::generate().unwrap();
    let self_signed = Certified::for_clients("alice-phone").self_signed(&key).unwrap();
    let key = signing_key(PrivateKeyDer::try_from(key.serialize_der()).unwrap());
    unknown("self-signed", &Shown::new(vec![self_signed.der().clone()], key));

    let other = Authority::new("Clients of another house");
    let stranger = other.issue(Certified::for_clients("alice-phone"));
    unknown("another authority", &Shown::certificate(&stranger));
    let with_root = [stranger.chain(), vec![der(other.pem())]].concat();
    unknown("another authority, its root sent along", &chain_of(&stranger, with_root));
    let with_ours = [stranger.chain(), vec![der(scene.pki.clients.pem())]].concat();
    unknown("another authority, our root sent along", &chain_of(&stranger, with_ours));

    // The gate's own certificate comes from an authority that is not trusted for clients.
    let server = scene.pki.servers.issue(Certified::for_clients("alice-phone"));
    unknown("the authority of servers", &Shown::certificate(&server));

    let between = scene.pki.clients.intermediate(odd_authority(|_| ()));
    let below = between.issue(Certified::for_clients("alice-phone"));
    scene.admits("the intermediate sent along", &Shown::certificate(&below));
    unknown("the intermediate missing", &chain_of(&below, below.chain()[..1].to_vec()));
}

#[test]
fn nobody_of_a_forged_authority_of_the_same_name() {
    let scene = Scene::new();
    let forged = Authority::new("Clients of home.example");
    let stranger = forged.issue(Certified::for_clients("alice-phone"));
    for (what, chain) in [
        ("forged", stranger.chain()),
        ("forged, its root sent along", [stranger.chain(), vec![der(forged.pem())]].concat()),
        ("forged, our root sent along", [stranger.chain(), vec![der(scene.pki.clients.pem())]].concat()),
    ] {
        scene.refuses(what, Reason::UnknownCa, Alert::UNKNOWN_CA, &chain_of(&stranger, chain));
    }
}

#[test]
fn nobody_outside_the_validity_of_any_certificate_of_the_chain() {
    let scene = Scene::new();
    let now = OffsetDateTime::now_utc();
    let day = time::Duration::DAY;
    for (what, from, until, reason) in [
        ("expired a day ago", now - 9 * day, now - day, Reason::Expired),
        ("expired a minute ago", now - 9 * day, now - time::Duration::MINUTE, Reason::Expired),
        ("expired in 1970", OffsetDateTime::UNIX_EPOCH, OffsetDateTime::UNIX_EPOCH + day, Reason::Expired),
        ("not yet valid for a minute", now + time::Duration::MINUTE, now + day, Reason::NotYetValid),
        ("not yet valid for a year", now + 365 * day, now + 366 * day, Reason::NotYetValid),
    ] {
        let dated = |mut params: CertificateParams| {
            (params.not_before, params.not_after) = (from, until);
            params
        };
        let own = scene.pki.clients.issue(dated(Certified::for_clients("alice-phone")));
        scene.refuses(what, reason, Alert::CERTIFICATE_EXPIRED, &Shown::certificate(&own));
        let between = scene.pki.clients.intermediate(dated(odd_authority(|_| ())));
        let below = between.issue(Certified::for_clients("alice-phone"));
        let what = format!("an intermediate that is {what}");
        scene.refuses(&what, reason, Alert::CERTIFICATE_EXPIRED, &Shown::certificate(&below));
    }
}

#[test]
fn certificate_for_another_purpose_is_refused() {
    let scene = Scene::new();
    let wrong = |what: &str, certified: &Certified| {
        let shown = Shown::certificate(certified);
        scene.refuses(what, Reason::WrongPurpose, Alert::UNSUPPORTED_CERTIFICATE, &shown);
    };
    for (what, purpose) in [
        ("serverAuth", ExtendedKeyUsagePurpose::ServerAuth),
        ("codeSigning", ExtendedKeyUsagePurpose::CodeSigning),
        ("emailProtection", ExtendedKeyUsagePurpose::EmailProtection),
        ("any purpose", ExtendedKeyUsagePurpose::Any),
    ] {
        let params = odd(|params| params.extended_key_usages = vec![purpose.clone()]);
        wrong(what, &scene.pki.clients.issue(params));
        let between =
            scene.pki.clients.intermediate(odd_authority(|params| params.extended_key_usages = vec![purpose.clone()]));
        let below = between.issue(Certified::for_clients("alice-phone"));
        wrong(&format!("below an intermediate for {what} only"), &below);
    }
    // Neither is refused by webpki, and real authorities issue both (mkcert the second): let in, and known to be.
    let without = scene.pki.clients.issue(odd(|params| params.extended_key_usages = Vec::new()));
    scene.admits("no purpose at all", &Shown::certificate(&without));
    let both = odd(|params| params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth));
    scene.admits("clientAuth and serverAuth", &Shown::certificate(&scene.pki.clients.issue(both)));
}

#[test]
fn nobody_whose_chain_breaks_the_rules_of_authorities() {
    let scene = Scene::new();
    let invalid = |what: &str, shown: &Arc<Shown>| {
        scene.refuses(what, Reason::CertificateInvalid, Alert::BAD_CERTIFICATE, shown);
    };

    let authority = odd(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let shown = Shown::certificate(&scene.pki.clients.issue(authority));
    invalid("an authority as a client", &shown);

    // Alice's phone signs a certificate for her friends.
    let phone = scene.pki.clients.intermediate(Certified::for_clients("alice-phone"));
    let friend = phone.issue(Certified::for_clients("friend-phone"));
    invalid("a client as an authority", &Shown::certificate(&friend));

    let last = scene
        .pki
        .clients
        .intermediate(odd_authority(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))));
    let further = Authority::for_authorities("Tablets of home.example");
    let below = last.intermediate(further).issue(Certified::for_clients("alice-phone"));
    invalid("too deep for a path length", &Shown::certificate(&below));
    scene.admits("at a path length", &Shown::certificate(&last.issue(Certified::for_clients("alice-phone"))));

    let bounded = scene.pki.clients.intermediate(odd_authority(|params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("phones.home.example".into())],
            excluded_subtrees: Vec::new(),
        });
    }));
    let called = |name: &str| {
        let name = SanType::DnsName(name.try_into().unwrap());
        bounded.issue(odd(|params| params.subject_alt_names = vec![name]))
    };
    scene.admits("a name within the constraints", &Shown::certificate(&called("alice.phones.home.example")));
    let outside = Shown::certificate(&called("alice.laptops.home.example"));
    invalid("a name outside the constraints", &outside);

    let critical = odd(|params| params.custom_extensions.push(extension(true, vec![1])));
    let shown = Shown::certificate(&scene.pki.clients.issue(critical));
    invalid("an unknown critical extension", &shown);
    let not_critical = odd(|params| params.custom_extensions.push(extension(false, vec![1])));
    scene.admits("an unknown extension", &Shown::certificate(&scene.pki.clients.issue(not_critical)));
}

/// No TLS library of today signs with such a key, but OpenSSL can be talked into it.
#[test]
fn nobody_with_an_rsa_key_of_1024_bits() {
    let scene = Scene::new();
    for (bits, admitted) in [("1024", false), ("2048", true)] {
        let key = scene.pki.path(&format!("rsa-{bits}.pem"));
        let mut genrsa = tool("openssl", "openssl");
        run_with_input(genrsa.args(["genrsa", "-out"]).arg(&key).arg(bits), b"").success();
        let mut public = tool("openssl", "openssl");
        let public = run_with_input(public.args(["rsa", "-pubout", "-in"]).arg(&key), b"").success().text();
        let public = SubjectPublicKeyInfo::from_pem(&public).unwrap();
        let chain = scene.pki.clients.certify(Certified::for_clients("alice-phone"), &public);
        let chain = scene.pki.write(&format!("rsa-{bits}-chain.pem"), chain);
        for version in ["-tls1_2", "-tls1_3"] {
            let watch = Watch::begin(&scene.gate);
            let before = scene.backend.received();
            let mut openssl = tool("openssl", "openssl");
            openssl
                .args(["s_client", version, "-cipher", "DEFAULT@SECLEVEL=0", "-servername", NAME, "-connect"])
                .arg(scene.gate.address().to_string())
                .arg("-cert")
                .arg(&chain)
                .arg("-key")
                .arg(&key);
            if !admitted {
                // It waits for the gate's last word, instead of going when its input ends.
                openssl.arg("-ign_eof");
            }
            let finished = run_with_input(&mut openssl, b"hello\n");
            if admitted {
                scene.backend.wait_received(before + 6);
            } else {
                let line = watch.rejected(Reason::UnsupportedKey, &End::Alert(Alert::UNSUPPORTED_CERTIFICATE));
                assert!(finished.stderr.contains("alert unsupported certificate"), "{line}: {finished}");
                assert_eq!(scene.backend.received(), before, "{version}");
            }
        }
    }
    assert_eq!(scene.backend.accepted(), 2, "only those with 2048 bits");
}

#[test]
fn endless_chains_and_large_certificates_cost_little() {
    let scene = Scene::new();

    let mut deep = scene.pki.clients.intermediate(odd_authority(|_| ()));
    for _ in 1..12 {
        deep = deep.intermediate(odd_authority(|_| ()));
    }
    let deep = deep.issue(Certified::for_clients("alice-phone"));
    assert_eq!(deep.chain().len(), 13);
    scene.refuses("12 deep", Reason::CertificateInvalid, Alert::BAD_CERTIFICATE, &Shown::certificate(&deep));

    let padded = |bytes| odd(|params| params.custom_extensions.push(extension(false, vec![7; bytes])));
    let large = Shown::certificate(&scene.pki.clients.issue(padded(30_000)));
    for _ in 0..10 {
        scene.admits("30 kB", &large);
    }
    let huge = Shown::certificate(&scene.pki.clients.issue(padded(120_000)));
    for version in VERSIONS {
        let config = showing(&scene.pki, Arc::clone(&huge) as Arc<dyn ResolvesClientCert>, &[version]);
        let watch = Watch::begin(&scene.gate);
        let before = scene.backend.accepted();
        let end = Client::admitted(scene.gate.address(), &config, NAME).map(|_| ()).unwrap_err();
        let line = watch.rejected(Reason::Misbehaved, &end);
        // rustls itself stops here, without an alert.
        assert!(matches!(end, End::Truncated | End::Reset), "{end:?} {line}");
        assert_eq!(scene.backend.accepted(), before, "{line}");
    }

    // Whether it finds its way through them or not is its own affair; that it takes long is not.
    let alice = scene.pki.client("alice-phone");
    let mut crowd = alice.chain();
    for number in 0..80 {
        let other = Authority::new(&format!("Authority {number}"));
        crowd.push(der(other.pem()));
    }
    let config = showing(&scene.pki, chain_of(&alice, crowd) as Arc<dyn ResolvesClientCert>, &VERSIONS);
    let watch = Watch::begin(&scene.gate);
    let before = scene.gate.cpu_time();
    let outcome = Client::admitted(scene.gate.address(), &config, NAME);
    let spent = scene.gate.cpu_time() - before;
    assert!(spent < Duration::from_secs(1), "{spent:?}");
    match outcome {
        Ok(client) => drop(client),
        Err(end) => drop(watch.rejected(Reason::CertificateInvalid, &end)),
    }
}

/// A record costs as much as hundreds of bytes do, and a chain can be cut into thousands.
#[test]
fn handshakes_in_many_small_records_are_admitted_up_to_a_limit() {
    let scene = Scene::new();
    let padded = |bytes| {
        let shown =
            scene.pki.clients.issue(odd(|params| params.custom_extensions.push(extension(false, vec![7; bytes]))));
        Shown::certificate(&shown)
    };
    for version in VERSIONS {
        let in_small_records = |shown: Arc<Shown>| {
            let config = showing(&scene.pki, shown as Arc<dyn ResolvesClientCert>, &[version]);
            let mut config = ClientConfig::clone(&config);
            // The smallest that rustls makes.
            config.max_fragment_size = Some(32);
            Arc::new(config)
        };
        let fits = in_small_records(padded(1_500));
        assert_admitted(&scene.gate, || Client::admitted(scene.gate.address(), &fits, NAME));

        let too_many = in_small_records(padded(4_000));
        let watch = Watch::begin(&scene.gate);
        let end = Client::admitted(scene.gate.address(), &too_many, NAME).map(drop).unwrap_err();
        let line = watch.rejected(Reason::Misbehaved, &end);
        assert!(matches!(end, End::Truncated | End::Reset), "{end:?} {line}");
    }
}

/// A set that is made to send the search for a path round in circles: every certificate can stand above every other one.
#[test]
fn intermediates_that_lead_in_circles_cost_little() {
    let scene = Scene::new();
    let stranger = Authority::new("Phones of home.example");
    let leaf = stranger.issue(Certified::for_clients("alice-phone"));
    let mut chain = leaf.chain();
    for _ in 0..30 {
        // The same name as its issuer's, another key each time.
        let ring = stranger.intermediate(odd_authority(|_| ()));
        chain.push(der(ring.pem()));
    }
    let config = showing(&scene.pki, chain_of(&leaf, chain) as Arc<dyn ResolvesClientCert>, TLS13);
    let watch = Watch::begin(&scene.gate);
    let before = scene.gate.cpu_time();
    let end = Client::admitted(scene.gate.address(), &config, NAME).map(|_| ()).unwrap_err();
    let spent = scene.gate.cpu_time() - before;
    assert!(spent < Duration::from_secs(2), "{spent:?}");
    let line = watch.rejected_at("certificate");
    assert!(matches!(end, End::Alert(_)), "{end:?} {line}");
    assert_eq!(scene.backend.accepted(), 0);
}

#[test]
fn nobody_who_does_not_hold_the_key() {
    let scene = Scene::new();
    let alice = scene.pki.client("alice-phone");
    let stolen = Shown::new(alice.chain(), signing_key(scene.pki.client("mallory").key()));
    scene.refuses("a certificate without its key", Reason::BadSignature, Alert::DECRYPT_ERROR, &stolen);
    // A key of another kind, under the algorithm of the right one and under its own.
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let p384 = signing_key(PrivateKeyDer::try_from(p384.serialize_der()).unwrap());
    scene.refuses("another kind of key", Reason::BadSignature, Alert::DECRYPT_ERROR, &Shown::new(alice.chain(), p384));
}

#[test]
fn nobody_with_a_malformed_signature() {
    /// Signs, and spoils what comes out.
    #[derive(Debug)]
    struct Spoiled {
        key: Arc<dyn SigningKey>,
        spoil: fn(&mut Vec<u8>),
    }

    #[derive(Debug)]
    struct SpoiledSigner(Box<dyn Signer>, fn(&mut Vec<u8>));

    impl SigningKey for Spoiled {
        fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
            Some(Box::new(SpoiledSigner(self.key.choose_scheme(offered)?, self.spoil)))
        }

        fn algorithm(&self) -> SignatureAlgorithm {
            self.key.algorithm()
        }
    }

    impl Signer for SpoiledSigner {
        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
            let mut signature = self.0.sign(message)?;
            (self.1)(&mut signature);
            Ok(signature)
        }

        fn scheme(&self) -> SignatureScheme {
            self.0.scheme()
        }
    }

    let scene = Scene::new();
    let alice = scene.pki.client("alice-phone");
    type Spoil = fn(&mut Vec<u8>);
    let spoils: [(&str, Spoil); 6] = [
        ("empty", Vec::clear),
        ("one byte short", |signature| signature.truncate(signature.len() - 1)),
        ("one byte long", |signature| signature.push(0)),
        ("a bit turned", |signature| signature[12] ^= 1),
        ("zeros", |signature| signature.fill(0)),
        ("60 kB", |signature| signature.resize(60_000, 7)),
    ];
    for (what, spoil) in spoils {
        let key = Arc::new(Spoiled { key: signing_key(alice.key()), spoil });
        scene.refuses(what, Reason::BadSignature, Alert::DECRYPT_ERROR, &Shown::new(alice.chain(), key));
    }
}

#[test]
fn nobody_with_a_malformed_certificate() {
    let scene = Scene::new();
    let alice = scene.pki.client("alice-phone");
    let whole = alice.chain()[0].to_vec();
    let flipped = |place: usize| {
        let mut der = whole.clone();
        der[place] ^= 0x55;
        der
    };
    for (what, der) in [
        ("one byte", vec![0x30]),
        ("zeros", vec![0; 500]),
        ("no DER", b"-----BEGIN CERTIFICATE-----".to_vec()),
        ("cut", whole[..whole.len() - 1].to_vec()),
        ("half", whole[..whole.len() / 2].to_vec()),
        ("longer", [&whole[..], &[0]].concat()),
        ("another length", flipped(2)),
        ("another version", flipped(12)),
    ] {
        let shown = chain_of(&alice, vec![CertificateDer::from(der)]);
        scene.refuses(what, Reason::CertificateInvalid, Alert::BAD_CERTIFICATE, &shown);
    }
    // Its own signature is the last thing in it: as far as a verifier can tell, a forged authority has made that.
    let shown = chain_of(&alice, vec![CertificateDer::from(flipped(whole.len() - 1))]);
    scene.refuses("its signature", Reason::UnknownCa, Alert::UNKNOWN_CA, &shown);
}

/// Identity comes from the certificate whose key the client has proved to hold, and from no other one it sends along.
#[test]
fn certificate_stuffing_identity_is_the_first_certificate() {
    let scene = Scene::with(|house, backend| {
        house.route_with("nas", &[&backend.address().to_string()], "allow = [\"cn:alice-phone\"]")
    });
    let (alice, mallory) = (scene.pki.client("alice-phone"), scene.pki.client("mallory"));
    scene.admits("alice", &Shown::certificate(&alice));
    let not_allowed =
        |what: &str, shown: &Arc<Shown>| scene.refuses(what, Reason::IdentityNotAllowed, Alert::ACCESS_DENIED, shown);
    not_allowed("mallory", &Shown::certificate(&mallory));
    let behind = [mallory.chain(), alice.chain()].concat();
    not_allowed("mallory, alice behind", &chain_of(&mallory, behind));

    let in_front = [alice.chain(), mallory.chain()].concat();
    let shown = chain_of(&mallory, in_front);
    scene.refuses("alice in front, mallory's key", Reason::BadSignature, Alert::DECRYPT_ERROR, &shown);

    let stranger = Authority::new("Clients of another house").issue(Certified::for_clients("alice-phone"));
    for (what, chain) in [
        ("a stranger's alice", stranger.chain()),
        ("a stranger's alice, ours behind", [stranger.chain(), alice.chain()].concat()),
    ] {
        scene.refuses(what, Reason::UnknownCa, Alert::UNKNOWN_CA, &chain_of(&stranger, chain));
    }
}

/// mkcert's certificates have no common name unless they are made as .p12.
#[test]
fn no_cn_other_names_do() {
    for (allow, name) in [
        ("email:alice@home.example", SanType::Rfc822Name("alice@HOME.example".try_into().unwrap())),
        ("phone.alice", SanType::DnsName("phone.alice".try_into().unwrap())),
        ("uri:spiffe://home.example/alice", SanType::URI("spiffe://home.example/alice".try_into().unwrap())),
    ] {
        let scene = Scene::with(|house, backend| {
            house.route_with("nas", &[&backend.address().to_string()], &format!("allow = [{allow:?}]"))
        });
        let nameless = |names: Vec<SanType>| {
            let params = odd(|params| {
                params.distinguished_name = rcgen::DistinguishedName::new();
                params.subject_alt_names = names;
            });
            Shown::certificate(&scene.pki.clients.issue(params))
        };
        let config = showing(&scene.pki, nameless(vec![name]) as Arc<dyn ResolvesClientCert>, TLS13);
        let line = assert_admitted(&scene.gate, || Client::admitted(scene.gate.address(), &config, NAME));
        assert!(line["certificate"]["name"].as_str().unwrap().contains("alice"), "{line}");
        let without_names = nameless(Vec::new());
        scene.refuses("no names", Reason::IdentityNotAllowed, Alert::ACCESS_DENIED, &without_names);
    }
}

/// What the gate asks for: certificates of the route's own authorities, named anew with each configuration.
#[test]
fn certificate_request_names_only_authorities_of_the_route() {
    #[derive(Debug, Default)]
    struct Asked(std::sync::Mutex<Vec<Vec<u8>>>);

    impl ResolvesClientCert for Asked {
        fn resolve(&self, hints: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            *self.0.lock().unwrap() = hints.iter().map(|hint| hint.to_vec()).collect();
            None
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    let pki = TestPki::new();
    let other = Authority::new("Guests of home.example");
    let guests = pki.write("guests.pem", other.pem());
    let backend = Backend::echo();
    let address = backend.address().to_string();
    let gate = House::new(&pki)
        .route("nas", &address)
        .route_with("guests", &[&address], &format!("allow = [\"any\"]\n[route.client_auth]\ntrust = [{guests:?}]"))
        .open();
    for (name, wanted, unwanted) in [
        (NAME, "Clients of home.example", "Guests of home.example"),
        ("guests.home.example", "Guests of home.example", "Clients of home.example"),
    ] {
        for version in VERSIONS {
            let asked = Arc::new(Asked::default());
            let config = showing(&pki, Arc::clone(&asked) as Arc<dyn ResolvesClientCert>, &[version]);
            assert_refused(&gate, &backend, Reason::CertificateRequired, Alert::CERTIFICATE_REQUIRED, || {
                Client::admitted(gate.address(), &config, name)
            });
            let hints = asked.0.lock().unwrap().clone();
            let has =
                |name: &str| hints.iter().any(|hint| hint.windows(name.len()).any(|window| window == name.as_bytes()));
            assert!(has(wanted) && !has(unwanted), "{name}: {hints:?}");
        }
    }
    // The other route's authority lets no client in.
    let guest = other.issue(Certified::for_clients("guest"));
    let config = showing(&pki, Shown::certificate(&guest) as Arc<dyn ResolvesClientCert>, TLS13);
    assert_admitted(&gate, || Client::admitted(gate.address(), &config, "guests.home.example"));
    assert_refused(&gate, &backend, Reason::UnknownCa, Alert::UNKNOWN_CA, || {
        Client::admitted(gate.address(), &config, NAME)
    });
}

/// A list that names one certificate keeps that one out, and a list that says nothing about it says so.
#[test]
fn revoked_but_accepted_no_byte_reaches_the_backend() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let serial = |number: u64| odd(|params| params.serial_number = Some(number.into()));
    let (alice, lost) = (pki.clients.issue(serial(0x4a01)), pki.clients.issue(serial(0x4a02)));
    let between = |number: u64| {
        let params = odd_authority(|params| params.serial_number = Some(number.into()));
        pki.clients.intermediate(params).issue(Certified::for_clients("below"))
    };
    let (below_lost, below) = (between(0x4a03), between(0x4a04));
    let list = |authority: &Authority, next: i64| {
        let revoked = [0x4a02_u64, 0x4a03].map(Into::into);
        authority.revocation_list(&revoked, days_from_now(-2), days_from_now(next))
    };
    let fresh = pki.write("fresh.crl", list(&pki.clients, 7));
    let stale = pki.write("stale.crl", list(&pki.clients, -1));
    let foreign = pki.write("foreign.crl", list(&Authority::new("Another house"), 7));
    let route = |file: &std::path::Path, more: &str| {
        format!("allow = [\"any\"]\n[route.client_auth]\nrevocation_lists = [{file:?}]\n{more}")
    };
    let address = &*backend.address().to_string();
    let gate = House::new(&pki)
        .route_with("fresh", &[address], &route(&fresh, ""))
        .route_with("stale", &[address], &route(&stale, ""))
        .route_with("lenient", &[address], &route(&stale, "expired_revocation_list = \"warn\""))
        .route_with("foreign", &[address], &route(&foreign, ""))
        .open();
    let admitted = |name: &str, certified: &Certified, version| {
        let config = showing(&pki, Shown::certificate(certified) as Arc<dyn ResolvesClientCert>, &[version]);
        Client::admitted(gate.address(), &config, &format!("{name}.home.example"))
    };
    for version in VERSIONS {
        let refused = |name: &str, certified: &Certified, reason: Reason, alert: Alert| {
            assert_refused(&gate, &backend, reason, alert, || admitted(name, certified, version));
        };
        assert_admitted(&gate, || admitted("fresh", &alice, version));
        refused("fresh", &lost, Reason::Revoked, Alert::CERTIFICATE_REVOKED);
        refused("fresh", &below_lost, Reason::Revoked, Alert::CERTIFICATE_REVOKED);
        // The intermediate has no list, so its status is unknown.
        refused("fresh", &below, Reason::RevocationUnknown, Alert::UNKNOWN_CA);
        refused("stale", &alice, Reason::RevocationListExpired, Alert::UNKNOWN_CA);
        refused("stale", &lost, Reason::RevocationListExpired, Alert::UNKNOWN_CA);
        assert_admitted(&gate, || admitted("lenient", &alice, version));
        refused("lenient", &lost, Reason::Revoked, Alert::CERTIFICATE_REVOKED);
        refused("foreign", &alice, Reason::RevocationUnknown, Alert::UNKNOWN_CA);
    }
}
