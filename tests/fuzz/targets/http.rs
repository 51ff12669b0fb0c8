//! Requests to the listener for metrics and the status page, on loopback.
#![no_main]

#[path = "../shared/house.rs"]
mod house;

use std::net::IpAddr;
use std::sync::LazyLock;

use doorward::fuzz::FuzzedListener;
use house::House;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().enable_time().build().unwrap());
static LISTENER: LazyLock<FuzzedListener> = LazyLock::new(|| {
    let config = House::new().load("server.pem", "server-key.pem", "clients.pem", &[]).unwrap();
    FuzzedListener::new("127.0.0.1:9180".parse().unwrap(), &config).unwrap()
});

/// What every reply says to browsers.
const HEADERS: [(&str, &str); 4] = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
    ("cross-origin-resource-policy", "same-origin"),
];

fuzz_target!(|bytes: &[u8]| {
    let answer = RUNTIME.block_on(LISTENER.answer(bytes));
    if answer.is_empty() {
        return;
    }
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(&answer).expect("a response") else {
        panic!("half a response: {answer:?}");
    };
    let code = response.code.unwrap();
    let field = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| std::str::from_utf8(header.value).unwrap())
    };
    if matches!(code, 400 | 414 | 431 | 505) && field("content-type").is_none() {
        // hyper's own, without a body.
        assert_eq!(answer.len(), head);
        return;
    }
    assert!(matches!(code, 200 | 400 | 404 | 405 | 421), "{code}");
    for (name, value) in HEADERS {
        assert_eq!(field(name), Some(value));
    }
    let policy = field("content-security-policy").expect("a policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    // HTTP/1.0 closes anyway.
    assert!(field("connection").is_some_and(|value| value == "close") || response.version == Some(0));
    let length: usize = field("content-length").expect("a length").parse().unwrap();
    let body = answer.len() - head;
    assert!(body == length || body == 0, "{body} of {length} bytes: one response to one request");
    if code == 200 {
        is_local(bytes);
    }
});

/// A page that makes its own name lead to this machine can read nothing (DNS rebinding).
fn is_local(bytes: &[u8]) {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(bytes).expect("it was answered");
    let mut hosts: Vec<String> = request
        .headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("host"))
        .map(|header| String::from_utf8_lossy(header.value).into_owned())
        .collect();
    // The absolute form is a URI with a scheme (RFC 3986 section 3.1), and stands for the field (RFC 9112 section 3.2.2).
    if let Some((scheme, rest)) = request.path.unwrap().split_once("://")
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.~".contains(c))
    {
        hosts = vec![rest.split(['/', '?', '#']).next().unwrap().to_owned()];
    }
    for host in hosts {
        let (name, port) = match host.strip_prefix('[') {
            Some(rest) => rest.split_once(']').expect("an address ends"),
            None => host.find(':').map_or((host.as_str(), ""), |colon| host.split_at(colon)),
        };
        let is_address = name.split('%').next().unwrap().parse::<IpAddr>().is_ok();
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
        assert!(is_port && (is_address || name.eq_ignore_ascii_case("localhost")), "{host:?} is served");
    }
}
