//! Handshakes of validators that are slow, in pieces, broken or abandoned.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use rustls::{ClientConnection, HandshakeKind};

use super::hello::{self, APPLICATION_DATA, EARLY_DATA, Hello, PADDING, record};
use super::live::{Live, NAS, read_to_end, wait_for};
use super::validator::{ACME, ACME_IDENTIFIER, Client, Seen, go_on};
use super::{BOTH, alpn, contains};

/// The ClientHello of a validator, and the client that goes on after it.
fn first_message(validator: &Client) -> (ClientConnection, Vec<u8>) {
    let mut tls = validator.begin(NAS, &[ACME]);
    let mut record = Vec::new();
    tls.write_tls(&mut record).expect("memory");
    let message = record.split_off(5);
    (tls, message)
}

fn hello12() -> Hello {
    Hello::tls12(NAS).with(hello::ALPN, alpn(&[ACME]))
}

fn hello13() -> Hello {
    Hello::tls13(NAS).with(hello::ALPN, alpn(&[ACME]))
}

#[test]
fn hello_in_pieces_is_a_validators() {
    let live = Live::new("");
    live.order(NAS);
    for version in BOTH {
        for size in [1, 3, 4, 64, 1000] {
            let validator = Client::new(version, None);
            let (tls, message) = first_message(&validator);
            let mut stream = live.connect();
            let bytes = hello::records(&message, size);
            // In segments of their own, at least now and then.
            for part in bytes.chunks(bytes.len() / 7 + 1) {
                stream.write_all(part).expect("a connection");
                thread::sleep(Duration::from_millis(1));
            }
            let outcome = go_on(tls, stream, b"");
            assert_eq!((outcome.end, outcome.kind), (Seen::CloseNotify, Some(HandshakeKind::Full)), "{size}");
            validator.shown.assert_is_challenge(NAS);
            assert_eq!(live.verdict().reason, "acme_challenge");
        }
    }
}

#[test]
fn long_hello_and_unknown_values_are_a_validators() {
    let live = Live::new("");
    live.order(NAS);
    let grease = |hello: Hello| {
        let suites = [&[0x0a0a], &hello.suites[..]].concat();
        Hello { suites, ..hello.and(0x0a0a, Vec::new()).and(0x1a1a, vec![0]) }
    };
    for hello in [hello12().with(PADDING, vec![0; 15_000]), hello12().and(0xfefe, vec![7; 60_000]), grease(hello12())] {
        assert!(contains(&live.send(&hello.records()).0, ACME_IDENTIFIER));
        assert_eq!(live.verdict().reason, "closed_early");
    }
    let longer = hello::records(&hello12().and(0xfefe, vec![7; 65_000]).message(), 300);
    let (answer, _) = live.send(&longer);
    assert_eq!((answer.first(), live.verdict().reason.as_str()), (Some(&21), "too_large"));
}

