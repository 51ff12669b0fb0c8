//! Payload, byte for byte, whatever the version, the suite and the way it ends: attacks.md row 22.

mod flights;
mod records;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, LazyLock, Mutex, mpsc};
use std::thread;

use doorward::model::close::CloseReason;
use rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384,
    TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, ServerConfig, ServerConnection, SupportedCipherSuite};
use serde_json::Value;

use crate::client::{Client, End, Hello, VERSIONS, client, connect};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::home::{House, Watch};

const NAME: &str = "nas.home.example";
const MIB: usize = 1024 * 1024;

/// Every suite the gate speaks.
const SUITES: [SupportedCipherSuite; 6] = [
    TLS13_AES_128_GCM_SHA256,
    TLS13_AES_256_GCM_SHA384,
    TLS13_CHACHA20_POLY1305_SHA256,
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// Bytes that look like no others (xorshift64): a byte that is lost, doubled or moved is found.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..64 * MIB / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()
        })
        .collect()
});

/// What goes up, and what comes down: different bytes, so that neither can be taken for the other.
fn up(length: usize) -> &'static [u8] {
    &NOISE[..length]
}

fn down(length: usize) -> &'static [u8] {
    &NOISE[NOISE.len() - length..]
}

#[track_caller]
fn assert_same(what: &str, got: &[u8], wanted: &[u8]) {
    if got != wanted {
        let first = got.iter().zip(wanted).position(|(got, wanted)| got != wanted);
        panic!("{what}: {} bytes instead of {}, the first wrong one at {first:?}", got.len(), wanted.len());
    }
}

/// How the client says that it has said everything.
#[derive(Clone, Copy, Debug)]
enum Finish {
    CloseNotify,
    /// Without a word of TLS, as many programs do.
    Tcp,
}

/// A client that can send and receive at once.
enum Peer {
    Tls(Box<Client>),
    Raw(TcpStream),
}

impl Peer {
    fn send(&self, bytes: &[u8]) {
        // A backend that wants no more is not asked for its opinion here.
        let _ = match self {
            Self::Tls(client) => client.send(bytes),
            Self::Raw(stream) => (&mut &*stream).write_all(bytes),
        };
    }

    fn finish(&self, finish: Finish) {
        match (self, finish) {
            (Self::Tls(client), Finish::CloseNotify) => {
                client.close_notify();
                client.shut_tcp();
            }
            (Self::Tls(client), Finish::Tcp) => client.shut_tcp(),
            (Self::Raw(stream), _) => drop(stream.shutdown(Shutdown::Write)),
        }
    }

    fn read_to_end(&self) -> (Vec<u8>, End) {
        match self {
            Self::Tls(client) => client.read_to_end(),
            Self::Raw(stream) => {
                let mut all = Vec::new();
                match (&mut &*stream).read_to_end(&mut all) {
                    Ok(_) => (all, End::Orderly),
                    Err(error) => (all, error.into()),
                }
            }
        }
    }
}

/// The client's TLS: a suite, or none.
#[derive(Clone, Copy, Debug)]
enum Way {
    Suite(SupportedCipherSuite),
    Passthrough,
}

fn ways() -> impl Iterator<Item = Way> {
    SUITES.into_iter().map(Way::Suite).chain([Way::Passthrough])
}

impl Way {
    fn name(self) -> String {
        match self {
            Self::Suite(suite) => format!("{:?}", suite.suite()),
            Self::Passthrough => "passthrough".to_owned(),
        }
    }

    /// The suite as log lines have it.
    fn logged(self) -> Value {
        match self {
            Self::Suite(suite) => suite.suite().as_str().unwrap().replacen("TLS13_", "TLS_", 1).into(),
            Self::Passthrough => Value::Null,
        }
    }

    /// What a passthrough client starts with, and its backend sees.
    fn first(self) -> Vec<u8> {
        match self {
            Self::Suite(_) => Vec::new(),
            Self::Passthrough => {
                Hello { version: 0x0303, suites: &[0x1301], server_name: "mail.home.example" }.record()
            }
        }
    }

    fn connect(self, gate: &Gate, pki: &TestPki) -> Peer {
        match self {
            Self::Suite(suite) => {
                Peer::Tls(Box::new(Client::handshaken(gate.address(), &with_suite(pki, suite), NAME).unwrap()))
            }
            Self::Passthrough => {
                let mut stream = connect(gate.address());
                stream.write_all(&self.first()).unwrap();
                Peer::Raw(stream)
            }
        }
    }
}

/// A client that offers one suite only.
fn with_suite(pki: &TestPki, suite: SupportedCipherSuite) -> Arc<ClientConfig> {
    let provider = CryptoProvider { cipher_suites: vec![suite], ..aws_lc_rs::default_provider() };
    let ours = pki.client_config(None, &VERSIONS);
    let identity = pki.client("alice-phone");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::pem::PemObject::from_pem_slice(pki.servers.pem().as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[suite.version()])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(identity.chain(), identity.key())
        .unwrap();
    config.alpn_protocols = ours.alpn_protocols;
    Arc::new(config)
}

/// A backend that sends so much and then ends, and keeps what it gets.
struct Duplex {
    backend: Backend,
    got: mpsc::Receiver<Vec<u8>>,
}

impl Duplex {
    fn new(sends: usize) -> Self {
        let (keep, got) = mpsc::channel();
        let keep = Mutex::new(keep);
        let backend = Backend::serve("127.0.0.1:0", move |stream, state| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    // A gate that breaks off is found out by what arrives.
                    let _ = stream.try_clone().unwrap().write_all(down(sends));
                    let _ = stream.shutdown(Shutdown::Write);
                });
                let mut all = Vec::new();
                state.each_read(stream, |bytes| {
                    all.extend_from_slice(bytes);
                    true
                });
                keep.lock().unwrap().send(all).unwrap();
            });
        });
        Self { backend, got }
    }
}

