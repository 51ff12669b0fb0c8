//! What connections and refusals take in memory: rows 28 and 29 of attacks.md, one after the other in a program of their
//! own, since each needs nearly all descriptors that a process may have.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "common/mod.rs"]
mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use common::gate::{Gate, LOCAL};
use common::pki::TestPki;

const NAS: &str = "nas.home.example";
const MIB: usize = 1 << 20;

/// One test at a time.
static TURN: Mutex<()> = Mutex::const_new(());

/// Takes all descriptors that this process may have, and says how many that is. The gate inherits it.
fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    limit.maximum.map_or(usize::MAX, |maximum| usize::try_from(maximum).unwrap())
}

/// The memory of the gate that is in use, in bytes (proc(5), `VmRSS`), once it has not grown for a while.
async fn memory(gate: &Gate) -> usize {
    let look = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gate.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
    };
    let mut last = look();
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = look();
        if now.abs_diff(last) <= 64 * 1024 {
            return now;
        }
        last = now;
    }
    last
}

fn config(pki: &TestPki, backend: SocketAddr, limits: &str) -> String {
    format!(
        "{LOCAL}\n[limits]\nconnection_rate_per_source = \"off\"\n{limits}\n\n{}\n[[route]]\nname = \"nas\"\n\
         server_names = [{NAS:?}]\nbackends = [\"{backend}\"]\nallow = [\"any\"]\n",
        pki.config()
    )
}

/// Connects from an address of this machine.
async fn connect_from(source: Ipv4Addr, gate: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.into(), 0)).unwrap();
    socket.connect(gate).await.unwrap()
}

/// Runs `jobs`, a few at a time.
async fn in_turns<T: Send + 'static>(
    jobs: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let mut running = JoinSet::new();
    let mut done = Vec::new();
    for job in jobs {
        if running.len() == 32 {
            done.push(running.join_next().await.unwrap().unwrap());
        }
        running.spawn(job);
    }
    done.extend(running.join_all().await);
    done
}

/// Sends back what it receives.
async fn echo_backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    address
}

/// Row 28: 10,000 idle connections, or as many as the limit on descriptors gives: each takes two of the gate's, and two of
/// this process, which is all the clients and the backend.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_take_bounded_memory() {
    let _turn = TURN.lock().await;
    let count = 10_000.min((descriptors() - 100) / 2);
    assert!(count >= 1000, "ulimit -Hn is too low to say anything");
    let pki = TestPki::new();
    let backend = echo_backend().await;
    // As by default 256 of each source, and room for those that come and go beside 10,000.
    let gate = Gate::start(&config(&pki, backend, "connections = 10010"));
    let mut client = pki.client_config(Some(&pki.client("alice-phone")), rustls::ALL_VERSIONS);
    // A returning device; what is measured is not the handshake.
    client.resumption = rustls::client::Resumption::in_memory_sessions(64);
    let connector = TlsConnector::from(Arc::new(client));
    let connect = |index: usize| {
        let (connector, address) = (connector.clone(), gate.address());
        let source = Ipv4Addr::new(127, 0, 3, u8::try_from(1 + index / 200).unwrap());
        async move {
            let stream = connect_from(source, address).await;
            let mut stream = connector.connect(NAS.try_into().unwrap(), stream).await.unwrap();
            ping(&mut stream).await;
            stream
        }
    };
    drop(connect(0).await);
    let before = memory(&gate).await;

    let begun = Instant::now();
    let mut held = in_turns((0..count).map(connect)).await;
    gate.wait_metric("doorward_connections_active", &[("route", "nas")], count as f64);
    let took = begun.elapsed();
    let each = (memory(&gate).await - before) / count;
    println!("{count} idle connections, made in {took:?}: {each} bytes each above {} KiB", before / 1024);
    assert!(each < 12 * 1024, "{each} bytes each");
    for stream in held.iter_mut().step_by(97) {
        ping(stream).await;
    }
    // One more is let in as fast as ever.
    let mut quickest = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        drop(connect(count).await);
        quickest = quickest.min(begun.elapsed());
    }
    assert!(quickest < Duration::from_secs(1), "{quickest:?}");
    drop(held);
    gate.settled();
    let open = || std::fs::read_dir(format!("/proc/{}/fd", gate.pid())).unwrap().count();
    assert!(open() < 100, "{} descriptors are open", open());
}

