//! The CPU time of one connection and of one record.
//!
//! `cargo bench --bench micro`; with `DOORWARD_BENCH_SMOKE=1` every benchmark runs only briefly, as a check.

// Makes Clippy treat this as test code, which may use unwrap(): a benchmark that cannot measure fails by panicking.
#![cfg(test)]

use std::hint::black_box;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use doorward::authorize::{Policy, decide};
use doorward::client_hello;
use doorward::config::checked::{Allow, ClientAuthMode, DenyList, Selector};
use doorward::model::identity::{Identity, Serial, Sha256, Twins};
use doorward::model::names::{Name, ServerName, ServerNamePattern};
use doorward::proxy_protocol;
use doorward::route::RouteTable;
use doorward::tls::ja4::Ja4;
use doorward::tls::record::{Keys, Opened, PLAINTEXT_MAX, Session};
use rcgen::{CertificateParams, KeyPair};
use rustls::client::ClientConnection;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{Acceptor, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{CipherSuite, ClientConfig, RootCertStore, ServerConfig};

fn main() {
    let mut criterion = Criterion::default();
    if std::env::var_os("DOORWARD_BENCH_SMOKE").is_some_and(|value| value == "1") {
        let (warm_up, measurement) = (Duration::from_millis(20), Duration::from_millis(60));
        criterion = criterion.sample_size(10).warm_up_time(warm_up).measurement_time(measurement).without_plots();
    }
    let mut criterion = criterion.configure_from_args();
    hello(&mut criterion);
    route(&mut criterion);
    policy(&mut criterion);
    records(&mut criterion);
    proxy_header(&mut criterion);
    criterion.final_summary();
}

/// Configurations of a rustls client and server with one suite.
fn configs(suite: CipherSuite) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let provider = aws_lc_rs::default_provider();
    let cipher_suites = provider.cipher_suites.iter().copied().filter(|one| one.suite() == suite).collect();
    let provider = Arc::new(CryptoProvider { cipher_suites, ..provider });
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["nas.home.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    server.enable_secret_extraction = true;
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

fn client(config: Arc<ClientConfig>) -> ClientConnection {
    let mut client = ClientConnection::new(config, "nas.home.example".try_into().unwrap()).unwrap();
    client.set_buffer_limit(None);
    client
}

fn drain(client: &mut ClientConnection, wire: &mut Vec<u8>) {
    while client.wants_write() {
        client.write_tls(wire).unwrap();
    }
}

/// Completes a handshake in memory.
fn established(suite: CipherSuite) -> (Session, ClientConnection) {
    let (server, config) = configs(suite);
    let mut server = UnbufferedServerConnection::new(server).unwrap();
    let mut client = client(config);
    let (mut to_server, mut to_client, mut open) = (Vec::new(), Vec::new(), false);
    while !open || client.is_handshaking() {
        drain(&mut client, &mut to_server);
        loop {
            let UnbufferedStatus { discard, state } = server.process_tls_records(&mut to_server);
            let mut blocked = false;
            match state.unwrap() {
                ConnectionState::EncodeTlsData(mut data) => {
                    let start = to_client.len();
                    to_client.resize(start + PLAINTEXT_MAX, 0);
                    let written = data.encode(&mut to_client[start..]).unwrap();
                    to_client.truncate(start + written);
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::BlockedHandshake => blocked = true,
                ConnectionState::WriteTraffic(_) => (open, blocked) = (true, true),
                other => panic!("{other:?}"),
            }
            to_server.drain(..discard);
            if blocked {
                break;
            }
        }
        let mut rest = io::Cursor::new(std::mem::take(&mut to_client));
        while rest.position() < u64::try_from(rest.get_ref().len()).unwrap() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    let (secrets, schedule) = server.dangerous_into_kernel_connection().unwrap();
    (Session::new(Keys::new(secrets, schedule)).unwrap(), client)
}

/// A ClientHello as rustls sends it, including the X25519MLKEM768 share.
fn hello(criterion: &mut Criterion) {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut bytes = Vec::new();
    drain(&mut client(Arc::new(config)), &mut bytes);
    assert_eq!(client_hello::progress(&bytes), client_hello::Progress::Complete(bytes.len()));

    let mut group = criterion.benchmark_group("client_hello");
    group.bench_function("progress", |bencher| bencher.iter(|| client_hello::progress(black_box(&bytes))));
    group.bench_function("ja4", |bencher| bencher.iter(|| Ja4::of(black_box(&bytes)).unwrap()));
    group.bench_function("progress and parse", |bencher| {
        bencher.iter(|| {
            let client_hello::Progress::Complete(length) = client_hello::progress(black_box(&bytes)) else {
                panic!("incomplete");
            };
            let mut acceptor = Acceptor::default();
            let mut rest = &bytes[..length];
            while !rest.is_empty() {
                acceptor.read_tls(&mut rest).unwrap();
            }
            let accepted = acceptor.accept().ok().flatten().unwrap();
            accepted.client_hello().server_name().map(ServerName::from_client_hello).unwrap()
        });
    });
    group.finish();
}

fn route(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("RouteTable::find");
    for count in [10, 1_000, 100_000] {
        let mut table = RouteTable::default();
        for index in 0..count {
            let text = if index % 2 == 0 { format!("r{index}.home.example") } else { format!("*.r{index}.example") };
            table.insert(ServerNamePattern::parse(&text).unwrap(), Arc::new(index));
        }
        let name = |text: String| ServerName::from_client_hello(&text);
        for (what, name, leads) in [
            ("exact", name(format!("r{}.home.example", count - 2)), true),
            ("wildcard", name(format!("a.r{}.example", count - 1)), true),
            ("unknown", name("nobody.home.example".to_owned()), false),
        ] {
            assert_eq!(table.find(Some(&name)).is_ok(), leads);
            let id = BenchmarkId::new(what, count);
            group.bench_function(id, |bencher| bencher.iter(|| table.find(Some(black_box(&name))).is_ok()));
        }
    }
    group.finish();
}

fn policy(criterion: &mut Criterion) {
    let identity = Identity {
        verified: true,
        anchored: true,
        of_other_authority: false,
        emails: vec!["bob@home.example".to_owned()],
        uris: Vec::new(),
        dns_names: vec!["bob-laptop".to_owned()],
        ips: Vec::new(),
        common_name: Some("Bob".to_owned()),
        organizational_units: vec!["family".to_owned()],
        name_constrained: false,
        guest_pass: None,
        origin: None,
        fingerprint: Sha256([1; 32]),
        unsupported_key: None,
        spki: Sha256([2; 32]),
        serial: Serial::from_be_bytes(&[3]),
        issuer: "CN=home".to_owned(),
        not_before: 0,
        not_after: i64::MAX,
        twins: Twins::known(Vec::new()),
    };
    let any = Allow { any: true, ..Allow::default() };
    let names = |count| Allow {
        selectors: (1..count)
            .map(|index| Selector::AnyName(format!("device-{index}")))
            .chain([Selector::Email("bob@home.example".to_owned())])
            .collect(),
        ..Allow::default()
    };
    let mut group = criterion.benchmark_group("authorize::decide");
    for (what, allow) in [("any", any), ("the last of 5", names(5)), ("the last of 100", names(100))] {
        let route = Name::parse("nas").expect("a name");
        let policy = Policy { route, mode: ClientAuthMode::RequireAndVerify, allow, deny: DenyList::default() };
        assert_eq!(decide(Some(&identity), &policy), Ok(()));
        group.bench_function(what, |bencher| bencher.iter(|| decide(Some(black_box(&identity)), &policy).is_ok()));
    }
    group.finish();
}

/// Records of 16 KiB.
fn records(criterion: &mut Criterion) {
    let suites = [
        ("TLS 1.3 AES-128-GCM", CipherSuite::TLS13_AES_128_GCM_SHA256),
        ("TLS 1.3 AES-256-GCM", CipherSuite::TLS13_AES_256_GCM_SHA384),
        ("TLS 1.3 ChaCha20-Poly1305", CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
        ("TLS 1.2 AES-128-GCM", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ];
    let mut group = criterion.benchmark_group("Session::seal_data");
    group.throughput(Throughput::Bytes(1 << 14));
    for (name, suite) in suites {
        let (mut session, _) = established(suite);
        let mut record = vec![7; session.prefix_length() + PLAINTEXT_MAX + session.suffix_length()];
        // In place and repeatedly: the sealed bytes are the payload of the next record.
        group.bench_function(name, |bencher| bencher.iter(|| session.seal_data(black_box(&mut record)).unwrap()));
    }
    group.finish();

    let mut group = criterion.benchmark_group("Session::open");
    group.throughput(Throughput::Bytes(1 << 14));
    let payload = vec![7; PLAINTEXT_MAX];
    for (name, suite) in suites {
        let (mut session, mut client) = established(suite);
        // A record can be opened once, so each is sealed before, outside of the measurement.
        let seal = || {
            let mut wire = Vec::with_capacity(PLAINTEXT_MAX + 64);
            client.writer().write_all(&payload).unwrap();
            drain(&mut client, &mut wire);
            wire
        };
        let mut seal = seal;
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                &mut seal,
                |wire| {
                    let opened = session.open(wire).unwrap();
                    assert!(matches!(opened, Opened::Data { .. }));
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn proxy_header(criterion: &mut Criterion) {
    let (source, destination) = ("198.51.100.7:50000".parse().unwrap(), "192.0.2.1:443".parse().unwrap());
    let mut group = criterion.benchmark_group("proxy_protocol::parse");
    for (name, header) in [
        ("version 1", proxy_protocol::v1(source, destination)),
        ("version 2", proxy_protocol::v2(source, destination, None)),
        ("none", b"\x16\x03\x01\x02\x00\x01".to_vec()),
    ] {
        group.bench_function(name, |bencher| bencher.iter(|| proxy_protocol::parse(black_box(&header))));
    }
    group.finish();
}
