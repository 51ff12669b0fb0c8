//! Requests to the link: replies and limits.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::home::{Home, der};
use crate::shared::{Response, Shared};

/// The security headers, which every reply has.
#[track_caller]
pub(crate) fn assert_not_kept(response: &Response) {
    assert_eq!(response.header("cache-control"), Some("no-store"), "{response:?}");
    assert_eq!(response.header("referrer-policy"), Some("no-referrer"), "{response:?}");
    assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{response:?}");
    assert_eq!(response.header("cross-origin-resource-policy"), Some("same-origin"), "{response:?}");
    let policy = response.header("content-security-policy").unwrap();
    for part in ["default-src 'none'; ", "; form-action 'self'; ", "; base-uri 'none'", "; frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{part} is missing in {response:?}");
    }
}

#[test]
fn reading_the_page_delivers_nothing() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &[]);
    let path = shared.path().to_owned();
    for _ in 0..20 {
        for method in ["GET", "HEAD"] {
            let page = shared.ask(method, &path);
            assert_eq!((page.status, page.body.is_empty()), (200, method == "HEAD"), "{method}");
        }
        // A program that follows links and forms without pressing a button.
        for file in ["alice-phone.mobileconfig", "alice-phone-compat.p12", "alice-phone.p12", "alice-phone.doorward"] {
            for method in ["GET", "HEAD", "PUT"] {
                let looked = shared.ask(method, &format!("{path}/{file}"));
                assert_eq!((looked.status, looked.header("allow")), (405, Some("POST")), "{method} {file}");
            }
        }
    }
    // The authority is no secret, and no delivery.
    let root = shared.ask("GET", &format!("{path}/server-ca.crt"));
    assert_eq!((root.status, root.header("content-type")), (200, Some("application/x-x509-ca-cert")));
    assert_not_kept(&root);
    std::fs::write(home.path("root.pem"), &root.body).unwrap();
    assert_eq!(der(&home.path("root.pem")), der(&home.folder().join("pki/server-ca.pem")));

    let place = shared.press("alice-phone.p12");
    assert!(!place.contains(&path), "the link gives away the URL of the file");
    assert_eq!(shared.ask("HEAD", &place).status, 405);
    assert_eq!(shared.ask("GET", &place).status, 200);
    assert_eq!(shared.wait_and_close().0, 0);
}

#[test]
fn guessing_paths_finds_nothing_and_closes_the_link() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &[]);
    // Browsers request this unasked, so it does not count as a guess.
    for _ in 0..110 {
        assert_eq!(shared.ask("GET", "/favicon.ico").status, 404);
    }
    let path = shared.path().to_owned();
    let mut almost = path.clone();
    let last = almost.pop().unwrap();
    almost.push(if last == '0' { '1' } else { '0' });
    let mut wrong = vec![
        ("GET", "/".to_owned()),
        ("GET", almost.clone()),
        ("POST", format!("{almost}/alice-phone.p12")),
        ("GET", format!("{path}/../{}", &path[1..])),
        ("GET", format!("{path}/alice-phone-key.pem")),
        ("POST", format!("{path}/alice-phone-key.pem")),
        ("GET", format!("{path}/")),
        ("GET", format!("/{}", "0".repeat(5000))),
        ("GET", path.to_uppercase() + "x"),
    ];
    wrong.resize_with(99, || ("GET", "/admin".to_owned()));
    for (method, path) in &wrong {
        let answer = shared.ask(method, path);
        assert_eq!(answer.status, 404, "{method} {path}");
        assert_not_kept(&answer);
        assert!(!answer.text().contains("alice"), "the reply gives away the device");
    }
    assert_eq!(shared.ask("GET", &path).status, 200, "99 tries");
    let _ = shared.try_ask("GET", "/one-more", "");
    assert_eq!(shared.wait(), (9, json!({"event": "guessed", "by": "127.0.0.1"})));
    assert!(TcpStream::connect(shared.url()[7..].split('/').next().unwrap()).is_err(), "still there");
}

#[test]
fn slow_and_silent_clients_are_closed_and_block_no_other() {
    let home = Home::new();
    let shared = Shared::start(&home, &[]);
    // More than there are slots.
    let mut silent: Vec<TcpStream> = (0..150).map(|_| shared.connect()).collect();
    let begun = Instant::now();
    assert_eq!(shared.ask("GET", shared.path()).status, 200);
    assert!(begun.elapsed() < Duration::from_secs(15), "waited {:?} behind silent clients", begun.elapsed());

    // A head that never ends, byte by byte.
    let mut slow = shared.connect();
    slow.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let begun = Instant::now();
    slow.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
    loop {
        let mut byte = [0];
        match slow.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                if slow.write_all(b"x").is_err() {
                    break;
                }
            }
            Err(_) => break,
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "still connected");
    }
    // The silent ones are closed, too.
    for stream in &mut silent {
        let ended = stream.read(&mut [0]);
        assert!(matches!(ended, Ok(0)) || ended.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset));
    }
    assert_eq!(shared.ask("GET", shared.path()).status, 200);
}

#[test]
fn request_bodies_and_long_heads_are_refused() {
    let home = Home::new();
    let shared = Shared::start(&home, &[]);
    let button = format!("{}/alice-phone.p12", shared.path());
    let answer = shared.try_ask("POST", &button, "Content-Length: 100000000\r\n").unwrap();
    assert_eq!(answer.status, 413);
    let answer = shared.try_ask("POST", &button, "Transfer-Encoding: chunked\r\n").unwrap();
    assert_eq!(answer.status, 413);
    for headers in [format!("X: {}\r\n", "x".repeat(100_000)), "X: y\r\n".repeat(100)] {
        let answer = shared.try_ask("GET", shared.path(), &headers);
        assert!(!answer.is_ok_and(|answer| answer.status == 200), "a head without end");
    }
    assert_eq!(shared.ask("GET", shared.path()).status, 200);
}