/// Both directions at once, each ended when it is through, the shorter one in the middle of the longer one.
fn duplex(pki: &TestPki, way: Way, sends: usize, receives: usize, finish: Finish) {
    let what = format!("{}, {} MiB up, {} MiB down, {finish:?}", way.name(), sends / MIB, receives / MIB);
    let duplex = Duplex::new(receives);
    let address = duplex.backend.address();
    let gate = House::new(pki).route("nas", address).passthrough("mail", address).open();
    let watch = Watch::begin(&gate);
    let peer = way.connect(&gate, pki);
    let (received, end) = thread::scope(|scope| {
        scope.spawn(|| {
            for chunk in up(sends).chunks(100_000) {
                peer.send(chunk);
            }
            peer.finish(finish);
        });
        peer.read_to_end()
    });
    assert_same(&format!("{what}: down"), &received, down(receives));
    assert_eq!(end, End::Orderly, "{what}");
    let got = duplex.got.recv().unwrap();
    let first = way.first();
    assert_same(&format!("{what}: up"), &got[first.len().min(got.len())..], up(sends));
    drop(peer);
    // Which of the two ended first, the gate alone can tell.
    let line = watch.closed_as(&[CloseReason::ClientClosed, CloseReason::BackendClosed]);
    assert_eq!(line["bytes_to_backend"], sends + first.len(), "{what}: {line}");
    assert_eq!(line["bytes_to_client"], receives, "{what}: {line}");
    assert_eq!(line["tls"]["cipher_suite"], way.logged(), "{what}: {line}");
    let route = line["route"].as_str().unwrap();
    let metrics = gate.settled();
    for (direction, bytes) in [("client_to_backend", sends + first.len()), ("backend_to_client", receives)] {
        let labels = [("route", route), ("direction", direction)];
        assert_eq!(metrics.sum("doorward_relay_bytes_total", &labels), bytes as f64, "{what}");
    }
}

#[test]
fn twenty_mib_come_back_as_they_went() {
    let pki = TestPki::new();
    let echo = Backend::echo();
    let gate = House::new(&pki).route("nas", echo.address()).passthrough("mail", echo.address()).open();
    for way in ways() {
        let peer = way.connect(&gate, &pki);
        let (received, end) = thread::scope(|scope| {
            scope.spawn(|| {
                peer.send(up(20 * MIB));
                peer.finish(Finish::CloseNotify);
            });
            peer.read_to_end()
        });
        let sent = [&way.first(), up(20 * MIB)].concat();
        assert_same(&way.name(), &received, &sent);
        assert_eq!(end, End::Orderly, "{}", way.name());
    }
}

#[test]
fn duplex_client_half_closes_without_close_notify() {
    let pki = TestPki::new();
    for way in ways() {
        duplex(&pki, way, 10 * MIB, 54 * MIB, Finish::Tcp);
    }
}

#[test]
fn duplex_backend_half_closes_in_mid_flight() {
    let pki = TestPki::new();
    for way in ways() {
        duplex(&pki, way, 54 * MIB, 10 * MIB, Finish::Tcp);
    }
}

#[test]
fn sixty_four_mib_each_way_at_once() {
    let pki = TestPki::new();
    for way in [Way::Suite(TLS13_AES_256_GCM_SHA384), Way::Passthrough] {
        duplex(&pki, way, 64 * MIB, 64 * MIB, Finish::CloseNotify);
    }
}

#[test]
fn nothing_at_all_is_also_delivered() {
    let pki = TestPki::new();
    for way in ways() {
        for finish in [Finish::CloseNotify, Finish::Tcp] {
            duplex(&pki, way, 0, 0, finish);
            duplex(&pki, way, 1, 0, finish);
            duplex(&pki, way, 0, 1, finish);
        }
    }
}

/// A route that leaves TLS to its backend: a real TLS server, whose certificate the client sees.
#[test]
fn passthrough_leads_to_the_backends_own_tls() {
    let (pki, theirs) = (TestPki::new(), TestPki::new());
    let certified = theirs.servers.issue(crate::common::pki::Certified::for_servers(&["mail.home.example"]));
    let server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certified.chain(), certified.key())
        .unwrap();
    let server = Arc::new(server);
    let mail = Backend::serve("127.0.0.1:0", move |mut stream, _| {
        let mut connection = ServerConnection::new(Arc::clone(&server)).unwrap();
        let mut tls = rustls::Stream::new(&mut connection, &mut stream);
        let mut question = [0; 4];
        if tls.read_exact(&mut question).is_ok() {
            tls.write_all(&question).unwrap();
            tls.write_all(up(3 * MIB)).unwrap();
            tls.conn.send_close_notify();
            tls.flush().unwrap();
        }
        let _ = stream.shutdown(Shutdown::Write);
    });
    let gate = House::new(&pki).passthrough("mail", mail.address()).open();
    let trusting = client(&theirs, None);
    let watch = Watch::begin(&gate);
    let client = Client::admitted(gate.address(), &trusting, "mail.home.example").unwrap();
    let (page, end) = client.read_to_end();
    assert_same("mail", &page, up(3 * MIB));
    assert_eq!(end, End::Orderly);
    drop(client);
    let line = watch.closed_as(&[CloseReason::BackendClosed, CloseReason::ClientClosed]);
    assert_eq!((&line["path"], line["certificate"].is_null()), (&"raw".into(), true), "{line}");
}
