//! `doorward check --connect`: every backend is resolved and dialled, and what answers is told.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::pki_types::ServerName as TlsServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde::Serialize;

use super::socket::{ANSWER, Socket};
use super::tls::{self, Outcome, Shown};
use crate::config::checked::{Backend, CipherStrength, Config, Route, RouteMode};
use crate::handshake::suites::PROVIDER;
use crate::model::names::printable;
use crate::model::service::ServiceKind;

/// How long a service has to speak first: ssh and mail servers do so at once.
const BANNER: Duration = Duration::from_millis(700);
/// The most addresses of one host name that are dialled.
const ADDRESSES_MAX: usize = 8;
/// The longest first line that is shown, in characters.
const LINE_MAX: usize = 80;

/// What is at an address of a backend.
#[derive(Debug, Serialize)]
pub(super) struct Dialled {
    /// The route.
    pub(super) route: String,
    /// The backend, as it is written.
    pub(super) backend: String,
    /// The address that was dialled; none if the name does not resolve.
    pub(super) address: Option<String>,
    /// Whether it took the connection.
    pub(super) connected: bool,
    /// What answers, or why nothing does.
    pub(super) answer: String,
    /// Whether its health check passes, or why it does not; none if it has no check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) health: Option<String>,
    /// The certificate that it shows, if it speaks TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) certificate: Option<Shown>,
    /// That nothing answers, or what does not fit the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) warning: Option<String>,
}

/// Dials every backend of every route.
pub(super) fn dial(config: &Config) -> Vec<Dialled> {
    let limit = config.timeouts.dial;
    thread::scope(|scope| {
        let strength = config.strength;
        let backends =
            config.routes.iter().flat_map(|route| (0..route.backends.len()).map(move |index| (route, index)));
        let dialling: Vec<_> =
            backends.map(|(route, index)| scope.spawn(move || one(route, index, strength, limit))).collect();
        dialling.into_iter().flat_map(|dialled| dialled.join().unwrap_or_default()).collect()
    })
}

fn one(route: &Route, index: usize, strength: CipherStrength, limit: Duration) -> Vec<Dialled> {
    let Some(backend) = route.backends.get(index) else { return Vec::new() };
    let dialled = |address: Option<String>, found: Result<Answer, String>| {
        let connected = found.is_ok();
        let warning = match &found {
            Ok(answer) => mismatch(route, backend, answer),
            Err(why) => Some(format!("route {:?}: no connection to {backend}: {why}", route.name.as_str())),
        };
        let certificate = match &found {
            Ok(Answer::Tls(Outcome::Agreed(shown))) => shown.as_deref().cloned(),
            _ => None,
        };
        let answer = found.map_or_else(|why| why, |answer| answer.to_string());
        let (route, backend) = (route.name.to_string(), backend.to_string());
        Dialled { route, backend, address, connected, answer, certificate, health: None, warning }
    };
    let addresses = match backend {
        Backend::Unix(path) => {
            let connect = || UnixStream::connect(path).map(Socket::Unix);
            return vec![dialled(Some(backend.to_string()), probe(route, index, strength, limit, connect))];
        }
        Backend::Address(address) => vec![*address],
        Backend::Host(host, port) => match (host.as_str(), *port).to_socket_addrs() {
            Ok(addresses) => addresses.take(ADDRESSES_MAX).collect(),
            Err(error) => return vec![dialled(None, Err(format!("{host} does not resolve: {error}")))],
        },
    };
    if addresses.is_empty() {
        return vec![dialled(None, Err("the name has no address".to_owned()))];
    }
    let at = |address: SocketAddr| {
        let connect = || TcpStream::connect_timeout(&address, limit).map(Socket::Tcp);
        dialled(Some(address.to_string()), probe(route, index, strength, limit, connect))
    };
    addresses.into_iter().map(at).collect()
}

