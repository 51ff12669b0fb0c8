//! The HTTP client for an ACME server.
//!
//! The server is not trusted with more than certificates: a request takes half a minute at most, an answer is read up to a bound, and
//! redirects are not followed.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, RETRY_AFTER};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

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
    /// The seconds that the last answer with a Retry-After has asked for.
    retry_after: Arc<Mutex<Option<Duration>>>,
}

/// Why a request had no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
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

impl Client {
    /// Trusts these authorities, or those of this machine.
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

    /// How long the last answer that said so has asked to wait. Asked once.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.retry_after.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn send(
        self,
        request: Request<Full<Bytes>>,
        host: String,
        port: u16,
    ) -> Result<Response<Full<Bytes>>, NoAnswer> {
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
        let wait = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        if let Some(seconds) = wait {
            let wait = Some(Duration::from_secs(seconds));
            *self.retry_after.lock().unwrap_or_else(PoisonError::into_inner) = wait;
        }
        let body = Limited::new(body, BODY_MAX).collect().await.map_err(http)?.to_bytes();
        Ok(Response::from_parts(head, Full::from(body)))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let other = |error: NoAnswer| Error::Other(error.into());
            let (mut head, body) = request.into_parts();
            let body = body.collect().await.map_err(|error| Error::Other(error.into()))?.to_bytes();
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
            let sent = timeout(LIMIT, client.send(request, host.clone(), port)).await;
            let answer = sent.unwrap_or(Err(NoAnswer::Late(host))).map_err(other)?;
            Ok(BytesResponse::from(answer))
        })
    }
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
