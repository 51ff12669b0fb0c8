//! What the history and the status page cost: time and size of the page, size of the store and memory of a gate that knows a year and
//! has refused 100,000 connections, beside a gate that keeps no history.
//!
//! ```text
//! cargo bench --bench history
//! cargo bench --bench history -- --beside PROGRAM      # another build, such as one without a history
//! DOORWARD_BENCH_SMOKE=1 cargo bench --bench history   # seconds: only shows that everything works
//! ```
//!
//! Memory is `Pss` of `/proc/PID/smaps_rollup` (proc(5)). One of a hundred refused clients shows a forged certificate with the name of a
//! device, the others are scanners of many addresses. It fails if it cannot measure; a bound that is exceeded is a `MISS`.

// Makes Clippy treat this as test code, which may use unwrap(): a benchmark that cannot measure fails by panicking.
#![cfg(test)]

#[expect(dead_code, reason = "shared with the integration tests: a bench does not need everything")]
#[path = "../tests/common/mod.rs"]
mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use clap::Parser;
use common::backend::Backend;
use common::gate::Gate;
use common::pki::{Authority, Certified, TestPki};
use doorward::history::write_sample;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};
use time::OffsetDateTime;
use tokio::time::Instant;

const SERVER_NAME: &str = "nas.home.example";
const DAYS: u16 = 365;
const SENDERS: usize = 8;
/// One of so many clients is an impostor.
const IMPOSTORS: u32 = 100;
/// How often the page is asked for.
const PAGES: usize = 50;

/// Bounds: of the page, of the store, and of what the history takes in memory.
const PAGE_TIME: Duration = Duration::from_millis(200);
const PAGE_BYTES: u64 = 300 << 10;
const STORE_BYTES: u64 = 10_000_000;
const MEMORY_KIB: u64 = 4 << 10;

/// Measures the history, the status page, and what they take.
#[derive(Debug, Parser)]
struct Plan {
    /// Connections that are refused
    #[arg(long, default_value_t = 100_000)]
    refusals: u32,
    /// A program to compare with
    #[arg(long)]
    beside: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Plan {
    fn read() -> Self {
        let smoke = std::env::var_os("DOORWARD_BENCH_SMOKE").is_some_and(|value| value == "1");
        if smoke { Self { refusals: 500, beside: None, bench: true } } else { Self::parse() }
    }
}

/// The gate's certificates and service, and who connects.
struct Scene {
    pki: TestPki,
    backend: Backend,
    device: Arc<ClientConfig>,
    forged: Arc<ClientConfig>,
}

impl Scene {
    fn new() -> Self {
        let (pki, backend) = (TestPki::new(), Backend::echo());
        let forged = Authority::new("Another house").issue(Certified::for_clients("alice-phone"));
        let config = |certified: &Certified| {
            let mut config = pki.client_config(Some(certified), rustls::ALL_VERSIONS);
            config.resumption = rustls::client::Resumption::disabled();
            Arc::new(config)
        };
        let (device, forged) = (config(&pki.client("alice-phone")), config(&forged));
        Self { pki, backend, device, forged }
    }

    fn config(&self, tables: &str) -> String {
        format!(
            "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n[metrics]\naddress = \"127.0.0.1:0\"\n[log]\nformat = \
             \"json\"\n[limits]\nconnection_rate_per_source = \"off\"\npenalties = \"off\"\n{}\n[[route]]\nname = \"nas\"\n\
             server_names = [\"{SERVER_NAME}\"]\nbackends = [\"{}\"]\nallow = [\"alice-phone\"]\n{tables}\n",
            self.pki.config(),
            self.backend.address()
        )
    }

    /// Has so many clients refused, and one device admitted now and then.
    fn connect(&self, gate: SocketAddr, refusals: u32) {
        let next = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..SENDERS {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= refusals {
                            return;
                        }
                        // 127.1.0.0 and what follows: as many addresses as half of the clients.
                        let source = Ipv4Addr::from(0x7f01_0000 + n / 2);
                        if n.is_multiple_of(IMPOSTORS) {
                            shaken(&self.forged, connect(source, gate));
                            shaken(&self.device, connect(Ipv4Addr::new(127, 0, 0, 7), gate));
                        } else {
                            let mut stream = connect(source, gate);
                            // It may be refused before it has sent everything.
                            let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
                            let _ = stream.read(&mut [0; 64]);
                        }
                    }
                });
            }
        });
    }
}

