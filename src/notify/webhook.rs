//! Posts messages to an HTTP server.
//!
//! It is not trusted: an attempt takes ten seconds at most, an answer is read up to a bound, redirects are not followed, and
//! nothing of the answer but its status is logged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::failure::{Failure, LIMIT};
use super::message::Notice;
use crate::config::checked::{Format, Secret, SecretUrl, Webhook};
use crate::model::names::visible;

/// How long an address may take to answer, where there is another one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The most addresses that are tried.
const ADDRESSES_MAX: usize = 4;

/// How much of an answer's head is read, in bytes; the least that hyper takes.
const HEAD_MAX: usize = 8192;

/// How much of its body is shown to an owner who tries the receiver, in characters.
const SHOWN_MAX: usize = 200;

/// Sends messages to one URL.
#[derive(Clone, Debug)]
pub(crate) struct Poster {
    url: SecretUrl,
    format: Format,
    token: Option<Secret>,
    /// With encryption: why not, if the authorities are missing.
    tls: Option<Result<Tls, String>>,
}

#[derive(Clone)]
struct Tls(TlsConnector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// A connection.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Poster {
    /// For a webhook. Reads the authorities that this machine trusts, unless the webhook has its own.
    pub(crate) fn new(webhook: &Webhook) -> Self {
        let tls = webhook.url.is_encrypted().then(|| tls(webhook).map(|config| Tls(Arc::new(config).into())));
        Self { url: webhook.url.clone(), format: webhook.format, token: webhook.token.clone(), tls }
    }

    /// Scheme and host.
    pub(super) fn name(&self) -> String {
        self.url.to_string()
    }

    /// Posts a message. Returns the answer in words.
    pub(super) async fn deliver(&self, notice: &Notice) -> Result<String, Failure> {
        let body = notice.body(self.format, self.url.expose()).to_string();
        let late = |_| Failure::passing(format!("it does not answer within {} seconds", LIMIT.as_secs()));
        timeout(LIMIT, self.post(body)).await.map_err(late)?
    }

    async fn post(&self, body: String) -> Result<String, Failure> {
        let stream = self.connect().await?;
        let broken = |error: hyper::Error| Failure::passing(format!("it does not answer in HTTP/1.1: {error}"));
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_MAX)
            .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // Dropped with this future.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let request = self.request(body).map_err(|error| Failure::permanent(error.to_string()))?;
        let answer = sender.send_request(request).await.map_err(broken)?;
        self.judge(answer).await
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, Failure> {
        let (host, port) = (self.url.host(), self.url.port());
        let unknown = |error: std::io::Error| Failure::passing(format!("the address of {host} is not known: {error}"));
        let addresses: Vec<SocketAddr> =
            tokio::net::lookup_host((host, port)).await.map_err(unknown)?.take(ADDRESSES_MAX).collect();
        let mut failure = Failure::passing(format!("{host} has no address"));
        for address in addresses {
            let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
            let stream = match connected {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    failure = Failure::passing(format!("cannot connect to {address}: {error}"));
                    continue;
                }
                Err(_) => {
                    failure = Failure::passing(format!("cannot connect to {address}: no answer"));
                    continue;
                }
            };
            let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
            let Tls(tls) = tls.as_ref().map_err(|error| Failure::permanent(error.clone()))?;
            let name = ServerName::try_from(host.to_owned())
                .map_err(|_| Failure::permanent(format!("{host} is no name that a certificate could have")))?;
            let stream = tls.connect(name, stream).await.map_err(|error| {
                let advice = if error.to_string().contains("invalid peer certificate") {
                    "; if it has its own authority, name that file: trust = \"…\" under [notify]"
                } else {
                    ""
                };
                Failure::passing(format!("no TLS with {host}: {error}{advice}"))
            })?;
            return Ok(Box::new(stream));
        }
        Err(failure)
    }

    fn request(&self, body: String) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let url = self.url.expose();
        let path = match self.format {
            Format::Ntfy => above_topic(url),
            Format::Json | Format::Gotify | Format::Slack => {
                url.path_and_query().map_or("/", |path| path.as_str()).to_owned()
            }
        };
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, authority)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("doorward/", env!("CARGO_PKG_VERSION")))
            .header(CONNECTION, "close");
        if let Some(token) = &self.token {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        request.body(Full::from(body))
    }

    async fn judge(&self, answer: Response<Incoming>) -> Result<String, Failure> {
        let status = answer.status();
        if status.is_success() {
            return Ok(format!("{status}{}", shown(answer).await));
        }
        if status.is_redirection() {
            return Err(Failure::permanent(format!(
                "it answers {status}, and redirects are not followed: write the right URL under [notify]"
            )));
        }
        let passes = status.is_server_error()
            || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS].contains(&status);
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Err(Failure {
            error: format!("it answers {status}"),
            permanent: !passes,
            retry_after: retry_after.map(Duration::from_secs),
        })
    }
}

/// What a server has answered, for an owner who tries it: the beginning of its first frame.
async fn shown(mut answer: Response<Incoming>) -> String {
    let frame = timeout(Duration::from_secs(1), answer.frame()).await;
    let Ok(Some(Ok(frame))) = frame else { return String::new() };
    let bytes = frame.data_ref().and_then(|bytes| bytes.get(..bytes.len().min(4 * SHOWN_MAX))).unwrap_or_default();
    let text = visible(String::from_utf8_lossy(bytes).trim(), SHOWN_MAX);
    if text.is_empty() { text } else { format!(": {text}") }
}

