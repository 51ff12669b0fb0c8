//! Which connections use the kernel path, and that no byte is lost at the hand-over to it.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use doorward::model::rejection::Alert;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CipherSuite, ClientConfig, RootCertStore};

use crate::client::{Client, End, VERSIONS, client, connect};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Certified, TestPki};
use crate::common::process::run;
use crate::home::House;

/// Whether the kernel offers TLS. In the machines of tests/vm/run.sh it must.
fn kernel_has_tls() -> bool {
    let ulps = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp").unwrap();
    let has = ulps.split_whitespace().any(|ulp| ulp == "tls");
    assert!(has || std::env::var_os("GATE_REQUIRE_KTLS").is_none(), "this kernel has no TLS: {ulps}");
    has
}

/// Whether the keys of a connection can be changed: Linux 6.14 and later.
fn kernel_changes_keys() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-', '+']).map_while(|number| number.trim().parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(14))
}

/// The path that connections take by default.
pub(crate) fn path() -> &'static str {
    if kernel_has_tls() { "kernel" } else { "copy" }
}

/// How many sockets have used kernel TLS: `TlsTxSw` and `TlsRxSw` (Documentation/networking/tls.rst).
fn sockets_served() -> [u64; 2] {
    let table = fs::read_to_string("/proc/net/tls_stat").unwrap_or_default();
    ["TlsTxSw", "TlsRxSw"].map(|name| {
        let line = table.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        line.unwrap_or_default()
    })
}

/// A gate with one route to `backend`.
pub(crate) fn open(pki: &TestPki, kernel_tls: &str, backend: &Backend) -> Gate {
    let house = House::new(pki).route("nas", backend.address());
    Gate::start(&format!("kernel_tls = \"{kernel_tls}\"\n{}", house.config()))
}

/// A client with one cipher suite.
pub(crate) fn only(pki: &TestPki, certified: &Certified, suite: CipherSuite) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.path("servers.pem")).unwrap()).unwrap();
    let provider = aws_lc_rs::default_provider();
    let cipher_suites = provider.cipher_suites.iter().copied().filter(|one| one.suite() == suite).collect();
    let mut config = ClientConfig::builder_with_provider(Arc::new(CryptoProvider { cipher_suites, ..provider }))
        .with_protocol_versions(if is_tls13(suite) { &[VERSIONS[0]] } else { &[VERSIONS[1]] })
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(certified.chain(), certified.key())
        .unwrap();
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

const SUITES: [CipherSuite; 6] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

fn is_tls13(suite: CipherSuite) -> bool {
    SUITES[..3].contains(&suite)
}

/// Varying bytes.
fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Sends and receives at the same time until everything is echoed and both sides have ended.
fn echo(client: &Client, payload: &[u8]) {
    thread::scope(|scope| {
        scope.spawn(|| {
            for part in payload.chunks(100_000) {
                client.send(part).unwrap();
            }
            client.close_notify();
        });
        let (received, end) = client.read_to_end();
        assert_eq!(end, End::Orderly);
        assert!(received == payload, "{} of {} bytes, or other bytes", received.len(), payload.len());
    });
}

#[test]
fn every_suite_carries_payload_on_either_path() {
    let pki = TestPki::new();
    let alice = pki.client("alice");
    let backend = Backend::echo();
    let payload = payload(1 << 20);
    for (kernel_tls, path) in [("auto", path()), ("off", "copy")] {
        let gate = open(&pki, kernel_tls, &backend);
        let before = sockets_served();
        for suite in SUITES {
            let client = Client::handshaken(gate.address(), &only(&pki, &alice, suite), "nas.home.example").unwrap();
            echo(&client, &payload);
        }
        for line in gate.wait_closed("nas", SUITES.len()) {
            assert_eq!(line["path"], path, "{line}");
            assert_eq!(line["reason"], "client_closed", "{line}");
            assert_eq!(
                (line["bytes_to_backend"].as_u64(), line["bytes_to_client"].as_u64()),
                (Some(1 << 20), Some(1 << 20))
            );
        }
        for other in ["kernel", "copy", "raw"] {
            let count = if other == path { SUITES.len() as f64 } else { 0.0 };
            gate.wait_metric("doorward_relays_total", &[("route", "nas"), ("path", other)], count);
        }
        if path == "kernel" {
            // Other tests increase the kernel's counters too.
            let more = sockets_served().into_iter().zip(before).map(|(now, before)| now - before).min().unwrap();
            assert!(more >= SUITES.len() as u64, "the kernel has served {more} sockets more");
        }
    }
}

