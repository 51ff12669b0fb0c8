//! What is asked, and what is answered.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode, Version};
use time::OffsetDateTime;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::Watched;
use super::history::{History, STEP};
use super::page;

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
/// The format's own version (Prometheus, "Exposition formats").
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What every answer carries: no browser may guess what it is, keep it, put it into a page of somebody else's, or load
/// anything on its behalf.
const HEADERS: [(HeaderName, &str); 5] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    // Fetch standard, section 3.7.
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// How old an answer may be that a crowd is given. To write one anew takes milliseconds.
const AGE: Duration = Duration::from_secs(1);

/// Knows all that can be asked.
#[derive(Debug)]
pub(super) struct Answers {
    /// Only this machine can connect, so a request by another name comes from a page that a browser was tricked with.
    local: bool,
    watched: Watched,
    history: History,
    started: OffsetDateTime,
    /// For the page, instead of the one that forbids everything.
    page_policy: Option<HeaderValue>,
    metrics: Written,
    page: Written,
    json: Written,
    stop: CancellationToken,
}

/// The last answer of a kind, and when it was written.
#[derive(Debug, Default)]
struct Written(Mutex<Option<(Instant, Bytes)>>);

impl Written {
    /// The last answer, if a crowd asks and it is not too old; a new one otherwise.
    fn get(&self, crowded: bool, write: impl FnOnce() -> String) -> Bytes {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, answer)) = &*last
            && crowded
            && at.elapsed() < AGE
        {
            return answer.clone();
        }
        let answer = Bytes::from(write());
        // Kept only where it may be of use: it is some 30 kB.
        *last = crowded.then(|| (Instant::now(), answer.clone()));
        answer
    }
}

type Answer = Response<Full<Bytes>>;

impl Answers {
    /// For a listener that is bound to `address`; once `stop` is cancelled the gate is not ready any more.
    pub(super) fn new(address: SocketAddr, watched: Watched, stop: CancellationToken) -> Self {
        Self {
            local: address.ip().to_canonical().is_loopback(),
            history: History::new(),
            watched,
            started: OffsetDateTime::now_utc(),
            page_policy: HeaderValue::from_str(&page::policy()).ok(),
            metrics: Written::default(),
            page: Written::default(),
            json: Written::default(),
            stop,
        }
    }

    /// Keeps the history. Does not end.
    pub(super) async fn remember(&self) {
        let mut steps = interval_at(Instant::now() + STEP, STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            steps.tick().await;
            self.history.step(&self.watched.metrics.totals);
        }
    }

    /// The answer to a request. In a crowd, it may be one that somebody else was given a moment ago.
    pub(super) fn to<Body>(&self, request: &Request<Body>, crowded: bool) -> Answer {
        let mut response = self.respond(request, crowded);
        for (name, value) in HEADERS {
            response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
        }
        response
    }

    fn respond<Body>(&self, request: &Request<Body>, crowded: bool) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "read only\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match asked_of(request) {
            Err(()) => return reply(StatusCode::BAD_REQUEST, TEXT, "one Host, please\n"),
            Ok(Some(host)) if self.local && !is_local(host) => {
                const WRONG: &str =
                    "only this machine is answered: by its address, such as 127.0.0.1, or as localhost\n";
                return reply(StatusCode::MISDIRECTED_REQUEST, TEXT, WRONG);
            }
            Ok(_) => {}
        }
        match request.uri().path() {
            "/" => {
                let write = || page::page(&self.watched, &self.history, self.started);
                let mut response = reply(StatusCode::OK, HTML, self.page.get(crowded, write));
                if let Some(policy) = &self.page_policy {
                    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy.clone());
                }
                response
            }
            "/status.json" => {
                let write = || page::json(&self.watched, &self.history);
                reply(StatusCode::OK, JSON, self.json.get(crowded, write))
            }
            "/metrics" => {
                let write = || self.watched.metrics.render();
                reply(StatusCode::OK, METRICS, self.metrics.get(crowded, write))
            }
            "/healthz" => reply(StatusCode::OK, TEXT, "ok\n"),
            "/readyz" if self.stop.is_cancelled() => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n"),
            "/readyz" => reply(StatusCode::OK, TEXT, "ready\n"),
            _ => reply(StatusCode::NOT_FOUND, TEXT, "there are /, /status.json, /metrics, /healthz and /readyz\n"),
        }
    }
}

fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Whom the client believes it is talking to (RFC 9112 section 3.2): the host of the request line, or else of the one
/// `Host` there must be. HTTP/1.0 knows none, and no browser speaks it.
fn asked_of<Body>(request: &Request<Body>) -> Result<Option<&str>, ()> {
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

/// Whether this is what a person or a program on this machine would ask for. A name that leads here can be anybody's: his
/// page could read what we answer ("DNS rebinding").
fn is_local(host: &str) -> bool {
    let is_address = |host: &str| host.parse::<SocketAddr>().is_ok();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    is_address(host) || is_address(&format!("{host}:80")) || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_crowd_is_told_what_others_were_told_a_moment_ago() {
        let written = Written::default();
        let get = |crowded, text: &'static str| written.get(crowded, || text.to_owned());
        assert_eq!(get(true, "a"), "a");
        assert_eq!(get(true, "b"), "a");
        assert_eq!(get(false, "c"), "c");
        assert_eq!(get(true, "d"), "d");
        tokio::time::advance(AGE).await;
        assert_eq!(get(true, "e"), "e");
    }

    fn request(version: Version, uri: &str, hosts: &[&str]) -> Request<()> {
        let mut request = Request::builder().version(version).uri(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).expect("a request")
    }

    #[test]
    fn only_addresses_and_localhost_are_local() {
        for host in
            ["127.0.0.1:9180", "127.0.0.1", "[::1]:9180", "[::1]", "192.168.1.5:80", "localhost:9180", "LocalHost"]
        {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "evil.example:9180",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "0x7f.1",
            "a@127.0.0.1",
            "[::1].example",
            "[::1",
            "",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn there_is_one_host_except_in_http_1_0() {
        let absolute = request(Version::HTTP_11, "http://evil.example/metrics", &["127.0.0.1"]);
        assert_eq!(asked_of(&absolute), Ok(Some("evil.example")));
        assert_eq!(asked_of(&request(Version::HTTP_11, "/", &["127.0.0.1"])), Ok(Some("127.0.0.1")));
        assert_eq!(asked_of(&request(Version::HTTP_10, "/", &[])), Ok(None));
        assert_eq!(asked_of(&request(Version::HTTP_11, "/", &[])), Err(()));
        assert_eq!(asked_of(&request(Version::HTTP_11, "/", &["127.0.0.1", "127.0.0.1"])), Err(()));
    }
}
