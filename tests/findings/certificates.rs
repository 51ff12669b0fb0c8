//! Certificates that were let in and should have been refused.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use doorward::model::identity::Sha256;
use doorward::model::rejection::{Alert, Reason};
use rcgen::{CrlDistributionPoint, CrlIssuingDistributionPoint, SerialNumber};
use rustls::SupportedProtocolVersion;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use serde_json::Value;

use crate::client::{Client, End, Shown, TLS13, VERSIONS, client, connect, showing, signing_key};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::common::process::{Finished, run, run_with_input, tool};
use crate::der;
use crate::home::{House, Watch, assert_admitted, assert_refused};

const NAME: &str = "nas.home.example";

/// The same certificate with the other form of its ECDSA signature (P-256): (r, n - s) in the place of (r, s). Anyone with
/// the certificate can make it; no key is needed.
fn twin(certificate: &CertificateDer<'_>) -> CertificateDer<'static> {
    /// The order of P-256 (FIPS 186-4 section D.1.2.3).
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6,
        0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let parts = der::parts(certificate);
    let signature = &der::content(parts[2])[1..];
    let values = der::parts(signature);
    let mut s = der::content(values[1]).to_vec();
    s.reverse();
    s.resize(32, 0);
    let mut borrowed = false;
    let mut difference: Vec<u8> = ORDER
        .iter()
        .rev()
        .zip(&s)
        .map(|(&n, &s)| {
            let taken = u16::from(s) + u16::from(borrowed);
            borrowed = u16::from(n) < taken;
            u8::try_from((u16::from(n) + 0x100 - taken) & 0xff).unwrap()
        })
        .collect();
    assert!(!borrowed, "s is less than the order");
    while difference.last() == Some(&0) {
        difference.pop();
    }
    if difference.last().is_some_and(|&first| first >= 0x80) {
        difference.push(0);
    }
    difference.reverse();
    let signature = der::value(der::SEQUENCE, &[values[0], &der::value(der::INTEGER, &difference)].concat());
    der::certificate(parts[0], parts[1], &signature)
}

/// A client that shows this one certificate, and is let in or not.
pub(super) fn attempt(
    gate: &Gate,
    pki: &TestPki,
    certificate: &CertificateDer<'static>,
    owner: &Certified,
    version: &'static SupportedProtocolVersion,
) -> Result<Client, End> {
    let shown = Shown::new(vec![certificate.clone()], signing_key(owner.key()));
    let config = showing(pki, shown as Arc<dyn ResolvesClientCert>, &[version]);
    Client::admitted(gate.address(), &config, NAME)
}

/// Asks `doorward explain` about a certificate in a file: its exit status, and what it says.
#[track_caller]
fn explain(config: &Path, certificate: &Path, server_name: &str) -> (Finished, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.args(["explain", "--format", "json", "--server-name", server_name, "--config"]).arg(config);
    let finished = run(command.arg("--cert").arg(certificate));
    let says = serde_json::from_str(&finished.text()).unwrap_or_else(|error| panic!("{error}: {finished}"));
    (finished, says)
}

/// Whether `doorward explain` lets the certificate in, or the reason why it does not.
#[track_caller]
pub(super) fn explained(config: &Path, certificate: &Path, server_name: &str) -> Result<(), String> {
    let (finished, says) = explain(config, certificate, server_name);
    assert_eq!(finished.status.success(), says["admitted"] == true, "{finished}");
    match (&says["stage"], &says["reason"]) {
        (Value::Null, Value::Null) => Ok(()),
        (stage, reason) => Err(format!("{}/{}", stage.as_str().unwrap(), reason.as_str().unwrap())),
    }
}

/// A certificate as a file, as `openssl x509` writes it.
pub(super) fn pem_file(pki: &TestPki, name: &str, certificate: &CertificateDer<'_>) -> std::path::PathBuf {
    let pem = run_with_input(tool("openssl", "openssl").args(["x509", "-inform", "DER"]), certificate).success();
    pki.write(name, pem.stdout)
}

/// A lost phone, denied by the SHA-256 of its certificate, got in with a certificate of another SHA-256 that anyone can
/// make of it.
#[test]
fn ecdsa_twin_of_a_denied_certificate_was_let_in() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let (lost, bob) = (pki.client("lost-phone"), pki.client("bob-phone"));
    let [original, other] = [lost.chain().remove(0), twin(&lost.chain()[0])];
    let digests = [&original, &other].map(|certificate| Sha256::of(certificate));
    assert_ne!(digests[0], digests[1]);
    let open = House::new(&pki).route("nas", backend.address()).open();
    for version in VERSIONS {
        let line = assert_admitted(&open, || attempt(&open, &pki, &other, &lost, version));
        assert_eq!(
            line["certificate"]["fingerprint"],
            digests[1].to_string(),
            "it is another certificate, and as good"
        );
    }
    // Whichever of the two the list names, it means both.
    let files = [pem_file(&pki, "original.pem", &original), pem_file(&pki, "other.pem", &other)];
    let bobs = pem_file(&pki, "bob.pem", &bob.chain()[0]);
    for digest in digests {
        let deny = format!("deny = [\"sha256:{digest}\"]\n");
        let gate = House::new(&pki).client_auth(&deny).route("nas", backend.address()).open();
        for version in VERSIONS {
            for certificate in [&original, &other] {
                assert_refused(&gate, &backend, Reason::Denied, Alert::ACCESS_DENIED, || {
                    attempt(&gate, &pki, certificate, &lost, version)
                });
            }
            assert_admitted(&gate, || attempt(&gate, &pki, &bob.chain()[0], &bob, version));
        }
        let config = gate.folder().join("doorward.toml");
        for file in &files {
            assert_eq!(explained(&config, file, NAME), Err("certificate/denied".to_owned()));
        }
        assert_eq!(explained(&config, &bobs, NAME), Ok(()));
    }
}