#[test]
fn payload_sent_with_the_handshake_is_relayed_once() {
    let pki = TestPki::new();
    let alice = pki.client("alice");
    let backend = Backend::echo();
    let gate = open(&pki, "auto", &backend);
    for suite in SUITES {
        // In one segment with the last flight, or in several, the last of which arrive after the relay has started.
        for length in [5, 40_000, 300_000] {
            let payload = payload(length);
            let client = Client::on(connect(gate.address()), &only(&pki, &alice, suite), "nas.home.example");
            client.send(&payload).unwrap();
            client.handshake().unwrap();
            let mut received = vec![0; length];
            client.read_exact(&mut received).unwrap();
            assert!(received == payload, "{suite:?}, {length} bytes");
            client.ping().unwrap();
            client.close_notify();
            assert_eq!(client.end(), End::Orderly);
        }
    }
    for line in gate.wait_closed("nas", 3 * SUITES.len()) {
        assert_eq!(line["path"], path(), "{line}");
    }
}

#[test]
fn rejected_client_gets_its_alert_on_a_ktls_socket() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = open(&pki, "auto", &backend);
    for suite in SUITES {
        let mut config = ClientConfig::clone(&only(&pki, &pki.client("alice"), suite));
        config.client_auth_cert_resolver = pki.client_config(None, &VERSIONS).client_auth_cert_resolver;
        let refused = Client::admitted(gate.address(), &Arc::new(config), "nas.home.example");
        assert_eq!(refused.map(drop), Err(End::Alert(Alert::CERTIFICATE_REQUIRED)), "{suite:?}");
    }
    gate.wait_rejected("certificate", "required", SUITES.len());
    assert_eq!(backend.accepted(), 0);
}

/// Even where the kernel can: it was measured to cost more (src/manual/cost.md).
#[test]
fn default_encrypts_in_the_gate() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = Gate::start(&House::new(&pki).route("nas", backend.address()).config());
    let client =
        Client::admitted(gate.address(), &client(&pki, Some(&pki.client("alice"))), "nas.home.example").unwrap();
    client.close_notify();
    assert_eq!(client.end(), End::Orderly);
    assert_eq!(gate.wait_closed("nas", 1)[0]["path"], "copy");
}

#[test]
fn kernel_tls_require_starts_or_explains_its_failure() {
    let pki = TestPki::new();
    let alice = pki.client("alice");
    let backend = Backend::echo();
    if kernel_has_tls() {
        let gate = open(&pki, "require", &backend);
        let client = Client::admitted(gate.address(), &client(&pki, Some(&alice)), "nas.home.example").unwrap();
        client.close_notify();
        assert_eq!(client.end(), End::Orderly);
        assert_eq!(gate.wait_closed("nas", 1)[0]["path"], "kernel");
        return;
    }
    let file = pki.path("doorward.toml");
    let house = House::new(&pki).route("nas", backend.address());
    fs::write(&file, format!("kernel_tls = \"require\"\n{}", house.config())).unwrap();
    let refused = run(Command::new(env!("CARGO_BIN_EXE_doorward")).args(["run", "--config"]).arg(&file)).failure();
    for part in [
        "kernel_tls = \"require\"",
        "No such file or directory",
        "modprobe tls",
        "/etc/modules-load.d",
        "remove kernel_tls",
    ] {
        assert!(refused.stderr.contains(part), "{part}: {refused}");
    }
}

/// The heap and stacks of the gate in bytes (proc(5), `Anonymous` of `smaps_rollup`). Without the program file, whose pages
/// count as the process's own where files are in memory, as in the guests.
fn anonymous_memory(gate: &Gate) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", gate.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn idle_connection_takes_a_few_kilobytes() {
    // Five batches stay below `limits.connections_per_source`.
    const BATCH: usize = 48;
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = open(&pki, "auto", &backend);
    let config = only(&pki, &pki.client("alice"), SUITES[0]);
    let mut held: Vec<Client> = Vec::new();
    let mut grown_to = || {
        held.extend((0..BATCH).map(|_| {
            let client = Client::handshaken(gate.address(), &config, "nas.home.example").unwrap();
            client.ping().unwrap();
            client
        }));
        gate.wait_metric("doorward_relays_total", &[("path", path())], held.len() as f64);
        anonymous_memory(&gate)
    };
    // The first batch pays for one-time allocations, and a new thread or a growing arena affects one batch, so the median of
    // several batches is used.
    let sizes: [u64; 5] = std::array::from_fn(|_| grown_to());
    let mut growth = sizes.windows(2).map(|pair| pair[1].saturating_sub(pair[0]) / BATCH as u64).collect::<Vec<_>>();
    growth.sort_unstable();
    let each = growth[growth.len() / 2];
    let most = match path() {
        // No record layer in user space; the key schedule is kept where the kernel can change keys.
        "kernel" if kernel_changes_keys() => 6 << 10,
        "kernel" => 4 << 10,
        _ => 8 << 10,
    };
    println!("{each} bytes for each idle connection, on the path {}; batches: {growth:?}", path());
    assert!(each <= most, "{growth:?} bytes each");
    for client in &held {
        client.close_notify();
        assert_eq!(client.end(), End::Orderly);
    }
}
