//! The two sides that are compared: rustls' server, and the gate's session, each with a client of its own.

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

use doorward::model::rejection::Alert;
use doorward::tls::record::{Keys, Opened, RecordError, Session};
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{CipherSuite, ClientConfig, Error, RootCertStore, ServerConfig, ServerConnection};

use crate::forger::{ALERT, Forger, Plain};

const NAME: &str = "gate.test";

/// One version of TLS, and what handshakes are made with.
pub(crate) struct Setting {
    server: Arc<ServerConfig>,
    client: ClientConfig,
}

impl Setting {
    pub(crate) fn new(suite: CipherSuite, tls13: bool) -> Self {
        static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().unwrap());
        let provider = aws_lc_rs::default_provider();
        let cipher_suites = provider.cipher_suites.iter().copied().filter(|one| one.suite() == suite).collect();
        let kx_groups = vec![aws_lc_rs::kx_group::X25519];
        let provider = Arc::new(CryptoProvider { cipher_suites, kx_groups, ..provider });
        let versions: &[_] = if tls13 { &[&rustls::version::TLS13] } else { &[&rustls::version::TLS12] };
        let certificate = CertificateParams::new([NAME.to_owned()]).unwrap().self_signed(&*KEY).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(KEY.serialize_der()).unwrap())
            .unwrap();
        server.enable_secret_extraction = true;
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.resumption = rustls::client::Resumption::disabled();
        Self { server: Arc::new(server), client }
    }
}

/// What has become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum State {
    /// It goes on.
    Open,
    /// The client has ended in order.
    Closed,
    /// The client has given up with this alert.
    GaveUp(u8),
    /// The client has broken the protocol, and is told so by this alert, if by any.
    Broken(Option<u8>),
}

/// A server, with the client that holds its other keys.
pub(crate) trait Side {
    fn forger(&mut self) -> &mut Forger;

    /// Takes bytes from the client: what has become of the connection, and the application data in them.
    fn take(&mut self, wire: &[u8]) -> (State, Vec<u8>);

    /// Sends application data: what the client hears of it, and of all that waited for it.
    fn send(&mut self, payload: &[u8]) -> Vec<Plain>;
}

/// rustls' server.
pub(crate) struct Oracle {
    server: ServerConnection,
    forger: Forger,
    heard: Vec<Plain>,
}

impl Oracle {
    pub(crate) fn new(setting: &Setting) -> Self {
        let mut server = ServerConnection::new(Arc::clone(&setting.server)).unwrap();
        let forger = Forger::handshake(setting.client.clone(), NAME, |mut bytes, _| {
            while !bytes.is_empty() {
                server.read_tls(&mut bytes).unwrap();
                server.process_new_packets().unwrap();
            }
            written(&mut server)
        });
        assert!(!server.is_handshaking());
        Self { server, forger, heard: Vec::new() }
    }
}

fn written(server: &mut ServerConnection) -> Vec<u8> {
    let mut wire = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut wire).unwrap();
    }
    wire
}

impl Side for Oracle {
    fn forger(&mut self) -> &mut Forger {
        &mut self.forger
    }

    fn take(&mut self, mut wire: &[u8]) -> (State, Vec<u8>) {
        let mut state = State::Open;
        while state == State::Open && !wire.is_empty() {
            let more = self.server.read_tls(&mut wire).unwrap();
            state = match self.server.process_new_packets() {
                Ok(io) if io.peer_has_closed() => State::Closed,
                Ok(_) => State::Open,
                Err(Error::AlertReceived(description)) => State::GaveUp(description.into()),
                Err(_) => State::Broken(None),
            };
            assert!(more > 0 || state != State::Open);
        }
        let mut data = Vec::new();
        let mut part = [0; 4096];
        while let Ok(length @ 1..) = self.server.reader().read(&mut part) {
            data.extend_from_slice(&part[..length]);
        }
        self.heard.extend(self.forger.hear(&written(&mut self.server)));
        // A fatal alert is an answer to what was broken, whatever rustls calls the error.
        if let (State::GaveUp(_) | State::Broken(_), Some((ALERT, alert))) = (state, self.heard.last())
            && let [2, description] = alert[..]
        {
            state = State::Broken(Some(description));
        }
        (state, data)
    }

