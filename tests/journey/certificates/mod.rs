//! Client certificates of every kind that a client may show, in both TLS versions: attacks.md rows 11, 13 and 14.

mod authorities;
mod cost;
mod identity;
mod malformed;

use std::sync::Arc;

use doorward::model::rejection::{Alert, Reason};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair,
    NameConstraints, SanType, SubjectPublicKeyInfo,
};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

use crate::client::{Client, End, Shown, VERSIONS, showing, signing_key};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki};
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
