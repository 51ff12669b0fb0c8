//! One table over every reason there is for a rejection: each is brought about on a running gate by a real connection, and
//! metric, log line and what the client was told are checked together. A reason without an entry does not compile.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;

use doorward::model::identity::Sha256;
use doorward::model::rejection::Reason;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa};
use rustix::process::Signal;
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use serde_json::Value;

use crate::client::{Client, End, Hello, Shown, TLS13, client, connect, plain_end, refused_plainly, showing};
use crate::common::backend::{Backend, FullBacklog};
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::common::process::own_loopback;
use crate::common::tls_backend;
use crate::home::{House, Watch};

pub(super) const NAME: &str = "nas.home.example";
pub(super) const ANY: &str = "allow = [\"any\"]";

#[test]
fn every_reason_is_provoked() {
    let pki = TestPki::new();
    // Most of the time they wait for each other.
    thread::scope(|scope| {
        for part in Reason::ALL.chunks(Reason::ALL.len().div_ceil(6)) {
            let pki = &pki;
            scope.spawn(move || {
                for &reason in part {
                    eprintln!("{reason}");
                    provoke(reason, pki);
                }
            });
        }
    });
}

/// Brings about a rejection for this reason and checks everything that is told about it.
fn provoke(reason: Reason, pki: &TestPki) {
    let echo = Backend::echo();
    let house = || House::new(pki);
    let open = |house: House<'_>| house.route("nas", echo.address()).open();
    let good = client(pki, Some(&pki.client("alice-phone")));
    let hello = |suites| Hello { version: 0x0303, suites, server_name: NAME }.record();
    match reason {
        Reason::ConnectionLimit => {
            let gate = open(house().limits("connections = 1"));
            let _held = Client::admitted(gate.address(), &good, NAME).unwrap();
            turned_away(&gate, reason, || plain_end(&connect(gate.address())));
        }
        Reason::HandshakeLimit => {
            let gate = open(house().limits("handshakes = 1"));
            // A client that has the gate's flight is in the middle of a handshake, and is evicted for the next.
            let oldest = in_handshake(&gate, &good);
            let mut next = None;
            turned_away(&gate, reason, || {
                next = Some(Client::admitted(gate.address(), &good, NAME).unwrap());
                drained(oldest.tcp())
            });
        }
        Reason::SourceLimit => {
            let gate = open(house().limits("connections_per_source = 1"));
            let _held = Client::admitted(gate.address(), &good, NAME).unwrap();
            turned_away(&gate, reason, || plain_end(&connect(gate.address())));
        }
        Reason::SourceRate => {
            let gate = open(house().limits("connection_rate_per_source = \"1/h\""));
            drop(connect(gate.address()));
            gate.wait_rejected("client_hello", Reason::ClientHelloClosedEarly.label(), 1);
            turned_away(&gate, reason, || plain_end(&connect(gate.address())));
        }
        Reason::SourceDenied => {
            let gate = open(house().listener("deny_sources = [\"127.0.0.0/8\"]"));
            turned_away(&gate, reason, || plain_end(&connect(gate.address())));
        }
        Reason::SourceBanned => {
            let gate = open(house().limits("penalties = \"on\""));
            // Each costs two seconds, which pass meanwhile.
            while !gate.lines().iter().any(|line| line["reason"] == reason.label()) {
                refused_plainly(&connect(gate.address()), b"GET / HTTP/1.1\r\n\r\n");
            }
            gate.settled();
            let line = turned_away(&gate, reason, || plain_end(&connect(gate.address())));
            assert!(line["detail"].as_str().unwrap().ends_with(" s left to wait"), "{line}");
        }
        Reason::ProxyHeaderMissing => {
            let gate = open(house().listener("proxy_protocol_from = [\"127.0.0.1\"]"));
            turned_away(&gate, reason, || refused_plainly(&connect(gate.address()), &hello(&[0x1301])));
        }
        Reason::ProxyHeaderInvalid => {
            let gate = open(house().listener("proxy_protocol_from = [\"127.0.0.1\"]"));
            turned_away(&gate, reason, || {
                refused_plainly(&connect(gate.address()), b"PROXY TCP4 1.2.3.4 1.2.3 1 1\r\n")
            });
        }
        Reason::Draining => {
            let mut gate = open(house());
            // Keeps the gate, and its metrics, alive until everything is checked.
            let held = Client::admitted(gate.address(), &good, NAME).unwrap();
            let half = in_handshake(&gate, &good);
            turned_away(&gate, reason, || {
                gate.signal(Signal::TERM);
                drained(half.tcp())
            });
            held.ping().unwrap();
            drop(held);
            assert!(gate.wait_for_end().success());
        }
        Reason::ClientHelloTimeout => {
            let gate = open(house().timeouts("client_hello = \"1s\""));
            turned_away(&gate, reason, || plain_end(&connect(gate.address())));
        }
        Reason::ClientHelloClosedEarly => {
            let gate = open(house());
            turned_away(&gate, reason, || {
                let mut stream = connect(gate.address());
                stream.write_all(&hello(&[0x1301])[..40]).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                plain_end(&stream)
            });
        }
        Reason::NotTls => {
            let gate = open(house());
            let line =
                turned_away(&gate, reason, || refused_plainly(&connect(gate.address()), b"GET / HTTP/1.1\r\n\r\n"));
            assert_eq!(line["detail"], "http");
        }
        Reason::Malformed => {
            let gate = open(house());
            let mut broken = hello(&[0x1301]);
            // The extensions end beyond the message.
            let length = broken.len();
            broken.truncate(length - 1);
            broken[4] -= 1;
            broken[8] -= 1;
            turned_away(&gate, reason, || refused_plainly(&connect(gate.address()), &broken));
        }
        Reason::TooLarge => {
            let gate = open(house());
            let announced = [22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
            turned_away(&gate, reason, || refused_plainly(&connect(gate.address()), &announced));
        }
        Reason::ServerNameMissing => {
            let gate = open(house());
            let mut nameless = pki.client_config(None, TLS13);
            nameless.enable_sni = false;
            turned_away(&gate, reason, || attempt(&gate, nameless));
        }
        Reason::ServerNameUnknown => {
            let gate = open(house());
            turned_away(&gate, reason, || refusal(Client::admitted(gate.address(), &good, "ssh.home.example")));
        }
        Reason::ProtocolVersion => {
            let gate = open(house());
            let old = Hello { version: 0x0302, suites: &[0xc013, 0x002f], server_name: NAME }.record();
            turned_away(&gate, reason, || refused_plainly(&connect(gate.address()), &old));
        }
        Reason::NoSharedParameters => {
            let gate = open(house());
            // TLS_RSA_WITH_AES_128_CBC_SHA, TLS_RSA_WITH_NULL_SHA
            turned_away(&gate, reason, || refused_plainly(&connect(gate.address()), &hello(&[0x002f, 0x0002])));
        }
        Reason::NoApplicationProtocol => {
            let keys = format!("{ANY}\napplication_protocols = [\"http/1.1\"]");
            let gate = house().route_with("nas", &[&echo.address().to_string()], &keys).open();
            let mut other = pki.client_config(None, TLS13);
            other.alpn_protocols = vec![b"imap".to_vec()];
            turned_away(&gate, reason, || attempt(&gate, other));
        }
        Reason::Misbehaved => {
            let gate = open(house());
            let config = Arc::new(pki.client_config(Some(&pki.client("alice-phone")), &[&rustls::version::TLS12]));
            turned_away(&gate, reason, || {
                let client = in_handshake(&gate, &config);
                // Finished, in the clear, where a Certificate should be.
                client
                    .tcp()
                    .write_all(&[22, 3, 3, 0, 16, 20, 0, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
                    .unwrap();
                client.receive_some().unwrap_err()
            });
        }
        Reason::PeerAlert => {
            let gate = open(house());
            let elsewhere = TestPki::new();
            let line = turned_away(&gate, reason, || {
                let stranger = Client::on(connect(gate.address()), &client(&elsewhere, None), NAME);
                assert!(matches!(stranger.handshake(), Err(End::Tls(_))));
                drained(stranger.tcp())
            });
            assert!(line["detail"].as_str().unwrap().contains("received fatal alert"), "{line}");
        }
        Reason::HandshakeTimeout => {
            let gate = open(house().timeouts("handshake = \"2s\""));
            turned_away(&gate, reason, || drained(in_handshake(&gate, &good).tcp()));
        }
        Reason::HandshakeClosedEarly => {
            let gate = open(house());
            turned_away(&gate, reason, || {
                let client = in_handshake(&gate, &good);
                client.shut_tcp();
                drained(client.tcp())
            });
        }
        Reason::CertificateRequired => {
            let gate = open(house());
            turned_away(&gate, reason, || attempt(&gate, pki.client_config(None, TLS13)));
        }
        Reason::UnknownCa => {
            let stranger = Authority::new("Another house").issue(Certified::for_clients("alice-phone"));
            let gate = open(house());
            turned_away(&gate, reason, || {
                refusal(Client::admitted(gate.address(), &client(pki, Some(&stranger)), NAME))
            });
        }
        Reason::Expired => odd(pki, reason, |params| params.not_after = days_from_now(0) - time::Duration::MINUTE),
        Reason::NotYetValid => odd(pki, reason, |params| params.not_before = days_from_now(1)),
        Reason::WrongPurpose => {
            odd(pki, reason, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
        }
        Reason::CertificateInvalid => {
            odd(pki, reason, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        }
        Reason::Revoked => with_list(pki, reason, &pki.clients, 7, 0x4a01),
        Reason::RevocationUnknown => with_list(pki, reason, &Authority::new("Another house"), 7, 0x4a02),
        Reason::RevocationListExpired => with_list(pki, reason, &pki.clients, -1, 0x4a02),
        Reason::Denied => {
            let lost = pki.client("alice-phone");
            let digest = Sha256::of(&lost.chain()[0]);
            let gate = open(house().client_auth(&format!("deny = [\"sha256:{digest}\"]")));
            turned_away(&gate, reason, || refusal(Client::admitted(gate.address(), &client(pki, Some(&lost)), NAME)));
        }
        Reason::UnsupportedKey => {
            let gate = open(house());
            let small = pki.clients.issue_for_small_rsa(Certified::for_clients("alice-phone"));
            let other = crate::client::signing_key(small.key());
            let shown = Shown::new(small.chain(), other) as Arc<dyn ResolvesClientCert>;
            turned_away(&gate, reason, || refusal(Client::admitted(gate.address(), &showing(pki, shown, TLS13), NAME)));
        }
        Reason::BadSignature => {
            let gate = open(house());
            let other = crate::client::signing_key(pki.client("mallory").key());
            let stolen = Shown::new(pki.client("alice-phone").chain(), other) as Arc<dyn ResolvesClientCert>;
            turned_away(&gate, reason, || {
                refusal(Client::admitted(gate.address(), &showing(pki, stolen, TLS13), NAME))
            });
        }
        Reason::IdentityNotAllowed => {
            let gate = house().route_with("nas", &[&echo.address().to_string()], "allow = [\"bob\"]").open();
            turned_away(&gate, reason, || refusal(Client::admitted(gate.address(), &good, NAME)));
        }
        Reason::BackendRefused => {
            // No program listens on the discard port of an address that no other test uses.
            unreachable(pki, reason, &format!("{}:9", own_loopback()), "");
        }
        Reason::BackendTimeout => {
            let full = FullBacklog::new();
            unreachable(pki, reason, &full.address.to_string(), "dial = \"500ms\"");
        }
        Reason::BackendUnreachable => unreachable(pki, reason, "unix:/nowhere/service.sock", ""),
        // RFC 6761 section 6.4: no such name exists.
        Reason::BackendUnresolved => unreachable(pki, reason, "no-such-host.invalid:22", "dial = \"20s\""),
        Reason::BackendWakeTimeout => {
            // The packets go where no machine is (RFC 5737).
            let keys = "allow = [\"any\"]\n\
                        wake = { mac = \"3e:ec:ef:12:34:56\", broadcast = \"192.0.2.255:9\", timeout = \"1s\" }";
            let dark = "no-such-host.invalid:22";
            never_reached(pki, reason, dark, House::new(pki).route_with("nas", &[dark], keys));
        }
        Reason::BackendTls => {
            let (certified, _) = tls_backend::certificate(pki, "of-a-reason.pem");
            let inside = tls_backend::echo(tls_backend::server(&certified));
            let keys = format!("{ANY}\nbackend_tls = {{ trust = \"sha256:{}\" }}", "00".repeat(32));
            let gate = house().route_with("nas", &[&inside.address().to_string()], &keys).open();
            let line = turned_away(&gate, reason, || refusal(Client::admitted(gate.address(), &good, NAME)));
            let seen = format!("sha256:{}", Sha256::of(&certified.chain()[0]));
            assert!(line["detail"].as_str().unwrap().contains(&seen), "{line}");
        }
        Reason::BackendUnhealthy => {
            let wrong = Backend::http("no shell");
            let keys = format!(
                "{ANY}\nhealth = {{ every = \"100ms\", fall = 1, send = \"x\\r\\n\\r\\n\", expect = \"SSH-\" }}"
            );
            let gate = house().route_with("nas", &[&wrong.address().to_string()], &keys).open();
            gate.wait_metric("doorward_backend_healthy", &[("route", "nas")], 0.0);
            let line = turned_away(&gate, reason, || refusal(Client::admitted(gate.address(), &good, NAME)));
            assert!(
                line["detail"].as_str().unwrap().contains("answered \"HTTP/1.1 200 OK\", expected \"SSH-\""),
                "{line}"
            );
        }
        Reason::BackendFull => {
            let keys = format!("{ANY}\nconnections_per_backend = 1");
            let gate = house().route_with("nas", &[&echo.address().to_string()], &keys).open();
            let _held = Client::admitted(gate.address(), &good, NAME).unwrap();
            turned_away(&gate, reason, || refusal(Client::admitted(gate.address(), &good, NAME)));
            assert_eq!(echo.accepted(), 1);
        }
        Reason::Internal => {
            // No client can cause this: the gate's own code fails. The unit test in src/connection/log/tests.rs panics in
            // the middle of a connection; here it is only checked that the test exists.
            assert!(
                include_str!("../../src/connection/log/tests.rs")
                    .contains("fn connection_without_a_verdict_is_rejected_as_internal()")
            );
        }
    }
    if !matches!(
        reason,
        Reason::ConnectionLimit
            | Reason::HandshakeLimit
            | Reason::SourceLimit
            | Reason::SourceRate
            | Reason::Draining
            | Reason::BackendFull
    ) {
        assert_eq!(echo.accepted(), 0, "{reason}: it reached the backend");
    }
}

/// Watches `attempt` be turned away: by the alert that belongs to the reason, or without a word if none does.
#[track_caller]
fn turned_away(gate: &Gate, reason: Reason, attempt: impl FnOnce() -> End) -> Value {
    let watch = Watch::begin(gate);
    let end = attempt();
    let line = watch.rejected(reason, &end);
    match reason.alert() {
        Some(alert) => assert_eq!(end, End::Alert(alert), "{line}"),
        None => assert!(matches!(end, End::Truncated | End::Reset), "{end:?} {line}"),
    }
    assert!(line["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{line}");
    line
}

/// A client that has the gate's flight and has not answered it.
fn in_handshake(gate: &Gate, config: &Arc<ClientConfig>) -> Client {
    let client = Client::on(connect(gate.address()), config, NAME);
    client.flush().unwrap();
    while !client.tls(|connection| connection.wants_write()) {
        client.receive_some().unwrap();
    }
    client
}

/// How the TCP stream ends, whatever is left in it.
fn drained(mut stream: &TcpStream) -> End {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return End::Truncated,
            Ok(_) => {}
            Err(error) => return error.into(),
        }
    }
}

#[track_caller]
pub(super) fn refusal(outcome: Result<Client, End>) -> End {
    outcome.map(|_| ()).expect_err("it should have been refused")
}

fn attempt(gate: &Gate, config: ClientConfig) -> End {
    refusal(Client::admitted(gate.address(), &Arc::new(config), NAME))
}

/// A certificate of the right authority with something odd about it.
fn odd(pki: &TestPki, reason: Reason, change: impl FnOnce(&mut CertificateParams)) {
    let backend = Backend::echo();
    let gate = House::new(pki).route("nas", backend.address()).open();
    let mut params = Certified::for_clients("alice-phone");
    change(&mut params);
    let config = client(pki, Some(&pki.clients.issue(params)));
    turned_away(&gate, reason, || refusal(Client::admitted(gate.address(), &config, NAME)));
    assert_eq!(backend.accepted(), 0, "{reason}: it reached the backend");
}

/// A revocation list of this authority, which names the serial number 4a01, and a certificate of our own authority.
fn with_list(pki: &TestPki, reason: Reason, authority: &Authority, next_update: i64, serial: u64) {
    let backend = Backend::echo();
    let list = authority.revocation_list(&[0x4a01_u64.into()], days_from_now(-2), days_from_now(next_update));
    let list = pki.write(&format!("{}.crl", reason.label()), list);
    let gate =
        House::new(pki).client_auth(&format!("revocation_lists = [{list:?}]")).route("nas", backend.address()).open();
    let mut params = Certified::for_clients("alice-phone");
    params.serial_number = Some(serial.into());
    let config = client(pki, Some(&pki.clients.issue(params)));
    turned_away(&gate, reason, || refusal(Client::admitted(gate.address(), &config, NAME)));
    assert_eq!(backend.accepted(), 0, "{reason}: it reached the backend");
}

/// A backend that cannot be reached, for a client that may.
fn unreachable(pki: &TestPki, reason: Reason, backend: &str, timeouts: &str) {
    never_reached(pki, reason, backend, House::new(pki).timeouts(timeouts).route("nas", backend));
}

/// The same, in this house.
fn never_reached(pki: &TestPki, reason: Reason, backend: &str, house: House<'_>) {
    let gate = house.open();
    let config = client(pki, Some(&pki.client("alice-phone")));
    let line = turned_away(&gate, reason, || refusal(Client::admitted(gate.address(), &config, NAME)));
    assert!(line["detail"].as_str().unwrap().starts_with(backend), "{line}");
    assert_eq!(line["certificate"]["name"], "alice-phone", "{line}");
    gate.wait_metric("doorward_backend_up", &[("route", "nas"), ("backend", backend)], 0.0);
}
