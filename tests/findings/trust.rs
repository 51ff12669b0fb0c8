//! Whose certificates count, and by whose lists: attacks.md rows 36 and 47. The gate, `explain` and `check` say the same.

use std::path::Path;
use std::process::Command;

use doorward::model::rejection::{Alert, Reason};
use rcgen::{
    BasicConstraints, CertificateParams, GeneralSubtree, IsCa, KeyPair, NameConstraints, SanType, SerialNumber,
};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::certificates::{attempt, explained, pem_file};
use crate::client::{Client, End, Shown, TLS13, VERSIONS, showing, signing_key};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::common::process::{Finished, run, run_with_input, tool};
use crate::home::{House, assert_admitted, assert_refused};

const NAME: &str = "nas.home.example";

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn numbered(name: &str, serial: u64) -> CertificateParams {
    let mut params = Certified::for_clients(name);
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

/// A gate whose only route has these keys, and a table of its own.
fn open(pki: &TestPki, backend: &Backend, keys: &str, client_auth: &str) -> Gate {
    let keys = format!("{keys}\n[route.client_auth]\n{client_auth}\n");
    House::new(pki).route_with("nas", &[&backend.address().to_string()], &keys).open()
}

fn check(gate: &Gate) -> Finished {
    let config = gate.folder().join("doorward.toml");
    run(Command::new(env!("CARGO_BIN_EXE_doorward")).args(["check", "--config"]).arg(config))
}

/// A client that shows this chain.
fn show(
    gate: &Gate,
    pki: &TestPki,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'_>,
) -> Result<Client, End> {
    let shown = Shown::new(chain, signing_key(key.clone_key()));
    let config = showing(pki, shown as std::sync::Arc<dyn ResolvesClientCert>, TLS13);
    Client::admitted(gate.address(), &config, NAME)
}

/// What `doorward explain` says of a chain.
fn asked(gate: &Gate, pki: &TestPki, certified: &Certified) -> Result<(), String> {
    let file = pki.write("asked.pem", certified.chain_pem());
    explained(&gate.folder().join("doorward.toml"), &file, NAME)
}

/// Eight certificates of the trust anchor's name cost five milliseconds and five points; they are what they are, unknown.
#[test]
fn row_36_chains_of_the_anchors_name_are_unknown_ca() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki).route("nas", backend.address()).open();
    let forged = Authority::new("Clients of home.example");
    let leaf = forged.issue(Certified::for_clients("alice-phone"));
    let mut junk: Vec<_> =
        (0..8).map(|_| der(forged.intermediate(Authority::for_authorities("Clients of home.example")).pem())).collect();
    for _ in 0..8 {
        junk.rotate_left(1);
        let chain = [leaf.chain(), junk.clone()].concat();
        assert_refused(&gate, &backend, Reason::UnknownCa, Alert::UNKNOWN_CA, || show(&gate, &pki, chain, leaf.key()));
    }
    // A device of the house may send them, too.
    let alice = pki.client("alice-phone");
    let chain = [alice.chain(), junk].concat();
    assert_admitted(&gate, || show(&gate, &pki, chain, alice.key()));
}

