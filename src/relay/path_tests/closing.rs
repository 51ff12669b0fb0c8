//! How connections end, and what the other side sees of it.

use std::io::{self, Write as _};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::{Rig, TestEngine, rig, rig_between};
use crate::model::close::{CloseReason, Ending};
use crate::relay::testing::{Script, pair, play, reset, until_end, within};
use crate::relay::{Handle, Limits, Moved, Order, run};
use crate::sys::stream::Stream;
use crate::tls::record::testing::{Random, SUITES, TLS12, TLS13, forged_keys};

fn limits(idle: Duration) -> Limits {
    Limits { idle, half_close: idle, lifetime: None }
}

pub(crate) async fn half_closed_side_is_still_answered<E: TestEngine>() {
    for suite in [TLS12, TLS13] {
        for client_first in [true, false] {
            let Rig { mut engine, mut client, backend } = rig::<E>(suite, false).await;
            let one = Script { send: b"from the client", seed: 1, chunk: 99, slow: false, ends_first: client_first };
            let two = Script { send: b"from the backend", seed: 2, chunk: 99, slow: false, ends_first: !client_first };
            let (end, (at_client, at_backend)) = within(async {
                tokio::join!(until_end(&mut engine), async { tokio::join!(client.play(one), play(&backend, two)) })
            })
            .await;
            assert_eq!(at_client.expect("a close_notify"), b"from the backend");
            assert_eq!(at_backend.expect("an orderly end"), b"from the client");
            let first = if client_first { CloseReason::ClientClosed } else { CloseReason::BackendClosed };
            assert_eq!(end.reason, first, "{suite:?}");
        }
    }
}

pub(crate) async fn client_without_close_notify_is_still_answered<E: TestEngine>() {
    for suite in [TLS12, TLS13] {
        let Rig { mut engine, mut client, mut backend } = rig::<E>(suite, false).await;
        let exchange = async {
            client.send(b"request").await;
            SockRef::from(&client.stream).shutdown(Shutdown::Write).expect("shut");
            let mut received = Vec::new();
            backend.read_to_end(&mut received).await.expect("an end");
            assert_eq!(received, b"request");
            backend.write_all(b"answer").await.expect("sent");
            backend.shutdown().await.expect("shut");
            assert_eq!(client.receive_all().await.expect("a close_notify"), b"answer");
        };
        let (end, ()) = within(async { tokio::join!(until_end(&mut engine), exchange) }).await;
        assert_eq!(end.reason, CloseReason::ClientClosed, "{suite:?}");
    }
}

pub(crate) async fn data_and_close_notify_in_one_segment_arrive<E: TestEngine>() {
    for suite in SUITES {
        let (keys, mut forger) = forged_keys(suite);
        let (mut client, ours) = pair(false).await;
        let (to_backend, mut backend) = pair(false).await;
        let mut wire = Vec::new();
        for _ in 0..5 {
            wire.extend(forger.record(23, &[b'x'; 5000]));
        }
        wire.extend(forger.record(21, &[1, 0]));
        // In the socket before the relay starts.
        client.write_all(&wire).await.expect("sent");
        let mut engine = E::build(ours, keys, None, Stream::Tcp(to_backend));
        let exchange = async {
            client.shutdown().await.expect("shut");
            let mut received = Vec::new();
            backend.read_to_end(&mut received).await.expect("an orderly end");
            assert_eq!(received, [b'x'; 25_000]);
            backend.shutdown().await.expect("shut");
        };
        let (end, ()) = within(async { tokio::join!(until_end(&mut engine), exchange) }).await;
        assert_eq!(end.reason, CloseReason::ClientClosed, "{suite:?}: {end:?}");
        assert_eq!(engine.moved(), Moved { to_backend: 25_000, to_client: 0 });
    }
}

pub(crate) async fn answer_of_a_backend_that_stops_reading_arrives<E: TestEngine>() {
    for suite in [TLS12, TLS13] {
        let Rig { mut engine, mut client, mut backend } = rig::<E>(suite, false).await;
        // Small enough to be in the gate's socket when the reset arrives.
        let answer = Random(17).bytes(30_000);
        let exchange = async {
            // The backend reads only a part of the request.
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
            sent.expect("the gate keeps reading");
            let mut received = Vec::new();
            let end = client.take_all(&mut received).await;
            drop(client);
            (received, end)
        };
        let gate = async {
            let end = until_end(&mut engine).await;
            drop(engine);
            end
        };
        let (end, (received, ended)) = within(async { tokio::join!(gate, exchange) }).await;
        assert!(received == answer, "{suite:?}: {} of {} bytes", received.len(), answer.len());
        let reset = ended.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
        assert!(!reset, "{suite:?}: a reset could overtake the answer");
        assert_eq!(end.reason, CloseReason::BackendReset, "{suite:?}");
    }
}

