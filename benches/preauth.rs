//! What a stranger's certificates cost the gate before they are refused, beside a plain self-signed one.
//!
//! ```text
//! cargo bench --bench preauth                          # processor time of the gate for each refused handshake
//! DOORWARD_BENCH_SMOKE=1 cargo bench --bench preauth   # seconds: only shows that everything works
//! ```
//!
//! Every kind of chain is shown in turn, again and again, so that a busy machine is busy for all of them alike. A kind that costs
//! more than twice as much as the plain one is a `MISS`.

// Tells Clippy that unwrap() and its like may be used here as in tests: a bench that cannot measure fails by panicking.
#![cfg(test)]

#[expect(dead_code, reason = "shared with the integration tests: a bench does not need everything")]
#[path = "../tests/journey/client.rs"]
mod client;
#[expect(dead_code, reason = "shared with the integration tests: a bench does not need everything")]
#[path = "../tests/common/mod.rs"]
mod common;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, End, Shown, TLS13, showing, signing_key};
use common::gate::{Gate, LOCAL};
use common::pki::{Authority, Certified, TestPki};
use rcgen::{
    CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree, KeyPair, NameConstraints, SanType,
    SubjectPublicKeyInfo,
};
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

const SERVER_NAME: &str = "nas.home.example";
/// How much a chain may cost, beside a plain one.
const RATIO_MAX: f64 = 2.0;
/// The name of the gate's trust anchor, which it announces.
const ANCHOR: &str = "Clients of home.example";

fn main() {
    let smoke = std::env::var_os("DOORWARD_BENCH_SMOKE").is_some_and(|value| value == "1");
    let (rounds, each) = if smoke { (1, 2) } else { (20, 20) };
    let pki = TestPki::new();
    let gate = Gate::start(&format!(
        "{LOCAL}{}\n[limits]\npenalties = \"off\"\nconnection_rate_per_source = \"off\"\n\n[[route]]\nname = \"nas\"\n\
         server_names = [\"{SERVER_NAME}\"]\nbackends = [\"127.0.0.1:1\"]\nallow = [\"any\"]\n",
        pki.config()
    ));
    let key = KeyPair::generate().unwrap();
    let plain = Certified::for_clients("stranger").self_signed(&key).unwrap().der().clone();
    let mut kinds = vec![("a plain self-signed certificate".to_owned(), vec![plain])];
    kinds.extend(crafted(&pki).into_iter().map(|(name, chain)| (name.to_owned(), chain)));
    let key = signing_key(PrivateKeyDer::try_from(key.serialize_der()).unwrap());
    let clients: Vec<(String, usize, Arc<ClientConfig>)> = kinds
        .into_iter()
        .map(|(name, chain)| {
            let bytes = chain.iter().map(|one| one.len()).sum();
            let shown = Shown::new(chain, Arc::clone(&key)) as Arc<dyn ResolvesClientCert>;
            (name, bytes, showing(&pki, shown, TLS13))
        })
        .collect();

    let mut spent = vec![Duration::ZERO; clients.len()];
    for (_, _, config) in &clients {
        refused(&gate, config);
    }
    for _ in 0..rounds {
        for ((_, _, config), spent) in clients.iter().zip(&mut spent) {
            let before = processor_time(gate.pid());
            for _ in 0..each {
                refused(&gate, config);
            }
            *spent += processor_time(gate.pid()) - before;
        }
    }
    let count = u32::try_from(rounds * each).unwrap();
    let cost = |spent: Duration| (spent / count).as_secs_f64() * 1e6;
    let plain = cost(spent[0]);
    println!("{:<46} {:>8} {:>10} {:>6}", "what is shown", "bytes", "µs", "");
    for ((name, bytes, _), spent) in clients.iter().zip(&spent) {
        let ratio = cost(*spent) / plain;
        let miss = if ratio > RATIO_MAX { " MISS" } else { "" };
        println!("{name:<46} {bytes:>8} {:>10.0} {ratio:>6.2}{miss}", cost(*spent));
    }
}

/// A handshake that is refused because of the certificate.
fn refused(gate: &Gate, config: &Arc<ClientConfig>) {
    let end = Client::admitted(gate.address(), config, SERVER_NAME).map(drop).unwrap_err();
    assert!(matches!(end, End::Alert(_)), "{end:?}");
}

/// The processor time of all threads of a process: proc(5), `/proc/PID/task/TID/schedstat`, in nanoseconds.
fn processor_time(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let spent = threads.map(|thread| {
        let stat = fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap_or_default();
        stat.split_whitespace().next().and_then(|nanoseconds| nanoseconds.parse::<u64>().ok()).unwrap_or_default()
    });
    Duration::from_nanos(spent.sum())
}

fn der(authority: &Authority) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()
}

fn padded(mut params: CertificateParams, bytes: usize) -> CertificateParams {
    params.custom_extensions.push(extension(1, bytes));
    params
}

fn extension(number: u64, bytes: usize) -> CustomExtension {
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55_555, number], vec![7; bytes])
}

