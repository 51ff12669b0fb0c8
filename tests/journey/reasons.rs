//! One table over every reason there is for a rejection, and one over every way a connection that was let in can end:
//! each is brought about on a running gate by a real connection, and metric, log line and what the client was told are
//! checked together. A reason without an entry does not compile.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use doorward::control::ask::ask;
use doorward::control::{Answer, Request};
use doorward::model::close::CloseReason;
use doorward::model::identity::Sha256;
use doorward::model::rejection::{Alert, Reason};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa};
use rustix::process::Signal;
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use serde_json::Value;
use time::OffsetDateTime;

use crate::backends::once;
use crate::client::{Client, End, Hello, Shown, TLS13, client, connect, plain_end, refused_plainly, reset, showing};
use crate::common::backend::{Backend, FullBacklog};
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::common::process::own_loopback;
use crate::home::{House, Watch};

const NAME: &str = "nas.home.example";
const ANY: &str = "allow = [\"any\"]";

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
            // Whoever has the gate's flight is in the middle of a handshake, and makes room for the next.
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
            let gate = open(house().timeouts("client_hello = \"300ms\""));
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
            let gate = open(house().timeouts("handshake = \"300ms\""));
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
            // Nobody listens on the discard port of an address that no other test has.
            unreachable(pki, reason, &format!("{}:9", own_loopback()), "");
        }
        Reason::BackendTimeout => {
            let full = FullBacklog::new();
            unreachable(pki, reason, &full.address.to_string(), "dial = \"500ms\"");
        }
        Reason::BackendUnreachable => unreachable(pki, reason, "unix:/nowhere/service.sock", ""),
        // RFC 6761 section 6.4: nobody ever has such a name.
        Reason::BackendUnresolved => unreachable(pki, reason, "no-such-host.invalid:22", "dial = \"20s\""),
        Reason::Internal => {
            // Nothing that anybody sends brings this about: it is what the gate says if its own code fails. A panic in
            // the middle of a connection is what the unit test of src/connection/log.rs takes for that; here it is only made sure that the test is there.
            assert!(
                include_str!("../../src/connection/log.rs")
                    .contains("fn a_connection_that_nobody_decides_about_is_rejected_as_internal()")
            );
        }
    }
    if !matches!(
        reason,
        Reason::ConnectionLimit | Reason::HandshakeLimit | Reason::SourceLimit | Reason::SourceRate | Reason::Draining
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
fn refusal(outcome: Result<Client, End>) -> End {
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
    let gate = House::new(pki).timeouts(timeouts).route("nas", backend).open();
    let config = client(pki, Some(&pki.client("alice-phone")));
    let line = turned_away(&gate, reason, || refusal(Client::admitted(gate.address(), &config, NAME)));
    assert!(line["detail"].as_str().unwrap().starts_with(backend), "{line}");
    assert_eq!(line["certificate"]["name"], "alice-phone", "{line}");
    gate.wait_metric("doorward_backend_up", &[("route", "nas"), ("backend", backend)], 0.0);
}

#[test]
fn every_way_to_end_is_brought_about() {
    let pki = TestPki::new();
    for &reason in CloseReason::ALL {
        eprintln!("{reason:?}");
        end(reason, &pki);
    }
}

/// Lets a connection end for this reason and checks everything that is told about it.
fn end(reason: CloseReason, pki: &TestPki) {
    let echo = Backend::echo();
    let good = client(pki, Some(&pki.client("alice-phone")));
    let house = || House::new(pki);
    let open = |house: House<'_>| house.route("nas", echo.address()).open();
    let ended = |gate: &Gate, expected: &End, finish: &dyn Fn(Client) -> End| {
        let watch = Watch::begin(gate);
        let seen = finish(Client::admitted(gate.address(), &good, NAME).unwrap());
        assert_eq!(seen, *expected, "{reason:?}");
        let line = watch.closed(reason);
        assert_eq!((&line["route"], &line["path"]), (&"nas".into(), &"copy".into()), "{line}");
    };
    match reason {
        CloseReason::ClientClosed => ended(&open(house()), &End::Orderly, &|client| {
            client.close_notify();
            client.end()
        }),
        CloseReason::BackendClosed => {
            let backend = once(|mut stream| {
                let mut request = [0; 4];
                stream.read_exact(&mut request).unwrap();
                stream.write_all(&request).unwrap();
            });
            let gate = house().route("nas", backend).open();
            ended(&gate, &End::Orderly, &|client| client.end());
        }
        CloseReason::ClientReset => ended(&open(house()), &End::Reset, &|client| {
            client.reset();
            End::Reset
        }),
        CloseReason::BackendReset => {
            let (told, tell) = mpsc::channel();
            let backend = once(move |mut stream| {
                let mut request = [0; 4];
                stream.read_exact(&mut request).unwrap();
                stream.write_all(&request).unwrap();
                tell.recv().unwrap();
                reset(stream);
            });
            let gate = house().route("nas", backend).open();
            // Not in order: nobody may take what has come for the whole.
            ended(&gate, &End::Truncated, &|client| {
                told.send(()).unwrap();
                client.end()
            });
        }
        CloseReason::IdleTimeout => {
            ended(&open(house().timeouts("idle = \"400ms\"")), &End::Orderly, &|client| client.end());
        }
        CloseReason::LifetimeLimit => {
            ended(&open(house().timeouts("lifetime = \"1s\"")), &End::Orderly, &|client| {
                loop {
                    if let Err(end) = client.ping() {
                        return end;
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            });
        }
        CloseReason::HalfCloseTimeout => {
            let backend = Backend::serve("127.0.0.1:0", |mut stream, state| {
                // It answers, and never ends.
                state.each_read(stream, |bytes| stream.write_all(bytes).is_ok());
            });
            let gate = house().timeouts("half_close = \"400ms\"").route("nas", backend.address()).open();
            ended(&gate, &End::Orderly, &|client| {
                client.close_notify();
                client.end()
            });
        }
        CloseReason::DrainDeadline => {
            let mut gate = open(house().timeouts("drain = \"400ms\""));
            let client = Client::admitted(gate.address(), &good, NAME).unwrap();
            gate.signal(Signal::TERM);
            assert_eq!(client.end(), End::Orderly);
            assert_eq!(gate.wait_for_end().code(), Some(5));
            // The metrics ended with the gate; the log stays.
            let line = crate::home::verdicts(&gate).pop().unwrap();
            assert_eq!((&line["event"], &line["reason"]), (&"closed".into(), &reason.label().into()), "{line}");
        }
        CloseReason::Revoked => {
            let mut params = Certified::for_clients("carol-phone");
            params.serial_number = Some(77_u64.into());
            let carol = client(pki, Some(&pki.clients.issue(params)));
            let list = pki.clients.revocation_list(&[77_u64.into()], days_from_now(-1), days_from_now(1));
            let list = pki.write("revoking.crl", list);
            let house = |keys: &str| house().client_auth(keys).route("nas", echo.address());
            cut(reason, &carol, &house(""), &house(&format!("revocation_lists = [{list:?}]")));
        }
        CloseReason::Denied => {
            let lost = pki.client("carol-phone");
            let fingerprint = Sha256::of(&lost.chain()[0]);
            let house = |keys: &str| house().client_auth(keys).route("nas", echo.address());
            let denied = house(&format!("deny = [\"sha256:{fingerprint}\"]"));
            cut(reason, &client(pki, Some(&lost)), &house(""), &denied);
        }
        CloseReason::Expired => {
            let mut params = Certified::for_clients("carol-phone");
            params.not_after = OffsetDateTime::now_utc() + Duration::from_secs(3);
            let carol = client(pki, Some(&pki.clients.issue(params)));
            let gate = open(house());
            let watch = Watch::begin(&gate);
            let client = Client::admitted(gate.address(), &carol, NAME).unwrap();
            // It is told in order, and nothing was changed for it.
            assert_eq!(client.end(), End::Orderly);
            let line = watch.closed(reason);
            let detail = line["detail"].as_str().unwrap();
            assert!(detail.starts_with("the certificate, or one above it, expired at "), "{line}");
            gate.wait_metric("doorward_sessions_cut_total", &[("reason", "expired")], 1.0);
        }
        CloseReason::NotAllowed => {
            let house = |allow: &str| house().route_with("nas", &[&echo.address().to_string()], allow);
            cut(reason, &good, &house("allow = [\"any\"]"), &house("allow = [\"bob-laptop\"]"));
        }
        CloseReason::NotTrusted => {
            let others = pki.write("others.pem", Authority::new("Others").pem());
            let keys = format!("allow = [\"any\"]\n[route.client_auth]\ntrust = [{others:?}]");
            let with = |keys: &str| house().route_with("nas", &[&echo.address().to_string()], keys);
            cut(reason, &good, &with("allow = [\"any\"]"), &with(&keys));
        }
        CloseReason::RouteRemoved => {
            let other = house().route("ssh", echo.address());
            cut(reason, &good, &house().route("nas", echo.address()), &other);
        }
        CloseReason::CutByHand => {
            let config = house().route("nas", echo.address()).config();
            let gate = Gate::start(&format!("{config}\n[control]\nsocket = \"control.sock\"\n"));
            let watch = Watch::begin(&gate);
            let client = Client::admitted(gate.address(), &good, NAME).unwrap();
            let cut = Request::Cut { whom: "alice-phone".to_owned() };
            let answer = ask(&gate.folder().join("control.sock"), &cut).unwrap();
            assert!(matches!(&answer, Answer::Cut(cut) if cut.open == 1), "{answer:?}");
            assert_eq!(client.end(), End::Orderly);
            watch.closed(reason);
            gate.wait_metric("doorward_sessions_cut_total", &[("reason", reason.label())], 1.0);
        }
        CloseReason::TlsError => {
            let bad_record_mac = Alert(20);
            ended(&open(house()), &End::Alert(bad_record_mac), &|client| {
                // A record of the right form that nobody has sealed.
                client.tcp().write_all(&[&[23, 3, 3, 0, 32][..], &[7; 32]].concat()).unwrap();
                client.end()
            });
        }
        CloseReason::Internal => {
            // Only a kernel that refuses keys which it can use brings this about; the unit test of src/relay/kernel has one.
            assert!(
                include_str!("../../src/relay/kernel/tests.rs")
                    .contains("fn nothing_reaches_the_backend_when_the_kernel_does_not_take_the_keys()")
            );
        }
    }
}

/// A guest is in under `before`, and has no right to be in under `after`.
fn cut(reason: CloseReason, guest: &Arc<ClientConfig>, before: &House<'_>, after: &House<'_>) {
    let gate = before.open();
    let watch = Watch::begin(&gate);
    let client = Client::admitted(gate.address(), guest, NAME).unwrap();
    let told = gate.reload(&after.config());
    assert_eq!((&told["sessions_kept"], &told["sessions_cut"]), (&0.into(), &1.into()), "{told}");
    // The client is told in order, so far as TLS has a word for it.
    assert_eq!(client.end(), End::Orderly);
    let line = watch.closed(reason);
    assert!(line["detail"].is_string(), "{line}");
    gate.wait_metric("doorward_sessions_cut_total", &[("reason", reason.label())], 1.0);
    gate.wait_metric("doorward_revocation_lag_seconds_count", &[], 1.0);
}
