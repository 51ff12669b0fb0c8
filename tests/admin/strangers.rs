//! Requests that are malformed, or come from clients that the listener is not for.

use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::home::House;
use crate::http::{exchange, get};

fn gate() -> Gate {
    let pki = TestPki::new();
    let backend = Backend::echo();
    House::new(&pki).route("nas", backend.address()).open()
}

#[test]
fn methods_other_than_get_and_head_are_refused() {
    let gate = gate();
    let host = gate.metrics_address();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "RELOAD"] {
        for path in ["/metrics", "/", "/healthz"] {
            // CONNECT asks for a host and a port, not for a path.
            let target = if method == "CONNECT" { "127.0.0.1:22" } else { path };
            let request = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let answer = exchange(&gate, request).unwrap();
            assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method} {path}");
            assert!(!answer.body.contains("doorward"), "{method} {path}: {}", answer.body);
        }
    }
    for garbage in [
        "\u{0}\u{0}\u{0}",
        "GET\r\n\r\n",
        "GET /metrics\r\n\r\n",
        "GET / HTTP/3.0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\n",
        "\u{16}\u{3}\u{1}",
    ] {
        let answer = exchange(&gate, format!("{garbage}\r\n\r\n"));
        assert!(answer.as_ref().is_none_or(|answer| answer.status >= 400), "{garbage:?}: {answer:?}");
    }
    let head = exchange(&gate, format!("HEAD /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).unwrap();
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

/// DNS rebinding: an attacker's page in a browser on the gate's machine makes its own name resolve to 127.0.0.1. The browser
/// would let it read the reply.
#[test]
fn foreign_host_names_are_refused_on_loopback() {
    let gate = gate();
    let port = gate.metrics_address().port();
    let ask = |request: String| exchange(&gate, request).unwrap();
    for path in ["/", "/metrics", "/status.json", "/healthz", "/readyz"] {
        for host in ["rebound.example", "localhost.rebound.example", "127.0.0.1.rebound.example", "[::1].example"] {
            let answer = ask(format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"));
            assert!([400, 421].contains(&answer.status), "{path} {host}: {answer:?}");
            assert!(!answer.body.contains("doorward_"), "{answer:?}");
        }
    }
    let absolute = format!("GET http://rebound.example/metrics HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n");
    assert_eq!(ask(absolute + "Connection: close\r\n\r\n").status, 421);
    let twice = format!("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: rebound.example\r\n");
    assert_eq!(ask(twice + "Connection: close\r\n\r\n").status, 400);
    assert_eq!(ask("GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned()).status, 400);
    for host in ["127.0.0.1", "localhost", "LOCALHOST", "[::1]", "192.168.1.5"] {
        let answer = ask(format!("GET /metrics HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"));
        assert_eq!(answer.status, 200, "{host}");
    }
    // As curl -0, netcat and probes of load balancers.
    assert_eq!(ask("GET /healthz HTTP/1.0\r\n\r\n".to_owned()).status, 200);
}

/// Such as `gate:9180` in a compose file.
#[test]
fn any_host_name_is_served_on_all_addresses() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let config = House::new(&pki).route("nas", backend.address()).config();
    let listener = "[metrics]\naddress = \"";
    let open = config.replace(&format!("{listener}127.0.0.1:0"), &format!("{listener}0.0.0.0:0"));
    assert_ne!(config, open);
    let gate = Gate::start(&open);
    let answer = exchange(&gate, "GET /metrics HTTP/1.1\r\nHost: gate:9180\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(answer.status, 200);
}

#[test]
fn every_reply_has_the_security_headers() {
    let gate = gate();
    for (path, status) in [("/metrics", 200), ("/healthz", 200), ("/readyz", 200), ("/elsewhere", 404)] {
        let answer = get(&gate, path);
        assert_eq!(answer.status, status, "{path}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("cross-origin-resource-policy", "same-origin"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}: {name}");
        }
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
}
