use std::io;
use std::task::{Context, Poll};

use rustls::CipherSuite;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::copy::TlsCopy;
use super::super::testing::{Client, Script, pair, play, within};
use super::*;
use crate::sys::test_kernel::has_tls;
use crate::tls::record::testing::{Random, SUITES, TLS12, TLS13, forged_keys, handshake};
use crate::tls::record::{Pending, Session};

/// What a gate that is free to choose takes: the kernel, or user space where the kernel has no TLS. So the suite tests the
/// kernel path where there is one, and the way back where there is none.
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

    fn cut(&mut self) {
        match self {
            Self::Kernel(engine) => engine.cut(),
            Self::Copy(engine) => engine.cut(),
        }
    }

    fn withhold(&self) {
        match self {
            Self::Kernel(engine) => engine.withhold(),
            Self::Copy(engine) => engine.withhold(),
        }
    }
}

fn support() -> Support {
    Support::found(ktls::probe())
}

fn build(ours: TcpStream, keys: Keys, limit: Option<u64>, to_backend: Stream) -> Tested {
    let support = support();
    assert_eq!(support.fits(&keys), has_tls(), "{:?}", support.missing());
    match ktls::attach(&ours) {
        Ok(()) => {
            let mut engine = KernelTls::new(ours, keys, &support, to_backend).expect("the kernel takes the keys");
            if let Some(limit) = limit {
                engine.sealed.limit = limit;
                engine.sealed.budget = 0;
            }
            Tested::Kernel(Box::new(engine))
        }
        Err(error) => {
            assert_eq!((error.raw_os_error(), has_tls()), (Some(libc::ENOENT), false));
            let mut session = Session::new(keys).expect("a session");
            if let Some(limit) = limit {
                session.limit_records(limit);
            }
            Tested::Copy(Box::new(TlsCopy::new(ours, Box::new(session), Pending::default(), to_backend)))
        }
    }
}

fn poison() {}

/// Without bytes on the move, no pipe is held.
fn holds_nothing(engine: &Tested) -> bool {
    match engine {
        Tested::Kernel(engine) => engine.up.pipe.is_none() && engine.down.pipe.is_none(),
        Tested::Copy(_) => true,
    }
}

#[expect(clippy::duplicate_mod, reason = "one suite for every path")]
#[path = "../suite.rs"]
mod suite;

async fn poll_fn_move(engine: &mut Tested) -> End {
    std::future::poll_fn(|cx| engine.poll_move(cx)).await
}

/// A kernel that takes everything, if it is asked.
fn anything() -> Support {
    let suites = Version::ALL.iter().flat_map(|&version| Cipher::ALL.iter().map(move |&cipher| (version, cipher)));
    Support { suites: suites.collect(), ..Support::none() }
}

#[tokio::test]
async fn nothing_reaches_the_backend_when_the_kernel_does_not_take_the_keys() {
    let mismatched = |one: CipherSuite, other: CipherSuite| {
        let (mut keys, forger) = forged_keys(one);
        keys.receive = handshake(other).0.receive;
        (keys, forger)
    };
    let never_attached = forged_keys(TLS13);
    // Accepted one way, refused the other: what the client sends would be passed on as it is.
    let half_way = mismatched(SUITES[0], SUITES[1]);
    for (attach, (keys, mut forger)) in [(false, never_attached), (true, half_way)] {
        let (mut client, ours) = pair(false).await;
        let (to_backend, mut backend) = pair(false).await;
        client.write_all(&forger.record(23, b"secret")).await.expect("sent");
        if attach {
            assert_eq!(ktls::attach(&ours).is_ok(), has_tls());
        }
        let end = KernelTls::new(ours, keys, &anything(), Stream::Tcp(to_backend)).expect_err("the kernel refuses");
        assert_eq!(end.reason, CloseReason::Internal, "{end:?}");
        let mut came = Vec::new();
        let ended = within(backend.read_to_end(&mut came)).await.map_err(|error| error.kind());
        assert_eq!((came.as_slice(), ended), (&b""[..], Err(io::ErrorKind::ConnectionReset)));
    }
}

