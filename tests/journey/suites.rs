//! Which cipher suite a client gets.

use std::sync::Arc;

use doorward::model::rejection::{Alert, Reason};
use doorward::sys::cpu;
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustls::client::{ClientSessionMemoryCache, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CipherSuite, ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};

use crate::client::{Client, TLS13, VERSIONS};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Certified, TestPki};
use crate::home::{House, assert_admitted, assert_refused};

/// What a suite encrypts with, as it is called in the names of both versions.
const AES128: &str = "AES_128_GCM";
const AES256: &str = "AES_256_GCM";
const CHACHA20: &str = "CHACHA20_POLY1305";

/// What a client with some ciphers gets: with the default strength and with 256 bits; first on this processor, then on one
/// without AES. `None` is a refusal.
type Gets = [[Option<&'static str>; 2]; 2];

/// A device that offers the suites of both versions with these ciphers, in this order.
fn device(pki: &TestPki, ciphers: &[&str], versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let with = |cipher: &str| {
        let named = move |suite: CipherSuite| suite.as_str().unwrap().contains(cipher);
        aws_lc_rs::ALL_CIPHER_SUITES.iter().copied().filter(|suite| named(suite.suite())).collect::<Vec<_>>()
    };
    offering(pki, ciphers.iter().flat_map(|cipher| with(cipher)).collect(), versions)
}

fn offering(
    pki: &TestPki,
    cipher_suites: Vec<rustls::SupportedCipherSuite>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let provider = CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() };
    pki.client_config_with(provider, Some(&pki.client("alice-phone")), versions)
}

/// Clients that offer these suites and are one to rustls' sessions, which belong to a certificate and a verifier.
fn sharing_sessions<const N: usize>(pki: &TestPki, mut configs: [ClientConfig; N]) -> [Arc<ClientConfig>; N] {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pki.servers.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let sessions = Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
    let certificate = Arc::clone(&configs[0].client_auth_cert_resolver);
    for config in &mut configs {
        config.dangerous().set_certificate_verifier(Arc::<WebPkiServerVerifier>::clone(&verifier));
        config.client_auth_cert_resolver = Arc::clone(&certificate);
        config.resumption = sessions.clone();
    }
    configs.map(Arc::new)
}

/// Gets in: the suite, which both sides must agree on, and whether a session was resumed.
#[track_caller]
fn visit(gate: &Gate, device: &Arc<ClientConfig>, name: &str) -> (String, bool) {
    let mut seen = None;
    let line = assert_admitted(gate, || {
        let client = Client::admitted(gate.address(), device, name)?;
        seen = client.tls(|tls| Some((tls.negotiated_cipher_suite()?.suite(), tls.handshake_kind()?)));
        Ok(client)
    });
    let (suite, kind) = seen.unwrap();
    let suite = suite.as_str().unwrap().replace("TLS13_", "TLS_");
    assert_eq!(line["tls"]["cipher_suite"], *suite, "{line}");
    (suite, kind == HandshakeKind::Resumed)
}

/// The gate of a route with a key on P-256, and of one with an RSA key.
fn open(pki: &TestPki, backend: &Backend, strength: &str, has_aes: bool) -> Gate {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let rsa = pki.servers.issue_for_key(Certified::for_servers(&["rsa.home.example"]), key);
    let (chain, key) = (pki.write("rsa.pem", rsa.chain_pem()), pki.write("rsa-key.pem", rsa.key_pem()));
    let address = backend.address().to_string();
    let own = format!("allow = [\"any\"]\n[route.certificate]\nchain = {chain:?}\nkey = {key:?}");
    let config = House::new(pki).route("nas", &address).route_with("rsa", &[&address], &own).config();
    Gate::start_with(&format!("{strength}\n{config}"), |command| {
        if !has_aes {
            // The bits of AES in aws-lc's environment variables: crypto/fipsmodule/cpucap/cpu_intel.c, and ARMV8_AES of
            // include/openssl/arm_arch.h. A processor without AES has none that could be turned off.
            command.env("OPENSSL_ia32cap", "~0x200000000000000").env("OPENSSL_armcap", "~0x4");
        }
    })
}

#[test]
fn suite_depends_on_processor_strength_and_favourite() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let (aes128_on_aes, aes256_on_aes) = if cpu::has_aes() { (AES128, AES256) } else { (CHACHA20, CHACHA20) };
    let cases: [(&[&str], Gets); 6] = [
        (&[AES256, AES128, CHACHA20], [[Some(aes128_on_aes), Some(aes256_on_aes)], [Some(CHACHA20); 2]]),
        (&[AES128, CHACHA20, AES256], [[Some(aes128_on_aes), Some(aes256_on_aes)], [Some(CHACHA20); 2]]),
        (&[CHACHA20, AES256, AES128], [[Some(CHACHA20); 2]; 2]),
        (&[AES256, AES128], [[Some(AES128), Some(AES256)]; 2]),
        (&[AES128], [[Some(AES128), None]; 2]),
        (&[CHACHA20], [[Some(CHACHA20); 2]; 2]),
    ];
    let mut refused = 0;
    for (processor, has_aes) in [cpu::has_aes(), false].into_iter().enumerate() {
        for (column, strength) in ["", "strength = 256"].into_iter().enumerate() {
            let gate = open(&pki, &backend, strength, has_aes);
            for (offered, gets) in &cases {
                for version in VERSIONS {
                    for (name, signature) in [("nas", "ECDSA"), ("rsa", "RSA")] {
                        let device = Arc::new(device(&pki, offered, &[version]));
                        let name = format!("{name}.home.example");
                        let case =
                            format!("AES {has_aes}, {strength:?}, {offered:?}, {:?}, {signature}", version.version);
                        let Some(cipher) = gets[processor][column] else {
                            let line = assert_refused(
                                &gate,
                                &backend,
                                Reason::NoSharedParameters,
                                Alert::HANDSHAKE_FAILURE,
                                || Client::admitted(gate.address(), &device, &name),
                            );
                            assert_eq!(line["server_name"], *name, "{case}");
                            refused += 1;
                            continue;
                        };
                        let (suite, _) = visit(&gate, &device, &name);
                        let beginning = match version.version {
                            rustls::ProtocolVersion::TLSv1_3 => "TLS_".to_owned(),
                            _ => format!("TLS_ECDHE_{signature}_WITH_"),
                        };
                        assert!(suite.starts_with(&format!("{beginning}{cipher}")), "{case}: {suite}");
                    }
                }
            }
        }
    }
    assert_eq!(refused, 2 * 2 * 2, "AES-128 alone, on both processors, in both versions, at both names");
}

