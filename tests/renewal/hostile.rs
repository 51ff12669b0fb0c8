//! A device that has been taken over: what it can send, and what that costs.

use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;

use crate::common::process::{run, tool};
use crate::house::{House, REENROLL, RENEW, answer};

#[test]
fn bodies_that_are_no_requests_are_refused() {
    let house = House::of(&["alice-laptop"]);
    let request = house.request("devices/alice-laptop-key.pem");
    let mut tampered = request.clone().into_bytes();
    let at = tampered.len() / 2;
    tampered[at] = if tampered[at] == b'A' { b'B' } else { b'A' };
    let tampered = String::from_utf8(tampered).unwrap();
    for (body, status) in [
        ("", 400),
        ("garbage!", 400),
        ("Z2FyYmFnZQ==", 400),
        (&request[..request.len() / 2], 400),
        (tampered.as_str(), 400),
        (&"A".repeat(12 * 1024), 400),
        (&"A".repeat(13 * 1024), 413),
        (&"A".repeat(100 * 1024), 413),
    ] {
        let answered = house.send("alice-laptop", body);
        assert_eq!(answered.status, status, "{} bytes: {}", body.len(), answered.body);
    }
    // As a form, which a web page could have a browser send.
    let mut curl = house.curl(Some("alice-laptop"), RENEW, REENROLL);
    let answered = answer(&run(curl.args(["--data-binary", &request])).success());
    assert_eq!(answered.status, 415, "{}", answered.body);
    let metrics = house.gate.settled();
    assert_eq!(metrics.sum("doorward_renewal_requests_total", &[("outcome", "invalid")]), 9.0);
    assert_eq!(fs::read_dir(house.folder()).unwrap().count(), 0);
    assert_eq!(house.send("alice-laptop", &request).status, 202, "the request itself is right");
}

#[test]
fn weak_keys_are_not_certified() {
    let house = House::of(&["alice-laptop"]);
    let key = house.home.path("weak-key.pem").display().to_string();
    house.home.openssl(&["genrsa", "-out", &key, "1024"]).success();
    let answered = house.send("alice-laptop", &house.request("weak-key.pem"));
    assert_eq!((answered.status, answered.body.as_str()), (400, "the key is not supported: RSA with 1024 bits\n"));
}

/// An open connection of OpenSSL to the service, which has sent this.
fn begun(house: &House, text: &str, protocol: &[&str]) -> std::process::Child {
    let mut client = tool("openssl", "openssl");
    client.args(["s_client", "-quiet", "-verify_quiet", "-servername", RENEW, "-connect"]).args(protocol);
    let address = house.gate.address().to_string();
    let at = client.get_args().position(|argument| argument == "-connect").unwrap();
    let mut arguments: Vec<_> = client.get_args().map(ToOwned::to_owned).collect();
    arguments.insert(at + 1, address.into());
    let mut client = tool("openssl", "openssl");
    client.args(arguments).arg("-CAfile").arg(house.home.path("pki/server-ca.pem"));
    client.arg("-cert").arg(house.home.path("devices/alice-laptop.pem"));
    client.arg("-key").arg(house.home.path("devices/alice-laptop-key.pem"));
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    client.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    client
}

#[test]
fn slow_requests_end_and_delay_no_others() {
    let house = House::of(&["alice-laptop"]);
    let head = format!("POST {REENROLL} HTTP/1.1\r\nHost: {RENEW}\r\nContent-Type: application/pkcs10\r\n");
    let mut slow = [
        begun(&house, "", &[]),
        begun(&house, "POST", &["-tls1_2"]),
        begun(&house, &format!("{head}Content-Length: 400\r\n\r\nMII"), &[]),
        begun(&house, &format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\nMII\r\n"), &["-alpn", "http/1.1"]),
    ];
    assert_eq!(house.send("alice-laptop", &house.request("devices/alice-laptop-key.pem")).status, 202);
    // A request after another on the same connection is not answered.
    let twice = format!("GET /.well-known/est/cacerts HTTP/1.1\r\nHost: {RENEW}\r\n\r\n").repeat(2);
    let mut twice = begun(&house, &twice, &[]);
    let mut text = String::new();
    twice.stdout.as_mut().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 1, "{text}");
    twice.wait().unwrap();
    // All of them are ended by the gate.
    for client in &mut slow {
        let mut text = String::new();
        client.stdout.as_mut().unwrap().read_to_string(&mut text).unwrap();
        assert!(text.is_empty() || text.contains(" 408 "), "{text}");
        client.wait().unwrap();
    }
    assert_eq!(house.gate.wait_closed("renewal", 6).len(), 6);
    assert_eq!(house.nas.accepted(), 0);
}

#[test]
fn other_protocols_get_no_connection() {
    let house = House::of(&["alice-laptop"]);
    let mut client = begun(&house, "", &["-alpn", "h2"]);
    let mut text = String::new();
    client.stdout.as_mut().unwrap().read_to_string(&mut text).unwrap();
    client.wait().unwrap();
    assert_eq!(text, "");
    house.gate.wait_rejected("handshake", "no_application_protocol", 1);
}
