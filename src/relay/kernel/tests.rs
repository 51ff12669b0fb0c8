use std::io;
use std::task::{Context, Poll};

use rustls::CipherSuite;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::copy::TlsCopy;
use super::super::path_tests::{TestEngine, tls_path_tests};
use super::super::testing::{Client, Script, pair, play, until_end, within};
use super::*;
use crate::sys::test_kernel::has_tls;
use crate::tls::record::testing::{Random, SUITES, TLS12, TLS13, forged_keys, handshake};
use crate::tls::record::{Pending, Session};

/// What the gate uses by default: the kernel, or user space where the kernel has no TLS. So the tests cover the kernel path
/// where it exists and the fallback elsewhere.
#[derive(Debug)]
enum Tested {
    Kernel(Box<KernelTls>),
    Copy(Box<TlsCopy>),
}

impl Engine for Tested {
    const PATH: Path = Path::Kernel;

    fn poll_move(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        match self {
            Self::Kernel(engine) => engine.poll_move(cx),
            Self::Copy(engine) => engine.poll_move(cx),
        }
    }

    fn moved(&self) -> Moved {
        match self {
            Self::Kernel(engine) => engine.moved(),
            Self::Copy(engine) => engine.moved(),
        }
    }

    fn is_half_closed(&self) -> bool {
        match self {
            Self::Kernel(engine) => engine.is_half_closed(),
            Self::Copy(engine) => engine.is_half_closed(),
        }
    }

    fn backend(&self) -> &Stream {
        match self {
            Self::Kernel(engine) => engine.backend(),
            Self::Copy(engine) => engine.backend(),
        }
    }

    fn cut(&mut self, ending: Ending) {
        match self {
            Self::Kernel(engine) => engine.cut(ending),
            Self::Copy(engine) => engine.cut(ending),
        }
    }

    fn limit_undelivered(&self) {
        match self {
            Self::Kernel(engine) => engine.limit_undelivered(),
            Self::Copy(engine) => engine.limit_undelivered(),
        }
    }
}

fn support() -> Support {
    Support::found(ktls::probe())
}

impl TestEngine for Tested {
    fn build(client: TcpStream, keys: Keys, limit: Option<u64>, backend: Stream) -> Self {
        let support = support();
        assert_eq!(support.fits(&keys), has_tls(), "{:?}", support.missing());
        match ktls::attach(&client) {
            Ok(()) => {
                let mut engine = KernelTls::new(client, keys, &support, backend).expect("the kernel accepts the keys");
                if let Some(limit) = limit {
                    engine.sealed.limit = limit;
                    engine.sealed.records_left = 0;
                }
                Self::Kernel(Box::new(engine))
            }
            Err(error) => {
                assert_eq!((error.raw_os_error(), has_tls()), (Some(libc::ENOENT), false));
                let mut session = Session::new(keys).expect("a session");
                if let Some(limit) = limit {
                    session.limit_records(limit);
                }
                Self::Copy(Box::new(TlsCopy::new(client, Box::new(session), Pending::default(), backend)))
            }
        }
    }

    fn changes_keys() -> bool {
        support().changes_keys || !has_tls()
    }

    fn holds_nothing(&self) -> bool {
        match self {
            Self::Kernel(engine) => engine.up.pipe.is_none() && engine.down.pipe.is_none(),
            Self::Copy(_) => true,
        }
    }
}

tls_path_tests!(Tested);

/// Claims that the kernel supports every suite.
fn every_suite() -> Support {
    let suites = Version::ALL.iter().flat_map(|&version| Cipher::ALL.iter().map(move |&cipher| (version, cipher)));
    Support { suites: suites.collect(), ..Support::none() }
}

#[tokio::test]
async fn rejected_keys_send_nothing_to_the_backend() {
    let mismatched = |one: CipherSuite, other: CipherSuite| {
        let (mut keys, forger) = forged_keys(one);
        keys.receive = handshake(other).0.receive;
        (keys, forger)
    };
    let never_attached = forged_keys(TLS13);
    // One direction is accepted and the other rejected: ciphertext would be forwarded as payload.
    let half_way = mismatched(SUITES[0], SUITES[1]);
    for (attach, (keys, mut forger)) in [(false, never_attached), (true, half_way)] {
        let (mut client, ours) = pair(false).await;
        let (to_backend, mut backend) = pair(false).await;
        client.write_all(&forger.record(23, b"secret")).await.expect("sent");
        if attach {
            assert_eq!(ktls::attach(&ours).is_ok(), has_tls());
        }
        let end = KernelTls::new(ours, keys, &every_suite(), Stream::Tcp(to_backend)).expect_err("the kernel refuses");
        assert_eq!(end.reason, CloseReason::Internal, "{end:?}");
        let mut delivered = Vec::new();
        let ended = within(backend.read_to_end(&mut delivered)).await.map_err(|error| error.kind());
        assert_eq!((delivered.as_slice(), ended), (&b""[..], Err(io::ErrorKind::ConnectionReset)));
    }
}

