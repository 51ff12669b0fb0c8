//! The effect of a flood on a good client and an open relay: handshake times with and without it, and the growth of the log.
//!
//! ```text
//! cargo bench --bench flood                            # 5,000 junk connections a second for 30 seconds
//! cargo bench --bench flood -- --rate 2000 --seconds 10
//! DOORWARD_BENCH_SMOKE=1 cargo bench --bench flood     # seconds: only shows that everything works
//! ```
//!
//! The gate runs on CPU 0 with default limits. The good client, the relay's client and the backend share CPU 1 with the
//! flood, which has a lower priority (nice 19), so that the gate's time is measured and not the waiting of this program's
//! threads.
//!
//! Half of the junk comes from a few sources, which are soon banned, the other half from addresses that occur once. It fails
//! if it cannot measure; a bound that is exceeded is a `MISS`.

// Makes Clippy treat this as test code, which may use unwrap(): a benchmark that cannot measure fails by panicking.
#![cfg(test)]

#[expect(dead_code, reason = "shared with the integration tests: a bench does not need everything")]
#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use clap::Parser;
use common::backend::Backend;
use common::gate::Gate;
use common::pki::TestPki;
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustls::client::Resumption;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};
use tokio::time::Instant;

const SERVER_NAME: &str = "nas.home.example";
/// The source address of the good client; the flood uses others.
const GOOD: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);
/// The good client's pause between connections, each of which is a log line.
const PAUSE: Duration = Duration::from_millis(50);
/// The relay echoes this many bytes, then pauses.
const PIECE: usize = 16 << 10;
const RHYTHM: Duration = Duration::from_millis(5);
/// The number of threads that send junk. Each waits for the end of its connection before it makes the next one.
const SENDERS: u32 = 48;
/// The number of sources of half of the junk.
const KNOWN: u32 = 32;

/// Measures the effect of a flood on a good client and an open relay.
#[derive(Debug, Parser)]
struct Plan {
    /// Junk connections a second
    #[arg(long, default_value_t = 5000)]
    rate: u32,
    /// How long the flood lasts
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Plan {
    fn read() -> Self {
        let smoke = std::env::var_os("DOORWARD_BENCH_SMOKE").is_some();
        if smoke { Self { rate: 500, seconds: 1, bench: true } } else { Self::parse() }
    }

    /// The total number of junk connections.
    const fn total(&self) -> u32 {
        self.rate * self.seconds
    }
}

/// Pins the calling thread, and the threads and processes that it starts, to one CPU.
fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).expect("two CPUs are needed");
}

