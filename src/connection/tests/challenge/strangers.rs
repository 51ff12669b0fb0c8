//! Clients that are no validators: a pending order changes nothing for them.

use std::io::Write;
use std::net::Shutdown;

use rustls::AlertDescription;

use super::hello::{self, Hello, SERVER_NAME, record, server_names, vector8, vector16};
use super::live::{BAIT, DB, End, Live, MAIL, NAS, PHOTOS, Verdict, read_to_end};
use super::validator::{ACME, ACME_IDENTIFIER, Client, Seen};
use super::{BOTH, alpn, contains};

/// What a client sees and what is told about it.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    /// Its first bytes: an alert, or a ServerHello.
    answer: Vec<u8>,
    end: End,
    reason: String,
    stage: Option<String>,
    alert: Option<String>,
    reached: usize,
    penalties: usize,
}

fn see(live: &Live, bytes: &[u8]) -> Answer {
    let reached = live.reached();
    let (answer, end) = live.send(bytes);
    assert!(!contains(&answer, ACME_IDENTIFIER), "the challenge is shown");
    let Verdict { reason, stage, alert, .. } = live.verdict();
    let (reached, penalties) = (live.reached() - reached, live.penalties());
    // What follows has random bytes and signatures in it.
    let told = if answer.first() == Some(&22) { 1 } else { answer.len() };
    Answer { answer: answer[..told].to_vec(), end, reason, stage, alert, reached, penalties }
}

/// ALPN extensions that are not exactly one `acme-tls/1`.
fn other_protocols() -> Vec<Vec<u8>> {
    const GREASE: &[u8] = &[0x0a, 0x0a];
    let mut all: Vec<Vec<u8>> = [
        &[][..],
        &[ACME, b"http/1.1"],
        &[b"h2", ACME],
        &[ACME, ACME],
        &[GREASE, ACME],
        &[ACME, GREASE],
        &[b"acme-tls/1.1"],
        &[b"acme-tls/2"],
        &[b"ACME-TLS/1"],
        &[b"acme-tls/1\0"],
        &[b"acme-tls/"],
    ]
    .iter()
    .map(|protocols| alpn(protocols))
    .collect();
    // A name of no bytes behind it, a list that is shorter than the extension, and one that is longer.
    all.push(vector16(&[&vector8(ACME)[..], &[0]].concat()));
    all.push([vector16(&vector8(ACME)), vec![0]].concat());
    all.push([&[0, 99], &vector8(ACME)[..]].concat());
    all
}

#[test]
fn hello_that_is_no_validators_is_answered_as_without_an_order() {
    let without = Live::new("");
    let with = Live::new("");
    with.order(NAS);
    for hello in [Hello::tls12(NAS), Hello::tls13(NAS)] {
        for body in other_protocols() {
            let bytes = hello.clone().with(hello::ALPN, body.clone()).records();
            assert_eq!(see(&with, &bytes), see(&without, &bytes), "ALPN {body:02x?}");
        }
        let bytes = hello.records();
        let seen = see(&with, &bytes);
        assert_eq!((&seen, seen.reason.as_str()), (&see(&without, &bytes), "closed_early"));
        let twice = hello.clone().with(hello::ALPN, alpn(&[ACME])).and(hello::ALPN, alpn(&[ACME])).records();
        let seen = see(&with, &twice);
        assert_eq!((&seen, seen.reason.as_str()), (&see(&without, &twice), "malformed"));
    }
    assert_eq!(with.counted(), without.counted());
}

#[test]
fn validator_of_another_name_is_answered_as_without_an_order() {
    let without = Live::new("");
    let with = Live::new("");
    with.order(NAS);
    // No configuration leads to this order.
    with.order("other.home.example");
    let sni = |entries: &[(u8, &[u8])]| Some(server_names(entries));
    let long = [b'a'; 60].repeat(5);
    for (name, reason) in [
        (sni(&[(0, PHOTOS.as_bytes())]), "closed_early"),
        (sni(&[(0, b"other.home.example")]), "server_name_unknown"),
        (sni(&[(0, b"xnas.home.example")]), "server_name_unknown"),
        (sni(&[(0, b"x.nas.home.example")]), "server_name_unknown"),
        (sni(&[(0, b"nas.home.example.evil.example")]), "server_name_unknown"),
        (sni(&[(0, b"*.home.example")]), "malformed"),
        (sni(&[(0, b"nas.home.example\0")]), "malformed"),
        (sni(&[(0, b"nas.home.example ")]), "malformed"),
        (sni(&[(0, b"nas.home.example..")]), "malformed"),
        (sni(&[(0, b"127.0.0.1")]), "server_name_missing"),
        (sni(&[(0, &long)]), "malformed"),
        (sni(&[(0, NAS.as_bytes()), (0, PHOTOS.as_bytes())]), "malformed"),
        (sni(&[(7, NAS.as_bytes())]), "malformed"),
        (sni(&[(0, b"")]), "malformed"),
        (sni(&[]), "malformed"),
        (None, "server_name_missing"),
    ] {
        for hello in [Hello::tls12(NAS), Hello::tls13(NAS)] {
            let hello = hello.with(hello::ALPN, alpn(&[ACME])).without(SERVER_NAME);
            let bytes = name.iter().fold(hello, |hello, name| hello.with(SERVER_NAME, name.clone())).records();
            let seen = see(&with, &bytes);
            assert_eq!((&seen, seen.reason.as_str()), (&see(&without, &bytes), reason), "{name:02x?}");
        }
    }
    assert_eq!(with.counted(), without.counted());
}

