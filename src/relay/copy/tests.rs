use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use rustls::CipherSuite;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::testing::{Client, Script, drive, pair, play, poll_once, within};
use super::super::{Limits, run};
use super::*;
use crate::tls::record::testing::{Random, SUITES, TLS12, TLS13, established, forged};
use crate::tls::record::{Keys, Session};

/// A relay between a client and a backend.
struct Rig {
    engine: TlsCopy,
    client: Client,
    backend: TcpStream,
}

/// A relay with tiny socket buffers, or with the kernel's own.
async fn rig(suite: CipherSuite, tiny: bool) -> Rig {
    rig_with(suite, tiny, |_| ()).await
}

async fn rig_with(suite: CipherSuite, tiny: bool, prepare: impl FnOnce(&mut Session)) -> Rig {
    let (mut session, tls) = established(suite);
    prepare(&mut session);
    let (client, ours) = pair(tiny).await;
    assemble(session, Client { stream: client, tls }, ours, pair(tiny).await)
}

fn assemble(session: Session, client: Client, ours: TcpStream, (to_backend, backend): (TcpStream, TcpStream)) -> Rig {
    let engine = TlsCopy::new(ours, Box::new(session), Pending::default(), Stream::Tcp(to_backend));
    Rig { engine, client, backend }
}

/// Puts bytes of somebody else's into the pools.
fn poison() {
    for size in [Size::Small, Size::Large] {
        let mut buffers: Vec<Buffer> = (0..4).map(|_| Buffer::take(size)).collect();
        for buffer in &mut buffers {
            buffer.fill(0xee);
        }
    }
}

/// No bytes, and nothing else that an idle connection does not need.
fn holds_nothing(engine: &TlsCopy) -> bool {
    engine.up.buffer.is_none()
        && engine.up.plaintext.capacity() == 0
        && engine.down.buffer.is_none()
        && engine.control.capacity() == 0
}

async fn poll_fn_move(engine: &mut TlsCopy) -> End {
    std::future::poll_fn(|cx| engine.poll_move(cx)).await
}

#[tokio::test]
async fn an_idle_connection_holds_no_buffer() {
    let Rig { mut engine, mut client, mut backend } = rig(TLS13, false).await;
    assert!(poll_once(&mut engine).await.is_none());
    assert!(holds_nothing(&engine), "before its first byte");
    let bytes = Random(14).bytes(1_000_000);
    let echo = async {
        let (mut came, mut answer) = (vec![0; bytes.len()], Vec::new());
        tokio::join!(client.send(&bytes), async { backend.read_exact(&mut came).await.expect("bytes") });
        let (got, ()) = tokio::join!(client.receive(came.len()), async {
            backend.write_all(&came).await.expect("sent");
        });
        answer.extend(got);
        assert!(answer == bytes);
        // Half a record, and then silence.
        client.tls.writer().write_all(&bytes[..10_000]).expect("memory");
        let mut record = Vec::new();
        client.tls.write_tls(&mut record).expect("memory");
        client.stream.write_all(&record[..5_000]).await.expect("sent");
        record
    };
    let mut record = Vec::new();
    let end = drive(&mut engine, async { record = echo.await }).await;
    assert!(end.is_none(), "{end:?}");
    while engine.up.filled == 0 {
        drive(&mut engine, tokio::task::yield_now()).await;
    }
    assert!(engine.down.buffer.is_none());
    let held = engine.up.buffer.as_ref().map(Buffer::size);
    assert_eq!(held, Some(Size::Small), "a client that stops inside a record holds no more than a record's room");
    let rest = async {
        client.stream.write_all(&record[5_000..]).await.expect("sent");
        let mut came = vec![0; 10_000];
        backend.read_exact(&mut came).await.expect("bytes");
        assert!(came == bytes[..10_000]);
    };
    assert!(drive(&mut engine, rest).await.is_none());
    assert!(poll_once(&mut engine).await.is_none());
    assert!(holds_nothing(&engine));
}

