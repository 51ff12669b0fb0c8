//! Old versions of TLS and weak cipher suites.

use std::process::Command;

use crate::common::process::{run, tool};
use crate::hello::{self, Hello, SIGNATURE_ALGORITHMS, SSL3, SUPPORTED_VERSIONS, TLS10, TLS11, TLS12};
use crate::scene::{NAS, Scene, send_and_read};

const HANDSHAKE_FAILURE: u8 = 40;
const PROTOCOL_VERSION: u8 = 70;

fn s_client(scene: &Scene) -> Command {
    let mut command = tool("openssl", "openssl");
    command.args(["s_client", "-servername", NAS, "-connect", &scene.gate.address().to_string()]);
    // Debian's OpenSSL does not offer old versions and suites by default.
    command.args(["-cipher", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"]);
    command
}

#[test]
fn openssl_with_old_version_gets_protocol_version() {
    let scene = Scene::new();
    for version in ["-tls1", "-tls1_1"] {
        let line = scene.expect_one_rejection("handshake", "protocol_version", || {
            let failed = run(s_client(&scene).arg(version)).failure();
            assert!(failed.stderr.contains("alert protocol version"), "{failed}");
            assert!(!failed.text().contains("BEGIN CERTIFICATE"), "{failed}");
        });
        assert_eq!(line["alert"], "protocol_version");
    }
    scene.end();
}

#[test]
fn hello_of_an_old_version_gets_protocol_version() {
    let scene = Scene::new();
    for (version, called) in [(SSL3, "SSL 3.0"), (TLS10, "TLS 1.0"), (TLS11, "TLS 1.1")] {
        // As an old client sends it. Without signature_algorithms rustls parses no server name, so the route is unknown.
        let old = Hello { version, ..Hello::tls12(NAS).without(SIGNATURE_ALGORITHMS) };
        for size in [1, 3, 5, 1 << 14] {
            let records = hello::records(&old.message(), size);
            let line = scene.assert_rejected(&records, "handshake", "protocol_version", Some(PROTOCOL_VERSION));
            assert_eq!(line["detail"], format!("the client supports {called} at most"));
        }
        // From a client with newer extensions, and from one that has disabled newer versions.
        let old = Hello { version, ..Hello::tls12(NAS) }.records();
        scene.assert_rejected(&old, "handshake", "protocol_version", Some(PROTOCOL_VERSION));
        let offered = hello::vector8(&version.to_be_bytes());
        let old = Hello::tls13(NAS).with(SUPPORTED_VERSIONS, offered).records();
        scene.assert_rejected(&old, "handshake", "protocol_version", Some(PROTOCOL_VERSION));
    }
    // SSL 3.0 has no extensions.
    let bare = Hello { version: SSL3, suites: vec![0x0005, 0x000a], extensions: Vec::new() }.records();
    scene.assert_rejected(&bare, "handshake", "protocol_version", Some(PROTOCOL_VERSION));
    // TLS 1.2 has the extension, and rustls requires it.
    let without = Hello::tls12(NAS).without(SIGNATURE_ALGORITHMS).records();
    let line = scene.assert_rejected(&without, "client_hello", "malformed", Some(HANDSHAKE_FAILURE));
    assert!(line["detail"].as_str().unwrap().contains("SignatureAlgorithms"), "{line}");
    scene.end();
}

#[test]
fn weak_cipher_suites_are_rejected() {
    let scene = Scene::new();
    for (what, suites) in [
        ("NULL", vec![0x0000, 0x0001, 0x0002, 0x003b, 0xc006, 0xc010]),
        ("export", vec![0x0003, 0x0006, 0x0008, 0x000b, 0x000e, 0x0011, 0x0014]),
        ("anonymous", vec![0x0018, 0x0034, 0x006c, 0x00a6, 0xc015, 0xc018]),
        ("RC4 and 3DES", vec![0x0004, 0x0005, 0x000a, 0xc007, 0xc008, 0xc011, 0xc012]),
        ("without forward secrecy", vec![0x002f, 0x0035, 0x009c, 0x009d]),
        ("CBC", vec![0xc009, 0xc00a, 0xc013, 0xc014, 0xc023, 0xc024, 0xc027, 0xc028]),
        ("only signals", vec![0x00ff, 0x5600]),
        ("unknown", vec![0x7a7a, 0xfefe]),
    ] {
        for hello in [Hello::tls12(NAS), Hello::tls13(NAS)] {
            let weak = Hello { suites: suites.clone(), ..hello }.records();
            let line = scene.assert_rejected(&weak, "handshake", "no_shared_parameters", Some(HANDSHAKE_FAILURE));
            assert_eq!([&line["route"], &line["server_name"]], ["nas", NAS], "{what}");
        }
    }
    let none = Hello { suites: Vec::new(), ..Hello::tls12(NAS) }.records();
    scene.assert_rejected(&none, "client_hello", "malformed", Some(50));
    scene.end();
}

#[test]
fn openssl_with_null_suites_gets_handshake_failure() {
    let scene = Scene::new();
    for suites in ["aNULL:@SECLEVEL=0", "eNULL:@SECLEVEL=0"] {
        let line = scene.expect_one_rejection("handshake", "no_shared_parameters", || {
            let failed = run(s_client(&scene).args(["-tls1_2", "-cipher", suites])).failure();
            assert!(failed.stderr.contains("alert handshake failure"), "{failed}");
        });
        assert_eq!(line["alert"], "handshake_failure");
    }
    scene.end();
}

#[test]
fn downgrade_to_tls12_is_marked_in_the_random() {
    let scene = Scene::new();
    // A TLS 1.3 client that is answered in TLS 1.2 checks the end of the random for this (RFC 8446 section 4.1.3).
    scene.expect_rejection("handshake", "closed_early", |mut stream| {
        std::io::Write::write_all(&mut stream, &Hello::tls12(NAS).records()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let response = send_and_read(stream, b"");
        assert_eq!(response.bytes[9..11], TLS12.to_be_bytes());
        assert_eq!(response.bytes[11 + 24..][..8], *b"DOWNGRD\x01", "{response:02x?}");
    });
    scene.end();
}