#[test]
fn passthrough_backend_gets_its_own_validators() {
    let live = Live::new("");
    live.order(MAIL);
    let hello = Hello::tls12(MAIL).with(hello::ALPN, alpn(&[ACME])).records();
    let (echoed, end) = live.send(&hello);
    assert_eq!((echoed, end), (hello.clone(), End::Orderly), "as the backend has sent it");
    assert_eq!(live.verdict().reason, "client_closed");
    assert_eq!(*live.received.lock().expect("it"), [hello]);
}

#[test]
fn validator_of_a_canary_is_an_impostor() {
    let live = Live::new("");
    live.order(BAIT);
    let hello = Hello::tls12(BAIT).with(hello::ALPN, alpn(&[ACME])).records();
    assert_eq!(live.send(&hello).0, [21, 3, 3, 0, 2, 2, 112]);
    let told = live.verdict();
    assert_eq!(
        (told.reason.as_str(), &told.line["impostor"]["name"]),
        ("server_name_unknown", &"bait".into()),
        "{told:?}"
    );
    assert_eq!(live.penalties(), 1, "it is banned at once");
}

#[test]
fn client_that_asks_for_tls_first_is_no_validator() {
    let live = Live::new("");
    live.order(DB);
    live.order(NAS);
    let hello = |name| Hello::tls12(name).with(hello::ALPN, alpn(&[ACME])).records();
    for (name, reason) in [(DB, "no_application_protocol"), (NAS, "server_name_unknown")] {
        let mut stream = live.connect();
        stream.write_all(b"\0\0\0\x08\x04\xd2\x16\x2f").expect("room");
        let mut answer = [0];
        std::io::Read::read_exact(&mut stream, &mut answer).expect("an answer");
        assert_eq!(answer, *b"S");
        stream.write_all(&hello(name)).expect("room");
        stream.shutdown(Shutdown::Write).expect("a connection");
        let (answer, _) = read_to_end(&mut stream);
        assert!(!contains(&answer, ACME_IDENTIFIER), "{name}");
        assert_eq!(live.verdict().reason, reason, "{name}");
    }
    // The same route without that.
    let (answer, _) = live.send(&hello(DB));
    assert!(contains(&answer, ACME_IDENTIFIER));
}

#[test]
fn name_is_the_same_in_capitals_and_with_a_dot() {
    let live = Live::new("");
    live.order(NAS);
    for name in ["NAS.Home.Example", "nas.home.example."] {
        let hello = Hello::tls12(name).with(hello::ALPN, alpn(&[ACME])).records();
        let (answer, _) = live.send(&hello);
        assert!(contains(&answer, ACME_IDENTIFIER), "{name}");
        assert_eq!(live.verdict().line["server_name"], NAS);
    }
}

#[test]
fn stranger_without_an_order_gets_certificate_required() {
    let live = Live::new("");
    for version in BOTH {
        let stranger = Client::new(version, None);
        let outcome = stranger.validate(live.connect(), NAS);
        assert_eq!(outcome.end, Seen::Alert(AlertDescription::CertificateRequired), "{outcome:?}");
        let told = live.verdict();
        assert_eq!((told.stage.as_deref(), told.reason.as_str()), (Some("certificate"), "required"));
        assert!(stranger.asked() > 0);
    }
    assert_eq!(live.reached(), 0);
}

#[test]
fn order_that_was_withdrawn_or_of_another_name_shows_nothing() {
    let live = Live::new("");
    live.order(NAS);
    live.order(PHOTOS);
    live.gate.challenges.withdraw(&crate::model::names::ServerName::from_client_hello(NAS));
    let hello = |name| Hello::tls12(name).with(hello::ALPN, alpn(&[ACME])).records();
    assert!(!contains(&live.send(&hello(NAS)).0, ACME_IDENTIFIER));
    assert!(contains(&live.send(&hello(PHOTOS)).0, ACME_IDENTIFIER));
    live.gate.challenges.withdraw_all();
    assert!(!contains(&live.send(&hello(PHOTOS)).0, ACME_IDENTIFIER));
}