/// What a backend answered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// It speaks first: its first line.
    Banner(String),
    /// TLS.
    Tls(Outcome),
    /// HTTP: the name of the program, if it tells.
    Http(Option<String>),
    /// It closes the connection at once.
    Closes,
    /// It waits.
    Silent,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Banner(line) => write!(f, "answers: {line}"),
            Self::Tls(Outcome::Agreed(None)) => f.write_str("answers: TLS"),
            Self::Tls(Outcome::Agreed(Some(shown))) => write!(f, "answers: TLS, {shown}"),
            Self::Tls(Outcome::Refused(why)) => write!(f, "answers, but not as backend_tls asks: {why}"),
            Self::Http(None) => f.write_str("answers: HTTP"),
            Self::Http(Some(server)) => write!(f, "answers: HTTP ({server})"),
            Self::Closes => f.write_str("takes the connection and closes it at once"),
            Self::Silent => f.write_str("takes the connection and waits for the client to speak"),
        }
    }
}

/// Waits for the service to speak; then says "hello" in TLS, and then asks in HTTP, each over a connection of its own.
fn probe(
    route: &Route,
    index: usize,
    strength: CipherStrength,
    limit: Duration,
    connect: impl Fn() -> io::Result<Socket>,
) -> Result<Answer, String> {
    let connected = || {
        let mut socket = connect()?;
        let header =
            if tls::header_comes_first(route.backend_tls.as_deref()) { socket.header(route)? } else { Vec::new() };
        socket.write(&header).map(|()| socket)
    };
    let no_connection = |error: &io::Error| no_connection(error, limit, route.wake.is_some());
    let handshake = |socket| Answer::Tls(tls::handshake(route, index, strength, socket, limit));
    if route.backend_tls.is_some() {
        return connected().map(handshake).map_err(|error| no_connection(&error));
    }
    let mut socket = connected().map_err(|error| no_connection(&error))?;
    let mut first = [0; 512];
    match socket.read(&mut first, BANNER) {
        Ok(0) => return Ok(Answer::Closes),
        Ok(length) => return Ok(Answer::Banner(line(first.get(..length).unwrap_or_default()))),
        Err(error) if is_timeout(&error) => {}
        Err(_) => return Ok(Answer::Closes),
    }
    let ask = |question: &[u8]| -> Vec<u8> {
        let answer = connected().and_then(|mut socket| {
            socket.write(question)?;
            let mut answer = vec![0; 4096];
            let length = socket.read(&mut answer, ANSWER)?;
            answer.truncate(length);
            Ok(answer)
        });
        // No answer is one.
        answer.unwrap_or_default()
    };
    let answer = ask(&client_hello());
    // A handshake or an alert (RFC 8446 section 5.1).
    if matches!(answer[..], [0x16 | 0x15, 3, ..]) {
        let seen = connected().map(handshake);
        return Ok(match seen {
            // Nothing was asked for that it could fail: TLS is all that is known.
            Ok(Answer::Tls(Outcome::Refused(_))) | Err(_) => Answer::Tls(Outcome::Agreed(None)),
            Ok(seen) => seen,
        });
    }
    // Some servers answer what is no HTTP as HTTP/0.9, with the page of the error alone.
    if answer.starts_with(b"HTTP/") || answer.starts_with(b"<") || route.kind == ServiceKind::Http {
        let name = route.server_names.first().map(ToString::to_string).unwrap_or_default();
        let answer = ask(format!("HEAD / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n").as_bytes());
        if answer.starts_with(b"HTTP/") {
            return Ok(Answer::Http(server(&answer)));
        }
    }
    // It was about to speak first, and took its time: sshd may look up a name before.
    if is_text(&answer) && !answer.starts_with(b"HTTP/") {
        return Ok(Answer::Banner(line(&answer)));
    }
    Ok(Answer::Silent)
}

fn no_connection(error: &io::Error, limit: Duration, sleeps: bool) -> String {
    let said = match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there (connection refused)".to_owned(),
        _ if is_timeout(error) => format!("no answer within timeouts.dial ({} s)", limit.as_secs_f64()),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            format!("that machine cannot be reached: {error}")
        }
        _ => error.to_string(),
    };
    if sleeps && error.kind() != io::ErrorKind::ConnectionRefused {
        return format!("{said}; it may be asleep: the gate wakes it when a device connects");
    }
    said
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Whether the answer begins with a line of text.
fn is_text(answer: &[u8]) -> bool {
    let mut line = answer.split(|byte| b"\r\n".contains(byte)).next().unwrap_or_default().iter();
    line.len() > 0 && line.all(|byte| (b' '..=b'~').contains(byte))
}

