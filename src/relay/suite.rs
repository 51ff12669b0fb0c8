//! What holds for every path that TLS connections take: included by the tests of each, which build what is tested.

use std::io::{self, Write as _};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use rustls::CipherSuite;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Tested, build, holds_nothing, poison};
use crate::model::close::CloseReason;
use crate::relay::testing::{Client, Script, pair, play, reset, within};
use crate::relay::{End, Engine, Handle, Limits, Moved, Order, run};
use crate::sys::stream::Stream;
use crate::tls::record::testing::{Random, SUITES, TLS12, TLS13, forged_keys, handshake};

#[expect(clippy::duplicate_mod, reason = "one suite for every path")]
mod breaches;

/// A relay between a client and a backend.
struct Rig {
    engine: Tested,
    client: Client,
    backend: TcpStream,
}

/// A relay with tiny socket buffers, or with the kernel's own.
async fn rig(suite: CipherSuite, tiny: bool) -> Rig {
    rig_between(suite, None, pair(tiny).await, pair(tiny).await)
}

/// A relay whose keys seal so many records at most.
async fn limited(suite: CipherSuite, limit: Option<u64>) -> Rig {
    rig_between(suite, limit, pair(false).await, pair(false).await)
}

fn rig_between(
    suite: CipherSuite,
    limit: Option<u64>,
    (client, ours): (TcpStream, TcpStream),
    (to_backend, backend): (TcpStream, TcpStream),
) -> Rig {
    let (keys, tls) = handshake(suite);
    let engine = build(ours, keys, limit, Stream::Tcp(to_backend));
    Rig { engine, client: Client { stream: client, tls }, backend }
}

fn limits(idle: Duration) -> Limits {
    Limits { idle, half_close: idle, lifetime: None }
}

async fn poll_fn_move(engine: &mut Tested) -> End {
    std::future::poll_fn(|cx| engine.poll_move(cx)).await
}

#[tokio::test]
async fn both_directions_at_once_byte_for_byte() {
    poison();
    for suite in SUITES {
        for (tiny, up, down, chunk) in [
            // (tiny socket buffers, bytes up, bytes down, largest piece)
            (true, 60_000, 90_000, 700),
            (true, 400_000, 300_000, 20_000),
            (false, 3_000_000, 4_000_000, 200_000),
        ] {
            let Rig { mut engine, mut client, backend } = rig(suite, tiny).await;
            let (upwards, downwards) = (Random(11).bytes(up), Random(12).bytes(down));
            let one = Script { send: &upwards, seed: 21, chunk, slow: tiny, ends_first: true };
            let other = Script { send: &downwards, seed: 22, chunk, slow: tiny, ends_first: true };
            let (end, (at_client, at_backend)) = within(async {
                tokio::join!(poll_fn_move(&mut engine), async { tokio::join!(client.play(one), play(&backend, other)) })
            })
            .await;
            assert!(at_client.expect("records") == downwards, "{suite:?}, tiny: {tiny}");
            assert!(at_backend.expect("bytes") == upwards, "{suite:?}, tiny: {tiny}");
            assert!(matches!(end.reason, CloseReason::ClientClosed | CloseReason::BackendClosed), "{end:?}");
            let moved = Moved { to_backend: up.try_into().expect("small"), to_client: down.try_into().expect("small") };
            assert_eq!(engine.moved(), moved);
            assert!(holds_nothing(&engine));
        }
    }
}

#[tokio::test]
async fn a_slow_side_slows_the_other_one_down_and_nothing_piles_up() {
    for (slow_client, slow_backend) in [(true, false), (false, true)] {
        let Rig { mut engine, mut client, backend } = rig(TLS13, true).await;
        // Several times what all the buffers on the way hold.
        let bytes = Random(13).bytes(60_000);
        let chunk = |slow| if slow { 50 } else { 50_000 };
        let one = Script { send: &bytes, seed: 23, chunk: chunk(slow_client), slow: slow_client, ends_first: true };
        let two = Script { send: &bytes, seed: 24, chunk: chunk(slow_backend), slow: slow_backend, ends_first: true };
        let (end, (at_client, at_backend)) = within(async {
            tokio::join!(poll_fn_move(&mut engine), async { tokio::join!(client.play(one), play(&backend, two)) })
        })
        .await;
        assert!(at_client.expect("records") == bytes && at_backend.expect("bytes") == bytes, "{end:?}");
    }
}

