//! The replies of the monitoring listener.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{ALLOW, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Version};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::page;
use crate::explain::clock::{Clock, Zone};
use crate::explain::finding::ToldCertificate;
use crate::explain::finding::told::{Report, ToldFinding, ToldVerdict};
use crate::explain::look_up::ToldName;
use crate::http::{HTML, JSON, Load, Policy, Reply, TEXT, reply};
use crate::overview::Overview;

/// The format's own version (Prometheus, "Exposition formats").
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How old a body may be that is sent again under high load. Rendering one takes milliseconds.
const MAX_AGE: Duration = Duration::from_secs(1);

/// Replies to requests.
#[derive(Debug)]
pub(super) struct Responder {
    /// Only this machine can connect, so that a request for another host comes from a browser that was tricked.
    loopback: bool,
    gate: Arc<Overview>,
    /// In which the page tells times.
    zone: Zone,
    page_policy: Policy,
    metrics: CachedBody,
    page: CachedBody,
    json: CachedBody,
    stop: CancellationToken,
}

/// `/status.json`.
#[derive(Debug, Serialize)]
struct Status {
    /// When (RFC 3339).
    time: String,
    verdict: ToldVerdict,
    /// The most important first.
    findings: Vec<ToldFinding>,
    /// The host names of backends.
    host_names: Vec<ToldName>,
    /// The public certificate, if the configuration wants one.
    #[serde(skip_serializing_if = "Option::is_none")]
    public_certificate: Option<ToldCertificate>,
}

/// The last body of a kind, and when it was rendered.
#[derive(Debug, Default)]
struct CachedBody(Mutex<Option<(Instant, Bytes)>>);

impl CachedBody {
    /// Under high load, the last body unless it is too old; otherwise a new one.
    fn get(&self, load: Load, render: impl FnOnce() -> String) -> Bytes {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, body)) = &*last
            && load == Load::High
            && at.elapsed() < MAX_AGE
        {
            return body.clone();
        }
        let body = Bytes::from(render());
        // It is some 50 kB, and not kept longer than the load lasts.
        *last = (load == Load::High).then(|| (Instant::now(), body.clone()));
        body
    }
}

impl Responder {
    /// For a listener that is bound to `address`; once `stop` is cancelled the gate is not ready.
    pub(super) fn new(address: SocketAddr, gate: Arc<Overview>, stop: CancellationToken) -> Self {
        Self {
            loopback: address.ip().to_canonical().is_loopback(),
            gate,
            // Read at the start: /etc/localtime may be out of reach by now.
            zone: Zone::system(),
            page_policy: page::policy(),
            metrics: CachedBody::default(),
            page: CachedBody::default(),
            json: CachedBody::default(),
            stop,
        }
    }

    fn clock(&self) -> Clock {
        Clock::new(OffsetDateTime::now_utc(), self.zone.clone())
    }

    /// The verdict and the findings for programs.
    fn json(&self) -> String {
        let clock = self.clock();
        let facts = self.gate.view(clock.clone()).facts;
        let Report { verdict, findings } = Report::new(&facts, &clock);
        let host_names = facts.host_names.iter().map(|host| ToldName::new(host, clock.now())).collect();
        let public_certificate = facts.public_certificate.as_ref().map(|public| public.told(&clock));
        let time = clock.now().format(&Rfc3339).unwrap_or_default();
        // Text and numbers are always JSON.
        serde_json::to_string(&Status { time, verdict, findings, host_names, public_certificate }).unwrap_or_default()
    }