/// Of two authorities of one name the devices of the second were refused, or the configuration was.
#[test]
fn row_47_two_authorities_of_one_name_have_a_list_each() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let friend = Authority::new("Clients of home.example");
    let both = pki.write("both.pem", [pki.clients.pem(), friend.pem()].concat());
    let devices = [&pki.clients, &friend]
        .map(|authority| [7, 8].map(|serial| authority.issue(numbered(&format!("device-{serial}"), serial))));
    let list = |authority: &Authority, revoked: u64| {
        authority.revocation_list(&[SerialNumber::from(revoked)], days_from_now(-1), days_from_now(7))
    };
    // The same number is revoked by one and good with the other.
    let own = pki.write("own.crl", list(&pki.clients, 7));
    let theirs = pki.write("theirs.crl", list(&friend, 8));
    let forged = pki.write("forged.crl", list(&Authority::new("Clients of home.example"), 7));
    for (what, lists, expected) in [
        ("both lists", vec![&own, &theirs], [[Some(Reason::Revoked), None], [None, Some(Reason::Revoked)]]),
        (
            "both, the other way round",
            vec![&theirs, &own],
            [[Some(Reason::Revoked), None], [None, Some(Reason::Revoked)]],
        ),
        ("the own one only", vec![&own], [[Some(Reason::Revoked), None], [Some(Reason::RevocationUnknown); 2]]),
        ("the other one only", vec![&theirs], [[Some(Reason::RevocationUnknown); 2], [None, Some(Reason::Revoked)]]),
    ] {
        let keys = format!("trust = [{both:?}]\nrevocation_lists = {lists:?}");
        let gate = open(&pki, &backend, "allow = [\"any\"]", &keys);
        let checked = check(&gate).success();
        assert_eq!(
            checked.stderr.contains("no revocation list of the authority"),
            lists.len() == 1,
            "{what}: {checked}"
        );
        for (device, reason) in devices.iter().flatten().zip(expected.iter().flatten()) {
            let attempt = || attempt(&gate, &pki, &device.chain()[0], device, &rustls::version::TLS13);
            let said = asked(&gate, &pki, device);
            match reason {
                None => {
                    assert_admitted(&gate, attempt);
                    assert_eq!(said, Ok(()), "{what}");
                }
                Some(reason) => {
                    let alert = if *reason == Reason::Revoked { Alert::CERTIFICATE_REVOKED } else { Alert::UNKNOWN_CA };
                    assert_refused(&gate, &backend, *reason, alert, attempt);
                    assert_eq!(said, Err(format!("certificate/{}", reason.label())), "{what}");
                }
            }
        }
    }
    // A list of that name that neither signed.
    let keys = format!("trust = [{both:?}]\nrevocation_lists = [{forged:?}]");
    let house = House::new(&pki).route_with(
        "nas",
        &[&backend.address().to_string()],
        &format!("allow = [\"any\"]\n[route.client_auth]\n{keys}\n"),
    );
    let refused = Gate::fails_to_start(&house.config());
    assert!(refused.stderr.contains("was not signed by the authority whose name it bears"), "{refused}");
}

/// The holder of the device's key could issue certificates for others.
#[test]
fn row_47_a_device_certificate_in_trust_vouches_for_no_other() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let elsewhere = Authority::new("Another house");
    let signed = elsewhere.issue(Certified::for_clients("alice-phone"));
    let file = pki.write("alice.pem", signed.chain_pem());
    let gate = open(&pki, &backend, "allow = [\"alice-phone\", \"bob-phone\"]", &format!("trust = [{file:?}]"));
    let checked = check(&gate).success();
    assert!(checked.stderr.contains("exactly that certificate is accepted"), "{checked}");
    for version in VERSIONS {
        assert_admitted(&gate, || attempt(&gate, &pki, &signed.chain()[0], &signed, version));
    }
    assert_eq!(asked(&gate, &pki, &signed), Ok(()));

    let key = KeyPair::try_from(&signed.key()).unwrap();
    let by_alice = rcgen::Issuer::new(Certified::for_clients("alice-phone"), key);
    let bobs = KeyPair::generate().unwrap();
    let bob = Certified::for_clients("bob-phone").signed_by(&bobs, &by_alice).unwrap().der().clone();
    let bobs = PrivateKeyDer::try_from(bobs.serialize_der()).unwrap();
    let sibling = elsewhere.issue(Certified::for_clients("bob-phone"));
    for (what, chain, key) in [
        ("signed by her key", vec![bob.clone()], bobs.clone_key()),
        ("with hers behind", [vec![bob.clone()], signed.chain()].concat(), bobs.clone_key()),
        ("of her authority", sibling.chain(), sibling.key()),
    ] {
        eprintln!("{what}");
        assert_refused(&gate, &backend, Reason::UnknownCa, Alert::UNKNOWN_CA, || show(&gate, &pki, chain, key));
    }
    let file = pem_file(&pki, "bob.pem", &bob);
    let said = explained(&gate.folder().join("doorward.toml"), &file, NAME);
    assert_eq!(said, Err("certificate/unknown_ca".to_owned()));
}