#[tokio::test]
async fn each_side_can_end_first_and_still_be_answered() {
    for suite in [TLS12, TLS13] {
        for client_first in [true, false] {
            let Rig { mut engine, mut client, backend } = rig(suite, false).await;
            let one = Script { send: b"from the client", seed: 1, chunk: 99, slow: false, ends_first: client_first };
            let two = Script { send: b"from the backend", seed: 2, chunk: 99, slow: false, ends_first: !client_first };
            let (end, (at_client, at_backend)) = within(async {
                tokio::join!(poll_fn_move(&mut engine), async { tokio::join!(client.play(one), play(&backend, two)) })
            })
            .await;
            assert_eq!(at_client.expect("a close_notify"), b"from the backend");
            assert_eq!(at_backend.expect("an orderly end"), b"from the client");
            let first = if client_first { CloseReason::ClientClosed } else { CloseReason::BackendClosed };
            assert_eq!(end.reason, first, "{suite:?}");
        }
    }
}

#[tokio::test]
async fn a_tls_1_2_key_at_its_limit_ends_in_an_alert() {
    let Rig { mut engine, mut client, mut backend } = limited(TLS12, Some(200)).await;
    let bytes = vec![7; 8_000_000];
    let sender = async {
        let _ = backend.write_all(&bytes).await;
        std::future::pending::<()>().await
    };
    let (end, came) = within(async {
        tokio::select! {
            both = async { tokio::join!(poll_fn_move(&mut engine), client.receive_all()) } => both,
            () = sender => unreachable!(),
        }
    })
    .await;
    assert_eq!(end.reason, CloseReason::TlsError, "{end:?}");
    let error = came.expect_err("not everything can be sent").to_string();
    assert!(error.contains("InternalError"), "{error}");
}

#[tokio::test]
async fn renegotiation_behind_our_close_notify_does_not_end_the_upload() {
    let (keys, mut forger) = forged_keys(TLS12);
    let (mut client, ours) = pair(false).await;
    let (to_backend, mut backend) = pair(false).await;
    let mut engine = build(ours, keys, None, Stream::Tcp(to_backend));
    SockRef::from(&backend).shutdown(Shutdown::Write).expect("shut");
    let exchange = async {
        client.read_to_end(&mut Vec::new()).await.expect("an end");
        for (kind, content) in [(22, &[1, 0, 0, 1, 0][..]), (23, b"the rest")] {
            client.write_all(&forger.record(kind, content)).await.expect("sent");
        }
        let mut came = vec![0; 8];
        backend.read_exact(&mut came).await.expect("bytes");
        client.write_all(&forger.record(21, &[1, 0])).await.expect("sent");
        backend.read_to_end(&mut came).await.expect("an orderly end");
        came
    };
    let (end, came) = within(async { tokio::join!(poll_fn_move(&mut engine), exchange) }).await;
    assert_eq!((end.reason, came.as_slice()), (CloseReason::BackendClosed, &b"the rest"[..]));
}

#[tokio::test]
async fn cut_tells_the_client_and_does_not_pretend_that_it_was_done() {
    let Rig { engine, mut client, mut backend } = rig(TLS13, false).await;
    let cut = Arc::<Handle>::default();
    let exchange = async {
        client.send(b"half of it").await;
        let mut came = [0; 10];
        backend.read_exact(&mut came).await.expect("bytes");
        cut.order(Order { reason: CloseReason::Revoked, cause: None, at: Instant::now() });
        let end = backend.read_to_end(&mut Vec::new()).await.map_err(|error| error.kind());
        assert_eq!(end, Err(io::ErrorKind::ConnectionReset), "an end would mean that the client has said everything");
        assert_eq!(client.receive_all().await.expect("a close_notify"), b"");
    };
    let relay = run(engine, limits(Duration::from_secs(60)), Arc::clone(&cut));
    let (summary, ()) = within(async { tokio::join!(relay, exchange) }).await;
    assert_eq!(summary.reason, CloseReason::Revoked);
    assert_eq!(summary.moved, Moved { to_backend: 10, to_client: 0 });
}

