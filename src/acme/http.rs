//! The HTTP client for an ACME server.
//!
//! The server is not trusted with more than certificates: a request takes half a minute at most, an answer is read up to a bound, and
//! redirects are not followed.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::remedy::Obstacle;

/// How long a request may take, with its answer.
const LIMIT: Duration = Duration::from_secs(30);
/// How long an address may take to answer, where there is another one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The most addresses that are tried.
const ADDRESSES_MAX: usize = 4;
/// How much of an answer's body is read, in bytes. A chain has 4 KiB.
const BODY_MAX: usize = 256 * 1024;

/// Talks to one server.
#[derive(Clone)]
pub(super) struct Client {
    tls: TlsConnector,
    /// What the last answer has asked for in its Retry-After, if it had one.
    retry_after: Arc<Mutex<Option<Duration>>>,
}

/// Why a request had no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("the URL {0} is not one of https")]
    Url(String),
    #[error("the address of {host} is not known: {error}")]
    Unknown { host: String, error: std::io::Error },
    #[error("cannot connect to {host}: {error}")]
    Connect { host: String, error: String },
    #[error("no TLS with {host}: {error}")]
    Tls { host: String, error: std::io::Error },
    #[error("{host} does not answer in HTTP/1.1: {error}")]
    Http { host: String, error: Box<dyn std::error::Error + Send + Sync> },
    #[error("{0} does not answer within {seconds} seconds", seconds = LIMIT.as_secs())]
    Late(String),
}

impl NoAnswer {
    /// What is in the way, for the remedies.
    pub(super) fn obstacle(&self) -> Obstacle {
        match self {
            Self::Unknown { .. } => Obstacle::LookUp,
            Self::Connect { .. } | Self::Late(_) => Obstacle::Network,
            Self::Tls { error, .. } => match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
                Some(rustls::Error::InvalidCertificate(
                    CertificateError::Expired
                    | CertificateError::ExpiredContext { .. }
                    | CertificateError::NotValidYet
                    | CertificateError::NotValidYetContext { .. },
                )) => Obstacle::Clock,
                Some(rustls::Error::InvalidCertificate(_)) => Obstacle::Trust,
                Some(_) => Obstacle::Protocol,
                None => Obstacle::Network,
            },
            Self::Url(_) | Self::Http { .. } => Obstacle::Protocol,
        }
    }
}

impl Client {
    /// Trusts these authorities, or those of this machine.
    ///
    /// # Errors
    ///
    /// There is none of them.
    pub(super) fn new(trust: Option<&[CertificateDer<'static>]>) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        match trust {
            Some(trust) => roots.add_parsable_certificates(trust.iter().cloned()),
            None => roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
        };
        if roots.is_empty() {
            return Err(Error::Str(
                "this machine has no list of public authorities: install the package ca-certificates",
            ));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Other(error.into()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(config).into(), retry_after: Arc::default() })
    }

