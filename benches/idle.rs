//! The cost of idle connections: memory and descriptors of the release binary with many idle mTLS clients.
//!
//! ```text
//! cargo bench --bench idle                 # 1,000 connections
//! cargo bench --bench idle -- 5000         # or DOORWARD_BENCH_IDLE=5000
//! DOORWARD_BENCH_SMOKE=1 cargo bench --bench idle
//! ```
//!
//! Memory is `Pss` of `/proc/PID/smaps_rollup` (proc(5)): resident pages, shared ones counted in parts. It has no
//! bounds and fails only if it cannot measure.

// Makes Clippy treat this as test code, which may use unwrap(): a benchmark that cannot measure fails by panicking.
#![cfg(test)]

#[expect(dead_code, reason = "shared with the integration tests: a bench does not need everything")]
#[path = "../tests/common/mod.rs"]
mod common;

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::gate::{Gate, LOCAL};
use common::pki::TestPki;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const SERVER_NAME: &str = "nas.home.example";
const ECHOED: usize = 1 << 20;

/// How many connections are opened, and how many of them then echo [`ECHOED`] bytes.
struct Plan {
    idle: usize,
    echo: usize,
}

impl Plan {
    fn read() -> Self {
        let smoke = std::env::var_os("DOORWARD_BENCH_SMOKE").is_some_and(|value| value == "1");
        let argument = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
        let variable = std::env::var("DOORWARD_BENCH_IDLE").ok();
        let variable = variable.map(|text| text.parse().expect("DOORWARD_BENCH_IDLE is no number"));
        let idle = argument.or(variable).unwrap_or(if smoke { 50 } else { 1000 });
        assert!(idle > 0, "nothing to measure");
        Self { idle, echo: idle.min(if smoke { 10 } else { 200 }) }
    }
}

/// The memory and descriptors of the gate at one moment.
#[derive(Clone, Copy)]
struct Taken {
    pss_kib: u64,
    descriptors: usize,
}

impl Taken {
    fn now(pid: u32) -> Self {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("smaps_rollup has no Pss");
        let pss_kib = line.trim().strip_suffix(" kB").expect("Pss is not in kB").parse().unwrap();
        Self { pss_kib, descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() }
    }

    /// Waits until the figures are unchanged for half a second.
    async fn settled(pid: u32) -> Self {
        let mut last = Self::now(pid);
        let mut same = 0;
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = Self::now(pid);
            same = if now.pss_kib.abs_diff(last.pss_kib) <= 16 && now.descriptors == last.descriptors {
                same + 1
            } else {
                0
            };
            last = now;
            if same == 5 {
                break;
            }
        }
        last
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn row(what: &str, connections: usize, base: Taken, taken: Taken) {
    let each = |more: f64| if connections == 0 { "-".to_owned() } else { format!("{:.2}", more / connections as f64) };
    println!(
        "| {what:<36} | {connections:>11} | {:>9} | {:>15} | {:>11} | {:>16} |",
        taken.pss_kib,
        each(taken.pss_kib as f64 - base.pss_kib as f64),
        taken.descriptors,
        each(taken.descriptors as f64 - base.descriptors as f64),
    );
}

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

async fn connect(connector: TlsConnector, gate: SocketAddr) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(gate).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut stream = connector.connect(SERVER_NAME.try_into().unwrap(), stream).await.unwrap();
    // A TLS 1.3 client completes its handshake before the gate decides; an answer of the backend confirms it.
    stream.write_all(b"?").await.unwrap();
    stream.read_exact(&mut [0]).await.unwrap();
    stream
}

async fn echo(stream: TlsStream<TcpStream>, bytes: Arc<[u8]>) -> TlsStream<TcpStream> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut came = vec![0; bytes.len()];
    let send = async {
        writer.write_all(&bytes).await.unwrap();
        writer.flush().await.unwrap();
    };
    tokio::join!(send, async { reader.read_exact(&mut came).await.unwrap() });
    assert!(came == *bytes, "the echo is another one");
    reader.unsplit(writer)
}

/// Runs `jobs`, a few at a time.
async fn in_turns<T: Send + 'static>(
    jobs: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let mut running = JoinSet::new();
    let mut done = Vec::new();
    for job in jobs {
        if running.len() == 16 {
            done.push(running.join_next().await.unwrap().unwrap());
        }
        running.spawn(job);
    }
    done.extend(running.join_all().await);
    done
}

/// Raises the limit of descriptors as far as possible, also for the gate, which inherits it.
fn raise_descriptor_limit(connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let wanted = u64::try_from(2 * connections + 100).unwrap();
    let got = getrlimit(Resource::Nofile).current;
    assert!(got.is_none_or(|got| got >= wanted), "{wanted} descriptors are needed, {got:?} are allowed");
}

fn config(pki: &TestPki, backend: SocketAddr, connections: usize) -> String {
    format!(
        "{LOCAL}\n[limits]\nconnections = {}\nconnections_per_source = \"off\"\nconnection_rate_per_source = \"off\"\n\n\
         {}\n[[route]]\nname = \"nas\"\nserver_names = [{SERVER_NAME:?}]\nbackends = [\"{backend}\"]\nallow = [\"any\"]\n",
        connections + 10,
        pki.config()
    )
}

#[tokio::main]
async fn main() {
    let Plan { idle, echo: echoing } = Plan::read();
    raise_descriptor_limit(idle);
    let pki = TestPki::new();
    let backend = echo_backend().await;
    let gate = Gate::start(&config(&pki, backend, idle));
    let (pid, address) = (gate.pid(), gate.address());
    let identity = pki.client("alice-phone");
    let mut client = pki.client_config(Some(&identity), rustls::ALL_VERSIONS);
    client.resumption = rustls::client::Resumption::disabled();
    let connector = TlsConnector::from(Arc::new(client));
    // The first connection pays for one-time allocations.
    drop(connect(connector.clone(), address).await);
    let base = Taken::settled(pid).await;

    println!();
    println!(
        "| {:<36} | connections | PSS (KiB) | KiB each, above | descriptors | each, above      |",
        "the gate, with"
    );
    println!("|{:-<38}|------------:|----------:|----------------:|------------:|-----------------:|", "");
    row("nothing (after one connection)", 0, base, base);

    let streams = in_turns((0..idle).map(|_| connect(connector.clone(), address))).await;
    row("idle connections", idle, base, Taken::settled(pid).await);

    let bytes: Arc<[u8]> = (0..ECHOED).map(|index| (index % 251).to_le_bytes()[0]).collect();
    let mut streams = streams.into_iter();
    let moving: Vec<_> = streams.by_ref().take(echoing).map(|stream| echo(stream, Arc::clone(&bytes))).collect();
    let moved = in_turns(moving).await;
    row(&format!("the same, {echoing} echoed 1 MiB"), idle, base, Taken::settled(pid).await);

    let rest: Vec<_> = streams.collect();
    drop((moved, rest));
    gate.settled();
    row("nothing again", 0, base, Taken::settled(pid).await);
}