#[tokio::test]
async fn key_update_is_followed_or_ends_in_an_alert() {
    let changes = support().changes_keys || !has_tls();
    for requested in [0, 1] {
        let (keys, tls) = handshake(TLS13);
        let (stream, ours) = pair(false).await;
        let (to_backend, mut backend) = pair(false).await;
        let mut engine = Tested::build(ours, keys, None, Stream::Tcp(to_backend));
        let mut client = Client { stream, tls };
        let exchange = async {
            client.send(b"old").await;
            let mut delivered = vec![0; 3];
            backend.read_exact(&mut delivered).await.expect("bytes");
            // rustls requests an answer. KeyUpdates without a request are covered by the tests of user space.
            client.tls.refresh_traffic_keys().expect("TLS 1.3");
            client.send(b"new").await;
            if changes {
                backend.read_exact(&mut delivered).await.expect("bytes under the new key");
                assert_eq!(delivered, b"new");
                for _ in 0..=requested {
                    backend.write_all(b"answer").await.expect("sent");
                    assert_eq!(client.receive(6).await, b"answer");
                }
                client.send_close_notify().await;
                backend.read_to_end(&mut delivered).await.expect("an orderly end");
                backend.shutdown().await.expect("shut");
                assert_eq!(client.receive_all().await.expect("a close_notify"), b"");
            } else {
                let error = client.receive_all().await.expect_err("no orderly end").to_string();
                assert!(error.contains("InternalError"), "{error}");
                let end = backend.read_to_end(&mut delivered).await.map_err(|error| error.kind());
                assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
            }
        };
        let gate = async {
            let end = until_end(&mut engine).await;
            drop(engine);
            end
        };
        let (end, ()) = within(async { tokio::join!(gate, exchange) }).await;
        let reason = if changes { CloseReason::ClientClosed } else { CloseReason::TlsError };
        assert_eq!(end.reason, reason, "{end:?}");
    }
}

/// A kernel that can change keys stops at the first fragment and opens no second one under the old key. A kernel that cannot
/// change keys reads all fragments and stops after them.
#[tokio::test]
async fn fragmented_key_update_is_followed_or_ends_in_an_alert() {
    for fragments in [&[&[24, 0][..], &[0, 1, 0]][..], &[&[24], &[0], &[0], &[1], &[0]]] {
        let (keys, mut forger) = forged_keys(TLS13);
        let (mut client, ours) = pair(false).await;
        let (to_backend, mut backend) = pair(false).await;
        let mut engine = Tested::build(ours, keys, None, Stream::Tcp(to_backend));
        let exchange = async {
            let mut delivered = [0; 3];
            client.write_all(&forger.record(23, b"old")).await.expect("sent");
            backend.read_exact(&mut delivered).await.expect("bytes");
            for fragment in fragments {
                client.write_all(&forger.record(22, fragment)).await.expect("sent");
            }
            let mut received = Vec::new();
            if has_tls() {
                let end = backend.read_to_end(&mut received).await.map_err(|error| error.kind());
                assert_eq!(end, Err(io::ErrorKind::ConnectionReset), "{fragments:?}");
                client.read_to_end(&mut received).await.expect("an orderly end");
                assert_eq!(forger.open_records(&received), [(21, vec![2, 80])], "{fragments:?}");
            } else {
                // Our sending key stays, because the client requested no update.
                backend.write_all(b"on").await.expect("sent");
                client.shutdown().await.expect("shut");
                backend.read_to_end(&mut received).await.expect("an orderly end");
                backend.shutdown().await.expect("shut");
                client.read_to_end(&mut received).await.expect("an orderly end");
                assert_eq!(forger.open_records(&received), [(23, b"on".to_vec()), (21, vec![1, 0])], "{fragments:?}");
            }
        };
        let gate = async {
            let end = until_end(&mut engine).await;
            drop(engine);
            end
        };
        let (end, ()) = within(async { tokio::join!(gate, exchange) }).await;
        let reason = if has_tls() { CloseReason::TlsError } else { CloseReason::ClientClosed };
        assert_eq!(end.reason, reason, "{fragments:?}: {end:?}");
        if has_tls() {
            assert!(end.detail.as_ref().is_some_and(|detail| detail.contains("Linux")), "{end:?}");
        }
    }
}

#[tokio::test]
async fn key_at_its_limit_is_changed_or_ends_in_an_alert() {
    for suite in [TLS12, TLS13] {
        let changes = suite == TLS13 && (support().changes_keys || !has_tls());
        let (keys, tls) = handshake(suite);
        let (stream, ours) = pair(false).await;
        let (to_backend, backend) = pair(false).await;
        let mut engine = Tested::build(ours, keys, Some(200), Stream::Tcp(to_backend));
        let mut client = Client { stream, tls };
        let bytes = Random(16).bytes(8_000_000);
        let mut delivered = Vec::new();
        let exchange = async {
            let script = Script { send: &bytes, seed: 41, chunk: 100_000, slow: false, ends_first: true };
            let reading = async {
                let end = client.take_all(&mut delivered).await;
                client.tls.send_close_notify();
                let _ = client.flush().await;
                end
            };
            tokio::join!(reading, play(&backend, script)).0
        };
        let gate = async {
            let end = until_end(&mut engine).await;
            drop(engine);
            end
        };
        let (end, ended) = within(async { tokio::join!(gate, exchange) }).await;
        if changes {
            ended.expect("a close_notify");
            assert!(delivered == bytes, "{} bytes", delivered.len());
        } else {
            assert_eq!(end.reason, CloseReason::TlsError, "{suite:?}: {end:?}");
            let error = ended.expect_err("not everything can be sent").to_string();
            assert!(error.contains("InternalError"), "{error}");
            assert!(bytes.starts_with(&delivered) && !delivered.is_empty(), "{} bytes", delivered.len());
            assert!(delivered.len() <= 200 * PLAINTEXT_MAX, "{} bytes under one key", delivered.len());
        }
    }
}
