//! Clients: rustls on a blocking socket, where every step can be held back, and bare TCP for what no TLS library sends.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use doorward::model::close::{CloseReason, Ending};
use doorward::model::rejection::Alert;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{ClientConfig, ClientConnection, Error, SignatureScheme, SupportedProtocolVersion};
use socket2::{Domain, SockRef, Socket, Type};

use crate::common::DEADLINE;
use crate::common::pki::{Certified, TestPki};

/// Both versions the gate speaks.
pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// TLS 1.3 alone, which most tests speak.
pub(crate) const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// How a connection ended, as the client sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End {
    /// By `close_notify`.
    Orderly,
    /// By the end of the TCP stream alone: under TLS it is unknown whether anything is missing.
    Truncated,
    /// By a TCP reset.
    Reset,
    /// By a fatal alert.
    Alert(Alert),
    /// The client's own TLS library gave up.
    Tls(Error),
    /// Not at all within the client's patience.
    Silence,
}

impl End {
    /// How the gate ends a TLS connection that it closes for this reason.
    pub(crate) fn of(reason: CloseReason) -> Self {
        match reason.ending() {
            Ending::Complete => Self::Orderly,
            Ending::Alert(alert) => Self::Alert(alert),
            Ending::Truncated | Ending::AlertOfTheError => Self::Truncated,
        }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silence,
            _ => Self::Reset,
        }
    }
}

/// What a client shows when it is asked for a certificate: any bytes for a chain, any key for a signature. It can be
/// changed between connections, without the client's sessions noticing.
#[derive(Debug)]
pub(crate) struct Shown(Mutex<Option<Arc<CertifiedKey>>>);

impl Shown {
    /// Shows this chain and signs with this key.
    pub(crate) fn new(chain: Vec<CertificateDer<'static>>, key: Arc<dyn SigningKey>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(Arc::new(CertifiedKey::new(chain, key))))))
    }

    /// Shows this certificate.
    pub(crate) fn certificate(certified: &Certified) -> Arc<Self> {
        Self::new(certified.chain(), signing_key(certified.key()))
    }

    /// From now on it has nothing to show.
    pub(crate) fn nothing_more(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The key as rustls signs with it.
pub(crate) fn signing_key(key: PrivateKeyDer<'static>) -> Arc<dyn SigningKey> {
    any_supported_type(&key).unwrap()
}

/// A client that shows a chain as it is, whatever is wrong with it.
pub(crate) fn showing(
    pki: &TestPki,
    shown: Arc<dyn ResolvesClientCert>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut config = pki.client_config(None, versions);
    config.client_auth_cert_resolver = shown;
    Arc::new(config)
}

/// A client with this certificate, or with none.
pub(crate) fn client(pki: &TestPki, certified: Option<&Certified>) -> Arc<ClientConfig> {
    Arc::new(pki.client_config(certified, TLS13))
}

/// A TCP connection with the tests' patience.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
    patient(&stream);
    stream
}

/// A TCP connection from another address of this machine: all of 127.0.0.0/8 is there.
pub(crate) fn connect_from(source: IpAddr, address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    patient(&stream);
    stream
}

fn patient(stream: &TcpStream) {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
}

/// Ends a TCP connection by a reset.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// A TLS client. Two threads may use it at once, one to send and one to receive.
pub(crate) struct Client {
    tcp: TcpStream,
    state: Mutex<State>,
    /// Held from sealing to sending: records go out in the order of their numbers.
    sending: Mutex<()>,
}

struct State {
    connection: ClientConnection,
    received: Vec<u8>,
    end: Option<End>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

impl Client {
    /// A client on a TCP connection; it has said nothing yet.
    pub(crate) fn on(tcp: TcpStream, config: &Arc<ClientConfig>, server_name: &str) -> Self {
        let name = ServerName::try_from(server_name.to_owned()).unwrap();
        let mut connection = ClientConnection::new(Arc::clone(config), name).unwrap();
        connection.set_buffer_limit(None);
        Self { tcp, state: Mutex::new(State { connection, received: Vec::new(), end: None }), sending: Mutex::new(()) }
    }

