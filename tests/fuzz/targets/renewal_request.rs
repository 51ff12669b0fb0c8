//! What a device sends to the renewal service: a request of HTTP, or the certificate request (PKCS#10) in one.
#![no_main]

#[path = "../shared/house.rs"]
mod house;

use std::fs;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use doorward::bundle::Bundle;
use doorward::fuzz::FuzzedRenewal;
use doorward::model::renewal::RequestOutcome;
use doorward::pki::certs_only;
use doorward::renewal::folder::RequestFolder;
use libfuzzer_sys::fuzz_target;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

const DEVICE: &str = "alice-laptop";

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().enable_time().build().unwrap());
static SCENE: LazyLock<Scene> = LazyLock::new(Scene::new);

struct Scene {
    folder: TempDir,
    certificate: CertificateDer<'static>,
    renewal: FuzzedRenewal,
}

impl Scene {
    fn new() -> Self {
        let folder = house::in_memory();
        let bundle = Bundle::parse(include_str!("../seeds/bundle/plain")).unwrap();
        let certificate = bundle.chain[0].clone();
        let renewal = FuzzedRenewal::new(folder.path(), DEVICE, &certificate).unwrap();
        Self { folder, certificate, renewal }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Scene { folder, certificate, renewal } = &*SCENE;
    // Behind a "=", it is what a device signs.
    let der = bytes.strip_prefix(b"=");
    let request = der.map_or_else(|| bytes.to_vec(), posted);
    let (answer, told) = RUNTIME.block_on(renewal.answer(&request));
    let read = Read::of(&answer);
    assert!(told.len() <= 1, "{told:?}");
    if let Some(told) = told.first() {
        assert_eq!(told.device, DEVICE);
        assert_ne!(told.outcome, RequestOutcome::Failed, "{told:?}");
        if let Some(detail) = &told.detail {
            house::printable(detail);
        }
        assert_eq!(read.status, status(told.outcome), "{told:?}");
    } else {
        assert!(matches!(read.status, 0 | 200 | 400 | 404 | 405 | 408 | 414 | 431 | 505), "{}", read.status);
    }
    let stored = told.first().is_some_and(|told| told.outcome == RequestOutcome::Stored);
    let requests = RequestFolder::new(folder.path());
    let (kept, damaged) = requests.requests().unwrap();
    assert_eq!((kept.len(), damaged), (usize::from(stored), 0));
    let Some(kept) = kept.first() else { return };
    assert!(der.is_none_or(|der| kept.request.der() == der));
    // The owner decides, and the device asks again: a certificate is for the key of the request, or it is not sent.
    let same_key = told.first().and_then(|told| told.same_key).unwrap();
    requests.decide(kept, same_key.then_some(certificate)).unwrap();
    let (answer, _) = RUNTIME.block_on(renewal.answer(&request));
    let read = Read::of(&answer);
    assert_eq!(read.status, if same_key { 200 } else { 403 });
    if same_key {
        let text: Vec<u8> = read.body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        assert_eq!(certs_only::decode(&STANDARD.decode(text).unwrap()).as_deref(), Some(&[certificate.clone()][..]));
    }
    for entry in fs::read_dir(folder.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
});

fn posted(der: &[u8]) -> Vec<u8> {
    let body = STANDARD.encode(der);
    let head = "POST /.well-known/est/simplereenroll HTTP/1.1\r\nHost: renew.home.example\r\n";
    let length = body.len();
    format!("{head}Content-Type: application/pkcs10\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

const fn status(outcome: RequestOutcome) -> u16 {
    match outcome {
        RequestOutcome::Stored | RequestOutcome::Waiting => 202,
        RequestOutcome::Refused | RequestOutcome::NotRenewed => 403,
        RequestOutcome::TooSoon => 429,
        RequestOutcome::Failed => 503,
        // Or 408, 413, 415.
        RequestOutcome::Invalid => 400,
        // With a certificate.
        _ => 200,
    }
}

/// An answer: one, or none.
struct Read<'a> {
    status: u16,
    body: &'a [u8],
}

impl<'a> Read<'a> {
    fn of(answer: &'a [u8]) -> Self {
        // What a device waits for that has sent "Expect: 100-continue", and before the answer (RFC 9110 section 10.1.1).
        let answer = answer.strip_prefix(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(answer);
        if answer.is_empty() {
            return Self { status: 0, body: &[] };
        }
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head) = response.parse(answer).expect("a response") else {
            panic!("half a response: {answer:?}");
        };
        let field = |name: &str| {
            let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            found.map(|header| std::str::from_utf8(header.value).unwrap())
        };
        let body = &answer[head..];
        if field("content-type").is_some() {
            assert_eq!(field("cache-control"), Some("no-store"));
            assert_eq!(field("x-content-type-options"), Some("nosniff"));
            assert!(field("connection").is_some_and(|value| value == "close") || response.version == Some(0));
            let length: usize = field("content-length").expect("a length").parse().unwrap();
            assert!(
                body.len() == length || body.is_empty(),
                "{} of {length} bytes: one response to one request",
                body.len()
            );
        } else {
            // hyper's own.
            assert!(body.is_empty(), "{answer:?}");
        }
        let status = match response.code.unwrap() {
            408 | 413 | 415 if field("content-type").is_some() => 400,
            code => code,
        };
        Self { status, body }
    }
}
