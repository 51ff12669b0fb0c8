use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use rustls::CipherSuite;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::buffers::Size;
use super::super::path_tests::{TestEngine, tls_path_tests};
use super::super::testing::{Client, Script, drive, pair, play, poll_once, until_end, within};
use super::super::{Limits, run};
use super::*;
use crate::tls::record::PLAINTEXT_MAX;
use crate::tls::record::testing::{Random, SUITES, TLS12, TLS13, established, forged, forged_keys};
use crate::tls::record::{Keys, Session};

/// A relay between a client and a backend.
struct Rig {
    engine: TlsCopy,
    client: Client,
    backend: TcpStream,
}

/// A relay with tiny socket buffers, or with the kernel's default.
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

impl TestEngine for TlsCopy {
    fn build(client: TcpStream, keys: Keys, limit: Option<u64>, backend: Stream) -> Self {
        let mut session = Session::new(keys).expect("a session");
        if let Some(limit) = limit {
            session.limit_records(limit);
        }
        Self::new(client, Box::new(session), Pending::default(), backend)
    }

    fn holds_nothing(&self) -> bool {
        self.holds_no_buffer()
    }

    fn poison() {
        for size in [Size::Small, Size::Large] {
            let mut buffers: Vec<Buffer> = (0..4).map(|_| Buffer::take(size)).collect();
            for buffer in &mut buffers {
                buffer.fill(0xee);
            }
        }
    }
}

impl<B> TlsCopy<B> {
    /// Whether it holds none.
    pub(super) fn holds_no_buffer(&self) -> bool {
        self.up.buffer.is_none()
            && self.up.plaintext.capacity() == 0
            && self.down.buffer.is_none()
            && self.control.capacity() == 0
    }
}

tls_path_tests!(TlsCopy);

#[tokio::test]
async fn idle_connection_holds_no_buffer() {
    let Rig { mut engine, mut client, mut backend } = rig(TLS13, false).await;
    assert!(poll_once(&mut engine).await.is_none());
    assert!(engine.holds_nothing(), "before its first byte");
    let bytes = Random(14).bytes(1_000_000);
    let echo = async {
        let (mut delivered, mut answer) = (vec![0; bytes.len()], Vec::new());
        tokio::join!(client.send(&bytes), async { backend.read_exact(&mut delivered).await.expect("bytes") });
        let (got, ()) = tokio::join!(client.receive(delivered.len()), async {
            backend.write_all(&delivered).await.expect("sent");
        });
        answer.extend(got);
        assert!(answer == bytes);
        // Half a record.
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
    assert_eq!(held, Some(Size::Small), "an incomplete record holds a small buffer only");
    let rest = async {
        client.stream.write_all(&record[5_000..]).await.expect("sent");
        let mut delivered = vec![0; 10_000];
        backend.read_exact(&mut delivered).await.expect("bytes");
        assert!(delivered == bytes[..10_000]);
    };
    assert!(drive(&mut engine, rest).await.is_none());
    assert!(poll_once(&mut engine).await.is_none());
    assert!(engine.holds_nothing());
}

#[tokio::test]
async fn bytes_received_with_the_handshake_are_relayed_first() {
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
        let mut delivered = vec![0; 6];
        backend.read_exact(&mut delivered).await.expect("bytes");
        assert_eq!(delivered, b"early ");
        client.stream.write_all(&late).await.expect("sent");
        client.send(b"late").await;
        let mut delivered = vec![0; 5004];
        backend.read_exact(&mut delivered).await.expect("bytes");
        assert!(delivered[..5000].iter().all(|&byte| byte == b'x') && &delivered[5000..] == b"late");
    };
    assert!(drive(&mut engine, exchange).await.is_none());
}

#[tokio::test]
async fn unsent_handshake_records_are_sent_before_the_payload() {
    for (answer, tiny) in [(&b""[..], false), (b"first words", false), (&[b'x'; 50_000], true)] {
        let (mut session, tls) = established(TLS13);
        let mut unsent = Vec::new();
        // A record that is not payload, as session tickets are. Records sealed after it can be opened only after it.
        session.update_key(&mut unsent).expect("TLS 1.3");
        let (stream, ours) = pair(tiny).await;
        let (to_backend, mut backend) = pair(false).await;
        let pending = Pending { unsent, ..Pending::default() };
        let mut engine = TlsCopy::new(ours, Box::new(session), pending, Stream::Tcp(to_backend));
        let mut client = Client { stream, tls };
        assert!(poll_once(&mut engine).await.is_none());
        let nothing = client.stream.try_read(&mut [0]).expect_err("it is not sent alone");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        // One case has no payload, only the end.
        let exchange = async {
            backend.write_all(answer).await.expect("sent");
            backend.shutdown().await.expect("ended");
            let delivered = client.receive_all().await.expect("an orderly end");
            assert!(delivered == answer);
        };
        assert!(drive(&mut engine, exchange).await.is_none());
        assert!(engine.unsent.capacity() == 0 && engine.holds_nothing());
    }
}

