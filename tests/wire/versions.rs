//! Old versions of TLS and weak cipher suites.

use std::process::Command;

use crate::common::process::{run, tool};
use crate::hello::{self, Hello, SIGNATURE_ALGORITHMS, SSL3, SUPPORTED_VERSIONS, TLS10, TLS11, TLS12};
use crate::scene::{NAS, Scene, say};

const HANDSHAKE_FAILURE: u8 = 40;
const PROTOCOL_VERSION: u8 = 70;

fn s_client(scene: &Scene) -> Command {
    let mut command = tool("openssl", "openssl");
    command.args(["s_client", "-servername", NAS, "-connect", &scene.gate.address().to_string()]);
    // Debian's OpenSSL makes no such offers of its own.
    command.args(["-cipher", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"]);
    command
}

#[test]
fn openssl_with_tls_1_0_or_1_1_is_told_that_its_version_is_refused() {
    let scene = Scene::new();
    for version in ["-tls1", "-tls1_1"] {
        let line = scene.one_refused("handshake", "protocol_version", || {
            let refused = run(s_client(&scene).arg(version)).failure();
            assert!(refused.stderr.contains("alert protocol version"), "{refused}");
            assert!(!refused.text().contains("BEGIN CERTIFICATE"), "{refused}");
        });
        assert_eq!(line["alert"], "protocol_version");
    }
    scene.end();
}

#[test]
fn hello_of_an_old_version_is_told_that_its_version_is_refused() {
    let scene = Scene::new();
    for (version, called) in [(SSL3, "SSL 3.0"), (TLS10, "TLS 1.0"), (TLS11, "TLS 1.1")] {
        // As an old client sends it: rustls reads no name in a hello without signature_algorithms, so no route is known.
        let old = Hello { version, ..Hello::tls12(NAS).without(SIGNATURE_ALGORITHMS) };
        for size in [1, 3, 5, 1 << 14] {
            let records = hello::records(&old.message(), size);
            let line = scene.assert_refuses(&records, "handshake", "protocol_version", Some(PROTOCOL_VERSION));
            assert_eq!(line["detail"], format!("the client supports {called} at most"));
        }
        // From a client that knows newer extensions, and from one that has turned newer versions off.
        let old = Hello { version, ..Hello::tls12(NAS) }.records();
        scene.assert_refuses(&old, "handshake", "protocol_version", Some(PROTOCOL_VERSION));
        let offered = hello::vector8(&version.to_be_bytes());
        let old = Hello::tls13(NAS).with(SUPPORTED_VERSIONS, offered).records();
        scene.assert_refuses(&old, "handshake", "protocol_version", Some(PROTOCOL_VERSION));
    }
    // SSL 3.0 knew no extensions.
    let bare = Hello { version: SSL3, suites: vec![0x0005, 0x000a], extensions: Vec::new() }.records();
    scene.assert_refuses(&bare, "handshake", "protocol_version", Some(PROTOCOL_VERSION));
    // TLS 1.2 knows the extension, and rustls wants it.
    let without = Hello::tls12(NAS).without(SIGNATURE_ALGORITHMS).records();
    let line = scene.assert_refuses(&without, "client_hello", "malformed", Some(HANDSHAKE_FAILURE));
    assert!(line["detail"].as_str().unwrap().contains("SignatureAlgorithms"), "{line}");
    scene.end();
}

#[test]
fn weak_cipher_suites_have_nothing_in_common_with_ours() {
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
            let line = scene.assert_refuses(&weak, "handshake", "no_shared_parameters", Some(HANDSHAKE_FAILURE));
            assert_eq!([&line["route"], &line["server_name"]], ["nas", NAS], "{what}");
        }
    }
    let none = Hello { suites: Vec::new(), ..Hello::tls12(NAS) }.records();
    scene.assert_refuses(&none, "client_hello", "malformed", Some(50));
    scene.end();
}

#[test]
fn openssl_with_anonymous_and_null_suites_is_told_that_the_handshake_failed() {
    let scene = Scene::new();
    for suites in ["aNULL:@SECLEVEL=0", "eNULL:@SECLEVEL=0"] {
        let line = scene.one_refused("handshake", "no_shared_parameters", || {
            let refused = run(s_client(&scene).args(["-tls1_2", "-cipher", suites])).failure();
            assert!(refused.stderr.contains("alert handshake failure"), "{refused}");
        });
        assert_eq!(line["alert"], "handshake_failure");
    }
    scene.end();
}

#[test]
fn client_whose_newer_versions_were_taken_out_on_the_way_can_tell() {
    let scene = Scene::new();
    // A client of TLS 1.3 that is answered in TLS 1.2 looks for this at the end of the random (RFC 8446 section 4.1.3).
    scene.refused("handshake", "closed_early", |mut stream| {
        std::io::Write::write_all(&mut stream, &Hello::tls12(NAS).records()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let heard = say(stream, b"");
        assert_eq!(heard.bytes[9..11], TLS12.to_be_bytes());
        assert_eq!(heard.bytes[11 + 24..][..8], *b"DOWNGRD\x01", "{heard:02x?}");
    });
    scene.end();
}