#[test]
fn device_with_that_protocol_reaches_no_backend_while_its_order_is_pending() {
    let live = Live::new("");
    for version in BOTH {
        let alice = Client::new(version, Some(&live.alice));
        let reached = live.reached();
        live.order(NAS);
        let outcome = alice.run(live.connect(), NAS, &[ACME], b"hello");
        assert_eq!((outcome.end, outcome.payload.len(), alice.asked()), (Seen::CloseNotify, 0, 0), "{outcome:?}");
        assert_eq!(live.verdict().reason, "acme_challenge");
        assert_eq!(live.reached(), reached);
        // For her own protocols, and without an order, she is a device.
        let outcome = alice.run(live.connect(), NAS, &[b"http/1.1", ACME], b"hello");
        assert_eq!(outcome.payload, b"hello", "{outcome:?}");
        assert_eq!(live.verdict().reason, "client_closed");
        live.gate.challenges.withdraw_all();
        let outcome = alice.run(live.connect(), NAS, &[ACME], b"hello");
        assert_eq!(outcome.payload, b"hello", "{outcome:?}");
        assert_eq!(live.verdict().reason, "client_closed");
        assert_eq!(live.reached(), reached + 2);
    }
}

#[test]
fn old_versions_and_suites_are_refused_with_an_order_as_without() {
    let without = Live::new("");
    let with = Live::new("");
    with.order(NAS);
    let acme = |hello: Hello| hello.with(hello::ALPN, alpn(&[ACME]));
    let base = acme(Hello::tls12(NAS));
    let version = |version| Hello { version, ..base.clone() };
    let suites = |suites: &[u16]| Hello { suites: suites.to_vec(), ..base.clone() };
    for (hello, reason) in [
        (version(hello::TLS11), "protocol_version"),
        (version(hello::TLS10), "protocol_version"),
        (version(hello::SSL3), "protocol_version"),
        (suites(&[]), "malformed"),
        // NULL, anonymous, export.
        (suites(&[0x0002, 0xc006]), "no_shared_parameters"),
        (suites(&[0x0034, 0xc018]), "no_shared_parameters"),
        (suites(&[0x0003]), "no_shared_parameters"),
        // A certificate of RSA only, which neither the route nor the challenge has.
        (suites(&[0xc02f]), "no_shared_parameters"),
        (base.clone().with(hello::SIGNATURE_ALGORITHMS, vector16(&[8, 4])), "no_shared_parameters"),
        (acme(Hello::tls13(NAS)).with(hello::SIGNATURE_ALGORITHMS, vector16(&[8, 4])), "no_shared_parameters"),
        (base.clone().with(hello::SUPPORTED_GROUPS, vector16(&[0x12, 0x34])), "no_shared_parameters"),
    ] {
        let bytes = hello.records();
        let (seen, usual) = (see(&with, &bytes), see(&without, &bytes));
        assert_eq!((&seen.reason, &seen.stage, &seen.alert), (&usual.reason, &usual.stage, &usual.alert));
        assert_eq!((seen.reason.as_str(), &seen.answer), (reason, &usual.answer), "{:x}", hello.version);
    }
    assert_eq!(with.counted(), without.counted());
}

#[test]
fn bytes_that_are_no_hello_are_refused_with_an_order_as_without() {
    let without = Live::new("");
    let with = Live::new("");
    with.order(NAS);
    let whole = Hello::tls12(NAS).with(hello::ALPN, alpn(&[ACME]));
    let (message, records) = (whole.message(), whole.records());
    for (bytes, reason) in [
        // What stands behind the hello in its record, a second hello, other records.
        (record(hello::HANDSHAKE, &[&message[..], &[0]].concat()), "malformed"),
        (record(hello::HANDSHAKE, &[&message[..], &message].concat()), "malformed"),
        ([&record(hello::HANDSHAKE, &[])[..], &records].concat(), "malformed"),
        ([&record(21, &[1, 0])[..], &records].concat(), "not_tls"),
        ([&record(20, &[1])[..], &records].concat(), "not_tls"),
        ([&record(hello::APPLICATION_DATA, b"GET /")[..], &records].concat(), "not_tls"),
        ([b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n", &records[..]].concat(), "not_tls"),
        ([b"GET / HTTP/1.1\r\n\r\n", &records[..]].concat(), "not_tls"),
        (record(hello::HANDSHAKE, &[1, 0xff, 0xff, 0xff]), "too_large"),
        (records[..records.len() - 1].to_vec(), "closed_early"),
        (records[..5].to_vec(), "closed_early"),
        (Vec::new(), "closed_early"),
    ] {
        let seen = see(&with, &bytes);
        assert_eq!((&seen, seen.reason.as_str()), (&see(&without, &bytes), reason), "{bytes:02x?}");
    }
    assert_eq!(with.counted(), without.counted());
}