#[test]
fn validator_that_is_silent_or_slow_is_closed_at_the_deadline() {
    let live = Live::new("[timeouts]\nclient_hello = \"1500ms\"\nhandshake = \"1s\"\n");
    live.order(NAS);
    let whole = hello12().records();
    for (bytes, stage) in [(&[][..], "client_hello"), (&whole[..40], "client_hello"), (&whole[..], "handshake")] {
        let mut stream = live.connect();
        stream.write_all(bytes).expect("a connection");
        let begun = tokio::time::Instant::now();
        read_to_end(&mut stream);
        assert!(begun.elapsed() < Duration::from_secs(20));
        let told = live.verdict();
        assert_eq!((told.stage.as_deref(), told.reason.as_str()), (Some(stage), "timeout"));
    }
    // A byte now and then, in the hello and behind it.
    for (at_once, stage) in [(0, "client_hello"), (whole.len(), "handshake")] {
        let mut stream = live.connect();
        let mut writer = stream.try_clone().expect("it");
        writer.write_all(&whole[..at_once]).expect("a connection");
        let rest = [&whole[at_once..], &record(hello::HANDSHAKE, &hello::message(16, &[32; 4096]))].concat();
        let slow = thread::spawn(move || {
            for byte in rest {
                if writer.write_all(&[byte]).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
        read_to_end(&mut stream);
        let told = live.verdict();
        assert_eq!((told.stage.as_deref(), told.reason.as_str()), (Some(stage), "timeout"));
        drop(stream);
        slow.join().expect("a thread");
    }
}

#[test]
fn handshake_that_fails_is_refused_and_costs_nothing() {
    let live = Live::new("");
    live.order(NAS);
    let early = hello13().with(EARLY_DATA, Vec::new()).records();
    let flood = record(APPLICATION_DATA, &[7; 4096]).repeat(5);
    let finished = record(hello::HANDSHAKE, &hello::message(20, &[0; 12]));
    let unexpected = Some("unexpected_message");
    // In TLS 1.3 the alert is encrypted, so it is not known.
    for (bytes, reason, alert) in [
        ([hello12().records(), hello12().records()].concat(), "misbehaved", unexpected),
        ([hello13().records(), hello13().records()].concat(), "misbehaved", None),
        ([hello12().records(), finished].concat(), "misbehaved", unexpected),
        ([hello13().records(), record(APPLICATION_DATA, &[7; 40])].concat(), "misbehaved", None),
        ([early, flood].concat(), "misbehaved", None),
        // It does not like the certificate.
        ([hello12().records(), record(21, &[2, 46])].concat(), "peer_alert", None),
        (hello12().records(), "closed_early", None),
        (hello13().records(), "closed_early", None),
    ] {
        // Twelve times five seconds would be a ban.
        for _ in 0..15 {
            let mut stream = live.connect();
            let _ = stream.write_all(&bytes).and_then(|()| stream.shutdown(Shutdown::Write));
            read_to_end(&mut stream);
            let told = live.verdict();
            assert_eq!((told.stage.as_deref(), told.reason.as_str()), (Some("handshake"), reason), "{}", told.line);
            assert_eq!([&told.line["route"], &told.line["server_name"]], ["nas", NAS]);
            assert_eq!(told.alert.as_deref(), alert, "{}", told.line);
        }
    }
    assert_eq!(live.penalties(), 0);
    let counted = live.counted();
    assert_eq!(counted.iter().filter(|(name, _)| name.contains("closed_total")).count(), 0, "{counted:?}");
    // The same without an order.
    live.gate.challenges.withdraw_all();
    live.send(&[hello12().records(), hello12().records()].concat());
    assert_eq!(live.verdict().reason, "misbehaved");
    assert_eq!(live.penalties(), 1);
}

#[test]
fn early_data_of_a_validator_is_thrown_away() {
    let live = Live::new("");
    live.order(NAS);
    let hello = hello13().with(EARLY_DATA, Vec::new()).records();
    let early = record(APPLICATION_DATA, b"DELETE / HTTP/1.1\r\n\r\n");
    let (answer, _) = live.send(&[hello, early].concat());
    assert_eq!((answer[0], answer[5]), (22, 2), "a ServerHello");
    assert_eq!(live.verdict().reason, "closed_early");
    assert_eq!(live.reached(), 0);
}

#[test]
fn payload_behind_the_handshake_is_neither_forwarded_nor_waited_for() {
    let live = Live::new("");
    live.order(NAS);
    for version in BOTH {
        // An upload that does not end, and one key update or request to negotiate anew behind it.
        let validator = Client::new(version, None);
        let mut tls = validator.begin(NAS, &[ACME]);
        let mut stream = live.connect();
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).expect("a handshake");
        }
        let begun = tokio::time::Instant::now();
        tls.writer().write_all(&[7; 30_000]).expect("memory");
        if version == BOTH[0] {
            tls.refresh_traffic_keys().expect("TLS 1.3");
        }
        let outcome = go_on(tls, stream, b"");
        assert!(matches!(outcome.end, Seen::CloseNotify | Seen::Reset), "{outcome:?}");
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert_eq!(live.verdict().reason, "acme_challenge");
    }
    assert_eq!(live.reached(), 0);
    live.counted();
}

#[test]
fn reset_at_any_moment_leaves_nothing() {
    let live = Live::new("");
    live.order(NAS);
    let reset = |stream: TcpStream| {
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("an option");
        drop(stream);
    };
    let (bytes12, bytes13) = (hello12().records(), hello13().records());
    let mut connections = 0;
    for bytes in [&bytes12, &bytes13] {
        for sent in [0, 5, 50, bytes.len()] {
            for wait in [Duration::ZERO, Duration::from_millis(3)] {
                let mut stream = live.connect();
                stream.write_all(&bytes[..sent]).expect("a connection");
                thread::sleep(wait);
                reset(stream);
                connections += 1;
            }
        }
    }
    for version in BOTH {
        let mut tls = Client::new(version, None).begin(NAS, &[ACME]);
        let mut stream = live.connect();
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).expect("a handshake");
        }
        reset(stream);
        connections += 1;
    }
    wait_for("every verdict", || (live.verdicts().len() == connections).then_some(()));
    live.counted();
    assert_eq!(live.penalties(), 0);
    assert_eq!(Client::new(BOTH[0], None).validate(live.connect(), NAS).end, Seen::CloseNotify);
}