/// An authority that may vouch for names below its own domain only wrote another one's into the common name.
#[test]
fn row_47_below_name_constraints_the_subject_is_no_selector() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let mut kids = Authority::for_authorities("Kids");
    kids.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("kids.example".into())],
        excluded_subtrees: Vec::new(),
    });
    let anchor = Authority::custom(kids.clone());
    let below = pki.clients.intermediate(kids);
    let file = pki.write("anchor.pem", [pki.clients.pem(), anchor.pem()].concat());
    let gate =
        open(&pki, &backend, "allow = [\"alice\", \"cn:bob\", \"carol.kids.example\"]", &format!("trust = [{file:?}]"));
    for authority in [&below, &anchor] {
        for (name, san, admitted) in [
            ("alice", None, false),
            ("bob", None, false),
            ("alice", Some("x.kids.example"), false),
            ("x", Some("carol.kids.example"), true),
        ] {
            let mut params = Certified::for_clients(name);
            params.subject_alt_names = san.into_iter().map(|name| SanType::DnsName(name.try_into().unwrap())).collect();
            let device = authority.issue(params);
            let said = asked(&gate, &pki, &device);
            let attempt = || show(&gate, &pki, device.chain(), device.key());
            if admitted {
                assert_admitted(&gate, attempt);
                assert_eq!(said, Ok(()));
            } else {
                let line = assert_refused(&gate, &backend, Reason::IdentityNotAllowed, Alert::ACCESS_DENIED, attempt);
                assert!(line["detail"].as_str().unwrap().contains("name constraints"), "{line}");
                assert_eq!(said, Err("policy/identity_not_allowed".to_owned()));
            }
        }
    }
    let free = pki.client("alice");
    assert_admitted(&gate, || show(&gate, &pki, free.chain(), free.key()));
}

/// `openssl req -x509` makes one that says it is an authority; shown as a client's, the log said CaUsedAsEndEntity.
#[test]
fn row_47_an_authority_shown_by_a_client_is_told_so() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let key = KeyPair::generate().unwrap();
    let mut params = Certified::for_clients("alice-phone");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = Vec::new();
    let certificate = params.self_signed(&key).unwrap();
    let file = pki.write("alice.pem", certificate.pem());
    let gate = open(&pki, &backend, "allow = [\"any\"]", &format!("trust = [{file:?}]"));
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let line = assert_refused(&gate, &backend, Reason::CertificateInvalid, Alert::BAD_CERTIFICATE, || {
        show(&gate, &pki, vec![certificate.der().clone()], key)
    });
    assert!(line["detail"].as_str().unwrap().contains("CA:TRUE"), "{line}");
}

/// Certificates of version 1 cannot say whether they are those of authorities.
#[test]
fn row_47_a_version_1_root_is_an_authority_and_no_other_is() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let openssl = |arguments: &[&str]| {
        let mut command = tool("openssl", "openssl");
        run_with_input(command.current_dir(pki.path("")).args(arguments), b"").success();
    };
    let request = |name: &str| {
        let (key, request, subject) = (format!("{name}.key"), format!("{name}.csr"), format!("/CN={name}"));
        openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &key]);
        openssl(&["req", "-new", "-key", &key, "-subj", &subject, "-out", &request]);
    };
    request("root");
    openssl(&["x509", "-req", "-in", "root.csr", "-signkey", "root.key", "-days", "9", "-out", "root.pem"]);
    request("alice");
    pki.write("leaf.ext", "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n");
    let sign =
        ["x509", "-req", "-in", "alice.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-days", "9"];
    openssl(&[&sign[..], &["-extfile", "leaf.ext", "-out", "alice.pem"]].concat());
    openssl(&[&sign[..], &["-out", "alice-1.pem"]].concat());

    let gate = open(&pki, &backend, "allow = [\"any\"]", &format!("trust = [{:?}]", pki.path("root.pem")));
    let checked = check(&gate).success();
    assert!(checked.stderr.contains("version 1"), "{checked}");
    let read = |name: &str| std::fs::read_to_string(pki.path(name)).unwrap();
    let key = PrivateKeyDer::from_pem_slice(read("alice.key").as_bytes()).unwrap();
    let alice = der(&read("alice.pem"));
    assert_admitted(&gate, || show(&gate, &pki, vec![alice], key));

    let trusted = |file: &Path| {
        let keys = format!("allow = [\"any\"]\n[route.client_auth]\ntrust = [{file:?}]\n");
        Gate::fails_to_start(&House::new(&pki).route_with("nas", &[&backend.address().to_string()], &keys).config())
    };
    let refused = trusted(&pki.path("alice-1.pem"));
    assert!(refused.stderr.contains("of version 1 and does not say"), "{refused}");
}