    /// Connects and completes the handshake, as far as a client can tell: under TLS 1.3 it is not told.
    pub(crate) fn handshaken(address: SocketAddr, config: &Arc<ClientConfig>, server_name: &str) -> Result<Self, End> {
        let client = Self::on(connect(address), config, server_name);
        client.handshake()?;
        Ok(client)
    }

    /// Connects, completes the handshake and gets an answer from an echo service: the proof that it was let in.
    pub(crate) fn admitted(address: SocketAddr, config: &Arc<ClientConfig>, server_name: &str) -> Result<Self, End> {
        let client = Self::handshaken(address, config, server_name)?;
        client.ping()?;
        Ok(client)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The socket.
    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Asks rustls.
    pub(crate) fn tls<T>(&self, ask: impl FnOnce(&mut ClientConnection) -> T) -> T {
        ask(&mut self.state().connection)
    }

    /// Completes the handshake.
    pub(crate) fn handshake(&self) -> Result<(), End> {
        loop {
            // A refused client cannot send its last flight any more, but it can read why.
            let _ = self.flush();
            if !self.tls(|connection| connection.is_handshaking()) {
                return Ok(());
            }
            self.receive_some()?;
        }
    }

    /// Sends something and expects it back.
    pub(crate) fn ping(&self) -> Result<(), End> {
        // A gate that refuses may have closed already; what it had to say is read all the same.
        let _ = self.send(b"ping");
        let mut answer = [0; 4];
        self.read_exact(&mut answer)?;
        assert_eq!(&answer, b"ping");
        Ok(())
    }

    /// Sends payload. Before the end of the handshake it is kept and goes out right behind the client's last flight.
    pub(crate) fn send(&self, payload: &[u8]) -> io::Result<()> {
        self.seal_and_send(|connection| connection.writer().write_all(payload).unwrap())
    }

    /// Sends `close_notify`, and leaves the socket open.
    pub(crate) fn close_notify(&self) {
        let _ = self.seal_and_send(|connection| connection.send_close_notify());
    }

    /// Sends a KeyUpdate that asks for one in return (RFC 8446 section 4.6.3).
    pub(crate) fn update_keys(&self) {
        self.seal_and_send(|connection| connection.refresh_traffic_keys().unwrap()).unwrap();
    }

    /// Ends the TCP stream, without a word of TLS, and goes on reading.
    pub(crate) fn shut_tcp(&self) {
        // The peer may have gone first.
        let _ = self.tcp.shutdown(Shutdown::Write);
    }

    /// Sends what rustls wants to send.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.seal_and_send(|_| ())
    }

    fn seal_and_send(&self, seal: impl FnOnce(&mut ClientConnection)) -> io::Result<()> {
        let _order = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        let mut records = Vec::new();
        {
            let connection = &mut self.state().connection;
            seal(connection);
            while connection.wants_write() {
                connection.write_tls(&mut records)?;
            }
        }
        // One write, and with it one segment if it fits.
        (&self.tcp).write_all(&records)
    }

    /// Takes payload that has come, or waits for some.
    pub(crate) fn read(&self, into: &mut [u8]) -> Result<usize, End> {
        loop {
            {
                let mut state = self.state();
                if !state.received.is_empty() {
                    let count = state.received.len().min(into.len());
                    into[..count].copy_from_slice(&state.received[..count]);
                    state.received.drain(..count);
                    return Ok(count);
                }
                if let Some(end) = &state.end {
                    return Err(end.clone());
                }
            }
            self.receive_some()?;
            let _ = self.flush();
        }
    }

    /// Reads as much.
    pub(crate) fn read_exact(&self, into: &mut [u8]) -> Result<(), End> {
        let mut have = 0;
        while have < into.len() {
            have += self.read(&mut into[have..])?;
        }
        Ok(())
    }

    /// Reads to the end, whatever that is.
    pub(crate) fn read_to_end(&self) -> (Vec<u8>, End) {
        let mut all = Vec::new();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match self.read(&mut buffer) {
                Ok(count) => all.extend_from_slice(&buffer[..count]),
                Err(end) => return (all, end),
            }
        }
    }

