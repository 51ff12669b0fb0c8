use std::future::poll_fn;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::testing::{Script, drive, pair, play, reset, within};
use super::super::{Limits, run};
use super::*;
use crate::tls::record::testing::Random;

async fn rig(tiny: bool) -> (Splice, TcpStream, TcpStream) {
    let (client, ours) = pair(tiny).await;
    let (to_backend, backend) = pair(tiny).await;
    (Splice::new(Stream::Tcp(ours), Stream::Tcp(to_backend)), client, backend)
}

/// Transfers `upwards` and `downwards` at the same time and compares them.
async fn exchange(tiny: bool, upwards: &[u8], downwards: &[u8], chunk: usize) -> Splice {
    let (mut engine, client, backend) = rig(tiny).await;
    let one = Script { send: upwards, seed: 1, chunk, slow: tiny, ends_first: true };
    let two = Script { send: downwards, seed: 2, chunk, slow: tiny, ends_first: true };
    let both = async { tokio::join!(play(&client, one), play(&backend, two)) };
    let (end, (at_client, at_backend)) = within(async { tokio::join!(poll_fn(|cx| engine.poll_move(cx)), both) }).await;
    assert!(at_client.expect("bytes") == downwards, "{end:?}");
    assert!(at_backend.expect("bytes") == upwards, "{end:?}");
    assert!(matches!(end.reason, CloseReason::ClientClosed | CloseReason::BackendClosed), "{end:?}");
    engine
}

fn pool_is_clean() -> bool {
    super::super::pipes::are_empty()
}

#[tokio::test]
async fn both_directions_transfer_every_byte() {
    for (tiny, up, down, chunk) in
        [(true, 60_000, 90_000, 700), (true, 300_000, 400_000, 20_000), (false, 5_000_000, 6_000_000, 300_000)]
    {
        let (upwards, downwards) = (Random(1).bytes(up), Random(2).bytes(down));
        let engine = exchange(tiny, &upwards, &downwards, chunk).await;
        let moved = Moved { to_backend: up.try_into().expect("small"), to_client: down.try_into().expect("small") };
        assert_eq!(engine.moved(), moved);
        assert!(engine.up.pipe.is_none() && engine.down.pipe.is_none() && pool_is_clean());
    }
}

#[tokio::test]
async fn idle_connection_holds_no_pipe() {
    let (mut engine, mut client, mut backend) = rig(false).await;
    let talk = async {
        client.write_all(&[1; 100_000]).await.expect("sent");
        backend.read_exact(&mut vec![0; 100_000]).await.expect("bytes");
        backend.write_all(b"answer").await.expect("sent");
        client.read_exact(&mut [0; 6]).await.expect("bytes");
    };
    assert!(drive(&mut engine, talk).await.is_none());
    assert!(drive(&mut engine, tokio::task::yield_now()).await.is_none());
    assert!(engine.up.pipe.is_none() && engine.down.pipe.is_none());
}

#[tokio::test]
async fn pooled_pipes_leak_no_bytes_between_connections() {
    for round in 0..40_u8 {
        // Bytes are still in the pipe when the connection ends in one of three ways. Sockets that hold little fill only buffers.
        let tiny = round % 8 != 7;
        let (mut engine, client, backend) = rig(tiny).await;
        let mut stuck = 0;
        while stuck < 200 {
            stuck += 1;
            while backend.try_write(&[0xee; 100_000]).is_ok() {
                stuck = 0;
            }
            assert!(drive(&mut engine, tokio::task::yield_now()).await.is_none());
        }
        assert!(engine.down.pipe.as_ref().is_some_and(|pipe| !pipe.is_empty() && pipe.is_pipe() != tiny));
        match round % 3 {
            0 => {}
            1 => engine.cut(Ending::Truncated),
            _ => {
                reset(client);
                let end = within(poll_fn(|cx| engine.poll_move(cx))).await;
                assert_eq!(end.reason, CloseReason::ClientReset);
            }
        }
        drop(engine);
        assert!(pool_is_clean());
        let clean = [round; 3000];
        exchange(false, &clean, &clean, 1000).await;
    }
}

