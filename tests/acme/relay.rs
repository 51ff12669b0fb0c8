//! What is between a gate and its ACME server: counts requests, and has faults on request.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Bytes;
use hyper::{Request, Response};
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection, StreamOwned};
use serde_json::Value;
use tempfile::TempDir;

use crate::common::DEADLINE;
use crate::common::backend::Backend;
use crate::common::pki::{Authority, Certified, days_from_now};
use crate::common::tls_backend;

/// The name of the HTTPS of the relay.
const HOST: &str = "localhost";

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Its path, with the identifiers left out: `/my-order`, `/authZ`, `/chalZ`, `/finalize-order`, `/certZ`.
    pub(crate) kind: String,
    /// The whole path.
    pub(crate) path: String,
    /// The payload of its signature, if it has one.
    pub(crate) payload: Option<Value>,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// A problem document.
    pub(crate) fn problem(status: u16, kind: &str, detail: &str) -> Self {
        let document = serde_json::json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail });
        Self::new(status, document.to_string())
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Its body as JSON, changed.
    pub(crate) fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        let mut value = serde_json::from_slice(&self.body).unwrap();
        change(&mut value);
        self.body = value.to_string().into();
        self
    }
}

/// What becomes of a request.
pub(crate) enum Fate {
    /// The server answers it.
    Pass,
    /// The server does not see it; this is the answer.
    Instead(Answer),
    /// The server answers, and the answer is changed.
    Change(Box<dyn FnOnce(Answer) -> Answer + Send>),
    /// The server answers, and the answer is lost.
    Lose,
    /// The server answers, and half of the answer comes.
    Cut,
    /// Nothing is answered, and the connection stays.
    Hang,
    /// The connection is closed at once.
    Close,
    /// The answer has no end.
    Endless,
    /// One byte a second.
    Drip,
}

type Rule = Box<dyn FnMut(&Asked, usize) -> Fate + Send>;

#[derive(Default)]
struct State {
    asked: Mutex<Vec<Asked>>,
    rule: Mutex<Option<Rule>>,
}

/// The relay.
pub(crate) struct Relay {
    folder: TempDir,
    server: SocketAddr,
    upstream: Arc<ClientConfig>,
    backend: Backend,
    state: Arc<State>,
}

impl Relay {
    /// In front of a server whose HTTPS has this authority.
    pub(crate) fn start(server: SocketAddr, authority: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = Authority::new("HTTPS of the relay");
        let mut params = Certified::for_servers(&[HOST]);
        // For clients whose clock is wrong.
        params.not_after = days_from_now(400);
        let https = own.issue(params);
        std::fs::write(folder.path().join("ca.pem"), own.pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
        let upstream = Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
        let config = Arc::new(tls_backend::server(&https));
        let state = Arc::<State>::default();
        let (shared, again) = (Arc::clone(&state), Arc::clone(&upstream));
        let backend = Backend::serve("127.0.0.1:0", move |stream, _| {
            let Ok(own) = stream.try_clone() else { return };
            let _ = own.set_read_timeout(Some(DEADLINE));
            let Ok(tls) = ServerConnection::new(Arc::clone(&config)) else { return };
            // A client that hangs up is none of the relay's business.
            let _ = shared.handle(StreamOwned::new(tls, own), server, &again);
        });
        Self { folder, server, upstream, backend, state }
    }

    /// The URL of the directory.
    pub(crate) fn directory(&self) -> String {
        format!("https://{HOST}:{}/dir", self.backend.address().port())
    }

    /// A file with the authority of its HTTPS.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A client of the server itself, which takes it for the relay.
    pub(crate) fn client(&self) -> impl HttpClient + use<> {
        Past { server: self.server, upstream: Arc::clone(&self.upstream) }
    }

    /// From now on `rule` decides what becomes of each request, given how many of its kind there were before since now.
    pub(crate) fn rule(&self, rule: impl FnMut(&Asked, usize) -> Fate + Send + 'static) {
        self.state.asked.lock().unwrap_or_else(PoisonError::into_inner).clear();
        *self.state.rule.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(rule));
    }

    /// From now on everything passes, and is counted from zero.
    pub(crate) fn pass(&self) {
        self.rule(|_, _| Fate::Pass);
    }

    /// One request of this kind has this fate, the one with this number; all others pass.
    pub(crate) fn once(&self, kind: &'static str, number: usize, fate: Fate) {
        let mut fate = Some(fate);
        self.rule(
            move |asked, count| {
                if asked.kind == kind && count == number { fate.take().unwrap_or(Fate::Pass) } else { Fate::Pass }
            },
        );
    }

    /// The requests since the last rule was set.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many of them were of this kind.
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.asked().iter().filter(|asked| asked.kind == kind).count()
    }
}

/// Goes past the relay.
struct Past {
    server: SocketAddr,
    upstream: Arc<ClientConfig>,
}