#[tokio::test]
async fn bytes_behind_the_handshake_come_first() {
    let (session, mut tls) = established(TLS13);
    let (stream, ours) = pair(false).await;
    let (to_backend, mut backend) = pair(false).await;
    let mut early = Vec::new();
    tls.writer().write_all(b"early ").expect("memory");
    tls.writer().write_all(&[b'x'; 5000]).expect("memory");
    while tls.wants_write() {
        tls.write_tls(&mut early).expect("memory");
    }
    // The second record is cut.
    let late = early.split_off(2000);
    let mut engine = TlsCopy::new(
        ours,
        Box::new(session),
        Pending { received: early, ..Pending::default() },
        Stream::Tcp(to_backend),
    );
    let mut client = Client { stream, tls };
    let exchange = async {
        let mut came = vec![0; 6];
        backend.read_exact(&mut came).await.expect("bytes");
        assert_eq!(came, b"early ");
        client.stream.write_all(&late).await.expect("sent");
        client.send(b"late").await;
        let mut came = vec![0; 5004];
        backend.read_exact(&mut came).await.expect("bytes");
        assert!(came[..5000].iter().all(|&byte| byte == b'x') && &came[5000..] == b"late");
    };
    assert!(drive(&mut engine, exchange).await.is_none());
}

#[tokio::test]
async fn what_the_handshake_left_to_be_sent_waits_for_company_and_is_overtaken_by_nothing() {
    for (answer, tiny) in [(&b""[..], false), (b"first words", false), (&[b'x'; 50_000], true)] {
        let (mut session, tls) = established(TLS13);
        let mut unsent = Vec::new();
        // A record of a message that is no payload, as session tickets are: what is sealed after it can be opened after it only.
        session.update_key(&mut unsent).expect("TLS 1.3");
        let (stream, ours) = pair(tiny).await;
        let (to_backend, mut backend) = pair(false).await;
        let pending = Pending { unsent, ..Pending::default() };
        let mut engine = TlsCopy::new(ours, Box::new(session), pending, Stream::Tcp(to_backend));
        let mut client = Client { stream, tls };
        assert!(poll_once(&mut engine).await.is_none());
        let nothing = client.stream.try_read(&mut [0]).expect_err("nothing was sent by itself");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        // Also if there is no more to be sent than the end.
        let exchange = async {
            backend.write_all(answer).await.expect("sent");
            backend.shutdown().await.expect("ended");
            let came = client.receive_all().await.expect("an orderly end");
            assert!(came == answer);
        };
        assert!(drive(&mut engine, exchange).await.is_none());
        assert!(engine.unsent.capacity() == 0 && holds_nothing(&engine));
    }
}

#[tokio::test]
async fn key_updates_from_both_sides_in_the_middle_of_transfers() {
    // 64 records a key: every fourth large read changes it.
    let Rig { mut engine, mut client, backend } = rig_with(TLS13, false, |session| session.limit_records(64)).await;
    let bytes = Random(15).bytes(6_000_000);
    let exchange = async {
        let other = Script { send: &bytes, seed: 31, chunk: 100_000, slow: false, ends_first: true };
        let clients = async {
            let mut came = Vec::new();
            let mut random = Random(32);
            while came.len() < bytes.len() {
                if random.below(20) == 0 {
                    client.tls.refresh_traffic_keys().expect("TLS 1.3");
                    client.send(b"x").await;
                }
                let length = 1 + random.below(100_000);
                came.extend(client.receive(length.min(bytes.len() - came.len())).await);
            }
            client.send_close_notify().await;
            came
        };
        tokio::join!(clients, play(&backend, other))
    };
    let (end, (came, sent)) = within(async { tokio::join!(poll_fn_move(&mut engine), exchange) }).await;
    assert!(came == bytes, "{end:?}");
    let sent = sent.expect("bytes");
    assert!(!sent.is_empty() && sent.iter().all(|&byte| byte == b'x'));
}

