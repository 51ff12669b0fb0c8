//! Illegal records and ClientHellos, and the longest legal ones.

use std::io::Write;
use std::iter;
use std::net::TcpStream;

use tokio::time::Instant;

use crate::common::process::wait_until;
use crate::hello::{self, HANDSHAKE, Hello, PADDING, SERVER_NAME, SIGNATURE_ALGORITHMS, SUPPORTED_GROUPS};
use crate::scene::{NAS, PROMPT, Scene, assert_alert, read_to_end, send_and_read};

const DECODE_ERROR: u8 = 50;
const ILLEGAL_PARAMETER: u8 = 47;
const UNEXPECTED_MESSAGE: u8 = 10;

/// The longest ClientHello accepted.
const HELLO_MAX: usize = 64 * 1024;

#[test]
fn overlong_record_is_rejected_by_its_header() {
    let scene = Scene::new();
    // 2^14 + 1, above the limits of encrypted records in TLS 1.3 and 1.2, and the largest value of the length field.
    for length in [(1 << 14) + 1, (1 << 14) + 257, (1 << 14) + 2049, 0xffff_u16] {
        let header = [&[HANDSHAKE, 3, 1], &length.to_be_bytes()[..], &[1, 0, 1, 0]].concat();
        scene.assert_rejected(&header, "client_hello", "malformed", Some(DECODE_ERROR));
    }
    scene.end();
}

#[test]
fn hello_of_16_mib_is_rejected_by_its_header() {
    let scene = Scene::new();
    let announced = hello::record(HANDSHAKE, &[1, 0xff, 0xff, 0xff]);
    scene.assert_rejected(&announced, "client_hello", "too_large", Some(DECODE_ERROR));
    let one_too_many = u32::try_from(HELLO_MAX - 4 + 1).unwrap().to_be_bytes();
    let announced = hello::record(HANDSHAKE, &[&[1], &one_too_many[1..]].concat());
    scene.assert_rejected(&announced, "client_hello", "too_large", Some(DECODE_ERROR));
    scene.end();
}

#[test]
fn record_headers_count_toward_the_hello_limit() {
    let scene = Scene::new();
    let long = Hello::tls13(NAS).with(PADDING, vec![0; 12_000]);
    let records = hello::records(&long.message(), 1);
    assert!(records.len() > HELLO_MAX);
    scene.assert_rejected(&records, "client_hello", "too_large", Some(DECODE_ERROR));
    scene.end();
}

#[test]
fn empty_records_are_rejected() {
    let scene = Scene::new();
    let empty = hello::record(HANDSHAKE, &[]);
    scene.assert_rejected(&empty, "client_hello", "malformed", Some(DECODE_ERROR));
    scene.assert_rejected(&empty.repeat(40), "client_hello", "malformed", Some(DECODE_ERROR));
    let message = Hello::tls13(NAS).message();
    let between = [hello::record(HANDSHAKE, &message[..9]), empty.repeat(40), hello::record(HANDSHAKE, &message[9..])];
    scene.assert_rejected(&between.concat(), "client_hello", "malformed", Some(DECODE_ERROR));
    scene.end();
}

#[test]
fn bytes_after_the_hello_in_its_record_are_rejected() {
    let scene = Scene::new();
    let message = Hello::tls13(NAS).message();
    for behind in [&[0][..], &[0; 300], &message] {
        let record = hello::record(HANDSHAKE, &[&message, behind].concat());
        scene.assert_rejected(&record, "client_hello", "malformed", Some(UNEXPECTED_MESSAGE));
    }
    scene.end();
}

#[test]
fn bytes_after_the_last_extension_are_rejected() {
    let scene = Scene::new();
    let message = Hello::tls13(NAS).message();
    let longer = hello::message(1, &[&message[4..], &[0; 7]].concat());
    scene.assert_rejected(&hello::records(&longer, 1 << 14), "client_hello", "malformed", Some(DECODE_ERROR));
    scene.end();
}

#[test]
fn second_hello_is_rejected() {
    let scene = Scene::new();
    // In TLS 1.2 the alert is unencrypted and follows the server's flight.
    let hello = Hello::tls12(NAS).records();
    let line = scene.expect_rejection("handshake", "misbehaved", |stream| {
        let response = send_and_read(stream, &hello.repeat(2));
        assert!(response.after < PROMPT, "{response:?}");
        assert_eq!(response.bytes[5], 2, "a ServerHello first");
        assert!(response.bytes.ends_with(&[21, 3, 3, 0, 2, 2, UNEXPECTED_MESSAGE]), "{response:02x?}");
    });
    assert_eq!([&line["alert"], &line["route"], &line["server_name"]], ["unexpected_message", "nas", NAS]);
    // In TLS 1.3 it is encrypted, so the gate does not know it and does not log it.
    let hello = Hello::tls13(NAS).records();
    let line = scene.expect_rejection("handshake", "misbehaved", |stream| {
        let response = send_and_read(stream, &hello.repeat(2));
        assert!(response.after < PROMPT, "{response:?}");
        // Two bytes of alert, its content type, and a tag of sixteen bytes.
        assert_eq!(response.bytes[response.bytes.len() - 24..][..5], [23, 3, 3, 0, 19], "{response:02x?}");
    });
    assert!(line["alert"].is_null(), "{line}");
    scene.end();
}

