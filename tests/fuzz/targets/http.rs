//! Requests to the listener for metrics and the status page, on loopback.
#![no_main]

#[path = "../shared/house.rs"]
mod house;

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
    if matches!(code, 400 | 431) && field("content-type").is_none() {
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
    assert_eq!(field("connection"), Some("close"));
    let length: usize = field("content-length").expect("a length").parse().unwrap();
    let body = answer.len() - head;
    assert!(body == length || body == 0, "{body} of {length} bytes: one response to one request");
    // A page that gets its own name to lead to this machine can read nothing (DNS rebinding).
    if code == 200 && bytes.windows(5).any(|part| part == b"evil.") {
        let host = String::from_utf8_lossy(bytes).to_ascii_lowercase();
        assert!(!host.contains("\nhost: evil.") && !host.starts_with("get http://evil."), "{host:?}");
    }
});