/// The first line, as it may be shown.
fn line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    printable(text.lines().next().unwrap_or_default().trim_end(), LINE_MAX)
}

/// The program that an answer in HTTP names.
fn server(answer: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(answer);
    let named =
        text.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("server"));
    named.map(|(_, value)| printable(value.trim(), LINE_MAX)).filter(|value| !value.is_empty())
}

/// The first message of a client. It is not answered to, so nothing is verified and nothing is sent.
fn client_hello() -> Vec<u8> {
    let mut hello = Vec::new();
    let client = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
        .and_then(|config| {
            let name = TlsServerName::try_from("localhost").map_err(|_| rustls::Error::UnsupportedNameType)?;
            ClientConnection::new(Arc::new(config), name)
        });
    if let Ok(mut client) = client {
        // Writing to a Vec cannot fail.
        let _ = client.write_tls(&mut hello);
    }
    hello
}

/// What does not fit the route.
fn mismatch(route: &Route, backend: &Backend, answer: &Answer) -> Option<String> {
    let name = route.name.as_str();
    match (&route.mode, answer) {
        (RouteMode::Terminate(_), Answer::Tls(Outcome::Refused(why))) => Some(format!("route {name:?}: {why}")),
        (RouteMode::Terminate(_), Answer::Tls(Outcome::Agreed(shown))) => route.backend_tls.is_none().then(|| {
            let line = match shown {
                Some(shown) => format!("{}, if this is the certificate of {backend}", shown.line()),
                None => "backend_tls = { trust = \"nas.pem\" } with the file of its certificate".to_owned(),
            };
            format!(
                "route {name:?}: the backend expects TLS, and the gate speaks none with it: the device gets an error; add to \
                 the route: {line}. Or name the port of the service that takes plain connections, or write mode = \
                 \"passthrough\""
            )
        }),
        (RouteMode::Passthrough, Answer::Http(_) | Answer::Banner(_)) => Some(format!(
            "route {name:?}: mode = \"passthrough\" leaves TLS to the backend, which does not speak it; write mode = \"terminate\""
        )),
        (RouteMode::Terminate(_), answer) => {
            let ssh = matches!(answer, Answer::Banner(line) if line.starts_with("SSH-"));
            let fits = match route.kind {
                ServiceKind::Ssh => ssh,
                ServiceKind::Http => !matches!(answer, Answer::Banner(_)),
                ServiceKind::Smb => !matches!(answer, Answer::Banner(_) | Answer::Http(_)),
                ServiceKind::Other => true,
            };
            (!fits).then(|| {
                format!(
                    "route {name:?}: kind is \"{}\", and the backend {answer}: check its port, or write the right kind",
                    route.kind
                )
            })
        }
        (RouteMode::Passthrough, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::config::checked::{SendProxyProtocol, Strategy};
    use crate::model::names::{Name, ServerNamePattern};

    fn route(kind: ServiceKind, backend: SocketAddr, mode: RouteMode) -> Route {
        Route {
            name: Name::parse("it").expect("a name"),
            server_names: vec![ServerNamePattern::parse("it.home.example").expect("a name")],
            backends: vec![Backend::Address(backend)],
            health: None,
            connections_per_backend: None,
            strategy: Strategy::First,
            backend_tls: None,
            send_proxy_protocol: SendProxyProtocol::Off,
            wake: None,
            mode,
            kind,
            allow_entries: Vec::new(),
        }
    }

    /// What is said of a service that answers each of its connections with what `answer` makes of the first bytes; `None`: it is
    /// silent. One that speaks first is given no bytes.
    fn dialled(kind: ServiceKind, speaks_first: bool, answer: fn(&[u8]) -> Option<Vec<u8>>) -> Dialled {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let route = route(kind, listener.local_addr().expect("an address"), RouteMode::Passthrough);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                thread::spawn(move || {
                    let mut asked = [0; 4096];
                    let length = if speaks_first { 0 } else { stream.read(&mut asked).unwrap_or(0) };
                    if let Some(answer) = answer(&asked[..length]) {
                        let _ = stream.write_all(&answer);
                    }
                    // Until the other side has seen enough.
                    let _ = stream.read(&mut asked);
                });
            }
        });
        one(&route, 0, CipherStrength::Bits128, Duration::from_secs(5)).pop().expect("an answer")
    }

    #[test]
    fn services_are_recognised_by_what_they_answer() {
        let ssh = dialled(ServiceKind::Ssh, true, |_| Some(b"SSH-2.0-OpenSSH_9.2p1\x1b[31m\r\n".to_vec()));
        assert_eq!(ssh.answer, "answers: SSH-2.0-OpenSSH_9.2p1\\u{1b}[31m");
        let tls = dialled(ServiceKind::Http, false, |asked| {
            Some(if asked.first() == Some(&0x16) {
                vec![0x15, 3, 3, 0, 2, 2, 40]
            } else {
                b"HTTP/1.1 400 \r\n\r\n".to_vec()
            })
        });
        assert_eq!((tls.answer.as_str(), tls.connected), ("answers: TLS", true));
        let http = dialled(ServiceKind::Http, false, |asked| {
            let ok = asked.starts_with(b"HEAD / HTTP/1.1\r\nHost: it.home.example\r\n");
            Some(if ok {
                b"HTTP/1.1 200 OK\r\nServer: nginx\r\n\r\n".to_vec()
            } else {
                b"HTTP/1.1 400 \r\n\r\n".to_vec()
            })
        });
        assert_eq!(http.answer, "answers: HTTP (nginx)");
        let old = dialled(ServiceKind::Http, false, |asked| {
            let ok = asked.starts_with(b"HEAD / HTTP/1.1\r\n");
            Some(if ok { b"HTTP/1.0 200 OK\r\n\r\n".to_vec() } else { b"<!DOCTYPE HTML>\n<p>400</p>".to_vec() })
        });
        assert_eq!(old.answer, "answers: HTTP");
        let silent = dialled(ServiceKind::Smb, false, |_| Some(Vec::new()));
        assert!(silent.answer.contains("waits for the client"), "{}", silent.answer);
        let slow = dialled(ServiceKind::Ssh, false, |_| Some(b"SSH-2.0-Slow\r\n".to_vec()));
        assert_eq!(slow.answer, "answers: SSH-2.0-Slow");
        let refused = {
            let route = route(ServiceKind::Http, SocketAddr::from(([127, 0, 0, 1], 9)), RouteMode::Passthrough);
            one(&route, 0, CipherStrength::Bits128, Duration::from_secs(5)).pop().expect("an answer")
        };
        assert!(!refused.connected && refused.answer.contains("nothing listens there"), "{}", refused.answer);
        assert!(
            refused.warning.is_some_and(|warning| warning.starts_with("route \"it\": no connection to 127.0.0.1:"))
        );
    }

    #[test]
    fn name_without_address_is_told() {
        let nowhere = Backend::Host("nas.invalid".to_owned(), 80);
        let mut route = route(ServiceKind::Http, SocketAddr::from(([127, 0, 0, 1], 1)), RouteMode::Passthrough);
        route.backends = vec![nowhere];
        let said = one(&route, 0, CipherStrength::Bits128, Duration::from_secs(5)).pop().expect("an answer");
        assert!(!said.connected && said.answer.starts_with("nas.invalid does not resolve"), "{}", said.answer);
    }

    #[test]
    fn plain_service_behind_passthrough_is_a_mismatch() {
        let route = route(ServiceKind::Http, SocketAddr::from(([127, 0, 0, 1], 1)), RouteMode::Passthrough);
        assert!(
            mismatch(&route, &route.backends[0], &Answer::Http(None)).expect("a warning").contains("does not speak it")
        );
        assert_eq!(mismatch(&route, &route.backends[0], &Answer::Tls(Outcome::Agreed(None))), None);
    }
}
