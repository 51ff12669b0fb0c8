//! The protocol of ACME's validators (RFC 8737) from strangers, without a pending order: they are clients like any other. With one:
//! tests/journey, and `connection::tests::challenge`.

use std::net::Shutdown;

use tokio::time::Instant;

use crate::common::process::{run_with_open_input, tool};
use crate::hello::{ALPN, Hello, records, vector8, vector16};
use crate::scene::{NAS, Scene, read_to_end};

const ACME: &[u8] = b"acme-tls/1";

/// id-pe-acmeIdentifier (RFC 8737 section 6.1), in DER.
const ACME_IDENTIFIER: &[u8] = &[0x06, 0x08, 0x2b, 6, 1, 5, 5, 7, 1, 0x1f];

#[test]
fn acme_protocol_of_a_stranger_is_refused_without_a_certificate() {
    let scene = Scene::new();
    for version in ["-tls1_3", "-tls1_2"] {
        for (name, stage, reason, told) in [
            (NAS, "certificate", "required", "alert number 116"),
            ("other.home.example", "route", "server_name_unknown", "alert number 112"),
        ] {
            let line = scene.expect_one_rejection(stage, reason, || {
                let mut stranger = tool("openssl", "openssl");
                stranger.args(["s_client", version, "-alpn", "acme-tls/1", "-servername", name]);
                stranger.args(["-connect", &scene.gate.address().to_string()]);
                let output = run_with_open_input(&mut stranger, b"hello\n").failure();
                let text = format!("{}{output}", output.text());
                assert!(text.contains(told) && !text.contains("ALPN protocol"), "{version}: {text}");
            });
            assert_eq!(line["server_name"], name);
        }
    }
    scene.end();
}

#[test]
fn hello_of_a_validator_gets_the_flight_of_any_client() {
    let scene = Scene::new();
    for hello in [Hello::tls12(NAS), Hello::tls13(NAS)] {
        let message = hello.with(ALPN, vector16(&vector8(ACME))).message();
        for size in [1, 64, 1 << 14] {
            let line = scene.expect_rejection("handshake", "closed_early", |mut stream| {
                std::io::Write::write_all(&mut stream, &records(&message, size)).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let response = read_to_end(stream, Instant::now());
                assert_eq!([response.bytes[0], response.bytes[5]], [22, 2], "a ServerHello");
                let is_shown = |part: &[u8]| response.bytes.windows(part.len()).any(|window| window == part);
                assert!(!is_shown(ACME_IDENTIFIER) && !is_shown(ACME), "{response:02x?}");
            });
            assert_eq!(line["route"], "nas");
        }
    }
    scene.end();
}