fn connect(source: Ipv4Addr, gate: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
    socket.connect(&gate.into())?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

/// An authorized connection, confirmed by an answer of the backend.
fn open(config: &Arc<ClientConfig>, gate: SocketAddr) -> StreamOwned<ClientConnection, TcpStream> {
    let tls = ClientConnection::new(Arc::clone(config), SERVER_NAME.try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(tls, connect(GOOD, gate).unwrap());
    stream.write_all(b"?").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream
}

/// The times of consecutive handshakes with an answer, sorted.
fn good_client(config: &Arc<ClientConfig>, gate: SocketAddr, go_on: impl Fn() -> bool) -> Vec<Duration> {
    let mut times = Vec::new();
    while go_on() {
        let begun = Instant::now();
        let mut stream = open(config, gate);
        times.push(begun.elapsed());
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        drop(stream);
        thread::sleep(PAUSE);
    }
    times.sort_unstable();
    assert!(times.len() >= 5, "only {} handshakes", times.len());
    times
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// Echoes data through an open relay and compares it. Returns the number of bytes.
fn relay(mut stream: StreamOwned<ClientConnection, TcpStream>, go_on: &AtomicBool) -> u64 {
    let mut moved = 0;
    let mut came = vec![0; PIECE];
    for turn in 0_u64.. {
        if !go_on.load(Ordering::Relaxed) {
            break;
        }
        let piece: Vec<u8> = (0..PIECE as u64).map(|at| (at.wrapping_mul(turn | 1) >> 3).to_le_bytes()[0]).collect();
        stream.write_all(&piece).unwrap();
        stream.read_exact(&mut came).unwrap();
        assert!(came == piece, "the relay gave back something else");
        moved += PIECE as u64;
        thread::sleep(RHYTHM);
    }
    moved
}

/// The kinds of junk.
struct Junk {
    unknown_name: Vec<u8>,
    half_hello: Vec<u8>,
    no_certificate: Arc<ClientConfig>,
}

impl Junk {
    fn new(pki: &TestPki) -> Self {
        let config = Arc::new(pki.client_config(None, rustls::ALL_VERSIONS));
        let hello = |name: &'static str| {
            let mut bytes = Vec::new();
            let mut tls = ClientConnection::new(Arc::clone(&config), name.try_into().unwrap()).unwrap();
            tls.write_tls(&mut bytes).unwrap();
            bytes
        };
        let mut half_hello = hello(SERVER_NAME);
        half_hello.truncate(half_hello.len() / 2);
        Self { unknown_name: hello("elsewhere.example"), half_hello, no_certificate: config }
    }

    /// One junk connection, to its end.
    fn send(&self, turn: u32, gate: SocketAddr) -> std::io::Result<()> {
        let mut stream = connect(source(turn), gate)?;
        match turn.wrapping_mul(37) % 100 {
            0..40 => stream.write_all(b"GET / HTTP/1.1\r\nHost: 203.0.113.7\r\n\r\n")?,
            40..80 => stream.write_all(&self.unknown_name)?,
            80..90 => stream.write_all(&self.half_hello).and_then(|()| stream.shutdown(std::net::Shutdown::Write))?,
            90..98 => stream.shutdown(std::net::Shutdown::Write)?,
            _ => {
                let config = Arc::clone(&self.no_certificate);
                let tls = ClientConnection::new(config, SERVER_NAME.try_into().unwrap()).unwrap();
                let mut stream = StreamOwned::new(tls, stream);
                stream.write_all(b"?")?;
                return stream.read_exact(&mut [0]);
            }
        }
        let mut sink = [0; 256];
        while stream.read(&mut sink)? > 0 {}
        Ok(())
    }
}

/// Alternates between a few sources and new ones.
const fn source(turn: u32) -> Ipv4Addr {
    let host = if turn.is_multiple_of(2) { 0x02_0000 + turn / 2 % KNOWN } else { 0x10_0000 + turn };
    Ipv4Addr::from_bits(0x7f00_0000 + host)
}

/// Sends the junk at an even rate. Returns how many were sent, and the time it took.
fn flood(junk: &Junk, plan: &Plan, gate: SocketAddr) -> (u64, Duration) {
    let sent = AtomicU64::new(0);
    let begun = Instant::now();
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let sent = &sent;
            scope.spawn(move || {
                // Of a thread, on Linux (setpriority(2), «C library/kernel differences»).
                setpriority_process(None, 19).unwrap();
                for turn in (sender..plan.total()).step_by(SENDERS as usize) {
                    let due = begun + Duration::from_secs(1) * turn / plan.rate;
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    // Delays are not made up for afterwards.
                    if begun.elapsed() > Duration::from_secs(u64::from(plan.seconds)) {
                        break;
                    }
                    // The gate is expected to cut the connection.
                    let _ = junk.send(turn, gate);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    (sent.into_inner(), begun.elapsed())
}

fn pss_kib(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("smaps_rollup has no Pss");
    line.trim().strip_suffix(" kB").expect("Pss is not in kB").parse().unwrap()
}

fn row(what: &str, value: &str, bound: &str) {
    println!("| {what:<52} | {value:>26} | {bound:<14} |");
}

fn mebi(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The number of rejections by reason.
fn refusals(gate: &Gate) -> Vec<(String, f64)> {
    const NAME: &str = "doorward_connections_rejected_total";
    let metrics = gate.metrics();
    let reasons: BTreeSet<&str> = metrics.label_values(NAME, "reason").into_iter().collect();
    let counted = reasons.into_iter().map(|reason| (reason.to_owned(), metrics.sum(NAME, &[("reason", reason)])));
    counted.filter(|&(_, count)| count > 0.0).collect()
}

fn verdict(holds: bool, bound: &str) -> String {
    format!("{bound} {}", if holds { "ok" } else { "MISS" })
}

fn main() {
    let plan = Plan::read();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let pki = TestPki::new();
    pin(1);
    let backend = Backend::echo();
    pin(0);
    let gate = Gate::start(&format!(
        "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n[metrics]\naddress = \"127.0.0.1:0\"\n\
         [log]\nformat = \"json\"\n{}\n[[route]]\nname = \"nas\"\nserver_names = [{SERVER_NAME:?}]\n\
         backends = [\"{}\"]\nallow = [\"any\"]\n",
        pki.config(),
        backend.address()
    ));
    pin(1);
    let mut config = pki.client_config(Some(&pki.client("alice-phone")), rustls::ALL_VERSIONS);
    config.resumption = Resumption::disabled();
    let (config, address) = (Arc::new(config), gate.address());
    let junk = Junk::new(&pki);

    let held = open(&config, address);
    let (whole, flooding) = (AtomicBool::new(true), AtomicBool::new(true));
    thread::scope(|scope| {
        let relaying = scope.spawn(|| relay(held, &whole));
        let until = Instant::now() + Duration::from_secs(u64::from(plan.seconds.min(15)));
        let quiet = good_client(&config, address, || Instant::now() < until);

        let written = || gate.lines().iter().map(|line| line.to_string().len() as u64 + 1).sum::<u64>();
        let (size, memory, used) = (written(), pss_kib(gate.pid()), gate.cpu_time());
        let good = scope.spawn(|| good_client(&config, address, || flooding.load(Ordering::Relaxed)));
        let (sent, took) = flood(&junk, &plan, address);
        flooding.store(false, Ordering::Relaxed);
        let flooded = good.join().unwrap();
        let used = gate.cpu_time() - used;
        whole.store(false, Ordering::Relaxed);
        let moved = relaying.join().unwrap();
        let (grown, memory) = (written() - size, pss_kib(gate.pid()).saturating_sub(memory));

        let seconds = took.as_secs_f64();
        let ratio = percentile(&flooded, 99).as_secs_f64() / percentile(&quiet, 99).as_secs_f64();
        println!("\n| {:<52} | {:>26} | {:<14} |\n|{:-<54}|{:->27}:|{:-<16}|", "", "measured", "bound", "", "", "");
        let rate = sent as f64 / seconds;
        row("junk connections", &format!("{sent}, {rate:.0} a second"), "");
        row("of the gate's CPU 0, all in all", &format!("{:.0} %", 100.0 * used.as_secs_f64() / seconds), "");
        for (when, times) in [("quiet", &quiet), ("under the flood", &flooded)] {
            let millis = |percent| percentile(times, percent).as_secs_f64() * 1000.0;
            let value = format!("{:.1} / {:.1} ms of {}", millis(50), millis(99), times.len());
            row(&format!("good client's handshake, p50 / p99, {when}"), &value, "");
        }
        row("p99 under the flood / quiet", &format!("{ratio:.1}"), &verdict(ratio < 4.0, "4"));
        row("established relay, every byte compared", &format!("{:.1} MiB, none lost", mebi(moved)), "none lost ok");
        row("growth of the log", &format!("{:.2} MiB", mebi(grown)), &verdict(grown < 1 << 20, "1 MiB"));
        row("growth of the gate", &format!("{:.1} MiB", mebi(memory << 10)), "");
        for (reason, count) in refusals(&gate) {
            row(&format!("refused: {reason}"), &format!("{count:.0}"), "");
        }
    });
}