impl HttpClient for Past {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let (server, upstream) = (self.server, Arc::clone(&self.upstream));
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let url = parts.uri;
            let mut head =
                format!("{} {} HTTP/1.1\r\nHost: {}\r\n", parts.method, url.path(), url.authority().unwrap());
            for (name, value) in &parts.headers {
                head += &format!("{name}: {}\r\n", value.to_str().unwrap());
            }
            head += &format!("Content-Length: {}\r\n\r\n", body.len());
            let answer = forward(&head, &body, server, &upstream).unwrap();
            let mut response = Response::builder().status(answer.status);
            for (name, value) in &answer.headers {
                response = response.header(name, value);
            }
            let (parts, ()) = response.body(()).unwrap().into_parts();
            Ok(BytesResponse { parts, body: Box::new(Bytes::from(answer.body)) })
        })
    }
}

impl State {
    fn handle(
        &self,
        mut client: StreamOwned<ServerConnection, TcpStream>,
        server: SocketAddr,
        upstream: &Arc<ClientConfig>,
    ) -> io::Result<()> {
        let (head, body) = read_message(&mut client)?;
        let asked = Asked::read(&head, &body);
        let fate = {
            let mut all = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let before = all.iter().filter(|other| other.kind == asked.kind).count();
            all.push(asked.clone());
            drop(all);
            let mut rule = self.rule.lock().unwrap_or_else(PoisonError::into_inner);
            rule.as_mut().map_or(Fate::Pass, |rule| rule(&asked, before))
        };
        let forward = || forward(&head, &body, server, upstream);
        let answer = match fate {
            Fate::Pass => forward()?,
            Fate::Change(change) => change(forward()?),
            Fate::Instead(answer) => answer,
            Fate::Close => return client.sock.shutdown(Shutdown::Both),
            Fate::Lose => {
                forward()?;
                return client.sock.shutdown(Shutdown::Both);
            }
            Fate::Cut => {
                let bytes = written(&forward()?);
                client.write_all(&bytes[..bytes.len() / 2])?;
                client.flush()?;
                return client.sock.shutdown(Shutdown::Both);
            }
            Fate::Hang => {
                let _ = client.sock.set_read_timeout(None);
                client.read_exact(&mut [0])?;
                return Ok(());
            }
            Fate::Endless => {
                client.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")?;
                loop {
                    client.write_all(&[b' '; 4096])?;
                }
            }
            Fate::Drip => {
                for byte in written(&forward()?) {
                    client.write_all(&[byte])?;
                    client.flush()?;
                    std::thread::sleep(Duration::from_secs(1));
                }
                return Ok(());
            }
        };
        client.write_all(&written(&answer))?;
        client.flush()?;
        client.conn.send_close_notify();
        client.flush()?;
        client.sock.shutdown(Shutdown::Write)
    }
}

impl Asked {
    fn read(head: &str, body: &[u8]) -> Self {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let kind = format!("/{}", path.split('/').nth(1).unwrap_or_default());
        let signed: Option<Value> = serde_json::from_slice(body).ok();
        let payload = signed.and_then(|signed| {
            use base64::Engine as _;
            let text = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(signed["payload"].as_str()?).ok()?;
            serde_json::from_slice(&text).ok()
        });
        Self { kind, path: path.to_owned(), payload }
    }
}

/// Reads head and body of an HTTP/1.1 message.
fn read_message(stream: &mut impl Read) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    let mut is_over = false;
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            break end + 4;
        }
        if is_over {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let count = stream.read(&mut part)?;
        is_over = count == 0;
        bytes.extend_from_slice(&part[..count]);
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut body = bytes.split_off(end);
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    match length {
        Some(length) => {
            while body.len() < length {
                let count = stream.read(&mut part)?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                body.extend_from_slice(&part[..count]);
            }
        }
        // An answer ends with its connection; a request without a length has no body.
        None if head.starts_with("HTTP/") => {
            while let Ok(count @ 1..) = stream.read(&mut part) {
                body.extend_from_slice(&part[..count]);
            }
        }
        None => {}
    }
    Ok((head, body))
}

/// Asks the server.
fn forward(head: &str, body: &[u8], server: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Answer> {
    let tcp = TcpStream::connect_timeout(&server, DEADLINE)?;
    tcp.set_read_timeout(Some(DEADLINE))?;
    let name = ServerName::IpAddress(server.ip().into());
    let tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(tls, tcp);
    // HTTP/1.0 has no chunks, and ends with the connection.
    let head = head.replacen(" HTTP/1.1\r\n", " HTTP/1.0\r\n", 1);
    stream.write_all(&[head.as_bytes(), body].concat())?;
    stream.flush()?;
    // To HEAD there is no body, whatever its length.
    let is_head = head.starts_with("HEAD ");
    let (head, body) = if is_head { (read_head(&mut stream)?, Vec::new()) } else { read_message(&mut stream)? };
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    Ok(Answer { status: status.ok_or(io::ErrorKind::InvalidData)?, headers, body })
}

fn read_head(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn written(answer: &Answer) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} Answer\r\n", answer.status);
    let own = ["content-length", "connection", "transfer-encoding"];
    for (name, value) in &answer.headers {
        if !own.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            head += &format!("{name}: {value}\r\n");
        }
    }
    head += &format!("Content-Length: {}\r\nConnection: close\r\n\r\n", answer.body.len());
    [head.as_bytes(), &answer.body].concat()
}