fn connect(source: Ipv4Addr, gate: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into()).unwrap();
    socket.connect(&gate.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// A handshake and a byte there and back, as far as the gate goes along.
fn shaken(config: &Arc<ClientConfig>, stream: TcpStream) {
    let tls = ClientConnection::new(Arc::clone(config), SERVER_NAME.try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(tls, stream);
    let _ = stream.write_all(b"?").and_then(|()| stream.read_exact(&mut [0]));
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

/// The memory of the gate in KiB, once it is unchanged for half a second.
fn memory(gate: &Gate) -> u64 {
    let look = || {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", gate.pid())).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("smaps_rollup has no Pss");
        line.trim().strip_suffix(" kB").expect("Pss is not in kB").parse::<u64>().unwrap()
    };
    let (mut last, mut same) = (look(), 0);
    for _ in 0..100 {
        thread::sleep(Duration::from_millis(100));
        let now = look();
        same = if now.abs_diff(last) <= 16 { same + 1 } else { 0 };
        last = now;
        if same == 5 {
            break;
        }
    }
    last
}

/// The time and the size of the page, the slowest of some.
fn page(gate: &Gate) -> (Vec<Duration>, u64) {
    let (mut times, mut bytes) = (Vec::new(), 0);
    for _ in 0..PAGES {
        let begun = Instant::now();
        let (status, page) = gate.get("/");
        times.push(begun.elapsed());
        assert_eq!(status, 200);
        bytes = bytes.max(page.len() as u64);
    }
    times.sort_unstable();
    (times, bytes)
}

fn size(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).map(|files| files.flatten().collect::<Vec<_>>()).unwrap_or_default();
    files.iter().map(|file| file.metadata().unwrap().len()).sum()
}

/// What one gate has taken.
struct Taken {
    before: u64,
    after: u64,
    page: (Vec<Duration>, u64),
    store: u64,
}

fn measure(scene: &Scene, plan: &Plan, what: &str, program: Option<&Path>, history: Option<&Path>) -> Taken {
    let tables = match (program, history) {
        // An earlier release may not know the section.
        (Some(_), _) => String::new(),
        (None, Some(folder)) => format!("[history]\nfolder = {folder:?}\ndays = {DAYS}\n"),
        (None, None) => "[history]\nfolder = \"off\"\n".to_owned(),
    };
    let gate = Gate::start_with(&scene.config(&tables), |command| {
        if let Some(program) = program {
            let mut other = Command::new(program);
            other.args(command.get_args());
            *command = other;
        }
    });
    // What is read or made at the first connection and the first page is no growth.
    scene.connect(gate.address(), 200);
    page(&gate);
    gate.settled();
    let before = memory(&gate);
    let begun = Instant::now();
    scene.connect(gate.address(), plan.refusals);
    let took = begun.elapsed();
    gate.settled();
    let after = memory(&gate);
    let page = page(&gate);
    let shown = if history.is_some() && program.is_none() { gate.get("/").1 } else { String::new() };
    assert!(history.is_none() || program.is_some() || shown.contains("alice-phone"), "{shown}");
    drop(gate);
    let store = history.map_or(0, size);
    let (median, slowest) = (page.0[page.0.len() / 2], page.0[page.0.len() - 1]);
    println!(
        "| {what:<34} | {before:>7} | {after:>7} | {:>9.1} | {:>9.1} | {:>9} | {store:>9} | {:>7.1} |",
        median.as_secs_f64() * 1e3,
        slowest.as_secs_f64() * 1e3,
        page.1,
        took.as_secs_f64()
    );
    Taken { before, after, page, store }
}

fn main() {
    let plan = Plan::read();
    let scene = Scene::new();
    let home = tempfile::tempdir().unwrap();
    let (year, none) = (home.path().join("year"), home.path().join("new"));
    let begun = Instant::now();
    write_sample(&year, DAYS.into(), OffsetDateTime::now_utc()).unwrap();
    println!("a year written in {:.1} s: {} bytes", begun.elapsed().as_secs_f64(), size(&year));
    println!("{} refusals, one of {IMPOSTORS} an impostor; memory in KiB before and after\n", plan.refusals);
    println!(
        "| {:<34} | {:>7} | {:>7} | page (ms) |   slowest | bytes     | store     | seconds |",
        "gate", "before", "after"
    );
    let off = measure(&scene, &plan, "history.folder = \"off\"", None, None);
    let new = measure(&scene, &plan, "a new history", None, Some(&none));
    let full = measure(&scene, &plan, "a year of history", None, Some(&year));
    if let Some(program) = &plan.beside {
        measure(&scene, &plan, &program.display().to_string(), Some(program), None);
    }
    println!();
    let verdict = |within: bool| if within { "ok" } else { "MISS" };
    let slowest = full.page.0.last().copied().unwrap_or_default();
    println!("{:<4} the slowest page under {} ms", verdict(slowest < PAGE_TIME), PAGE_TIME.as_millis());
    println!("{:<4} the page under {PAGE_BYTES} bytes", verdict(full.page.1 < PAGE_BYTES));
    println!("{:<4} the store under {STORE_BYTES} bytes", verdict(full.store.max(new.store) < STORE_BYTES));
    let more = full.after.saturating_sub(off.after);
    println!(
        "{:<4} a year takes {more} KiB of memory more than no history: under {MEMORY_KIB}",
        verdict(more < MEMORY_KIB)
    );
    let growth = [&off, &new, &full].map(|taken| taken.after.saturating_sub(taken.before));
    println!("     growth by the refusals: {growth:?} KiB");
}