    fn send(&mut self, payload: &[u8]) -> Vec<Plain> {
        self.server.writer().write_all(payload).unwrap();
        let wire = written(&mut self.server);
        let mut heard = std::mem::take(&mut self.heard);
        heard.extend(self.forger.hear(&wire));
        heard
    }
}

/// The gate's session, driven as the relay drives it.
pub(crate) struct Ours {
    session: Session,
    forger: Forger,
    /// What waits to be sent.
    control: Vec<u8>,
    received: Vec<u8>,
}

impl Ours {
    pub(crate) fn new(setting: &Setting) -> Self {
        let (keys, forger) = established(setting);
        Self { session: Session::new(keys).unwrap(), forger, control: Vec::new(), received: Vec::new() }
    }

    /// How much of the client's is kept.
    pub(crate) fn kept(&self) -> usize {
        self.received.len() + self.control.len()
    }

    fn open(&mut self, data: &mut Vec<u8>) -> Result<State, RecordError> {
        let mut at = 0;
        let state = loop {
            match self.session.open(&mut self.received[at..])? {
                Opened::Incomplete(wanted) => {
                    assert!(wanted > self.received.len() - at, "it is all there");
                    break State::Open;
                }
                Opened::Data { consumed, plaintext } => {
                    data.extend_from_slice(&self.received[at..][plaintext]);
                    at += consumed;
                }
                Opened::Nothing { consumed } => at += consumed,
                Opened::KeyUpdateRequested { consumed } => {
                    at += consumed;
                    if self.control.is_empty() {
                        self.session.update_key(&mut self.control).unwrap();
                    }
                }
                Opened::Renegotiation { consumed } => {
                    at += consumed;
                    self.session.no_renegotiation(&mut self.control).unwrap();
                }
                Opened::Closed { .. } => break State::Closed,
                Opened::Alert(Alert(description)) => break State::GaveUp(description),
            }
        };
        self.received.drain(..at);
        Ok(state)
    }
}

impl Side for Ours {
    fn forger(&mut self) -> &mut Forger {
        &mut self.forger
    }

    fn take(&mut self, wire: &[u8]) -> (State, Vec<u8>) {
        self.received.extend(wire);
        let mut data = Vec::new();
        let state = self.open(&mut data).unwrap_or_else(|RecordError(alert)| {
            self.session.fatal(alert, &mut self.control).unwrap();
            State::Broken(Some(alert.0))
        });
        (state, data)
    }

    fn send(&mut self, payload: &[u8]) -> Vec<Plain> {
        let start = self.control.len() + self.session.before();
        self.control.resize(start, 0);
        self.control.extend(payload);
        self.control.resize(start + payload.len() + self.session.behind(), 0);
        self.session.seal_data(&mut self.control[start - self.session.before()..]).unwrap();
        self.forger.hear(&std::mem::take(&mut self.control))
    }
}

/// What a handshake leaves the gate, and the client.
fn established(setting: &Setting) -> (Keys, Forger) {
    let mut server = UnbufferedServerConnection::new(Arc::clone(&setting.server)).unwrap();
    let mut received = Vec::new();
    let forger = Forger::handshake(setting.client.clone(), NAME, |bytes, _| {
        received.extend(bytes);
        let mut out = Vec::new();
        loop {
            let UnbufferedStatus { discard, state } = server.process_tls_records(&mut received);
            let mut waits = false;
            match state.unwrap() {
                ConnectionState::EncodeTlsData(mut data) => {
                    let start = out.len();
                    out.resize(start + 16_384, 0);
                    let written = data.encode(&mut out[start..]).unwrap();
                    out.truncate(start + written);
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => waits = true,
                other => panic!("{other:?}"),
            }
            received.drain(..discard);
            if waits {
                return out;
            }
        }
    });
    let (secrets, schedule) = server.dangerous_into_kernel_connection().unwrap();
    (Keys::new(secrets, schedule), forger)
}