#[tokio::test]
async fn a_request_for_new_keys_behind_our_close_notify_does_not_end_the_upload() {
    let Rig { mut engine, mut client, mut backend } = rig(TLS13, false).await;
    SockRef::from(&backend).shutdown(Shutdown::Write).expect("shut");
    let exchange = async {
        // The gate has said that nothing more comes, and the client goes on.
        assert_eq!(client.receive_all().await.expect("a close_notify"), b"");
        client.send(b"some, ").await;
        client.tls.refresh_traffic_keys().expect("TLS 1.3");
        client.send(b"and the rest").await;
        let mut came = vec![0; 18];
        backend.read_exact(&mut came).await.expect("bytes");
        client.send_close_notify().await;
        backend.read_to_end(&mut came).await.expect("an orderly end");
        came
    };
    let (end, came) = within(async { tokio::join!(poll_fn_move(&mut engine), exchange) }).await;
    assert_eq!((end.reason, came.as_slice()), (CloseReason::BackendClosed, &b"some, and the rest"[..]));
}

/// Has the backend send until nothing moves any more, because the client does not read. Gives how much it sent.
async fn fill(engine: &mut TlsCopy, backend: &TcpStream, bytes: &[u8]) -> usize {
    let (mut written, mut stuck) = (0, 0);
    while stuck < 1000 {
        match backend.try_write(&bytes[written..]) {
            Ok(length) => (written, stuck) = (written + length, 0),
            Err(_) => stuck += 1,
        }
        assert!(drive(engine, tokio::task::yield_now()).await.is_none());
    }
    assert!(!engine.down.sealed.is_empty() && written < bytes.len(), "stuck, and not for want of bytes");
    written
}

#[tokio::test]
async fn a_client_that_asks_and_never_reads_piles_nothing_up() {
    let Rig { mut engine, mut client, backend } = rig(TLS13, true).await;
    fill(&mut engine, &backend, &vec![1; 1_000_000]).await;
    let mut taken = 0;
    let asking = async {
        for _ in 0..200 {
            client.tls.refresh_traffic_keys().expect("TLS 1.3");
            client.send(b"x").await;
            // All the while the other direction works.
            let mut byte = [0];
            while taken < 200 && backend.try_read(&mut byte).is_ok() {
                taken += 1;
            }
        }
        while taken < 200 {
            backend.readable().await.expect("a socket");
            taken += usize::from(backend.try_read(&mut [0]).is_ok());
        }
    };
    assert!(drive(&mut engine, asking).await.is_none());
    assert!(engine.control.len() < 64, "{} bytes of answers", engine.control.len());
}

#[tokio::test]
async fn payload_counts_when_the_client_has_taken_it() {
    for suite in [TLS12, TLS13] {
        // The client's socket takes little at a time, the backend's much.
        let (session, tls) = established(suite);
        let (client, ours) = pair(true).await;
        let Rig { mut engine, mut client, backend } =
            assemble(session, Client { stream: client, tls }, ours, pair(false).await);
        let bytes = Random(18).bytes(32 << 20);
        let written = fill(&mut engine, &backend, &bytes).await;
        let mut counted = engine.moved().to_client;
        assert!(counted < written.try_into().expect("small"), "{suite:?}: {counted} of {written}");
        // One who reads slowly is not idle: every bit counts, long before a whole buffer is sent.
        let mut came = Vec::new();
        let mut steps = 0;
        while came.len() < 400_000 {
            let reading = client.take_some(&mut came);
            assert!(drive(&mut engine, async { assert!(reading.await.expect("records")) }).await.is_none());
            let now = engine.moved().to_client;
            steps += usize::from(now > counted);
            counted = now;
        }
        assert!(steps >= 20, "{suite:?}: progress is seen {steps} times");
        drop(backend);
        let ending = client.take_all(&mut came);
        drive(&mut engine, async { drop(ending.await) }).await;
        assert_eq!(u64::try_from(came.len()).expect("small"), engine.moved().to_client, "{suite:?}");
        assert!(bytes.starts_with(&came));
    }
}

