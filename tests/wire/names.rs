//! Server names: only a configured name selects a route, and every other client gets no certificate.

use rustls::{ClientConnection, StreamOwned};

use crate::hello::{Hello, SERVER_NAME, server_names};
use crate::scene::{NAS, Scene};

const ILLEGAL_PARAMETER: u8 = 47;
const DECODE_ERROR: u8 = 50;
const MISSING_EXTENSION: u8 = 109;
const UNRECOGNIZED_NAME: u8 = 112;

/// A ClientHello of each version with this body of the `server_name` extension.
fn hellos(body: &[u8]) -> [Vec<u8>; 2] {
    [Hello::tls13(NAS), Hello::tls12(NAS)].map(|hello| hello.with(SERVER_NAME, body.to_vec()).records())
}

#[test]
fn missing_name_gets_no_certificate() {
    let scene = Scene::new();
    for hello in [Hello::tls13(NAS), Hello::tls12(NAS)] {
        let hello = hello.without(SERVER_NAME).records();
        let line = scene.assert_rejected(&hello, "route", "server_name_missing", Some(MISSING_EXTENSION));
        assert!(line["server_name"].is_null(), "{line}");
    }
    scene.end();
}

#[test]
fn unknown_name_gets_no_certificate() {
    let scene = Scene::new();
    let long = format!("{}.{NAS}", ["a"; 110].join("."));
    for name in [
        "other.home.example",
        "home.example",
        "x.nas.home.example",
        "evilnas.home.example",
        "nas.home.example.evil.example",
        "nas.home.exampl",
        "as.home.example",
        "nas",
        "localhost",
        "xn--ns-zia.home.example",
        "nas_home.example",
        &long,
    ] {
        for hello in hellos(&server_names(&[(0, name.as_bytes())])) {
            let line = scene.assert_rejected(&hello, "route", "server_name_unknown", Some(UNRECOGNIZED_NAME));
            let shown = line["server_name"].as_str().unwrap();
            match shown.strip_suffix('…') {
                Some(part) => assert!(part.len() == 128 && name.starts_with(part), "{line}"),
                None => assert_eq!(shown, name),
            }
        }
    }
    scene.end();
}

#[test]
fn invalid_host_name_is_rejected() {
    let scene = Scene::new();
    let label_of_64 = format!("{}.home.example", "a".repeat(64));
    let of_300 = ["a"; 150].join(".") + ".";
    let of_12_000 = "nas.home.example.".repeat(12_000 / 17);
    for name in [
        &b"nas home.example"[..],
        b"nas.home.example ",
        b"nas/home.example",
        b"nas.home.example\n",
        b"nas.home.example\r\n{\"event\":\"closed\"}",
        b"\x1b[31mnas.home.example",
        b"\"nas.home.example\"",
        "näs.home.example".as_bytes(),
        "nas\u{202e}.home.example".as_bytes(),
        b"\xff\xfe.home.example",
        b"nas.home.example\0",
        b"nas.home.example\0.evil.example",
        b"\0",
        b".",
        b".nas.home.example",
        b"nas..home.example",
        b"nas.home.example..",
        b"-nas.home.example",
        b"*",
        b"*.home.example",
        label_of_64.as_bytes(),
        of_300.as_bytes(),
        of_12_000.as_bytes(),
    ] {
        for hello in hellos(&server_names(&[(0, name)])) {
            let line = scene.assert_rejected(&hello, "client_hello", "malformed", Some(ILLEGAL_PARAMETER));
            assert!(line["server_name"].is_null(), "an invalid name is not logged as a server name: {line}");
            assert!(line["detail"].as_str().unwrap().contains("ServerNameMustContainOneHostName"), "{line}");
        }
    }
    scene.end();
}

#[test]
fn malformed_list_of_names_is_rejected() {
    let scene = Scene::new();
    let nas = NAS.as_bytes();
    for (what, body, alert) in [
        ("an empty extension", vec![], DECODE_ERROR),
        ("an empty list", vec![0, 0], DECODE_ERROR),
        ("an empty name", server_names(&[(0, b"")]), DECODE_ERROR),
        ("two names", server_names(&[(0, nas), (0, b"other.home.example")]), DECODE_ERROR),
        ("one name twice", server_names(&[(0, nas), (0, nas)]), DECODE_ERROR),
        ("a list that is longer than its extension", [&[0xff], &server_names(&[(0, nas)])[1..]].concat(), DECODE_ERROR),
        ("bytes after the list", [&server_names(&[(0, nas)])[..], b"extra"].concat(), DECODE_ERROR),
        ("a name of another type", server_names(&[(1, nas)]), ILLEGAL_PARAMETER),
        ("a name of the last type", server_names(&[(255, nas)]), ILLEGAL_PARAMETER),
    ] {
        for hello in hellos(&body) {
            let line = scene.assert_rejected(&hello, "client_hello", "malformed", Some(alert));
            assert!(line["server_name"].is_null(), "{what}: {line}");
        }
    }
    scene.end();
}

#[test]
fn ip_address_is_not_a_server_name() {
    let scene = Scene::new();
    // RFC 6066 section 3 forbids them; rustls treats them as no name.
    for address in ["127.0.0.1", "192.168.1.10", "::1", "2001:db8::1"] {
        for hello in hellos(&server_names(&[(0, address.as_bytes())])) {
            let line = scene.assert_rejected(&hello, "route", "server_name_missing", Some(MISSING_EXTENSION));
            assert!(line["detail"].as_str().unwrap().contains("IP address"), "{line}");
        }
    }
    scene.end();
}

#[test]
fn case_of_a_name_is_ignored() {
    let mut scene = Scene::new();
    for name in ["NAS.HOME.EXAMPLE", "nAs.hOmE.eXaMpLe"] {
        // rustls' client sends the name unchanged.
        let client = ClientConnection::new(scene.alice.clone(), name.try_into().unwrap()).unwrap();
        let stream = scene.connect();
        scene.assert_served(StreamOwned::new(client, stream));
    }
    scene.end();
}

#[test]
fn trailing_dot_of_a_name_is_ignored() {
    let scene = Scene::new();
    // Handmade, because rustls' client removes the dot (RFC 6066 section 3).
    for hello in hellos(&server_names(&[(0, b"nas.home.example.")])) {
        let line = scene.expect_rejection("handshake", "closed_early", |stream| {
            std::io::Write::write_all(&mut { stream }, &hello).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let response = crate::scene::read_to_end(stream, tokio::time::Instant::now());
            assert_eq!(response.bytes[5], 2, "a ServerHello");
        });
        assert_eq!(line["route"], "nas");
    }
    scene.end();
}