#[tokio::test]
async fn key_updates_during_transfers_lose_no_byte() {
    // 64 records per key: every fourth large read changes it.
    let Rig { mut engine, mut client, backend } = rig_with(TLS13, false, |session| session.limit_records(64)).await;
    let bytes = Random(15).bytes(6_000_000);
    let exchange = async {
        let other = Script { send: &bytes, seed: 31, chunk: 100_000, slow: false, ends_first: true };
        let clients = async {
            let mut delivered = Vec::new();
            let mut random = Random(32);
            while delivered.len() < bytes.len() {
                if random.below(20) == 0 {
                    client.tls.refresh_traffic_keys().expect("TLS 1.3");
                    client.send(b"x").await;
                }
                let length = 1 + random.below(100_000);
                delivered.extend(client.receive(length.min(bytes.len() - delivered.len())).await);
            }
            client.send_close_notify().await;
            delivered
        };
        tokio::join!(clients, play(&backend, other))
    };
    let (end, (delivered, sent)) = within(async { tokio::join!(until_end(&mut engine), exchange) }).await;
    assert!(delivered == bytes, "{end:?}");
    let sent = sent.expect("bytes");
    assert!(!sent.is_empty() && sent.iter().all(|&byte| byte == b'x'));
}

#[tokio::test]
async fn key_update_request_after_our_close_notify_is_ignored() {
    let Rig { mut engine, mut client, mut backend } = rig(TLS13, false).await;
    SockRef::from(&backend).shutdown(Shutdown::Write).expect("shut");
    let exchange = async {
        // The gate has sent its close_notify, and the client continues.
        assert_eq!(client.receive_all().await.expect("a close_notify"), b"");
        client.send(b"some, ").await;
        client.tls.refresh_traffic_keys().expect("TLS 1.3");
        client.send(b"and the rest").await;
        let mut delivered = vec![0; 18];
        backend.read_exact(&mut delivered).await.expect("bytes");
        client.send_close_notify().await;
        backend.read_to_end(&mut delivered).await.expect("an orderly end");
        delivered
    };
    let (end, delivered) = within(async { tokio::join!(until_end(&mut engine), exchange) }).await;
    assert_eq!((end.reason, delivered.as_slice()), (CloseReason::BackendClosed, &b"some, and the rest"[..]));
}

/// Lets the backend send until nothing moves, because the client does not read. Returns how many bytes it sent.
async fn fill(engine: &mut TlsCopy, backend: &TcpStream, bytes: &[u8]) -> usize {
    let (mut written, mut stuck) = (0, 0);
    while stuck < 1000 {
        match backend.try_write(&bytes[written..]) {
            Ok(length) => (written, stuck) = (written + length, 0),
            Err(_) => stuck += 1,
        }
        assert!(drive(engine, tokio::task::yield_now()).await.is_none());
    }
    assert!(!engine.down.sealed.is_empty() && written < bytes.len(), "the relay is blocked while bytes are left");
    written
}