pub(crate) async fn client_reset_resets_the_backend<E: TestEngine>() {
    let Rig { engine, mut client, mut backend } = rig::<E>(TLS13, false).await;
    let exchange = async {
        client.send(b"half of it").await;
        let mut received = [0; 10];
        backend.read_exact(&mut received).await.expect("bytes");
        reset(client.stream);
        backend.read_to_end(&mut Vec::new()).await.map_err(|error| error.kind())
    };
    let relay = run(engine, limits(Duration::from_secs(60)), Arc::default());
    let (summary, end) = within(async { tokio::join!(relay, exchange) }).await;
    assert_eq!(summary.reason, CloseReason::ClientReset);
    assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
}

pub(crate) async fn end_inside_a_record_is_a_client_reset<E: TestEngine>() {
    let Rig { engine, mut client, mut backend } = rig::<E>(TLS13, false).await;
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

pub(crate) async fn backend_reset_sends_no_close_notify<E: TestEngine>() {
    let Rig { engine, mut client, mut backend } = rig::<E>(TLS13, false).await;
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
    assert_eq!(error, io::ErrorKind::UnexpectedEof, "a reset could overtake what was sent");
}

/// The write has taken the error of the socket, and a read of it finds an end.
pub(crate) async fn backend_reset_that_a_write_meets_sends_no_close_notify<E: TestEngine>() {
    let Rig { engine, mut client, backend } = rig::<E>(TLS13, false).await;
    client.send(b"request").await;
    reset(backend);
    let exchange = async {
        let error = client.receive_all().await.expect_err("no orderly end");
        drop(client);
        error.kind()
    };
    let relay = run(engine, limits(Duration::from_secs(60)), Arc::default());
    let (summary, error) = within(async { tokio::join!(relay, exchange) }).await;
    assert_eq!(summary.reason, CloseReason::BackendReset);
    assert_eq!(error, io::ErrorKind::UnexpectedEof);
}

/// The records that a client is sent at the end for this reason.
fn last_records(reason: CloseReason) -> Vec<(u8, Vec<u8>)> {
    match reason.ending() {
        Ending::Complete => vec![(21, vec![1, 0])],
        Ending::Alert(alert) => vec![(21, vec![2, alert.0])],
        Ending::Truncated | Ending::AlertOfTheError => Vec::new(),
    }
}

fn order(handle: &Handle, reason: CloseReason) {
    assert!(handle.order(Order { reason, cause: None, at: Instant::now() }));
}

pub(crate) async fn cut_client_is_told_what_its_reason_calls_for<E: TestEngine>() {
    let every_suite = SUITES.map(|suite| (suite, CloseReason::Revoked));
    let every_reason =
        [TLS12, TLS13].into_iter().flat_map(|suite| CloseReason::ALL.iter().map(move |&one| (suite, one)));
    for (suite, reason) in every_suite.into_iter().chain(every_reason) {
        let (keys, mut forger) = forged_keys(suite);
        let (mut client, ours) = pair(false).await;
        let (to_backend, mut backend) = pair(false).await;
        let handle = Arc::<Handle>::default();
        let relay = run(
            E::build(ours, keys, None, Stream::Tcp(to_backend)),
            limits(Duration::from_secs(60)),
            Arc::clone(&handle),
        );
        let exchange = async {
            client.write_all(&forger.record(23, b"half of it")).await.expect("sent");
            backend.read_exact(&mut [0; 10]).await.expect("bytes");
            backend.write_all(b"answer").await.expect("sent");
            let mut received = vec![0; forger.length_of(6)];
            client.read_exact(&mut received).await.expect("bytes");
            order(&handle, reason);
            let end = backend.read_to_end(&mut Vec::new()).await.map_err(|error| error.kind());
            assert_eq!(end, Err(io::ErrorKind::ConnectionReset), "an orderly end would mean that the data is complete");
            client.read_to_end(&mut received).await.expect("a reset could overtake the alert");
            let records = forger.open_records(&received);
            assert_eq!(
                records,
                [vec![(23, b"answer".to_vec())], last_records(reason)].concat(),
                "{suite:?}: {reason:?}"
            );
        };
        let (summary, ()) = within(async { tokio::join!(relay, exchange) }).await;
        assert_eq!((summary.reason, summary.moved), (reason, Moved { to_backend: 10, to_client: 6 }));
    }
}

pub(crate) async fn cut_behind_a_key_update_is_told_under_the_new_key<E: TestEngine>() {
    if !E::changes_keys() {
        // Its relay ends with the KeyUpdate: a test of the kernel path.
        return;
    }
    let Rig { engine, mut client, mut backend } = rig::<E>(TLS13, false).await;
    let handle = Arc::<Handle>::default();
    let exchange = async {
        // Asks for a KeyUpdate of the gate, too.
        client.tls.refresh_traffic_keys().expect("TLS 1.3");
        client.send(b"new key").await;
        backend.read_exact(&mut [0; 7]).await.expect("bytes");
        backend.write_all(b"answer").await.expect("sent");
        assert_eq!(client.receive(6).await, b"answer");
        order(&handle, CloseReason::Revoked);
        client.receive_all().await.expect_err("an alert").to_string()
    };
    let relay = run(engine, limits(Duration::from_secs(60)), Arc::clone(&handle));
    let (_, error) = within(async { tokio::join!(relay, exchange) }).await;
    assert!(error.contains("CertificateRevoked"), "{error}");
}

/// The client does not read, so pipe, buffers and sockets are full: the cut waits for nothing.
pub(crate) async fn cut_in_a_download_sends_no_payload_and_no_close_notify<E: TestEngine>() {
    for (suite, reason) in [TLS12, TLS13].into_iter().flat_map(|suite| {
        [CloseReason::Revoked, CloseReason::LifetimeLimit, CloseReason::DrainDeadline].map(move |one| (suite, one))
    }) {
        let Rig { engine, mut client, backend } = rig::<E>(suite, true).await;
        let handle = Arc::<Handle>::default();
        let relay = run(engine, limits(Duration::from_secs(60)), Arc::clone(&handle));
        let filling = async {
            let mut before = Moved::default();
            loop {
                while backend.try_write(&[7; 65_536]).is_ok() {}
                tokio::time::sleep(Duration::from_millis(100)).await;
                let moved = handle.moved();
                if moved == before && moved.to_client > 0 {
                    break;
                }
                before = moved;
            }
            order(&handle, reason);
            before.to_client
        };
        let (summary, sent) = within(async { tokio::join!(relay, filling) }).await;
        assert_eq!(summary.moved, Moved { to_backend: 0, to_client: sent }, "{suite:?}: {reason:?}");
        let mut received = Vec::new();
        let end = within(client.take_all(&mut received)).await.expect_err("no close_notify");
        let told = end.to_string().contains("CertificateRevoked") && reason == CloseReason::Revoked;
        let truncated = matches!(end.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset);
        assert!(told || truncated, "{suite:?}: {reason:?}: {end}");
        assert!(received.len() as u64 <= sent && received.iter().all(|byte| *byte == 7), "{suite:?}: {reason:?}");
    }
}

/// What the backend has ended is complete, whatever happens afterwards.
pub(crate) async fn cut_after_the_end_of_the_backend_leaves_its_close_notify<E: TestEngine>() {
    for suite in [TLS12, TLS13] {
        let Rig { engine, mut client, mut backend } = rig::<E>(suite, false).await;
        let handle = Arc::<Handle>::default();
        let relay = run(engine, limits(Duration::from_secs(60)), Arc::clone(&handle));
        let exchange = async {
            backend.write_all(b"all of it").await.expect("sent");
            SockRef::from(&backend).shutdown(Shutdown::Write).expect("shut");
            assert_eq!(client.receive_all().await.expect("a close_notify"), b"all of it");
            order(&handle, CloseReason::Revoked);
            let mut more = Vec::new();
            client.stream.read_to_end(&mut more).await.expect("an end");
            assert_eq!(more, b"", "nothing follows a close_notify");
        };
        let (summary, ()) = within(async { tokio::join!(relay, exchange) }).await;
        assert_eq!(summary.reason, CloseReason::Revoked, "{suite:?}");
    }
}

/// For a client that reads slowly or stops reading: undelivered bytes in TCP's send buffer are discarded.
pub(crate) async fn cut_client_gets_at_most_the_undelivered_limit<E: TestEngine>() {
    // Kernels grant 208 KiB by default.
    const BUFFER: usize = 1024 * 1024;
    const UNDELIVERED_MAX: usize = 64 * 1024;
    for (reason, orderly) in [(CloseReason::Revoked, false), (CloseReason::DrainDeadline, true)] {
        let (client, ours) = pair(false).await;
        SockRef::from(&ours).set_send_buffer_size(BUFFER).expect("a socket option");
        let Rig { engine, mut client, mut backend } = rig_between::<E>(TLS13, None, (client, ours), pair(false).await);
        let handle = Arc::<Handle>::default();
        let relay = run(engine, limits(Duration::from_secs(60)), Arc::clone(&handle));
        let arrived = || rustix::io::ioctl_fionread(&client.stream).expect("a count");
        let filling = async {
            while handle.moved().to_client < arrived() + 2 * UNDELIVERED_MAX as u64 {
                backend.write_all(&[7; 4096]).await.expect("sent");
            }
            handle.order(Order { reason, cause: None, at: Instant::now() });
        };
        let (summary, ()) = within(async { tokio::join!(relay, filling) }).await;
        assert_eq!(summary.reason, reason);
        let arrived = arrived();
        let mut received = Vec::new();
        let end = within(client.stream.read_to_end(&mut received)).await.map_err(|error| error.kind());
        let undelivered = received.len() - usize::try_from(arrived).expect("it fits memory");
        if orderly {
            assert!(end.is_ok() && undelivered > UNDELIVERED_MAX, "{undelivered} bytes, {end:?}");
        } else {
            assert!(undelivered <= UNDELIVERED_MAX, "{undelivered} bytes after it was cut, {end:?}");
        }
    }
}