/// Beside names, the word was meant for those without a verified certificate; it let every verified one in.
#[test]
fn unverified_beside_a_name_let_in_verified_certificates() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let modes = ["require_and_verify", "verify_if_given"];
    let house = modes.iter().fold(House::new(&pki), |house, mode| {
        let keys = format!("allow = [\"alice-phone\", \"unverified\"]\n[route.client_auth]\nmode = \"{mode}\"\n");
        house.route_with(&mode.replace('_', "-"), &[&backend.address().to_string()], &keys)
    });
    let gate = house.open();
    let (alice, bob) = (pki.client("alice-phone"), pki.client("bob-phone"));
    for mode in modes {
        let name = format!("{}.home.example", mode.replace('_', "-"));
        for version in VERSIONS {
            let attempt = |certified: Option<&Certified>| {
                let config = Arc::new(pki.client_config(certified, &[version]));
                Client::admitted(gate.address(), &config, &name)
            };
            assert_admitted(&gate, || attempt(Some(&alice)));
            let line = assert_refused(&gate, &backend, Reason::IdentityNotAllowed, Alert::ACCESS_DENIED, || {
                attempt(Some(&bob))
            });
            assert_eq!(line["certificate"]["name"], "bob-phone", "{line}");
            if mode == "verify_if_given" {
                assert_admitted(&gate, || attempt(None));
            }
        }
    }
}

/// A route's own list took the place of the default one: a phone denied everywhere was let in wherever a route denied
/// another owner, or wrote `deny = []`.
#[test]
fn routes_own_deny_replaced_the_default_one() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let serial = |name: &str, number: u64| {
        let mut params = Certified::for_clients(name);
        params.serial_number = Some(SerialNumber::from(number));
        pki.clients.issue(params)
    };
    let (lost, stolen, bob) =
        (serial("lost-phone", 0x4a01), serial("stolen-laptop", 0x4a02), serial("bob-phone", 0x4a03));
    let address = &*backend.address().to_string();
    let own = |deny: &str| format!("allow = [\"any\"]\n[route.client_auth]\ndeny = {deny}\n");
    let gate = House::new(&pki)
        .client_auth("deny = [\"serial:4a01\"]\n")
        .route("default", address)
        .route_with("own", &[address], &own("[\"serial:4a02\"]"))
        .route_with("empty", &[address], &own("[]"))
        .open();
    for (route, denied, admitted) in [
        ("default", &[&lost][..], &[&stolen, &bob][..]),
        ("own", &[&lost, &stolen], &[&bob]),
        ("empty", &[&lost], &[&stolen, &bob]),
    ] {
        let attempt = |certified: &Certified| {
            Client::admitted(gate.address(), &client(&pki, Some(certified)), &format!("{route}.home.example"))
        };
        for certified in denied {
            assert_refused(&gate, &backend, Reason::Denied, Alert::ACCESS_DENIED, || attempt(certified));
        }
        for certified in admitted {
            assert_admitted(&gate, || attempt(certified));
        }
    }
}