#[tokio::test]
async fn few_bytes_leave_no_readiness() {
    let (engine, client, _backend) = rig(false).await;
    let mut client = client.into_std().expect("a socket");
    client.write_all(b"few").expect("sent");
    poll_fn(|cx| engine.client.poll_read_ready(cx)).await.expect("bytes");
    assert_eq!(fill(&mut Pipe::buffer(), &engine.client).expect("bytes"), 3);
    // tokio has not been notified of these bytes, so only a system call would find them.
    client.write_all(&[7; BUFFER]).expect("sent");
    let nothing = fill(&mut Pipe::buffer(), &engine.client).expect_err("no system call is made");
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    // A full buffer leaves it.
    poll_fn(|cx| engine.client.poll_read_ready(cx)).await.expect("bytes");
    assert_eq!(fill(&mut Pipe::buffer(), &engine.client).expect("bytes"), BUFFER);
    client.write_all(b"more").expect("sent");
    assert_eq!(fill(&mut Pipe::buffer(), &engine.client).expect("bytes"), 4);
}

/// `splice(2)` never gets past an urgent byte (tcp(7), MSG_OOB).
#[tokio::test]
async fn bytes_behind_an_urgent_one_are_forwarded_once_more_follow() {
    let (mut engine, mut client, mut backend) = rig(false).await;
    let talk = async {
        client.write_all(b"a").await.expect("sent");
        SockRef::from(&client).send_out_of_band(b"!").expect("sent");
        client.write_all(b"b").await.expect("sent");
        backend.read_exact(&mut [0]).await.expect("the first byte");
        client.write_all(b"c").await.expect("sent");
        let mut rest = [0; 2];
        backend.read_exact(&mut rest).await.expect("the others");
        assert_eq!(&rest, b"bc");
    };
    assert!(drive(&mut engine, talk).await.is_none());
}

#[tokio::test]
async fn half_closed_side_is_still_answered() {
    for client_first in [true, false] {
        let (mut engine, client, backend) = rig(false).await;
        let one = Script { send: b"from the client", seed: 1, chunk: 99, slow: false, ends_first: client_first };
        let two = Script { send: b"from the backend", seed: 2, chunk: 99, slow: false, ends_first: !client_first };
        let both = async { tokio::join!(play(&client, one), play(&backend, two)) };
        let (end, (at_client, at_backend)) =
            within(async { tokio::join!(poll_fn(|cx| engine.poll_move(cx)), both) }).await;
        assert_eq!(at_client.expect("an orderly end"), b"from the backend");
        assert_eq!(at_backend.expect("an orderly end"), b"from the client");
        let first = if client_first { CloseReason::ClientClosed } else { CloseReason::BackendClosed };
        assert_eq!(end.reason, first);
    }
}

#[tokio::test]
async fn reset_of_one_side_resets_the_other() {
    for by_client in [true, false] {
        let (mut engine, client, backend) = rig(false).await;
        let (gone, mut left) = if by_client { (client, backend) } else { (backend, client) };
        let gate = async {
            let end = poll_fn(|cx| engine.poll_move(cx)).await;
            drop(engine);
            end
        };
        let talk = async {
            reset(gone);
            left.read_to_end(&mut Vec::new()).await.map_err(|error| error.kind())
        };
        let (end, seen) = within(async { tokio::join!(gate, talk) }).await;
        let reason = if by_client { CloseReason::ClientReset } else { CloseReason::BackendReset };
        assert_eq!((end.reason, seen), (reason, Err(io::ErrorKind::ConnectionReset)));
    }
}