#[tokio::test]
async fn keys_change_where_the_kernel_can_and_else_the_client_is_told() {
    let changes = support().changes_keys || !has_tls();
    for requested in [0, 1] {
        let (keys, tls) = handshake(TLS13);
        let (stream, ours) = pair(false).await;
        let (to_backend, mut backend) = pair(false).await;
        let mut engine = build(ours, keys, None, Stream::Tcp(to_backend));
        let mut client = Client { stream, tls };
        let exchange = async {
            client.send(b"old").await;
            let mut came = vec![0; 3];
            backend.read_exact(&mut came).await.expect("bytes");
            // rustls asks for an answer. Somebody who does not is served all the same by the tests of user space.
            client.tls.refresh_traffic_keys().expect("TLS 1.3");
            client.send(b"new").await;
            if changes {
                backend.read_exact(&mut came).await.expect("bytes under the new key");
                assert_eq!(came, b"new");
                for _ in 0..=requested {
                    backend.write_all(b"answer").await.expect("sent");
                    assert_eq!(client.receive(6).await, b"answer");
                }
                client.send_close_notify().await;
                backend.read_to_end(&mut came).await.expect("an orderly end");
                backend.shutdown().await.expect("shut");
                assert_eq!(client.receive_all().await.expect("a close_notify"), b"");
            } else {
                let error = client.receive_all().await.expect_err("no orderly end").to_string();
                assert!(error.contains("InternalError"), "{error}");
                let end = backend.read_to_end(&mut came).await.map_err(|error| error.kind());
                assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
            }
        };
        let gate = async {
            let end = poll_fn_move(&mut engine).await;
            drop(engine);
            end
        };
        let (end, ()) = within(async { tokio::join!(gate, exchange) }).await;
        let reason = if changes { CloseReason::ClientClosed } else { CloseReason::TlsError };
        assert_eq!(end.reason, reason, "{end:?}");
    }
}

/// A kernel that changes keys stops at the first fragment until it has a new one, and opens no second fragment under the old
/// one; a kernel that changes none takes both and stops behind them.
#[tokio::test]
async fn a_key_update_in_fragments_is_followed_or_ends_in_an_alert() {
    for fragments in [&[&[24, 0][..], &[0, 1, 0]][..], &[&[24], &[0], &[0], &[1], &[0]]] {
        let (keys, mut forger) = forged_keys(TLS13);
        let (mut client, ours) = pair(false).await;
        let (to_backend, mut backend) = pair(false).await;
        let mut engine = build(ours, keys, None, Stream::Tcp(to_backend));
        let exchange = async {
            let mut came = [0; 3];
            client.write_all(&forger.record(23, b"old")).await.expect("sent");
            backend.read_exact(&mut came).await.expect("bytes");
            for fragment in fragments {
                client.write_all(&forger.record(22, fragment)).await.expect("sent");
            }
            let mut heard = Vec::new();
            if has_tls() {
                let end = backend.read_to_end(&mut heard).await.map_err(|error| error.kind());
                assert_eq!(end, Err(io::ErrorKind::ConnectionReset), "{fragments:?}");
                client.read_to_end(&mut heard).await.expect("an orderly end");
                assert_eq!(forger.hear(&heard), [(21, vec![2, 80])], "{fragments:?}");
            } else {
                // The key that we send with stays, since the client asked for no other.
                backend.write_all(b"on").await.expect("sent");
                client.shutdown().await.expect("shut");
                backend.read_to_end(&mut heard).await.expect("an orderly end");
                backend.shutdown().await.expect("shut");
                client.read_to_end(&mut heard).await.expect("an orderly end");
                assert_eq!(forger.hear(&heard), [(23, b"on".to_vec()), (21, vec![1, 0])], "{fragments:?}");
            }
        };
        let gate = async {
            let end = poll_fn_move(&mut engine).await;
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
async fn a_key_at_its_limit_is_changed_where_the_kernel_can_and_else_ends_in_an_alert() {
    for suite in [TLS12, TLS13] {
        let changes = suite == TLS13 && (support().changes_keys || !has_tls());
        let (keys, tls) = handshake(suite);
        let (stream, ours) = pair(false).await;
        let (to_backend, backend) = pair(false).await;
        let mut engine = build(ours, keys, Some(200), Stream::Tcp(to_backend));
        let mut client = Client { stream, tls };
        let bytes = Random(16).bytes(8_000_000);
        let mut came = Vec::new();
        let exchange = async {
            let script = Script { send: &bytes, seed: 41, chunk: 100_000, slow: false, ends_first: true };
            let reading = async {
                let end = client.take_all(&mut came).await;
                client.tls.send_close_notify();
                let _ = client.flush().await;
                end
            };
            tokio::join!(reading, play(&backend, script)).0
        };
        let gate = async {
            let end = poll_fn_move(&mut engine).await;
            drop(engine);
            end
        };
        let (end, ended) = within(async { tokio::join!(gate, exchange) }).await;
        if changes {
            ended.expect("a close_notify");
            assert!(came == bytes, "{} bytes", came.len());
        } else {
            assert_eq!(end.reason, CloseReason::TlsError, "{suite:?}: {end:?}");
            let error = ended.expect_err("not everything can be sent").to_string();
            assert!(error.contains("InternalError"), "{error}");
            assert!(bytes.starts_with(&came) && !came.is_empty(), "{} bytes", came.len());
            assert!(came.len() <= 200 * PLAINTEXT_MAX, "{} bytes under one key", came.len());
        }
    }
}
