//! The cost of a rejected certificate chain, compared with a plain self-signed certificate.
//!
//! ```text
//! cargo bench --bench preauth                          # processor time of the gate for each refused handshake
//! DOORWARD_BENCH_SMOKE=1 cargo bench --bench preauth   # seconds: only shows that everything works
//! ```
//!
//! Every kind of chain is shown in turn, again and again, so that a busy machine is busy for all of them alike. Each is sent in one
//! write, in pieces of 4 kB as OpenSSL does, under TLS 1.2, and in the smallest records that rustls makes. A chain that costs
//! more than twice as much as the plain one is a `MISS`. The gate's authority has a key on P-256; then chains that make the gate
//! check signatures are shown to gates whose authority, and its intermediate, have keys of other kinds.

// Makes Clippy treat this as test code, which may use unwrap(): a benchmark that cannot measure fails by panicking.
#![cfg(test)]

#[expect(dead_code, reason = "shared with the integration tests: a bench does not need everything")]
#[path = "../tests/journey/client.rs"]
mod client;
#[expect(dead_code, reason = "shared with the integration tests: a bench does not need everything")]
#[path = "../tests/common/mod.rs"]
mod common;

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use client::{Shown, TLS13, connect, showing, signing_key};
use common::gate::{Gate, LOCAL};
use common::pki::{Authority, Certified, TestPki};
use rcgen::{
    CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, KeyPair, NameConstraints,
    RsaKeySize, SanType, SubjectPublicKeyInfo,
};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Error, SupportedProtocolVersion};

const SERVER_NAME: &str = "nas.home.example";
/// The most that a chain may cost, relative to the plain certificate.
const RATIO_MAX: f64 = 2.0;
/// The name of the gate's trust anchor, which it announces.
const ANCHOR: &str = "Clients of home.example";

/// How a chain is sent.
#[derive(Clone, Copy)]
struct Sender {
    name: &'static str,
    versions: &'static [&'static SupportedProtocolVersion],
    /// The most bytes in a write.
    piece: usize,
    /// The most bytes in a record, if they are fewer than TLS permits.
    record: Option<usize>,
    /// The sender whose plain certificate is the reference.
    measure: usize,
}

const SENDERS: [Sender; 4] = [
    Sender { name: "one write", versions: TLS13, piece: usize::MAX, record: None, measure: 0 },
    // OpenSSL's handshake goes through a buffer of 4 KiB.
    Sender { name: "4 kB", versions: TLS13, piece: 4096, record: None, measure: 1 },
    Sender { name: "TLS 1.2", versions: TLS12, piece: 4096, record: None, measure: 2 },
    Sender { name: "tiny", versions: TLS13, piece: usize::MAX, record: Some(32), measure: 0 },
];

const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

/// A chain, and its cost with each sender.
struct Kind {
    name: String,
    bytes: usize,
    clients: Vec<Arc<ClientConfig>>,
    spent: [Duration; SENDERS.len()],
}

/// Makes keys of one kind.
type MakeKey = fn() -> KeyPair;

/// Kinds of keys that an authority may have.
const KEYS: [(&str, MakeKey); 6] = [
    ("Ed25519", || KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap()),
    ("RSA-2048", || KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap()),
    ("RSA-3072", || KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072).unwrap()),
    ("RSA-4096", || KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096).unwrap()),
    ("P-384", || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap()),
    ("P-521", || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap()),
];

fn main() {
    let smoke = std::env::var_os("DOORWARD_BENCH_SMOKE").is_some_and(|value| value == "1");
    let (rounds, each) = if smoke { (1, 2) } else { (20, 20) };
    let pki = TestPki::new();
    measure("P-256", &pki, crafted(&pki), rounds, each);
    for (kind, key) in KEYS {
        let mut pki = TestPki::new();
        pki.clients = Authority::with_key(Authority::for_authorities(ANCHOR), key());
        pki.write("clients.pem", pki.clients.pem());
        measure(kind, &pki, signed_wrongly(&pki, key), rounds, each);
    }
}