    /// The reply to a request.
    pub(super) fn respond<Body>(&self, request: &Request<Body>, load: Load) -> Reply {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut reply = reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "read-only: GET or HEAD\n");
            reply.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return reply;
        }
        match requested_host(request) {
            Err(()) => return reply(StatusCode::BAD_REQUEST, TEXT, "exactly one Host header is required\n"),
            Ok(Some(host)) if self.loopback && !is_address_or_localhost(host) => {
                const WRONG: &str = "this host is not served: use an IP address, such as 127.0.0.1, or localhost\n";
                return reply(StatusCode::MISDIRECTED_REQUEST, TEXT, WRONG);
            }
            Ok(_) => {}
        }
        match request.uri().path() {
            "/" => {
                let render = || page::page(&self.gate.view(self.clock()));
                let mut reply = reply(StatusCode::OK, HTML, self.page.get(load, render));
                self.page_policy.apply(&mut reply);
                reply
            }
            "/status.json" => reply(StatusCode::OK, JSON, self.json.get(load, || self.json())),
            "/metrics" => reply(StatusCode::OK, METRICS, self.metrics.get(load, || self.gate.metrics.render())),
            "/healthz" => reply(StatusCode::OK, TEXT, "ok\n"),
            "/readyz" if self.stop.is_cancelled() => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n"),
            "/readyz" => reply(StatusCode::OK, TEXT, "ready\n"),
            _ => {
                const PATHS: &str = "not found; the paths are /, /status.json, /metrics, /healthz and /readyz\n";
                reply(StatusCode::NOT_FOUND, TEXT, PATHS)
            }
        }
    }
}

/// The host that the client believes it talks to (RFC 9112 section 3.2): that of the request line, or else of the one `Host`
/// header. HTTP/1.0 needs none, and no browser speaks it.
fn requested_host<Body>(request: &Request<Body>) -> Result<Option<&str>, ()> {
    if let Some(authority) = request.uri().authority() {
        return Ok(Some(authority.as_str()));
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().map(Some).map_err(drop),
        (None, None) if request.version() < Version::HTTP_11 => Ok(None),
        _ => Err(()),
    }
}

/// Whether a person or a program on this machine would ask for `host`. Another name may be an attacker's that was made to
/// resolve to this address ("DNS rebinding"), whose page could read the reply.
fn is_address_or_localhost(host: &str) -> bool {
    let is_address = |host: &str| host.parse::<SocketAddr>().is_ok();
    // A port is digits alone: `localhost:x@evil.example` names evil.example (RFC 3986 section 3.2).
    let (name, port) = host.rsplit_once(':').unwrap_or((host, "80"));
    let is_localhost = name.eq_ignore_ascii_case("localhost") && is_address(&format!("127.0.0.1:{port}"));
    is_address(host) || is_address(&format!("{host}:80")) || is_localhost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn body_is_reused_for_a_second_under_high_load_only() {
        let cached = CachedBody::default();
        let get = |load, text: &'static str| cached.get(load, || text.to_owned());
        assert_eq!(get(Load::High, "a"), "a");
        assert_eq!(get(Load::High, "b"), "a");
        assert_eq!(get(Load::Normal, "c"), "c");
        assert_eq!(get(Load::High, "d"), "d");
        tokio::time::advance(MAX_AGE).await;
        assert_eq!(get(Load::High, "e"), "e");
    }

    fn request(version: Version, uri: &str, hosts: &[&str]) -> Request<()> {
        let mut request = Request::builder().version(version).uri(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).expect("a request")
    }

    #[test]
    fn only_addresses_and_localhost_are_served_on_loopback() {
        for host in
            ["127.0.0.1:9180", "127.0.0.1", "[::1]:9180", "[::1]", "192.168.1.5:80", "localhost:9180", "LocalHost"]
        {
            assert!(is_address_or_localhost(host), "{host}");
        }
        for host in [
            "evil.example:9180",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "0x7f.1",
            "a@127.0.0.1",
            "localhost:a@evil.example",
            "localhost:a@evil.example:9180",
            "localhost:",
            "localhost:+80",
            "[::1].example",
            "[::1",
            "",
        ] {
            assert!(!is_address_or_localhost(host), "{host}");
        }
    }

    #[test]
    fn exactly_one_host_is_required_except_in_http_1_0() {
        let absolute = request(Version::HTTP_11, "http://evil.example/metrics", &["127.0.0.1"]);
        assert_eq!(requested_host(&absolute), Ok(Some("evil.example")));
        assert_eq!(requested_host(&request(Version::HTTP_11, "/", &["127.0.0.1"])), Ok(Some("127.0.0.1")));
        assert_eq!(requested_host(&request(Version::HTTP_10, "/", &[])), Ok(None));
        assert_eq!(requested_host(&request(Version::HTTP_11, "/", &[])), Err(()));
        assert_eq!(requested_host(&request(Version::HTTP_11, "/", &["127.0.0.1", "127.0.0.1"])), Err(()));
    }
}