/// Chains that are made to cost.
fn crafted(pki: &TestPki) -> Vec<(&'static str, Vec<CertificateDer<'static>>)> {
    let forged = Authority::new(ANCHOR);
    let leaf = |params: CertificateParams| forged.issue(params).chain();
    let stranger = || Certified::for_clients("stranger");
    let with = |beside: Vec<CertificateDer<'static>>| [leaf(stranger()), beside].concat();
    let junk = |name: &str, bytes: usize| -> Vec<CertificateDer<'static>> {
        (0..8).map(|_| der(&forged.intermediate(padded(Authority::for_authorities(name), bytes)))).collect()
    };
    let middle = Authority::new("Middle").issue(stranger()).chain();
    let constrained = || {
        let mut params = Authority::for_authorities(ANCHOR);
        let names = (0..300).map(|number| GeneralSubtree::DnsName(format!("n{number}.example")));
        params.name_constraints =
            Some(NameConstraints { permitted_subtrees: names.collect(), excluded_subtrees: Vec::new() });
        der(&forged.intermediate(params))
    };
    let genuine = pki.clients.intermediate(Authority::for_authorities("Genuine"));
    let below_genuine = Authority::new("Genuine").issue(stranger()).chain();
    let mut deep = forged.intermediate(Authority::for_authorities("Level 0"));
    for number in 1..8 {
        deep = deep.intermediate(Authority::for_authorities(&format!("Level {number}")));
    }
    let mut deeper = deep.intermediate(Authority::for_authorities("Level 8"));
    for number in 9..12 {
        deeper = deeper.intermediate(Authority::for_authorities(&format!("Level {number}")));
    }
    let other = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = stranger();
        change(&mut params);
        params
    };
    let names = other(&|params| {
        params.subject_alt_names =
            (0..2500).map(|number| SanType::DnsName(format!("device-{number}.example").try_into().unwrap())).collect();
    });
    let extensions =
        other(&|params| params.custom_extensions.extend((0..2500).map(|number| extension(number % 100, 0))));
    let purposes = other(&|params| {
        params.extended_key_usages =
            (0..4000).map(|number| ExtendedKeyUsagePurpose::Other(vec![1, 3, number])).collect();
    });
    let long_key = |bytes: usize| SubjectPublicKeyInfo::from_der(&rsa(bytes)).unwrap();
    let of_long_key = |name: &str, bytes: usize| -> CertificateDer<'static> {
        let pem = forged.certify(Authority::for_authorities(name), &long_key(bytes));
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    };
    let self_signed = |params: CertificateParams| {
        let key = KeyPair::generate().unwrap();
        vec![params.self_signed(&key).unwrap().der().clone()]
    };
    vec![
        ("one with the anchor's name as its issuer's", leaf(stranger())),
        ("8 of the anchor's name", with(junk(ANCHOR, 0))),
        ("8 of the anchor's name, 7 kB each", with(junk(ANCHOR, 7000))),
        ("8 of one name, below the anchor's name", [middle, junk("Middle", 0)].concat()),
        ("8 of the anchor's name with constraints", with((0..8).map(|_| constrained()).collect())),
        ("8 of the anchor's name, RSA with 16384 bits", with((0..8).map(|_| of_long_key(ANCHOR, 2048)).collect())),
        ("the real anchor, 8 times", with(vec![der(&pki.clients); 8])),
        ("below a genuine intermediate", [below_genuine, vec![der(&genuine)]].concat()),
        ("a chain of 8", deep.issue(stranger()).chain()),
        ("a chain of 12", deeper.issue(stranger()).chain()),
        ("80 unrelated ones", with((0..80).map(|number| der(&Authority::new(&format!("Other {number}")))).collect())),
        ("60 kB", leaf(padded(stranger(), 60_000))),
        ("60 kB, self-signed", self_signed(padded(stranger(), 60_000))),
        ("15 kB", leaf(padded(stranger(), 15_000))),
        ("2500 names", leaf(names.clone())),
        ("2500 names, self-signed", self_signed(names)),
        (
            "500 names, self-signed",
            self_signed(other(&|params| {
                params.subject_alt_names = (0..500)
                    .map(|number| SanType::DnsName(format!("device-{number}.example").try_into().unwrap()))
                    .collect();
            })),
        ),
        ("2500 extensions", leaf(extensions.clone())),
        ("2500 extensions, self-signed", self_signed(extensions)),
        (
            "600 extensions, self-signed",
            self_signed(other(&|params| {
                params.custom_extensions.extend((0..600).map(|number| extension(number % 100, 0)));
            })),
        ),
        ("4000 purposes", leaf(purposes.clone())),
        ("4000 purposes, self-signed", self_signed(purposes)),
        (
            "1000 purposes, self-signed",
            self_signed(other(&|params| {
                params.extended_key_usages =
                    (0..1000).map(|number| ExtendedKeyUsagePurpose::Other(vec![1, 3, number])).collect();
            })),
        ),
        ("an RSA key of 16384 bits", {
            let pem = forged.certify(stranger(), &long_key(2048));
            vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()]
        }),
    ]
}

/// A SubjectPublicKeyInfo with an RSA key of so many bytes, to which there is no private key.
fn rsa(bytes: usize) -> Vec<u8> {
    let value = |tag: u8, content: &[u8]| {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], &length[..], content].concat()
    };
    let key = value(0x30, &[value(0x02, &[&[0], &vec![0xa5; bytes][..]].concat()), value(0x02, &[1, 0, 1])].concat());
    let algorithm = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    value(0x30, &[&algorithm[..], &value(0x03, &[&[0], &key[..]].concat())].concat())
}