    /// How long the last answer has asked to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        *self.asked()
    }

    fn asked(&self) -> MutexGuard<'_, Option<Duration>> {
        self.retry_after.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request, and returns the whole answer. What is no success has a problem document (RFC 7807) as its body: it is made
    /// here if the server sends something else, as a proxy in front of it does.
    pub(super) async fn fetch(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Error> {
        *self.asked() = None;
        let other = |error: NoAnswer| Error::Other(error.into());
        let (mut head, body) = request.into_parts();
        let url = std::mem::take(&mut head.uri);
        let host = url.host().filter(|_| url.scheme_str() == Some("https")).map(str::to_owned);
        let Some(host) = host else { return Err(other(NoAnswer::Url(url.to_string()))) };
        if let Some(authority) = url.authority() {
            head.headers.insert(HOST, HeaderValue::try_from(authority.as_str()).map_err(hyper::http::Error::from)?);
        }
        let port = url.port_u16().unwrap_or(443);
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        head.uri = path.parse().map_err(hyper::http::Error::from)?;
        let request = Request::from_parts(head, Full::from(body));
        let sent = timeout(LIMIT, self.send(request, host.clone(), port)).await;
        let (head, body) = sent.unwrap_or(Err(NoAnswer::Late(host))).map_err(other)?.into_parts();
        *self.asked() = head.headers.get(RETRY_AFTER).and_then(|value| wait(value.to_str().ok()?.trim()));
        let body = if head.status.is_success() { body } else { problem(head.status, &body) };
        Ok(Response::from_parts(head, body))
    }

    async fn send(&self, request: Request<Full<Bytes>>, host: String, port: u16) -> Result<Response<Bytes>, NoAnswer> {
        let stream = connect(&host, port).await?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| NoAnswer::Url(host.clone()))?;
        let stream = self.tls.connect(name, stream).await;
        let stream = stream.map_err(|error| NoAnswer::Tls { host: host.clone(), error })?;
        let http = |error: Box<dyn std::error::Error + Send + Sync>| NoAnswer::Http { host: host.clone(), error };
        let (mut sender, connection) =
            http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.map_err(|error| http(error.into()))?;
        // Dropped with this future.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let answer = sender.send_request(request).await.map_err(|error| http(error.into()))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, BODY_MAX).collect().await.map_err(http)?.to_bytes();
        Ok(Response::from_parts(head, body))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(|error| Error::Other(error.into()))?.to_bytes();
            let is_post = head.method == Method::POST;
            let (head, body) = client.fetch(Request::from_parts(head, body)).await?.into_parts();
            // The library looks at the status of no other answer, and takes a redirect for a success.
            if !head.status.is_success() && (!is_post || head.status.is_redirection()) {
                return Err(serde_json::from_slice::<Problem>(&body)?.into());
            }
            Ok(BytesResponse { parts: head, body: Box::new(body) })
        })
    }
}

/// How long a Retry-After asks to wait: seconds, or a date (RFC 9110 section 10.2.3).
fn wait(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    (date - OffsetDateTime::now_utc()).try_into().ok()
}

/// The problem document of an answer, with the answer's own status.
fn problem(status: StatusCode, body: &[u8]) -> Bytes {
    let document = serde_json::from_slice::<Map<String, Value>>(body);
    let mut document = document.unwrap_or_else(|_| {
        let detail = format!("the server answers {status}");
        Map::from_iter([("detail".to_owned(), detail.into())])
    });
    document.insert("status".to_owned(), status.as_u16().into());
    Value::Object(document).to_string().into()
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, NoAnswer> {
    let unknown = |error| NoAnswer::Unknown { host: host.to_owned(), error };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host((bare, port)).await.map_err(unknown)?.take(ADDRESSES_MAX).collect();
    let mut failure = NoAnswer::Connect { host: host.to_owned(), error: "it has no address".to_owned() };
    for address in addresses {
        failure = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => NoAnswer::Connect { host: host.to_owned(), error: format!("{address}: {error}") },
            Err(_) => NoAnswer::Connect { host: host.to_owned(), error: format!("{address}: no answer") },
        };
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_has_seconds_or_a_date() {
        assert_eq!(wait("120"), Some(Duration::from_secs(120)));
        let date = OffsetDateTime::now_utc() + Duration::from_secs(3600);
        let date = date.format(&Rfc2822).expect("a date").replace("+0000", "GMT");
        let seconds = wait(&date).expect("a date").as_secs();
        assert!((3590..=3600).contains(&seconds), "{date}: {seconds}");
        for nothing in ["Fri, 31 Dec 1999 23:59:59 GMT", "soon", "", "-1", "1.5"] {
            assert_eq!(wait(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn every_refusal_has_a_problem_document_with_its_status() {
        let told = br#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many"}"#;
        let document: Value = serde_json::from_slice(&problem(StatusCode::TOO_MANY_REQUESTS, told)).expect("JSON");
        assert_eq!((&document["detail"], &document["status"]), (&"too many".into(), &429.into()));
        for other in [&b"<html>"[..], b"", b"[1]", b"\xff"] {
            let document: Value = serde_json::from_slice(&problem(StatusCode::BAD_GATEWAY, other)).expect("JSON");
            assert_eq!(document["detail"], "the server answers 502 Bad Gateway");
        }
    }
}
