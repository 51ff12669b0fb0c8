//! The same path to a backend with TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server;

use super::super::path_tests::{TestEngine, tls_path_tests};
use super::super::testing::{Client, pair, reset, until_end, within};
use super::*;
use crate::backend_tls::TlsStream;
use crate::backend_tls::testing::{Identity, accept, pinning};
use crate::tls::record::testing::{Forger, Random, SUITES, TLS12, TLS13, handshake};
use crate::tls::record::{Keys, PLAINTEXT_MAX, Session};

type TlsEngine = TlsCopy<Box<TlsStream>>;

/// An engine whose backend is a socket in the tests and TLS for the engine: a bridge is between them.
enum Bridged {
    Connecting(Pin<Box<dyn Future<Output = TlsEngine>>>),
    Running(Box<TlsEngine>),
}

impl Bridged {
    fn running(&self) -> &TlsEngine {
        match self {
            Self::Running(engine) => engine,
            Self::Connecting(_) => panic!("it has not begun"),
        }
    }
}

impl Engine for Bridged {
    const PATH: Path = Path::Copy;

    fn poll_move(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            match self {
                Self::Connecting(connecting) => *self = Self::Running(Box::new(ready!(connecting.as_mut().poll(cx)))),
                Self::Running(engine) => return engine.poll_move(cx),
            }
        }
    }

    fn moved(&self) -> Moved {
        match self {
            Self::Connecting(_) => Moved::default(),
            Self::Running(engine) => engine.moved(),
        }
    }

    fn is_half_closed(&self) -> bool {
        matches!(self, Self::Running(engine) if engine.is_half_closed())
    }

    fn backend(&self) -> &Stream {
        self.running().backend()
    }

    fn cut(&mut self, ending: Ending) {
        match self {
            Self::Running(engine) => engine.cut(ending),
            Self::Connecting(_) => panic!("it has not begun"),
        }
    }

    fn limit_undelivered(&self) {
        self.running().limit_undelivered();
    }
}

impl TestEngine for Bridged {
    fn build(client: TcpStream, keys: Keys, limit: Option<u64>, backend: Stream) -> Self {
        let mut session = Session::new(keys).expect("a session");
        if let Some(limit) = limit {
            session.limit_records(limit);
        }
        let Stream::Tcp(backend) = backend else { panic!("TCP") };
        Self::Connecting(Box::pin(async move {
            let (stream, bridge) = connected().await;
            tokio::spawn(between(bridge, backend));
            TlsCopy::new(client, Box::new(session), Pending::default(), stream)
        }))
    }

    fn holds_nothing(&self) -> bool {
        self.running().holds_no_buffer()
    }

    fn poison() {
        TlsCopy::<Stream>::poison();
    }
}

/// Both ends of a connection with TLS: the gate's and the backend's.
async fn connected() -> (Box<TlsStream>, server::TlsStream<TcpStream>) {
    let identity = Identity::self_signed(|_| ());
    let (to_backend, backend) = pair(false).await;
    let tls = pinning(&identity);
    let (ours, theirs) =
        tokio::join!(tls.connect(Stream::Tcp(to_backend), 0, None), accept(backend, identity.server()));
    (ours.expect("trusted"), theirs.expect("a handshake"))
}

/// Passes on bytes and ends between TLS and a socket. A truncation arrives at the socket as an end.
async fn between(tls: server::TlsStream<TcpStream>, plain: TcpStream) {
    let (mut from_tls, mut to_tls) = tokio::io::split(tls);
    let (mut from_plain, mut to_plain) = plain.into_split();
    let down = async {
        let copied = tokio::io::copy(&mut from_plain, &mut to_tls).await;
        if copied.is_ok() {
            // Fails if the other side is already gone.
            let _ = to_tls.shutdown().await;
        }
        copied
    };
    let up = async {
        let mut part = vec![0; 1 << 16];
        loop {
            match from_tls.read(&mut part).await {
                Ok(0) => break,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
                // What the socket has sent is still passed on: its reset is met there.
                Ok(length) => {
                    if to_plain.write_all(&part[..length]).await.is_err() {
                        break;
                    }
                }
            }
        }
        let _ = to_plain.shutdown().await;
        Ok(())
    };
    let failed = tokio::try_join!(down, up).is_err();
    let (tls, _) = from_tls.unsplit(to_tls).into_inner();
    let plain = from_plain.reunite(to_plain).expect("both halves");
    if failed {
        reset(tls);
        reset(plain);
    }
}

tls_path_tests!(Bridged);

/// A relay, and both ends of it.
async fn rig(suite: rustls::CipherSuite) -> (TlsEngine, Client, server::TlsStream<TcpStream>) {
    let (keys, tls) = handshake(suite);
    let (client, ours) = pair(false).await;
    let (stream, backend) = connected().await;
    let session = Box::new(Session::new(keys).expect("a session"));
    (TlsCopy::new(ours, session, Pending::default(), stream), Client { stream: client, tls }, backend)
}

