//! Records and hellos that break the rules, and the longest ones that do not.

use std::io::Write;
use std::iter;
use std::net::TcpStream;

use tokio::time::Instant;

use crate::common::process::wait_until;
use crate::hello::{self, HANDSHAKE, Hello, PADDING, SERVER_NAME, SIGNATURE_ALGORITHMS, SUPPORTED_GROUPS};
use crate::scene::{AT_ONCE, NAS, Scene, assert_told, listen, say};

const DECODE_ERROR: u8 = 50;
const ILLEGAL_PARAMETER: u8 = 47;
const UNEXPECTED_MESSAGE: u8 = 10;

/// The most bytes of a hello that are looked at.
const HELLO_MAX: usize = 64 * 1024;

#[test]
fn record_longer_than_records_may_be_is_refused_by_its_header() {
    let scene = Scene::new();
    // 2^14 and one more; what TLS 1.2 lets an encrypted record have; what the length field can say.
    for length in [(1 << 14) + 1, (1 << 14) + 257, (1 << 14) + 2049, 0xffff_u16] {
        let header = [&[HANDSHAKE, 3, 1], &length.to_be_bytes()[..], &[1, 0, 1, 0]].concat();
        scene.assert_refuses(&header, "client_hello", "malformed", Some(DECODE_ERROR));
    }
    scene.end();
}

#[test]
fn hello_that_announces_16_mib_is_refused_by_its_header() {
    let scene = Scene::new();
    let announced = hello::record(HANDSHAKE, &[1, 0xff, 0xff, 0xff]);
    scene.assert_refuses(&announced, "client_hello", "too_large", Some(DECODE_ERROR));
    let one_too_many = u32::try_from(HELLO_MAX - 4 + 1).unwrap().to_be_bytes();
    let announced = hello::record(HANDSHAKE, &[&[1], &one_too_many[1..]].concat());
    scene.assert_refuses(&announced, "client_hello", "too_large", Some(DECODE_ERROR));
    scene.end();
}

#[test]
fn hello_that_is_too_long_only_with_its_record_headers_is_refused() {
    let scene = Scene::new();
    let long = Hello::tls13(NAS).with(PADDING, vec![0; 12_000]);
    let records = hello::records(&long.message(), 1);
    assert!(records.len() > HELLO_MAX);
    scene.assert_refuses(&records, "client_hello", "too_large", Some(DECODE_ERROR));
    scene.end();
}

#[test]
fn empty_records_are_refused() {
    let scene = Scene::new();
    let empty = hello::record(HANDSHAKE, &[]);
    scene.assert_refuses(&empty, "client_hello", "malformed", Some(DECODE_ERROR));
    scene.assert_refuses(&empty.repeat(40), "client_hello", "malformed", Some(DECODE_ERROR));
    let message = Hello::tls13(NAS).message();
    let between = [hello::record(HANDSHAKE, &message[..9]), empty.repeat(40), hello::record(HANDSHAKE, &message[9..])];
    scene.assert_refuses(&between.concat(), "client_hello", "malformed", Some(DECODE_ERROR));
    scene.end();
}

#[test]
fn bytes_behind_the_hello_in_its_record_are_refused() {
    let scene = Scene::new();
    let message = Hello::tls13(NAS).message();
    for behind in [&[0][..], &[0; 300], &message] {
        let record = hello::record(HANDSHAKE, &[&message, behind].concat());
        scene.assert_refuses(&record, "client_hello", "malformed", Some(UNEXPECTED_MESSAGE));
    }
    scene.end();
}

#[test]
fn bytes_behind_the_last_extension_are_refused() {
    let scene = Scene::new();
    let message = Hello::tls13(NAS).message();
    let longer = hello::message(1, &[&message[4..], &[0; 7]].concat());
    scene.assert_refuses(&hello::records(&longer, 1 << 14), "client_hello", "malformed", Some(DECODE_ERROR));
    scene.end();
}

#[test]
fn second_hello_is_refused() {
    let scene = Scene::new();
    // In TLS 1.2 the alert comes in the clear, behind the server's flight.
    let hello = Hello::tls12(NAS).records();
    let line = scene.refused("handshake", "misbehaved", |stream| {
        let heard = say(stream, &hello.repeat(2));
        assert!(heard.after < AT_ONCE, "{heard:?}");
        assert_eq!(heard.bytes[5], 2, "a ServerHello first");
        assert!(heard.bytes.ends_with(&[21, 3, 3, 0, 2, 2, UNEXPECTED_MESSAGE]), "{heard:02x?}");
    });
    assert_eq!([&line["alert"], &line["route"], &line["server_name"]], ["unexpected_message", "nas", NAS]);
    // In TLS 1.3 it is encrypted, so its description cannot be known for sure, and the log does not guess.
    let hello = Hello::tls13(NAS).records();
    let line = scene.refused("handshake", "misbehaved", |stream| {
        let heard = say(stream, &hello.repeat(2));
        assert!(heard.after < AT_ONCE, "{heard:?}");
        // Two bytes of an alert, its type, and sixteen bytes that prove it.
        assert_eq!(heard.bytes[heard.bytes.len() - 24..][..5], [23, 3, 3, 0, 19], "{heard:02x?}");
    });
    assert!(line["alert"].is_null(), "{line}");
    scene.end();
}