#[tokio::test]
async fn answers_to_key_updates_do_not_accumulate() {
    let Rig { mut engine, mut client, backend } = rig(TLS13, true).await;
    fill(&mut engine, &backend, &vec![1; 1_000_000]).await;
    let mut taken = 0;
    let asking = async {
        for _ in 0..200 {
            client.tls.refresh_traffic_keys().expect("TLS 1.3");
            client.send(b"x").await;
            // The other direction keeps working.
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
async fn payload_is_counted_when_it_is_sent() {
    for suite in [TLS12, TLS13] {
        // The client's socket buffers are tiny, the backend's are not.
        let (session, tls) = established(suite);
        let (client, ours) = pair(true).await;
        let Rig { mut engine, mut client, backend } =
            assemble(session, Client { stream: client, tls }, ours, pair(false).await);
        let bytes = Random(18).bytes(32 << 20);
        let written = fill(&mut engine, &backend, &bytes).await;
        let mut counted = engine.moved().to_client;
        assert!(counted < written.try_into().expect("small"), "{suite:?}: {counted} of {written}");
        // A slow reader is not idle: progress is counted long before a whole buffer is sent.
        let mut delivered = Vec::new();
        let mut steps = 0;
        while delivered.len() < 400_000 {
            let reading = client.take_some(&mut delivered);
            assert!(drive(&mut engine, async { assert!(reading.await.expect("records")) }).await.is_none());
            let now = engine.moved().to_client;
            steps += usize::from(now > counted);
            counted = now;
        }
        assert!(steps >= 20, "{suite:?}: progress was counted {steps} times");
        drop(backend);
        let ending = client.take_all(&mut delivered);
        drive(&mut engine, async { drop(ending.await) }).await;
        assert_eq!(u64::try_from(delivered.len()).expect("small"), engine.moved().to_client, "{suite:?}");
        assert!(bytes.starts_with(&delivered));
    }
}

fn limits(idle: Duration) -> Limits {
    Limits { idle, half_close: idle, lifetime: None }
}

#[tokio::test(start_paused = true)]
async fn client_that_never_reads_is_closed_as_idle() {
    // tokio's paused clock advances whenever no task is ready.
    let Rig { mut engine, client, backend } = rig(TLS13, true).await;
    fill(&mut engine, &backend, &vec![1; 1_000_000]).await;
    assert!(engine.down.sealed.len() <= Size::Large.records() * crate::tls::record::RECORD_MAX);
    let summary = run(engine, limits(Duration::from_secs(60)), Arc::default()).await;
    assert_eq!(summary.reason, CloseReason::IdleTimeout);
    drop(client);
}

/// The client has ended, but a part of what it sent is still in the gate.
#[tokio::test]
async fn cut_before_the_end_was_passed_on_resets_the_backend() {
    let (keys, mut forger) = forged_keys(TLS13);
    let (_client, ours) = pair(false).await;
    let (to_backend, mut backend) = pair(true).await;
    let mut received: Vec<u8> = (0..16).flat_map(|_| forger.record(23, &[b'x'; PLAINTEXT_MAX])).collect();
    received.extend(forger.record(21, &[1, 0]));
    let session = Box::new(Session::new(keys).expect("a session"));
    let mut engine = TlsCopy::new(ours, session, Pending { received, ..Pending::default() }, Stream::Tcp(to_backend));
    assert!(poll_once(&mut engine).await.is_none());
    assert!(engine.up.ended && !engine.up.plaintext.is_empty());
    engine.cut(CloseReason::Revoked.ending());
    drop(engine);
    let end = within(backend.read_to_end(&mut Vec::new())).await.map_err(|error| error.kind());
    assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn tampered_record_is_answered_by_bad_record_mac() {
    for suite in SUITES {
        let Rig { mut engine, mut client, mut backend } = rig(suite, false).await;
        let exchange = async {
            client.send(b"fine").await;
            let mut delivered = [0; 4];
            backend.read_exact(&mut delivered).await.expect("bytes");
            client.tls.writer().write_all(b"tampered").expect("memory");
            let mut record = Vec::new();
            client.tls.write_tls(&mut record).expect("memory");
            *record.last_mut().expect("a record") ^= 1;
            // Bytes after it, which are never read as records.
            record.extend([0; 3000]);
            client.stream.write_all(&record).await.expect("sent");
            let alert = client.receive_all().await.expect_err("an alert").to_string();
            let end = backend.read_to_end(&mut Vec::new()).await.map_err(|error| error.kind());
            (alert, end)
        };
        let gate = async {
            let end = until_end(&mut engine).await;
            drop(engine);
            end
        };
        let (end, (alert, at_backend)) = within(async { tokio::join!(gate, exchange) }).await;
        assert_eq!(end.reason, CloseReason::TlsError);
        assert!(alert.contains("BadRecordMac"), "{suite:?}: {alert}");
        assert_eq!(at_backend, Err(io::ErrorKind::ConnectionReset), "{suite:?}: the backend is reset");
    }
}

/// The lengths of the complete records in `wire`, and the incomplete rest.
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
async fn alert_follows_unsent_payload_and_is_sent_once() {
    let (session, _) = forged(TLS13);
    let (mut client, ours) = pair(false).await;
    SockRef::from(&client).set_recv_buffer_size(1 << 20).expect("a socket option");
    let (to_backend, backend) = pair(false).await;
    let mut engine = TlsCopy::new(ours, Box::new(session), Pending::default(), Stream::Tcp(to_backend));
    fill(&mut engine, &backend, &vec![1; 64 << 20]).await;
    // Now the socket accepts the waiting bytes, and the first record that the gate reads is invalid.
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
    let end = within(until_end(&mut engine)).await;
    assert_eq!(end.reason, CloseReason::TlsError);
    drop(engine);
    within(client.read_to_end(&mut wire)).await.expect("an orderly end");
    let (lengths, rest) = record_lengths(&wire);
    let alert = 2 + 1 + 16;
    assert_eq!((lengths.last(), rest), (Some(&alert), &[][..]));
    assert_eq!(lengths.iter().filter(|length| **length == alert).count(), 1, "one alert");
}