async fn ping(stream: &mut TlsStream<TcpStream>) {
    stream.write_all(b"?").await.unwrap();
    stream.read_exact(&mut [0]).await.unwrap();
}

/// Row 29: what was refused leaves nothing behind: 98,000 connections that are no TLS and 2,000 handshakes of clients
/// without a certificate, from 200 addresses. No source has to wait, so that each is processed.
#[tokio::test(flavor = "multi_thread")]
async fn hundred_thousand_refused_connections_leave_nothing_behind() {
    let _turn = TURN.lock().await;
    descriptors();
    let pki = TestPki::new();
    let gate = Gate::start(&config(&pki, SocketAddr::from((Ipv4Addr::LOCALHOST, 9)), "penalties = \"off\""));
    let connector = TlsConnector::from(Arc::new(pki.client_config(None, rustls::ALL_VERSIONS)));
    let refused = |index: usize| {
        let (connector, address) = (connector.clone(), gate.address());
        let source = Ipv4Addr::new(127, 0, 4, u8::try_from(1 + index % 200).unwrap());
        async move {
            let mut stream = connect_from(source, address).await;
            if index.is_multiple_of(50) {
                let mut stream = connector.connect(NAS.try_into().unwrap(), stream).await.unwrap();
                assert!(stream.read(&mut [0]).await.is_err(), "it should have been refused");
            } else {
                stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
                // The end, or a reset.
                let _ = stream.read(&mut [0; 16]).await;
            }
        }
    };
    in_turns((0..5_000).map(refused)).await;
    gate.settled();
    let before = memory(&gate).await;
    let begun = Instant::now();
    in_turns((0..100_000).map(refused)).await;
    let took = begun.elapsed();
    let metrics = gate.settled();
    let rejected = |reason| metrics.sum("doorward_connections_rejected_total", &[("reason", reason)]);
    assert_eq!([rejected("not_tls"), rejected("required")], [102_900.0, 2_100.0]);
    let after = memory(&gate).await;
    println!(
        "100,000 refused in {took:?}: {} KiB more than {} KiB",
        after.saturating_sub(before) / 1024,
        before / 1024
    );
    assert!(after < before + 8 * MIB, "{} bytes more", after - before);
}

/// The same for those who are banned, which is cheap: nothing is read, and nothing is kept.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_banned_connections_leave_nothing_behind() {
    let _turn = TURN.lock().await;
    descriptors();
    let pki = TestPki::new();
    let gate = Gate::start(&config(&pki, SocketAddr::from((Ipv4Addr::LOCALHOST, 9)), ""));
    let refused = |index: usize| {
        let address = gate.address();
        let source = Ipv4Addr::new(127, 0, 5, u8::try_from(1 + index % 200).unwrap());
        async move {
            let mut stream = connect_from(source, address).await;
            let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
            let _ = stream.read(&mut [0; 16]).await;
        }
    };
    // Each of them says 40 times what costs two seconds.
    in_turns((0..8_000).map(refused)).await;
    gate.settled();
    let (before, used) = (memory(&gate).await, gate.cpu_time());
    in_turns((0..20_000).map(refused)).await;
    let metrics = gate.settled();
    let each = (gate.cpu_time() - used) / 20_000;
    let banned = metrics.sum("doorward_connections_rejected_total", &[("reason", "source_banned")]);
    let after = memory(&gate).await;
    println!(
        "{banned} of 28,000 banned, {each:?} of processor time each: {} KiB more than {} KiB",
        after.saturating_sub(before) / 1024,
        before / 1024
    );
    assert!(banned > 14_000.0, "{banned}");
    assert!(after < before + 8 * MIB, "{} bytes more", after - before);
}
