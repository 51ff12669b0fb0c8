//! What clients of EST send that are no programs of ours (RFC 7030, RFC 8951), and what the service answers.

use std::fs;

use crate::common::process::run;
use crate::house::{Answer, House, REENROLL, RENEW, answer};

const CACERTS: &str = "/.well-known/est/cacerts";

/// What `curl` gets with these options.
fn asked(house: &House, path: &str, options: &[&str]) -> Answer {
    let mut curl = house.curl(Some("alice-laptop"), RENEW, path);
    answer(&run(curl.args(options)).success())
}

#[test]
fn requests_are_taken_in_each_form_that_clients_send() {
    let house = House::of(&["alice-laptop"]);
    let request = house.request("devices/alice-laptop-key.pem");
    let one_line: String = request.split_whitespace().collect();
    let (lines, crlf) = (request.as_str(), request.replace('\n', "\r\n"));
    let plain = "Content-Type: application/pkcs10";
    for (name, body, options) in [
        ("lines", lines, &["-H", plain][..]),
        ("CRLF", &crlf, &["-H", plain]),
        ("no line break", &one_line, &["-H", plain]),
        ("encoding", lines, &["-H", plain, "-H", "Content-Transfer-Encoding: base64"]),
        // RFC 8951 section 3.1: the field is ignored, whatever it says.
        ("other encoding", lines, &["-H", plain, "-H", "Content-Transfer-Encoding: binary"]),
        ("parameters", lines, &["-H", "Content-Type: Application/PKCS10; charset=us-ascii"]),
        ("chunked", lines, &["-H", plain, "-H", "Transfer-Encoding: chunked"]),
        ("HTTP/1.0", lines, &["--http1.0", "--no-alpn", "-H", plain]),
        ("Expect", lines, &["-H", plain, "-H", "Expect: 100-continue"]),
    ] {
        let answered = asked(&house, REENROLL, &[options, &["--data-binary", body]].concat());
        assert_eq!(answered.status, 202, "{name}: {}", answered.body);
        assert!(answered.headers.contains("\nretry-after: 60"), "{name}: {}", answered.headers);
    }
    // It was one request.
    let metrics = house.gate.settled();
    let count = |outcome| metrics.sum("doorward_renewal_requests_total", &[("outcome", outcome)]);
    assert_eq!((count("stored"), count("waiting"), count("invalid")), (1.0, 8.0, 0.0));

    house.ca(&["approve", "--all"]).success();
    let answered = asked(&house, REENROLL, &["--http1.0", "--no-alpn", "-H", plain, "--data-binary", &crlf]);
    assert_eq!(answered.status, 200, "{}", answered.body);
    for line in ["\ncontent-type: application/pkcs7-mime; smime-type=certs-only", "\ncontent-transfer-encoding: base64"]
    {
        assert!(answered.headers.contains(line), "{line:?} in {}", answered.headers);
    }
    assert!(house.issued(&answered).contains("BEGIN CERTIFICATE"));
}

#[test]
fn certificates_of_the_authorities_are_sent_for_get_and_head() {
    let house = House::of(&["alice-laptop"]);
    for options in [&[][..], &["--http1.0", "--no-alpn"]] {
        let got = asked(&house, CACERTS, options);
        assert_eq!(got.status, 200, "{}", got.body);
        assert!(house.issued(&got).contains("BEGIN CERTIFICATE"), "{}", got.body);
    }
    let got = asked(&house, CACERTS, &[]);
    // RFC 9110 section 9.3.2: the same without the body.
    let head = asked(&house, CACERTS, &["--head"]);
    assert_eq!((head.status, head.body.as_str()), (200, ""), "{}", head.headers);
    let fields = |answer: &Answer| {
        let lines = answer.headers.lines().filter(|line| !line.starts_with("date:"));
        let mut lines: Vec<String> = lines.map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(fields(&head), fields(&got));
}

#[test]
fn other_methods_and_paths_are_refused_and_store_nothing() {
    let house = House::of(&["alice-laptop"]);
    let request = house.request("devices/alice-laptop-key.pem");
    let body = ["-H", "Content-Type: application/pkcs10", "--data-binary", &request];
    for (path, method, allowed) in [
        (REENROLL, "GET", "post"),
        (REENROLL, "PUT", "post"),
        (REENROLL, "DELETE", "post"),
        (REENROLL, "OPTIONS", "post"),
        (CACERTS, "POST", "get, head"),
        (CACERTS, "PUT", "get, head"),
    ] {
        let answered = asked(&house, path, &[&["-X", method], &body[..]].concat());
        assert_eq!(answered.status, 405, "{method} {path}: {}", answered.body);
        assert!(answered.headers.contains(&format!("\nallow: {allowed}")), "{method} {path}: {}", answered.headers);
    }
    let head = asked(&house, REENROLL, &["--head"]);
    assert_eq!((head.status, head.body.as_str()), (405, ""));
    // What RFC 7030 has besides; a label (section 3.2.2), which this service has none of; and names that are almost right.
    for path in [
        "/.well-known/est/simpleenroll",
        "/.well-known/est/serverkeygen",
        "/.well-known/est/fullcmc",
        "/.well-known/est/csrattrs",
        "/.well-known/est/home/simplereenroll",
        "/.well-known/est/home/cacerts",
        "/.well-known/est/simplereenroll/",
        "/.well-known/est/Simplereenroll",
        "/.well-known/est/",
        "/.well-known/est",
        "/",
    ] {
        for options in [&[][..], &body] {
            let answered = asked(&house, path, options);
            assert_eq!(answered.status, 404, "{path}: {}", answered.body);
        }
    }
    assert_eq!(fs::read_dir(house.folder()).unwrap().count(), 0);
}

/// A request that is said to be long is refused before all of it was sent, with and without a question first.
#[test]
fn long_bodies_are_not_read() {
    let house = House::of(&["alice-laptop"]);
    let long = house.home.path("long");
    fs::write(&long, vec![b'A'; 8 << 20]).unwrap();
    let body = format!("@{}", long.display());
    for more in [&[][..], &["-H", "Expect:"], &["-H", "Transfer-Encoding: chunked"]] {
        let mut curl = house.curl(Some("alice-laptop"), RENEW, REENROLL);
        curl.args(["-H", "Content-Type: application/pkcs10", "--data-binary", &body]).args(more);
        // It may be told that the connection has ended before it has read the answer.
        let ended = run(&mut curl);
        let text = ended.text();
        assert!(text.is_empty() || text.contains(" 413 ") || text.contains(" 100 "), "{ended}");
    }
    for line in house.gate.wait_closed("renewal", 3) {
        let sent = line["bytes_to_backend"].as_u64().unwrap_or_else(|| panic!("{line}"));
        assert!(sent < 2 << 20, "{line}");
    }
}