/// The two orders of suites share everything else. A client whose favourite changes, but not its suite, finds its session.
#[test]
fn session_is_resumed_under_the_other_order() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let gate = open(&pki, &backend, "", true);
    let aes128 = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let chacha20 = aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256;
    // Both get the one suite of TLS 1.3 that they offer. Only the second one puts ChaCha20 first.
    let offers = [vec![aes128], vec![chacha20, aes128]];
    let [first, second] = sharing_sessions(&pki, offers.map(|suites| offering(&pki, suites, &VERSIONS)));
    let visit = |device| visit(&gate, device, "nas.home.example");
    let suite = "TLS_AES_128_GCM_SHA256".to_owned();
    assert_eq!(visit(&first), (suite.clone(), false));
    assert_eq!(visit(&second), (suite.clone(), true));
    assert_eq!(visit(&first), (suite, true));
}

/// rustls resumes no session of another suite.
#[test]
fn client_that_gets_another_suite_is_not_resumed() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let gate = open(&pki, &backend, "", true);
    let usual = if cpu::has_aes() { AES128 } else { CHACHA20 };
    for version in VERSIONS {
        let offers = [&[AES128, CHACHA20][..], &[CHACHA20, AES128]];
        let [aes, chacha20] = sharing_sessions(&pki, offers.map(|ciphers| device(&pki, ciphers, &[version])));
        for (device, cipher, resumed) in
            [(&aes, usual, false), (&aes, usual, true), (&chacha20, CHACHA20, usual == CHACHA20)]
        {
            let seen = visit(&gate, device, "nas.home.example");
            assert!(seen.0.contains(cipher) && seen.1 == resumed, "{:?}: {seen:?}", version.version);
        }
    }
}

#[test]
fn reload_changes_the_strength() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let config = House::new(&pki).route("nas", backend.address()).config();
    let strong = format!("strength = 256\n{config}");
    let mut device = device(&pki, &[AES256, AES128], TLS13);
    device.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
    let device = Arc::new(device);
    let gate = Gate::start(&config);
    let visit = || visit(&gate, &device, "nas.home.example");
    let [short, long] = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"].map(str::to_owned);
    assert_eq!(visit(), (short.clone(), false));
    assert_eq!(visit(), (short.clone(), true));
    assert_eq!(gate.reload(&strong)["event"], "reloaded");
    assert_eq!(visit(), (long.clone(), false), "a session of a suite that is not allowed any more");
    assert_eq!(visit(), (long, true));
    assert_eq!(gate.reload(&config)["event"], "reloaded");
    assert_eq!(visit().0, short);
}