/// Somebody who reads slowly, or not at all: what TCP still has for him is not his any more.
#[tokio::test]
async fn who_is_cut_gets_no_more_than_is_on_its_way_already() {
    // Kernels leave no more than 208 KiB as they come.
    const BUFFER: usize = 1024 * 1024;
    const ON_ITS_WAY: usize = 64 * 1024;
    for (reason, orderly) in [(CloseReason::Revoked, false), (CloseReason::DrainDeadline, true)] {
        let (client, ours) = pair(false).await;
        SockRef::from(&ours).set_send_buffer_size(BUFFER).expect("a socket option");
        let Rig { engine, mut client, mut backend } = rig_between(TLS13, None, (client, ours), pair(false).await);
        let handle = Arc::<Handle>::default();
        let relay = run(engine, limits(Duration::from_secs(60)), Arc::clone(&handle));
        let arrived = || rustix::io::ioctl_fionread(&client.stream).expect("a count");
        let filling = async {
            while handle.moved().to_client < arrived() + 2 * ON_ITS_WAY as u64 {
                backend.write_all(&[7; 4096]).await.expect("sent");
            }
            handle.order(Order { reason, cause: None, at: Instant::now() });
        };
        let (summary, ()) = within(async { tokio::join!(relay, filling) }).await;
        assert_eq!(summary.reason, reason);
        let arrived = arrived();
        let mut came = Vec::new();
        let end = within(client.stream.read_to_end(&mut came)).await.map_err(|error| error.kind());
        let behind = came.len() - usize::try_from(arrived).expect("it fits memory");
        if orderly {
            assert!(end.is_ok() && behind > ON_ITS_WAY, "{behind} bytes, {end:?}");
        } else {
            assert!(behind <= ON_ITS_WAY, "{behind} bytes after it was cut, {end:?}");
        }
    }
}