#[tokio::test]
async fn answer_of_a_backend_that_stops_reading_arrives() {
    let (mut engine, mut client, mut backend) = rig(false).await;
    // Small enough to be in the gate's socket when the reset arrives.
    let answer = Random(3).bytes(30_000);
    let reading = async {
        backend.read_exact(&mut [0; 1000]).await.expect("bytes");
        backend.write_all(&answer).await.expect("sent");
        // Unread bytes make this close a reset.
        drop(backend);
    };
    // The gate holds bytes that the backend does not accept, so the write fails.
    let talk = async {
        client.write_all(&[7; 24_000_000]).await.expect("the gate keeps reading");
        SockRef::from(&client).shutdown(std::net::Shutdown::Write).expect("shut");
        let mut received = Vec::new();
        let end = client.read_to_end(&mut received).await.map_err(|error| error.kind());
        (received, end)
    };
    let gate = async {
        let end = poll_fn(|cx| engine.poll_move(cx)).await;
        drop(engine);
        end
    };
    let (end, ((received, ended), ())) =
        within(async { tokio::join!(gate, async { tokio::join!(talk, reading) }) }).await;
    assert_eq!((received.len(), ended.map(drop)), (answer.len(), Ok(())));
    assert!(received == answer);
    assert_eq!(end.reason, CloseReason::BackendReset);
}

#[tokio::test(start_paused = true)]
async fn client_that_never_reads_is_closed_as_idle() {
    let (engine, client, backend) = rig(true).await;
    let limits = Limits { idle: Duration::from_secs(60), half_close: Duration::from_secs(60), lifetime: None };
    let flood = async {
        loop {
            backend.writable().await.expect("a socket");
            if backend.try_write(&[1; 1000]).is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
                break;
            }
        }
    };
    let (summary, ()) = tokio::join!(run(engine, limits, Arc::default()), flood);
    assert_eq!(summary.reason, CloseReason::IdleTimeout);
    drop(client);
}

/// The client ends after a long silence, and the backend takes its time for the answer.
#[tokio::test(start_paused = true)]
async fn half_close_begins_with_the_end_of_a_side_and_not_with_the_last_byte() {
    let (engine, mut client, mut backend) = rig(false).await;
    let limits = Limits { idle: Duration::from_secs(7200), half_close: Duration::from_secs(60), lifetime: None };
    let talk = async {
        tokio::time::sleep(Duration::from_secs(100)).await;
        client.shutdown().await.expect("shut");
        backend.read_to_end(&mut Vec::new()).await.expect("an orderly end");
        tokio::time::sleep(Duration::from_secs(50)).await;
        backend.write_all(b"answer").await.expect("sent");
        backend.shutdown().await.expect("shut");
        let mut answer = Vec::new();
        let end = client.read_to_end(&mut answer).await.map_err(|error| error.kind());
        assert_eq!((answer.as_slice(), end), (&b"answer"[..], Ok(6)));
    };
    let (summary, ()) = tokio::join!(run(engine, limits, Arc::default()), talk);
    assert_eq!(summary.reason, CloseReason::ClientClosed);
}

/// Without keep-alive, only the idle limit would end a relay to a machine that has vanished, and it may be off.
#[tokio::test(start_paused = true)]
async fn backend_gets_keep_alive_after_ten_seconds() {
    let (engine, _client, _backend) = rig(false).await;
    let socket = engine.backend.as_fd().try_clone_to_owned().expect("a descriptor");
    let option = SockRef::from(&socket);
    let limits = Limits { idle: Duration::from_secs(600), half_close: Duration::from_secs(60), lifetime: None };
    let mut relaying = run(engine, limits, Arc::default());
    for (seconds, watched) in [(9, false), (2, true), (500, true)] {
        let passed = tokio::time::timeout(Duration::from_secs(seconds), &mut relaying).await;
        assert!(passed.is_err(), "the relay continues");
        assert_eq!(option.keepalive().expect("an option"), watched);
    }
    assert_eq!(option.tcp_keepalive_time().expect("an option"), Duration::from_secs(60));
}