/// Shows chains to a gate, and prints what they cost.
fn measure(
    authority: &str,
    pki: &TestPki,
    crafted: Vec<(&'static str, Vec<CertificateDer<'static>>)>,
    rounds: u32,
    each: u32,
) {
    let gate = Gate::start(&format!(
        "{LOCAL}{}\n[limits]\npenalties = \"off\"\nconnection_rate_per_source = \"off\"\n\n[[route]]\nname = \"nas\"\n\
         server_names = [\"{SERVER_NAME}\"]\nbackends = [\"127.0.0.1:1\"]\nallow = [\"any\"]\n",
        pki.config()
    ));
    let key = KeyPair::generate().unwrap();
    let plain = Certified::for_clients("stranger").self_signed(&key).unwrap().der().clone();
    let mut chains = vec![("a plain self-signed certificate", vec![plain])];
    chains.extend(crafted);
    let key = signing_key(PrivateKeyDer::try_from(key.serialize_der()).unwrap());
    let mut kinds: Vec<Kind> = chains
        .into_iter()
        .map(|(name, chain)| {
            let clients = SENDERS.iter().map(|sender| {
                let shown = Shown::new(chain.clone(), Arc::clone(&key)) as Arc<dyn ResolvesClientCert>;
                let mut config = ClientConfig::clone(&showing(pki, shown, sender.versions));
                config.max_fragment_size = sender.record;
                Arc::new(config)
            });
            let bytes = chain.iter().map(|one| one.len()).sum();
            Kind { name: name.to_owned(), bytes, clients: clients.collect(), spent: Default::default() }
        })
        .collect();

    // The first of each is not counted.
    for round in 0..=rounds {
        for kind in &mut kinds {
            for ((sender, config), spent) in SENDERS.iter().zip(&kind.clients).zip(&mut kind.spent) {
                let before = processor_time(gate.pid());
                for _ in 0..each {
                    refused(gate.address(), config, *sender);
                }
                if round > 0 {
                    *spent += processor_time(gate.pid()) - before;
                }
            }
        }
    }
    let cost = |spent: Duration| spent.as_secs_f64() * 1e6 / f64::from(rounds * each);
    let plain = kinds[0].spent.map(cost);
    print!("{:<46} {:>8}", format!("to a gate whose authority has {authority}"), "bytes");
    SENDERS.iter().for_each(|sender| print!(" {:>14}", format!("{}, µs", sender.name)));
    println!();
    for kind in &kinds {
        print!("{:<46} {:>8}", kind.name, kind.bytes);
        let mut miss = "";
        for (sender, spent) in SENDERS.iter().zip(kind.spent.map(cost)) {
            let ratio = spent / plain[sender.measure];
            print!(" {spent:>8.0} {ratio:>5.2}");
            if ratio > RATIO_MAX {
                miss = " MISS";
            }
        }
        println!("{miss}");
    }
    println!();
}