fn limits(idle: Duration) -> Limits {
    Limits { idle, half_close: idle, lifetime: None }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_given_up() {
    // tokio's clock goes on by itself whenever nothing else is left to do.
    let Rig { mut engine, client, backend } = rig(TLS13, true).await;
    fill(&mut engine, &backend, &vec![1; 1_000_000]).await;
    assert!(engine.down.sealed.len() <= Size::Large.records() * crate::tls::record::RECORD_MAX);
    let summary = run(engine, limits(Duration::from_secs(60)), Arc::default()).await;
    assert_eq!(summary.reason, CloseReason::IdleTimeout);
    drop(client);
}

#[tokio::test]
async fn a_breach_is_answered_by_its_alert() {
    for suite in SUITES {
        let Rig { mut engine, mut client, mut backend } = rig(suite, false).await;
        let exchange = async {
            client.send(b"fine").await;
            let mut came = [0; 4];
            backend.read_exact(&mut came).await.expect("bytes");
            client.tls.writer().write_all(b"tampered").expect("memory");
            let mut record = Vec::new();
            client.tls.write_tls(&mut record).expect("memory");
            *record.last_mut().expect("a record") ^= 1;
            // More follows, which nobody will read.
            record.extend([0; 3000]);
            client.stream.write_all(&record).await.expect("sent");
            let told = client.receive_all().await.expect_err("an alert").to_string();
            let end = backend.read_to_end(&mut Vec::new()).await.map_err(|error| error.kind());
            (told, end)
        };
        let gate = async {
            let end = poll_fn_move(&mut engine).await;
            drop(engine);
            end
        };
        let (end, (told, at_backend)) = within(async { tokio::join!(gate, exchange) }).await;
        assert_eq!(end.reason, CloseReason::TlsError);
        assert!(told.contains("BadRecordMac"), "{suite:?}: {told}");
        assert_eq!(at_backend, Err(io::ErrorKind::ConnectionReset), "{suite:?}: no orderly end for the backend");
    }
}

/// The lengths of the records in `wire`, and what is left of the last one.
fn record_lengths(mut wire: &[u8]) -> (Vec<usize>, &[u8]) {
    let mut lengths = Vec::new();
    while let [23, 3, 3, high, low, rest @ ..] = wire {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(rest) = rest.get(length..) else { break };
        lengths.push(length);
        wire = rest;
    }
    (lengths, wire)
}

#[tokio::test]
async fn a_breach_with_payload_on_its_way_is_answered_behind_it_and_by_nothing_else() {
    let (session, _) = forged(TLS13);
    let (mut client, ours) = pair(false).await;
    SockRef::from(&client).set_recv_buffer_size(1 << 20).expect("a socket option");
    let (to_backend, backend) = pair(false).await;
    let mut engine = TlsCopy::new(ours, Box::new(session), Pending::default(), Stream::Tcp(to_backend));
    fill(&mut engine, &backend, &vec![1; 64 << 20]).await;
    // Now there is room for what waits, and the first thing the gate hears is a breach.
    let (mut wire, mut part, mut quiet) = (Vec::new(), vec![0; 1 << 16], 0);
    while quiet < 1000 {
        quiet += 1;
        if let Ok(length) = client.try_read(&mut part) {
            wire.extend_from_slice(&part[..length]);
            quiet = 0;
        }
        tokio::task::yield_now().await;
    }
    client.write_all(&[&[23, 3, 3, 0, 40][..], &[0; 40]].concat()).await.expect("sent");
    engine.client.readable().await.expect("a socket");
    let end = within(poll_fn_move(&mut engine)).await;
    assert_eq!(end.reason, CloseReason::TlsError);
    drop(engine);
    within(client.read_to_end(&mut wire)).await.expect("an end, and no reset");
    let (lengths, rest) = record_lengths(&wire);
    let alert = 2 + 1 + 16;
    assert_eq!((lengths.last(), rest), (Some(&alert), &[][..]));
    assert_eq!(lengths.iter().filter(|length| **length == alert).count(), 1, "nothing was sent twice");
}

/// What the suite tests.
type Tested = TlsCopy;

/// Makes what the suite tests.
fn build(ours: TcpStream, keys: Keys, limit: Option<u64>, to_backend: Stream) -> Tested {
    let mut session = Session::new(keys).expect("a session");
    if let Some(limit) = limit {
        session.limit_records(limit);
    }
    TlsCopy::new(ours, Box::new(session), Pending::default(), to_backend)
}

#[expect(clippy::duplicate_mod, reason = "one suite for every path")]
#[path = "../suite.rs"]
mod suite;
