//! One request to the service, on a connection of its own.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, RETRY_AFTER};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

use crate::connector::dial::{self, Endpoint};
use crate::connector::fault::{Failure, Fault, Unreached};
use crate::connector::tls::Tls;

/// For all requests of a renewal together. The touch of a token has a limit of its own.
const TIMEOUT: Duration = Duration::from_secs(30);
/// For the last words of a connection that has done its work.
const END: Duration = Duration::from_secs(1);
/// The longest answer: a few certificates in base64.
const ANSWER_MAX: usize = 128 * 1024;

/// The time that is left to a gate for a renewal.
pub(super) struct Limit {
    left: Duration,
    /// What has answered so far.
    address: Option<SocketAddr>,
}

impl Limit {
    pub(super) const fn new() -> Self {
        Self { left: TIMEOUT, address: None }
    }

    /// Waits for as long as there is time left.
    async fn wait<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let begin = Instant::now();
        let done = timeout(self.left, future).await;
        self.left = self.left.saturating_sub(begin.elapsed());
        done.ok()
    }

    /// That there is none left.
    fn over(&self) -> Failure {
        match self.address {
            Some(address) => Failure::Gate { address, fault: Fault::Silent },
            None => Failure::Unreached(Unreached::Timeout(Vec::new())),
        }
    }
}

/// What is asked.
pub(super) struct Request {
    method: hyper::Method,
    path: &'static str,
    body: String,
}

/// What was answered.
pub(super) struct Answer {
    pub(super) status: u16,
    /// When to ask again, if it says so in seconds.
    pub(super) again: Option<Duration>,
    pub(super) body: Bytes,
}

/// How it went.
pub(super) enum Asked {
    Answered(Answer),
    /// No connection, or one that was refused or cut.
    Failed(Failure),
    /// The other side speaks TLS, and not HTTP.
    NotHttp(String),
}

impl Request {
    pub(super) const fn post(path: &'static str, body: String) -> Self {
        Self { method: hyper::Method::POST, path, body }
    }

    pub(super) const fn get(path: &'static str) -> Self {
        Self { method: hyper::Method::GET, path, body: String::new() }
    }
}

pub(super) async fn ask(endpoint: &Endpoint, tls: &Tls, request: Request, limit: &mut Limit) -> Asked {
    let connecting = dial::connect(endpoint, tls);
    let connected = match tls.token() {
        Some(_) => Some(connecting.await),
        None => limit.wait(connecting).await,
    };
    let connected = match connected {
        Some(Ok(connected)) => connected,
        Some(Err(failure)) => return Asked::Failed(failure),
        None => return Asked::Failed(limit.over()),
    };
    let address = connected.address;
    limit.address = Some(address);
    let failed = |fault| Asked::Failed(Failure::Gate { address, fault });
    let host = match endpoint.server_name.to_str() {
        name if endpoint.port == 443 => name.into_owned(),
        name => format!("{name}:{}", endpoint.port),
    };
    match limit.wait(exchange(host, connected.stream, request)).await {
        Some(Ok(answer)) => Asked::Answered(answer),
        Some(Err(Broken::Io(error))) => failed(Fault::of(&error, tls)),
        Some(Err(Broken::Other(what))) => Asked::NotHttp(what),
        None => Asked::Failed(limit.over()),
    }
}

/// Why there is no answer.
pub(super) enum Broken {
    Io(io::Error),
    Other(String),
}

impl From<hyper::Error> for Broken {
    fn from(error: hyper::Error) -> Self {
        match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
            // With what rustls says about it.
            Some(io) => Self::Io(match io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(inner) => io::Error::new(io.kind(), inner.clone()),
                None => io.kind().into(),
            }),
            None if error.is_incomplete_message() => Self::Io(io::ErrorKind::UnexpectedEof.into()),
            None => Self::Other(error.to_string()),
        }
    }
}

/// One request on a connection.
pub(super) async fn exchange<S>(host: String, stream: S, request: Request) -> Result<Answer, Broken>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let wanted = hyper::Request::builder()
        .method(request.method)
        .uri(request.path)
        .header(HOST, host)
        .header(ACCEPT, "application/pkcs7-mime")
        .header(CONTENT_TYPE, "application/pkcs10")
        .body(Full::new(Bytes::from(request.body)))
        .map_err(|error| Broken::Other(error.to_string()))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let response = match sender.send_request(wanted).await {
        Ok(response) => response,
        Err(error) => {
            drop(sender);
            // The connection knows why: an alert that came for the handshake, which was over for this side.
            let ended = timeout(END, connection).await;
            return Err(match ended {
                Ok(Ok(Err(why))) => why.into(),
                _ => error.into(),
            });
        }
    };
    let status = response.status().as_u16();
    let again = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    let body = body.map_err(|error| Broken::Other(error.to_string()))?.to_bytes();
    drop(sender);
    let _ = timeout(END, connection).await;
    Ok(Answer { status, again: again.map(Duration::from_secs), body })
}