#[tokio::test]
async fn backend_that_ends_without_close_notify_truncates_the_client_too() {
    for suite in [TLS12, TLS13] {
        let (mut engine, mut client, mut backend) = rig(suite).await;
        let exchange = async {
            backend.write_all(b"half of it").await.expect("sent");
            backend.flush().await.expect("sent");
            // The end of the TCP stream, and nothing before it.
            SockRef::from(backend.get_ref().0).shutdown(Shutdown::Write).expect("shut");
            let mut received = Vec::new();
            let end = client.take_all(&mut received).await.map_err(|error| error.kind());
            assert_eq!((received.as_slice(), end), (&b"half of it"[..], Err(io::ErrorKind::UnexpectedEof)));
            drop(client);
        };
        let (end, ()) = within(async { tokio::join!(until_end(&mut engine), exchange) }).await;
        assert_eq!(end.reason, CloseReason::BackendTruncated, "{suite:?}: {end:?}");
        assert_eq!(engine.moved(), Moved { to_backend: 0, to_client: 10 });
    }
}

#[tokio::test]
async fn backend_can_tell_a_whole_request_from_a_truncated_one() {
    for whole in [true, false] {
        let (mut engine, mut client, mut backend) = rig(TLS13).await;
        let exchange = async {
            client.send(b"request").await;
            if whole {
                client.send_close_notify().await;
            } else {
                SockRef::from(&client.stream).shutdown(Shutdown::Write).expect("shut");
            }
            let mut received = Vec::new();
            let end = backend.read_to_end(&mut received).await.map_err(|error| error.kind());
            assert_eq!(received, b"request");
            assert_eq!(end.is_ok(), whole, "{end:?}");
            // The other direction is still open.
            backend.write_all(b"answer").await.expect("sent");
            backend.shutdown().await.expect("shut");
            assert_eq!(client.receive_all().await.expect("a close_notify"), b"answer");
            drop(client);
        };
        let (end, ()) = within(async { tokio::join!(until_end(&mut engine), exchange) }).await;
        assert_eq!(end.reason, CloseReason::ClientClosed, "{end:?}");
        assert_eq!(engine.moved(), Moved { to_backend: 7, to_client: 6 });
    }
}

#[tokio::test]
async fn nothing_is_held_while_nothing_moves() {
    for suite in SUITES {
        let (mut engine, mut client, mut backend) = rig(suite).await;
        let exchange = async {
            client.send(&[7; 100_000]).await;
            let mut received = vec![0; 100_000];
            backend.read_exact(&mut received).await.expect("bytes");
            backend.write_all(&received).await.expect("sent");
            backend.flush().await.expect("sent");
            client.receive(100_000).await;
        };
        let end = super::super::testing::drive(&mut engine, exchange).await;
        assert!(end.is_none(), "{end:?}");
        while engine.backend.holds_something() {
            assert!(super::super::testing::poll_once(&mut engine).await.is_none());
        }
        assert!(engine.holds_no_buffer(), "{suite:?}");
    }
}

/// As another gate ends a session that it cuts.
#[tokio::test]
async fn bytes_in_front_of_an_alert_of_the_backend_reach_the_client() {
    for length in [4, 3 * PLAINTEXT_MAX] {
        let identity = Identity::self_signed(|_| ());
        let mut server = identity.server();
        server.enable_secret_extraction = true;
        let (to_backend, backend) = pair(false).await;
        let tls = pinning(&identity);
        let (ours, theirs) = tokio::join!(tls.connect(Stream::Tcp(to_backend), 0, None), accept(backend, server));
        let (mut socket, theirs) = theirs.expect("a handshake").into_inner();
        let mut forger = Forger::new(theirs.dangerous_extract_secrets().expect("keys"), true);
        let sent = Random(3).bytes(length);
        let mut wire: Vec<u8> = sent.chunks(PLAINTEXT_MAX).flat_map(|part| forger.record(23, part)).collect();
        wire.extend(forger.record(21, &[2, 44]));
        // In the socket before the relay starts.
        socket.write_all(&wire).await.expect("sent");

        let (keys, tls) = handshake(TLS13);
        let (stream, gate) = pair(false).await;
        let mut client = Client { stream, tls };
        let session = Box::new(Session::new(keys).expect("a session"));
        let mut engine = TlsCopy::new(gate, session, Pending::default(), ours.expect("trusted"));
        let exchange = async {
            let mut received = Vec::new();
            let end = client.take_all(&mut received).await.map_err(|error| error.kind());
            assert!(received == sent, "{} of {length} bytes", received.len());
            assert_eq!(end, Err(io::ErrorKind::UnexpectedEof), "it is not complete");
            drop(client);
        };
        let (end, ()) = within(async { tokio::join!(until_end(&mut engine), exchange) }).await;
        assert_eq!(end.reason, CloseReason::BackendReset, "{end:?}");
    }
}