#[test]
fn handshake_message_that_is_no_hello_is_refused() {
    let scene = Scene::new();
    let body = Hello::tls13(NAS).message()[4..].to_vec();
    // HelloRequest, ServerHello, Certificate, Finished, KeyUpdate, and one that does not exist.
    for kind in [0, 2, 11, 20, 24, 99] {
        let line = scene.refused("client_hello", "malformed", |stream| {
            let heard = say(stream, &hello::records(&hello::message(kind, &body), 1 << 14));
            assert!(heard.after < AT_ONCE, "{heard:?}");
            assert!(matches!(heard.bytes[..], [21, 3, _, 0, 2, 2, DECODE_ERROR | UNEXPECTED_MESSAGE]), "{heard:02x?}");
        });
        assert!(line["server_name"].is_null(), "{line}");
    }
    scene.end();
}

#[test]
fn extension_that_comes_twice_is_refused_as_an_illegal_parameter() {
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
            let line = scene.assert_refuses(&twice, "client_hello", "malformed", Some(ILLEGAL_PARAMETER));
            assert!(line["detail"].as_str().unwrap().contains("DuplicateExtension"), "{line}");
            assert!(line["server_name"].is_null(), "which of the two it would be is nobody's guess: {line}");
        }
    }
    scene.end();
}

#[test]
fn long_hellos_are_answered_like_short_ones() {
    let scene = Scene::new();
    let filled = |body: usize| Hello::tls13(NAS).with(0x7a7a, vec![7; body]);
    for hello in [Hello::tls13(NAS).with(PADDING, vec![0; 15_000]), filled(20_000), filled(40_000), filled(60_000)] {
        // Its sender hangs up when it has seen the answer.
        let line = scene.refused("handshake", "closed_early", |mut stream| {
            stream.write_all(&hello.records()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let heard = listen(stream, Instant::now());
            assert_eq!([heard.bytes[0], heard.bytes[5]], [HANDSHAKE, 2], "a ServerHello: {heard:02x?}");
        });
        assert_eq!([&line["server_name"], &line["route"]], [NAS, "nas"]);
    }
    scene.end();
}

#[test]
fn alert_is_read_even_by_a_client_that_has_sent_on() {
    let scene = Scene::new();
    // What OpenSSL sends behind its hello with early data, say; the gate has no use for it, but must not answer it with a
    // reset that overtakes the alert.
    let behind = [hello::record(20, &[1]), hello::record(23, &[0; 5000])].concat();
    for (hello, stage, reason, alert) in [
        (Hello::tls13("other.home.example"), "route", "server_name_unknown", 112),
        (Hello::tls13(NAS).without(SERVER_NAME), "route", "server_name_missing", 109),
        (Hello::tls13(NAS).and(SUPPORTED_GROUPS, vec![]), "client_hello", "malformed", ILLEGAL_PARAMETER),
    ] {
        scene.assert_refuses(&[hello.records(), behind.clone()].concat(), stage, reason, Some(alert));
    }
    scene.end();
}

#[test]
fn flood_behind_a_bad_hello_is_not_waited_for() {
    let scene = Scene::new();
    let before = scene.memory();
    let flood = vec![0; 32 << 20];
    let announced = hello::record(HANDSHAKE, &[1, 0xff, 0xff, 0xff]);
    for _ in 0..3 {
        scene.refused("client_hello", "too_large", |stream| {
            let heard = flooded(stream, &[&announced[..], &flood].concat());
            assert!(heard.bytes.is_empty() || heard.bytes.ends_with(&[2, DECODE_ERROR]), "{heard:02x?}");
            assert!(heard.after < AT_ONCE, "{:?}", heard.after);
        });
    }
    let grown = scene.memory().saturating_sub(before);
    assert!(grown < 2 << 20, "{grown} bytes more");
    scene.end();
}

/// As [`say`], for what is too much to be taken: a reset may come before all is sent, and take what was said with it.
fn flooded(mut stream: &TcpStream, bytes: &[u8]) -> crate::scene::Heard {
    let begun = Instant::now();
    assert!(stream.write_all(bytes).is_err(), "all of it was taken");
    listen(stream, begun)
}

#[test]
fn hellos_that_never_end_are_kept_by_the_kernel_and_not_by_the_gate() {
    const COUNT: usize = 100;
    let scene = Scene::new();
    // All but the last byte of the longest hello there may be, so the gate has seen as much of it as it ever will.
    let longest = hello::records(&hello::message(1, &vec![7; 60_000]), 1 << 14);
    // Once without being counted, for what is allocated once and kept.
    let hang_up = |stream: &TcpStream| {
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_told(&listen(stream, Instant::now()), None);
    };
    scene.refused("client_hello", "closed_early", |mut stream| {
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