/// A handshake that is rejected because of its certificate.
fn refused(address: SocketAddr, config: &Arc<ClientConfig>, sender: Sender) {
    let mut tcp = connect(address);
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let mut connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    loop {
        // The client may fail to send its last flight, but it can read the alert.
        let _ = send(&mut connection, &mut tcp, sender.piece);
        match connection.read_tls(&mut tcp) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        match connection.process_new_packets() {
            Ok(_) => {}
            Err(Error::AlertReceived(_)) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

fn send(connection: &mut ClientConnection, tcp: &mut TcpStream, piece: usize) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes)?;
    }
    bytes.chunks(piece).try_for_each(|piece| tcp.write_all(piece))
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

/// Chains with signatures that prove wrong under the keys of the gate's authority and its intermediate, which are of one kind.
fn signed_wrongly(pki: &TestPki, key: MakeKey) -> Vec<(&'static str, Vec<CertificateDer<'static>>)> {
    let stranger = || Certified::for_clients("stranger");
    let forged = Authority::with_key(Authority::for_authorities(ANCHOR), key());
    let junk = |bytes: usize| -> Vec<CertificateDer<'static>> {
        (0..8).map(|_| der(&forged.intermediate(padded(Authority::for_authorities(ANCHOR), bytes)))).collect()
    };
    let genuine = der(&pki.clients.intermediate_with_key(Authority::for_authorities("Genuine"), key()));
    let impostor = Authority::with_key(Authority::for_authorities("Genuine"), key());
    let leaf = forged.issue(stranger()).chain();
    let below_both = |bytes: usize| {
        let between = Authority::new("Between");
        let mut chain = [between.issue(stranger()).chain(), vec![genuine.clone()]].concat();
        for _ in 0..3 {
            for above in [&impostor, &forged] {
                chain.push(der(&above.intermediate(padded(Authority::for_authorities("Between"), bytes))));
            }
        }
        chain
    };
    vec![
        ("one with the anchor's name as its issuer's", leaf.clone()),
        ("8 of the anchor's name", [leaf.clone(), junk(0)].concat()),
        ("8 of the anchor's name, 3.5 kB each", [leaf, junk(3500)].concat()),
        ("below a genuine intermediate", [impostor.issue(stranger()).chain(), vec![genuine.clone()]].concat()),
        ("below a genuine one, and forged ones", below_both(0)),
        ("below a genuine one, and forged ones of 5 kB", below_both(5000)),
    ]
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
    let wrong_and_large = signed_wrongly(pki, || KeyPair::generate().unwrap()).pop().unwrap();
    let constrained = || {
        let mut params = Authority::for_authorities(ANCHOR);
        let names = (0..300).map(|number| GeneralSubtree::DnsName(format!("n{number}.example")));
        params.name_constraints =
            Some(NameConstraints { permitted_subtrees: names.collect(), excluded_subtrees: Vec::new() });
        der(&forged.intermediate(params))
    };
    let genuine = pki.clients.intermediate(Authority::for_authorities("Genuine"));
    let below_genuine = Authority::new("Genuine").issue(stranger()).chain();
    // As many wrong signatures as possible, under the trust anchor's key and under that of its intermediate.
    let between = Authority::new("Between");
    let certified_by = |above: &Authority| {
        let key = SubjectPublicKeyInfo::from_pem(&KeyPair::generate().unwrap().public_key_pem()).unwrap();
        let pem = above.certify(Authority::for_authorities("Between"), &key);
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    };
    let impostor = Authority::new("Genuine");
    let mut below_both = [between.issue(stranger()).chain(), vec![der(&genuine)]].concat();
    for _ in 0..3 {
        below_both.extend([certified_by(&impostor), certified_by(&forged)]);
    }
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
        ("8 of the anchor's name, 1 kB each", with(junk(ANCHOR, 900))),
        ("8 of the anchor's name, 3.5 kB each", with(junk(ANCHOR, 3500))),
        ("8 of the anchor's name, 7 kB each", with(junk(ANCHOR, 7000))),
        ("8 of one name, below the anchor's name", [middle, junk("Middle", 0)].concat()),
        ("8 of the anchor's name with constraints", with((0..8).map(|_| constrained()).collect())),
        ("8 of the anchor's name, RSA with 16384 bits", with((0..8).map(|_| of_long_key(ANCHOR, 2048)).collect())),
        ("the real anchor, 8 times", with(vec![der(&pki.clients); 8])),
        ("below a genuine intermediate", [below_genuine, vec![der(&genuine)]].concat()),
        ("below a genuine one, and forged ones", below_both),
        wrong_and_large,
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
        (
            "15 kB of names of one letter",
            self_signed(other(&|params| {
                params.subject_alt_names = (0..4500).map(|_| SanType::DnsName("a".try_into().unwrap())).collect();
            })),
        ),
        (
            "15 kB of attributes in its name, self-signed",
            self_signed(other(&|params| {
                for number in 0..500 {
                    let kind = DnType::CustomDnType(vec![2, 5, 4, 11, number]);
                    params.distinguished_name.push(kind, "a");
                }
            })),
        ),
        ("an RSA key of 16384 bits", {
            let pem = forged.certify(stranger(), &long_key(2048));
            vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()]
        }),
    ]
}

/// A SubjectPublicKeyInfo with an RSA modulus of `bytes` bytes, without a private key.
fn rsa(bytes: usize) -> Vec<u8> {
    let value = |tag: u8, content: &[u8]| {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], &length[..], content].concat()
    };
    let key = value(0x30, &[value(0x02, &[&[0], &vec![0xa5; bytes][..]].concat()), value(0x02, &[1, 0, 1])].concat());
    let algorithm = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    value(0x30, &[&algorithm[..], &value(0x03, &[&[0], &key[..]].concat())].concat())
}