    /// How the connection ends, if nothing but the end is expected of it.
    #[track_caller]
    pub(crate) fn end(&self) -> End {
        let (payload, end) = self.read_to_end();
        assert_eq!(payload, b"", "unexpected payload");
        end
    }

    /// Reads from the socket once. What has come is understood, and how it ended is remembered.
    pub(crate) fn receive_some(&self) -> Result<(), End> {
        let mut buffer = vec![0; 64 * 1024];
        let count = match (&self.tcp).read(&mut buffer) {
            Ok(count) => count,
            Err(error) => {
                let end = self.state().end.clone();
                return Err(end.unwrap_or_else(|| error.into()));
            }
        };
        let mut state = self.state();
        let State { connection, received, end } = &mut *state;
        if count == 0 {
            let end = end.get_or_insert(End::Truncated).clone();
            return if connection.is_handshaking() { Err(end) } else { Ok(()) };
        }
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            connection.read_tls(&mut rest).unwrap();
            let io_state = match connection.process_new_packets() {
                Ok(io_state) => io_state,
                Err(error) => {
                    let why = match error {
                        Error::AlertReceived(alert) => End::Alert(Alert(u8::from(alert))),
                        error => End::Tls(error),
                    };
                    *end = Some(why.clone());
                    drop(state);
                    // An alert of the client's own.
                    let _ = self.flush();
                    return Err(why);
                }
            };
            let before = received.len();
            received.resize(before + io_state.plaintext_bytes_to_read(), 0);
            connection.reader().read_exact(&mut received[before..]).unwrap();
            if io_state.peer_has_closed() {
                *end = Some(End::Orderly);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Breaks the connection off by a reset.
    pub(crate) fn reset(self) {
        reset(self.tcp);
    }
}

/// Sends these bytes and tells how the gate answers: by the end of the stream, or by an alert that is not encrypted.
pub(crate) fn refused_plainly(mut stream: &TcpStream, bytes: &[u8]) -> End {
    if let Err(error) = stream.write_all(bytes) {
        return error.into();
    }
    plain_end(stream)
}

/// Reads to the end: an alert that is not encrypted, or nothing.
#[track_caller]
pub(crate) fn plain_end(mut stream: &TcpStream) -> End {
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer);
    match (answer.as_slice(), end) {
        ([], Ok(_)) => End::Truncated,
        ([], Err(error)) => error.into(),
        (&[21, 3, _, 0, 2, 2, description], _) => End::Alert(Alert(description)),
        (other, _) => panic!("neither the end nor an alert: {other:?}"),
    }
}

/// What no TLS library sends: a ClientHello of one's own (RFC 8446 section 4.1.2), in one record.
pub(crate) struct Hello<'a> {
    /// `legacy_version`.
    pub(crate) version: u16,
    /// Cipher suites by number.
    pub(crate) suites: &'a [u16],
    /// The server name.
    pub(crate) server_name: &'a str,
}

impl Hello<'_> {
    /// The bytes.
    pub(crate) fn record(&self) -> Vec<u8> {
        let name = [&[0][..], &long(self.server_name.as_bytes())].concat();
        let extensions = [
            extension(0, &long(&name)),
            extension(10, &long(&29_u16.to_be_bytes())),
            extension(11, &[1, 0]),
            extension(13, &long(&[0x04, 0x03, 0x08, 0x04])),
        ]
        .concat();
        let suites: Vec<u8> = self.suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
        let body =
            [&self.version.to_be_bytes()[..], &[7; 32], &[0], &long(&suites), &[1, 0], &long(&extensions)].concat();
        let message = [&[1, 0], &long(&body)[..]].concat();
        [&[22, 3, 1], &long(&message)[..]].concat()
    }
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &long(body)].concat()
}

/// A vector with two bytes of length.
pub(crate) fn long(body: &[u8]) -> Vec<u8> {
    [&u16::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
}