#[test]
fn other_handshake_message_is_rejected() {
    let scene = Scene::new();
    let body = Hello::tls13(NAS).message()[4..].to_vec();
    // HelloRequest, ServerHello, Certificate, Finished, KeyUpdate, and an unknown type.
    for kind in [0, 2, 11, 20, 24, 99] {
        let line = scene.expect_rejection("client_hello", "malformed", |stream| {
            let response = send_and_read(stream, &hello::records(&hello::message(kind, &body), 1 << 14));
            assert!(response.after < PROMPT, "{response:?}");
            assert!(
                matches!(response.bytes[..], [21, 3, _, 0, 2, 2, DECODE_ERROR | UNEXPECTED_MESSAGE]),
                "{response:02x?}"
            );
        });
        assert!(line["server_name"].is_null(), "{line}");
    }
    scene.end();
}

#[test]
fn duplicate_extension_is_an_illegal_parameter() {
    let scene = Scene::new();
    let extensions: [(u16, Vec<u8>); 4] = [
        (SERVER_NAME, hello::server_names(&[(0, NAS.as_bytes())])),
        (SERVER_NAME, hello::server_names(&[(0, b"other.home.example")])),
        (SUPPORTED_GROUPS, hello::vector16(&[0, 0x1d])),
        (SIGNATURE_ALGORITHMS, hello::vector16(&[4, 3])),
    ];
    for (kind, body) in extensions {
        for hello in [Hello::tls13(NAS), Hello::tls12(NAS)] {
            let twice = hello.and(kind, body.clone()).records();
            let line = scene.assert_rejected(&twice, "client_hello", "malformed", Some(ILLEGAL_PARAMETER));
            assert!(line["detail"].as_str().unwrap().contains("DuplicateExtension"), "{line}");
            assert!(line["server_name"].is_null(), "neither of the two names is used: {line}");
        }
    }
    scene.end();
}

#[test]
fn long_hellos_are_answered_like_short_ones() {
    let scene = Scene::new();
    let filled = |body: usize| Hello::tls13(NAS).with(0x7a7a, vec![7; body]);
    for hello in [Hello::tls13(NAS).with(PADDING, vec![0; 15_000]), filled(20_000), filled(40_000), filled(60_000)] {
        // The client closes after the answer.
        let line = scene.expect_rejection("handshake", "closed_early", |mut stream| {
            stream.write_all(&hello.records()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let response = read_to_end(stream, Instant::now());
            assert_eq!([response.bytes[0], response.bytes[5]], [HANDSHAKE, 2], "a ServerHello: {response:02x?}");
        });
        assert_eq!([&line["server_name"], &line["route"]], [NAS, "nas"]);
    }
    scene.end();
}

#[test]
fn alert_reaches_a_client_that_sends_more() {
    let scene = Scene::new();
    // As OpenSSL sends after its ClientHello with early data. Unread bytes must not cause a reset that overtakes the alert.
    let behind = [hello::record(20, &[1]), hello::record(23, &[0; 5000])].concat();
    for (hello, stage, reason, alert) in [
        (Hello::tls13("other.home.example"), "route", "server_name_unknown", 112),
        (Hello::tls13(NAS).without(SERVER_NAME), "route", "server_name_missing", 109),
        (Hello::tls13(NAS).and(SUPPORTED_GROUPS, vec![]), "client_hello", "malformed", ILLEGAL_PARAMETER),
    ] {
        scene.assert_rejected(&[hello.records(), behind.clone()].concat(), stage, reason, Some(alert));
    }
    scene.end();
}

#[test]
fn flood_after_an_invalid_hello_is_cut_off() {
    let scene = Scene::new();
    let before = scene.memory();
    let flood = vec![0; 32 << 20];
    let announced = hello::record(HANDSHAKE, &[1, 0xff, 0xff, 0xff]);
    for _ in 0..3 {
        scene.expect_rejection("client_hello", "too_large", |stream| {
            let response = flooded(stream, &[&announced[..], &flood].concat());
            assert!(response.bytes.is_empty() || response.bytes.ends_with(&[2, DECODE_ERROR]), "{response:02x?}");
            assert!(response.after < PROMPT, "{:?}", response.after);
        });
    }
    let grown = scene.memory().saturating_sub(before);
    assert!(grown < 2 << 20, "{grown} bytes more");
    scene.end();
}

/// As [`send_and_read`], for more than the gate reads: a reset may arrive before everything is sent and discard the alert.
fn flooded(mut stream: &TcpStream, bytes: &[u8]) -> crate::scene::Response {
    let started = Instant::now();
    assert!(stream.write_all(bytes).is_err(), "the gate read everything");
    read_to_end(stream, started)
}

#[test]
fn unfinished_hellos_take_no_memory_of_the_gate() {
    const COUNT: usize = 100;
    let scene = Scene::new();
    // All but the last byte of the longest ClientHello, so the gate has peeked at as much as possible.
    let longest = hello::records(&hello::message(1, &vec![7; 60_000]), 1 << 14);
    // Once before the measurement, for allocations that are kept.
    let hang_up = |stream: &TcpStream| {
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_alert(&read_to_end(stream, Instant::now()), None);
    };
    scene.expect_rejection("client_hello", "closed_early", |mut stream| {
        stream.write_all(&longest[..longest.len() - 1]).unwrap();
        hang_up(stream);
    });
    let before = scene.memory();
    let held: Vec<TcpStream> = iter::repeat_with(|| {
        let mut stream = scene.connect();
        stream.write_all(&longest[..longest.len() - 1]).unwrap();
        stream
    })
    .take(COUNT)
    .collect();
    wait_until("the gate has all of them", || {
        let in_progress = scene.gate.metrics().sum("doorward_handshakes_in_progress", &[]);
        (in_progress == COUNT as f64).then_some(())
    });
    let grown = scene.memory().saturating_sub(before);
    assert!(grown < COUNT * 16 * 1024, "{grown} bytes for {COUNT} hellos of {} bytes", longest.len());
    held.iter().for_each(hang_up);
    scene.gate.wait_rejected("client_hello", "closed_early", COUNT + 1);
    scene.end();
}
