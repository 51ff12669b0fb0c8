//! Server names: only the one that is configured leads anywhere, and nobody else is shown a certificate.

use rustls::{ClientConnection, StreamOwned};

use crate::hello::{Hello, SERVER_NAME, server_names};
use crate::scene::{NAS, Scene};

const ILLEGAL_PARAMETER: u8 = 47;
const DECODE_ERROR: u8 = 50;
const MISSING_EXTENSION: u8 = 109;
const UNRECOGNIZED_NAME: u8 = 112;

/// Both versions of TLS, with this as the body of the extension.
fn hellos(body: &[u8]) -> [Vec<u8>; 2] {
    [Hello::tls13(NAS), Hello::tls12(NAS)].map(|hello| hello.with(SERVER_NAME, body.to_vec()).records())
}

#[test]
fn without_a_name_nobody_is_shown_a_certificate() {
    let scene = Scene::new();
    for hello in [Hello::tls13(NAS), Hello::tls12(NAS)] {
        let hello = hello.without(SERVER_NAME).records();
        let line = scene.assert_refuses(&hello, "route", "server_name_missing", Some(MISSING_EXTENSION));
        assert!(line["server_name"].is_null(), "{line}");
    }
    scene.end();
}

#[test]
fn with_an_unknown_name_nobody_is_shown_a_certificate() {
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
            let line = scene.assert_refuses(&hello, "route", "server_name_unknown", Some(UNRECOGNIZED_NAME));
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
fn name_that_no_host_can_have_is_refused() {
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
            let line = scene.assert_refuses(&hello, "client_hello", "malformed", Some(ILLEGAL_PARAMETER));
            assert!(line["server_name"].is_null(), "what no host is called is no server name: {line}");
            assert!(line["detail"].as_str().unwrap().contains("ServerNameMustContainOneHostName"), "{line}");
        }
    }
    scene.end();
}

#[test]
fn list_of_names_that_is_broken_is_refused() {
    let scene = Scene::new();
    let nas = NAS.as_bytes();
    for (what, body, alert) in [
        ("nothing at all", vec![], DECODE_ERROR),
        ("an empty list", vec![0, 0], DECODE_ERROR),
        ("an empty name", server_names(&[(0, b"")]), DECODE_ERROR),
        ("two names", server_names(&[(0, nas), (0, b"other.home.example")]), DECODE_ERROR),
        ("one name twice", server_names(&[(0, nas), (0, nas)]), DECODE_ERROR),
        ("a list that is longer than its extension", [&[0xff], &server_names(&[(0, nas)])[1..]].concat(), DECODE_ERROR),
        ("bytes behind the list", [&server_names(&[(0, nas)])[..], b"behind"].concat(), DECODE_ERROR),
        ("a name of another type", server_names(&[(1, nas)]), ILLEGAL_PARAMETER),
        ("a name of the last type", server_names(&[(255, nas)]), ILLEGAL_PARAMETER),
    ] {
        for hello in hellos(&body) {
            let line = scene.assert_refuses(&hello, "client_hello", "malformed", Some(alert));
            assert!(line["server_name"].is_null(), "{what}: {line}");
        }
    }
    scene.end();
}

#[test]
fn ip_address_is_no_server_name() {
    let scene = Scene::new();
    // RFC 6066 section 3 forbids them; rustls acts as if none had been sent.
    for address in ["127.0.0.1", "192.168.1.10", "::1", "2001:db8::1"] {
        for hello in hellos(&server_names(&[(0, address.as_bytes())])) {
            let line = scene.assert_refuses(&hello, "route", "server_name_missing", Some(MISSING_EXTENSION));
            assert!(line["detail"].as_str().unwrap().contains("IP address"), "{line}");
        }
    }
    scene.end();
}

#[test]
fn case_of_a_name_does_not_matter() {
    let mut scene = Scene::new();
    for name in ["NAS.HOME.EXAMPLE", "nAs.hOmE.eXaMpLe"] {
        // rustls' client sends a name as it was given.
        let client = ClientConnection::new(scene.alice.clone(), name.try_into().unwrap()).unwrap();
        let stream = scene.connect();
        scene.assert_served(StreamOwned::new(client, stream));
    }
    scene.end();
}

#[test]
fn trailing_dot_of_a_name_does_not_matter() {
    let scene = Scene::new();
    // By hand: rustls' client leaves the dot out, as RFC 6066 section 3 wants it.
    for hello in hellos(&server_names(&[(0, b"nas.home.example.")])) {
        let line = scene.refused("handshake", "closed_early", |stream| {
            std::io::Write::write_all(&mut { stream }, &hello).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let heard = crate::scene::listen(stream, tokio::time::Instant::now());
            assert_eq!(heard.bytes[5], 2, "a ServerHello");
        });
        assert_eq!(line["route"], "nas");
    }
    scene.end();
}
