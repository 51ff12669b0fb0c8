//! The metrics pass the checks of Prometheus' own tool, and clients cannot add series to them.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rcgen::{CertificateParams, KeyPair};

use crate::client::{Client, Shown, TLS13, client, connect, connect_from, reset, showing, signing_key};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki};
use crate::common::process::{run_with_input, tool};
use crate::hello::Hello;
use crate::home::House;
use crate::http::get;

const NAS: &str = "nas.home.example";

/// How many different values of each kind are sent.
const DIFFERENT: usize = 10_000;

/// How many threads send them.
const AT_A_TIME: usize = 4;

/// Some traffic of each kind, so that no series is without a value.
fn traffic(gate: &Gate, pki: &TestPki) {
    let alice = client(pki, Some(&pki.client("alice-phone")));
    for _ in 0..2 {
        let admitted = Client::admitted(gate.address(), &alice, NAS).unwrap();
        admitted.close_notify();
        admitted.end();
    }
    Client::admitted(gate.address(), &client(pki, None), NAS).map(drop).unwrap_err();
    Client::admitted(gate.address(), &alice, "other.home.example").map(drop).unwrap_err();
    connect(gate.address()).write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    gate.wait_rejected("client_hello", "not_tls", 1);
}

#[test]
fn promtool_accepts_the_metrics() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki).route("nas", backend.address()).passthrough("mail", backend.address()).open();
    traffic(&gate, &pki);
    gate.settled();
    let metrics = get(&gate, "/metrics").body;
    let verdict =
        run_with_input(tool("promtool", "prometheus").args(["check", "metrics"]), metrics.as_bytes()).success();
    assert_eq!((verdict.text().trim(), verdict.stderr.trim()), ("", ""), "promtool complains");
    // promtool does find mistakes.
    let wrong = "# TYPE doorward_things counter\ndoorward_things 1\n";
    run_with_input(tool("promtool", "prometheus").args(["check", "metrics"]), wrong.as_bytes()).failure();
}

/// Name and labels of every series.
fn series(gate: &Gate) -> BTreeSet<String> {
    let body = get(gate, "/metrics").body;
    let lines = body.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

/// Lets [`AT_A_TIME`] threads do `one` for each number up to [`DIFFERENT`].
fn each(one: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    match next.fetch_add(1, Ordering::Relaxed) {
                        number @ ..DIFFERENT => one(number),
                        _ => return,
                    }
                }
            });
        }
    });
}

/// Of the 16 million addresses of this machine: 127.64.0.1 and on.
fn address(number: usize) -> IpAddr {
    let host = u32::from(Ipv4Addr::new(127, 64, 0, 1)) + u32::try_from(number).unwrap();
    Ipv4Addr::from(host).into()
}

/// Server names, sources and certificates of clients never become labels.
#[test]
fn ten_thousand_names_subjects_and_sources_add_no_series() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let gate = House::new(&pki).route("nas", backend.address()).open();
    traffic(&gate, &pki);
    gate.settled();
    let before = series(&gate);

    // Each with another server name and from another address: refused at once.
    each(|number| {
        let mut stream = connect_from(address(number), gate.address());
        let hello = Hello::tls13(&format!("{number}\"{{}}.stranger-{number}.example")).records();
        let plain = Hello::tls13(&format!("stranger-{number}.example")).records();
        // Every eighth name has characters that would end a label.
        stream.write_all(if number % 8 == 0 { &hello } else { &plain }).unwrap();
        crate::http::read_to_end(&stream);
        reset(stream);
    });
    // Each with another certificate: of the trusted authority but for servers, or of another authority.
    let impostor = Authority::new("Clients of home.example");
    let key = KeyPair::generate().unwrap();
    let signing = signing_key(key.serialize_der().try_into().unwrap());
    each(|number| {
        let mut params: CertificateParams = Certified::for_clients(&format!("stranger-{number}\",reason=\"none"));
        let authority = if number % 2 == 0 { &impostor } else { &pki.clients };
        if number % 2 == 1 {
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        }
        let key = KeyPair::try_from(key.serialize_der()).unwrap();
        let shown = Shown::new(authority.issue_for_key(params, key).chain(), signing.clone());
        let stream = connect_from(address(DIFFERENT + number), gate.address());
        refused(&pki, stream, shown);
    });
    gate.settled();

    let rejected = |reason| gate.metrics().sum("doorward_connections_rejected_total", &[("reason", reason)]);
    let (unknown, malformed) = (rejected("server_name_unknown"), rejected("malformed"));
    assert_eq!(unknown + malformed, 1.0 + DIFFERENT as f64, "unknown {unknown}, malformed {malformed}");
    assert!(unknown > DIFFERENT as f64 / 2.0);
    assert_eq!(rejected("unknown_ca") + rejected("bad_signature"), DIFFERENT as f64 / 2.0);
    assert_eq!(rejected("wrong_purpose"), DIFFERENT as f64 / 2.0);
    let sources: BTreeSet<IpAddr> = gate
        .lines()
        .iter()
        .filter_map(|line| line["source"].as_str()?.parse::<SocketAddr>().ok().map(|source| source.ip()))
        .collect();
    assert!(sources.len() >= 2 * DIFFERENT, "{} sources", sources.len());
    assert_eq!(series(&gate), before);
    assert!(before.len() > 100, "{} series", before.len());
}

fn refused(pki: &TestPki, stream: std::net::TcpStream, shown: std::sync::Arc<Shown>) {
    let config = showing(pki, shown, TLS13);
    let name = rustls::pki_types::ServerName::try_from(NAS).unwrap();
    let connection = rustls::ClientConnection::new(config, name).unwrap();
    let mut tls = rustls::StreamOwned::new(connection, stream);
    // TLS 1.3: the client's handshake succeeds, and it learns of the refusal when it reads.
    let read = std::io::Read::read(&mut tls, &mut [0]);
    assert!(read.is_err(), "let in: {read:?}");
    reset(tls.sock);
}