#[tokio::test]
async fn a_reset_of_the_client_is_passed_on_as_one() {
    let Rig { engine, mut client, mut backend } = rig(TLS13, false).await;
    let exchange = async {
        client.send(b"half of it").await;
        let mut came = [0; 10];
        backend.read_exact(&mut came).await.expect("bytes");
        reset(client.stream);
        backend.read_to_end(&mut Vec::new()).await.map_err(|error| error.kind())
    };
    let relay = run(engine, limits(Duration::from_secs(60)), Arc::default());
    let (summary, end) = within(async { tokio::join!(relay, exchange) }).await;
    assert_eq!(summary.reason, CloseReason::ClientReset);
    assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn an_end_inside_a_record_is_no_orderly_one() {
    let Rig { engine, mut client, mut backend } = rig(TLS13, false).await;
    let exchange = async {
        client.tls.writer().write_all(b"cut short").expect("memory");
        let mut record = Vec::new();
        client.tls.write_tls(&mut record).expect("memory");
        client.stream.write_all(&record[..record.len() - 1]).await.expect("sent");
        client.stream.shutdown().await.expect("shut");
        backend.read_to_end(&mut Vec::new()).await.map_err(|error| error.kind())
    };
    let relay = run(engine, limits(Duration::from_secs(60)), Arc::default());
    let (summary, end) = within(async { tokio::join!(relay, exchange) }).await;
    assert_eq!(summary.reason, CloseReason::ClientReset);
    assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_reset_of_the_backend_is_no_close_notify() {
    let Rig { engine, mut client, mut backend } = rig(TLS13, false).await;
    let exchange = async {
        backend.write_all(b"half of it").await.expect("sent");
        assert_eq!(client.receive(10).await, b"half of it");
        reset(backend);
        let error = client.receive_all().await.expect_err("no orderly end");
        drop(client);
        error.kind()
    };
    let relay = run(engine, limits(Duration::from_secs(60)), Arc::default());
    let (summary, error) = within(async { tokio::join!(relay, exchange) }).await;
    assert_eq!(summary.reason, CloseReason::BackendReset);
    assert_eq!(error, io::ErrorKind::UnexpectedEof, "and no reset that could overtake what was sent");
}

#[tokio::test]
async fn the_last_words_of_a_backend_that_takes_no_more_arrive() {
    for suite in [TLS12, TLS13] {
        let Rig { mut engine, mut client, mut backend } = rig(suite, false).await;
        // Little enough to be in the gate's socket already when the reset comes.
        let answer = Random(17).bytes(30_000);
        let exchange = async {
            // The request is larger than what the backend reads of it.
            let request = vec![b'r'; 24_000_000];
            let reading = async {
                let mut first = [0; 1000];
                backend.read_exact(&mut first).await.expect("bytes");
                backend.write_all(&answer).await.expect("sent");
                // Unread bytes make this close a reset.
                drop(backend);
            };
            client.tls.writer().write_all(&request).expect("memory");
            let (sent, ()) = tokio::join!(client.flush(), reading);
            sent.expect("the gate goes on reading");
            let mut came = Vec::new();
            let end = client.take_all(&mut came).await;
            drop(client);
            (came, end)
        };
        let gate = async {
            let end = poll_fn_move(&mut engine).await;
            drop(engine);
            end
        };
        let (end, (came, ended)) = within(async { tokio::join!(gate, exchange) }).await;
        assert!(came == answer, "{suite:?}: {} of {} bytes", came.len(), answer.len());
        let reset = ended.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
        assert!(!reset, "{suite:?}: another client would have lost the answer by it");
        assert_eq!(end.reason, CloseReason::BackendReset, "{suite:?}");
    }
}

#[tokio::test]
async fn data_and_its_end_in_one_segment_arrive_even_if_the_client_is_gone() {
    for suite in SUITES {
        let (keys, mut forger) = forged_keys(suite);
        let (mut client, ours) = pair(false).await;
        let (to_backend, mut backend) = pair(false).await;
        let mut wire = Vec::new();
        for _ in 0..5 {
            wire.extend(forger.record(23, &[b'x'; 5000]));
        }
        wire.extend(forger.record(21, &[1, 0]));
        // In the socket before anything is relayed.
        client.write_all(&wire).await.expect("sent");
        let mut engine = build(ours, keys, None, Stream::Tcp(to_backend));
        let exchange = async {
            client.shutdown().await.expect("shut");
            let mut came = Vec::new();
            backend.read_to_end(&mut came).await.expect("an orderly end");
            assert_eq!(came, [b'x'; 25_000]);
            backend.shutdown().await.expect("shut");
        };
        let (end, ()) = within(async { tokio::join!(poll_fn_move(&mut engine), exchange) }).await;
        assert_eq!(end.reason, CloseReason::ClientClosed, "{suite:?}: {end:?}");
        assert_eq!(engine.moved(), Moved { to_backend: 25_000, to_client: 0 });
    }
}

#[tokio::test]
async fn a_client_that_ends_without_a_word_is_still_answered() {
    for suite in [TLS12, TLS13] {
        let Rig { mut engine, mut client, mut backend } = rig(suite, false).await;
        let exchange = async {
            client.send(b"request").await;
            SockRef::from(&client.stream).shutdown(Shutdown::Write).expect("shut");
            let mut came = Vec::new();
            backend.read_to_end(&mut came).await.expect("an end");
            assert_eq!(came, b"request");
            backend.write_all(b"answer").await.expect("sent");
            backend.shutdown().await.expect("shut");
            assert_eq!(client.receive_all().await.expect("a close_notify"), b"answer");
        };
        let (end, ()) = within(async { tokio::join!(poll_fn_move(&mut engine), exchange) }).await;
        assert_eq!(end.reason, CloseReason::ClientClosed, "{suite:?}");
    }
}

#[tokio::test]
async fn a_client_that_reads_late_gets_everything_and_the_close_notify() {
    for suite in SUITES {
        // Around the sizes of records and buffers, where a tail may be kept back.
        for length in [30_000, 49_152, 65_537, 100_000, 131_072] {
            let (client, ours) = pair(true).await;
            let Rig { mut engine, mut client, mut backend } =
                rig_between(suite, None, (client, ours), pair(false).await);
            let bytes = Random(19).bytes(length);
            let exchange = async {
                let gone = async {
                    backend.write_all(&bytes).await.expect("sent");
                    backend.shutdown().await.expect("shut");
                    let mut end = Vec::new();
                    backend.read_to_end(&mut end).await.expect("an end");
                };
                let late = async {
                    // Everybody else has done what can be done without this client.
                    for _ in 0..200 {
                        tokio::task::yield_now().await;
                    }
                    // In sips, so that room for more is made little by little.
                    let sips = Script { send: b"", seed: 20, chunk: 600, slow: true, ends_first: false };
                    client.play(sips).await.expect("a close_notify behind everything")
                };
                tokio::join!(gone, late).1
            };
            let (end, came) = within(async { tokio::join!(poll_fn_move(&mut engine), exchange) }).await;
            assert!(came == bytes, "{suite:?}: {} of {length} bytes", came.len());
            assert_eq!(end.reason, CloseReason::BackendClosed, "{suite:?}");
            assert_eq!(engine.moved().to_client, u64::try_from(length).expect("small"));
        }
    }
}