/// Of several lists of one authority only the first that spoke for a certificate was asked: a newer one beside it, or one
/// for another distribution point, revoked no certificate.
#[test]
fn second_revocation_list_of_an_authority_was_ignored() {
    const LOST: u64 = 0x4a01;
    let pki = TestPki::new();
    let backend = Backend::echo();
    let client = |name: &str, number: u64| {
        let mut params = Certified::for_clients(name);
        params.serial_number = Some(SerialNumber::from(number));
        pki.clients.issue(params)
    };
    let (lost, bob) = (client("lost-phone", LOST), client("bob-phone", 0x4a02));
    let list = |point: Option<&str>, revoked: &[u64], age: i64| {
        let revoked: Vec<SerialNumber> = revoked.iter().map(|&number| number.into()).collect();
        let mut list = Authority::for_lists(&revoked, days_from_now(-age), days_from_now(7));
        list.crl_number = SerialNumber::from(1000 - u64::try_from(age).unwrap());
        list.issuing_distribution_point = point.map(|point| CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint { uris: vec![format!("http://home.example/{point}.crl")] },
            scope: None,
        });
        pki.clients.sign_list(list)
    };
    let cases = [
        ("old-and-new", list(Some("a"), &[], 5), list(Some("a"), &[LOST], 1)),
        ("two-points", list(Some("a"), &[], 1), list(Some("b"), &[LOST], 1)),
        ("whole-and-point", list(None, &[], 5), list(Some("a"), &[LOST], 1)),
        ("point-and-whole", list(Some("a"), &[], 1), list(None, &[LOST], 5)),
    ];
    let mut house = House::new(&pki);
    for (case, clean, revoking) in &cases {
        for (order, lists) in [("clean-first", [clean, revoking]), ("clean-last", [revoking, clean])] {
            // In one file, and in two.
            let both = pki.write(&format!("{case}-{order}.crl"), lists.map(String::as_str).concat());
            let [first, second] = [0, 1].map(|place| pki.write(&format!("{case}-{order}-{place}.crl"), lists[place]));
            for (form, files) in [("one", format!("[{both:?}]")), ("two", format!("[{first:?}, {second:?}]"))] {
                let keys = format!("allow = [\"any\"]\n[route.client_auth]\nrevocation_lists = {files}\n");
                house = house.route_with(&format!("{case}-{order}-{form}"), &[&backend.address().to_string()], &keys);
            }
        }
    }
    let gate = house.open();
    let config = gate.folder().join("doorward.toml");
    run(Command::new(env!("CARGO_BIN_EXE_doorward")).args(["check", "--config"]).arg(&config)).success();
    let files = [pki.write("lost.pem", lost.chain_pem()), pki.write("bob.pem", bob.chain_pem())];
    for (case, ..) in &cases {
        for order in ["clean-first", "clean-last"] {
            for form in ["one", "two"] {
                let name = format!("{case}-{order}-{form}.home.example");
                let explained = files.each_ref().map(|file| explained(&config, file, &name));
                assert_eq!(explained, [Err("certificate/revoked".to_owned()), Ok(())], "{name}");
                let attempt = |certified: &Certified| {
                    let config = Arc::new(pki.client_config(Some(certified), TLS13));
                    Client::admitted(gate.address(), &config, &name)
                };
                assert_refused(&gate, &backend, Reason::Revoked, Alert::CERTIFICATE_REVOKED, || attempt(&lost));
                assert_admitted(&gate, || attempt(&bob));
            }
        }
    }
}

/// A client that had seen alice's certificate could have `verified: true` and her name logged for a handshake that failed,
/// and whatever reads the log for her comings and goings believed it.
#[test]
fn identity_of_a_failed_handshake_was_logged_as_verified() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki).route("nas", backend.address()).open();
    let (alice, mallory) = (pki.client("alice-phone"), pki.client("mallory"));
    let stolen = Shown::new(alice.chain(), signing_key(mallory.key()));
    let claims = |line: &Value| {
        assert_eq!(line["certificate"]["name"], "alice-phone", "{line}");
        assert_eq!(line["certificate"]["verified"], false, "{line}");
    };
    for version in VERSIONS {
        let config = showing(&pki, Arc::<Shown>::clone(&stolen), &[version]);
        claims(&assert_refused(&gate, &backend, Reason::BadSignature, Alert::DECRYPT_ERROR, || {
            Client::admitted(gate.address(), &config, NAME)
        }));
    }
    // Her certificate, and nothing behind it. Under TLS 1.2 it comes in the clear.
    let config = showing(&pki, stolen, &[&rustls::version::TLS12]);
    let client = Client::on(connect(gate.address()), &config, NAME);
    let watch = Watch::begin(&gate);
    client.flush().unwrap();
    let mut flight = Vec::new();
    while flight.is_empty() {
        client.receive_some().unwrap();
        flight = client.tls(|connection| {
            let mut flight = Vec::new();
            while connection.wants_write() {
                connection.write_tls(&mut flight).unwrap();
            }
            flight
        });
    }
    let certificate = 5 + usize::from(u16::from_be_bytes([flight[3], flight[4]]));
    assert_eq!([flight[0], flight[5]], [22, 11], "a Certificate");
    std::io::Write::write_all(&mut client.tcp(), &flight[..certificate]).unwrap();
    client.shut_tcp();
    claims(&watch.rejected(Reason::HandshakeClosedEarly, &End::Truncated));
}