/// Where ntfy takes JSON: the URL of a topic without the topic.
fn above_topic(url: &Uri) -> String {
    let path = url.path().trim_end_matches('/');
    let above = path.rsplit_once('/').map_or("", |(above, _)| above);
    url.query().map_or_else(|| format!("{above}/"), |query| format!("{above}/?{query}"))
}

fn tls(webhook: &Webhook) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match &webhook.trust {
        Some(trust) => roots.add_parsable_certificates(trust.iter().cloned()),
        None => roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    };
    if roots.is_empty() {
        return Err(match webhook.trust {
            Some(_) => "the file under trust holds no certificate that can be used".to_owned(),
            None => "this machine has no list of public authorities: install the package ca-certificates".to_owned(),
        });
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::model::notice::NoticeEvent;
    use crate::notify::message::tests::notice;

    /// A poster to a server that reads a request and answers this, and the request.
    fn answered(answer: &'static [u8]) -> (Poster, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let url = format!("http://{}/a/secret-topic?auth=secret", listener.local_addr().expect("an address"));
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
            while !request.ends_with(b"}") {
                let count = stream.read(&mut buffer).expect("a request");
                assert!(count > 0, "the request ends early");
                request.extend_from_slice(&buffer[..count]);
            }
            // The client may have seen enough.
            let _ = stream.write_all(answer);
            String::from_utf8(request).expect("text")
        });
        let url = SecretUrl::new(url.parse().expect("a URL")).expect("a webhook");
        let token = Some(Secret::new("tk_1".to_owned()));
        (Poster::new(&Webhook { url, format: Format::Ntfy, token, trust: None }), server)
    }

    #[tokio::test]
    async fn message_for_ntfy_is_posted_above_its_topic() {
        let (poster, server) = answered(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{\"id\":1}");
        let answer = poster.deliver(&notice(NoticeEvent::Impostor, "phone", 1)).await;
        assert_eq!(answer.as_deref(), Ok("200 OK: {\"id\":1}"));
        let request = server.join().expect("no panic");
        let (head, body) = request.split_once("\r\n\r\n").expect("a head and a body");
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with("post /a/?auth=secret http/1.1\r\n"), "{head}");
        for line in ["content-type: application/json", "authorization: bearer tk_1", "connection: close"] {
            assert!(head.lines().any(|other| other == line), "{line} in {head}");
        }
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["topic"], "secret-topic");
    }

    #[tokio::test]
    async fn answers_that_pass_are_told_from_those_that_stay() {
        for (answer, permanent, retry_after, part) in [
            (
                &b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n"[..],
                true,
                None,
                "redirects are not followed",
            ),
            (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", true, None, "it answers 403 Forbidden"),
            (b"HTTP/1.1 429 Slow\r\nRetry-After: 60\r\n\r\n", false, Some(60), "it answers 429 Too Many Requests"),
            (b"HTTP/1.1 503 Gone\r\nRetry-After: Mon\r\n\r\n", false, None, "it answers 503 Service Unavailable"),
            (b"SSH-2.0-OpenSSH\r\n", false, None, "it does not answer in HTTP/1.1"),
            (b"", false, None, "it does not answer in HTTP/1.1"),
        ] {
            let (poster, server) = answered(answer);
            let failure = poster.deliver(&notice(NoticeEvent::Impostor, "phone", 1)).await.expect_err(part);
            assert!(failure.error.contains(part) && !failure.error.contains("secret"), "{failure:?}");
            assert_eq!((failure.permanent, failure.retry_after), (permanent, retry_after.map(Duration::from_secs)));
            server.join().expect("no panic");
        }
    }

    /// Waits for the server, and lets the runtime close the connection meanwhile.
    async fn joined(server: thread::JoinHandle<String>) {
        tokio::task::spawn_blocking(|| server.join().expect("no panic")).await.expect("no panic");
    }

    #[tokio::test]
    async fn endless_answer_is_not_read_to_its_end() {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let endless: &'static [u8] = Vec::leak([&head[..], &b"5\r\nhello\r\n".repeat(1_000_000)].concat());
        let (poster, server) = answered(endless);
        let answer = poster.deliver(&notice(NoticeEvent::Impostor, "phone", 1)).await.expect("delivered");
        assert!(answer.starts_with("200 OK: hello") && answer.len() < 300, "{answer}");
        joined(server).await;
        // A head without an end.
        let endless: &'static [u8] = Vec::leak([&b"HTTP/1.1 200 OK\r\nA: "[..], &[b'a'; 1_000_000]].concat());
        let (poster, server) = answered(endless);
        let failure = poster.deliver(&notice(NoticeEvent::Impostor, "phone", 1)).await.expect_err("too long");
        assert!(failure.error.starts_with("it does not answer in HTTP/1.1"), "{failure:?}");
        joined(server).await;
    }

    #[tokio::test(start_paused = true)]
    async fn silent_server_has_ten_seconds() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let url = SecretUrl::new(url.parse().expect("a URL")).expect("a webhook");
        let poster = Poster::new(&Webhook { url, format: Format::Json, token: None, trust: None });
        let begun = tokio::time::Instant::now();
        let failure = poster.deliver(&notice(NoticeEvent::Impostor, "phone", 1)).await.expect_err("no answer");
        assert!(begun.elapsed() >= CONNECT_TIMEOUT && !failure.permanent, "{failure:?}");
        drop(listener);
    }
}
