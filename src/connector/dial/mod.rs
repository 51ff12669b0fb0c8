//! A TLS connection to a route of a gate.
//!
//! A key in a token signs when it is touched, or not at all, and rustls waits for it in the middle of a handshake. So such handshakes
//! are made on threads of their own, and the one that moves the bytes of other connections goes on.

mod race;

use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::fault::{Failure, Fault};
use super::tls::Tls;
use super::token::TokenKey;

/// How long a gate has until the handshake is done.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// How long a token has until it can sign. It may be at work on the signatures of other connections, each with a touch.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(60);

/// A handshake without an answer ends a moment before one whose token does not answer.
const GRACE: Duration = Duration::from_millis(500);

/// rustls asks its socket for 4 KiB at a time: one system call brings as much as there is instead.
const READ_BUFFER: usize = 128 * 1024;

/// A TLS connection.
///
/// **It is not known yet whether the gate admits the device.** In TLS 1.3 a client is done before the server has looked at its
/// certificate (RFC 8446 section 2): that is known once something is received.
pub type Stream = TlsStream<BufReader<TcpStream>>;

/// Where a route is.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The host to dial: a name or an IP address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The name that the gate is asked for, and that its certificate must have.
    pub server_name: ServerName<'static>,
}

/// A connection that was made.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub stream: Stream,
    /// The address that answered.
    pub address: SocketAddr,
}

/// Connects to a route.
pub async fn connect(endpoint: &Endpoint, tls: &Tls) -> Result<Connected, Failure> {
    match tls.token() {
        None => connect_until(endpoint, tls, Instant::now() + TIMEOUT).await,
        Some(key) => connect_with(key.clone(), endpoint.clone(), tls.clone()).await,
    }
}

/// With a key in a token. A gate counts handshakes that fail, so it is asked only once the token is ready; and without its token, a
/// device does not resume what it began with it either.
async fn connect_with(key: TokenKey, endpoint: Endpoint, tls: Tls) -> Result<Connected, Failure> {
    let token = key.token().clone();
    let prepared = timeout(TOKEN_TIMEOUT, spawn_blocking(move || key.prepare())).await;
    // An error of the task itself: the program ends.
    let prepared = prepared.map_or_else(|_| Err(token.silent()), |done| done.unwrap_or_else(|_| Err(token.silent())));
    prepared.map_err(Failure::Token)?;
    let (runtime, deadline) = (Handle::current(), Instant::now() + TIMEOUT);
    let connecting = spawn_blocking(move || runtime.block_on(connect_until(&endpoint, &tls, deadline)));
    match timeout_at(deadline + GRACE, connecting).await {
        Ok(Ok(connected)) => connected,
        _ => Err(Failure::Token(token.silent())),
    }
}

async fn connect_until(endpoint: &Endpoint, tls: &Tls, deadline: Instant) -> Result<Connected, Failure> {
    let (stream, address) = race::connect(&endpoint.host, endpoint.port, deadline).await.map_err(Failure::Unreached)?;
    let stream = BufReader::with_capacity(READ_BUFFER, stream);
    let handshake = TlsConnector::from(tls.config()).connect(endpoint.server_name.clone(), stream);
    let failed = |fault| Failure::Gate { address, fault };
    match timeout_at(deadline, handshake).await {
        Ok(Ok(stream)) => Ok(Connected { stream, address }),
        Ok(Err(error)) => Err(failed(Fault::of(&error, tls))),
        Err(_) => Err(failed(Fault::Silent)),
    }
}
