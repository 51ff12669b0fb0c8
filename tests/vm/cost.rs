//! Instructions per byte relayed, in the gate and in the kernel on its behalf.
//!
//! In a machine emulated with `-icount shift=0` an instruction takes a nanosecond, so the scheduler's CPU time of a process
//! is its number of instructions. The figures hardly differ from run to run, whatever the load of the host.

use std::io::{Read, Write};
use std::net::Shutdown;

use rustls::CipherSuite;

use crate::client::Client;
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::handover::{only, open};

/// The limits by kernel, path and direction.
const LIMITS: &str = include_str!("cost.limits");

/// The size of a transfer in bytes.
const SIZE: usize = 8 << 20;
const ROUNDS: usize = 3;

/// The CPU time of the gate's threads in nanoseconds (Documentation/scheduler/sched-stats.rst).
fn nanoseconds(gate: &Gate) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{}/task", gate.pid())).unwrap();
    let spent = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(path.join("schedstat")).unwrap();
        text.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    threads.map(|thread| spent(thread.unwrap().path())).sum()
}

/// The median of several transfers, in hundredths of an instruction per byte.
fn measure(pki: &TestPki, kernel_tls: &str, path: &str, down: bool) -> u64 {
    let backend = Backend::serve(("127.0.0.1", 0), move |mut stream, state| {
        if down {
            let mut request = [0];
            while stream.read(&mut request).is_ok_and(|length| length == 1) {
                if stream.write_all(&vec![b'x'; SIZE]).is_err() {
                    return;
                }
            }
        } else {
            state.each_read(stream, |_| true);
        }
        let _ = stream.shutdown(Shutdown::Write);
    });
    let gate = open(pki, kernel_tls, &backend);
    let config = only(pki, &pki.client("alice"), CipherSuite::TLS13_AES_128_GCM_SHA256);
    let client = Client::handshaken(gate.address(), &config, "nas.home.example").unwrap();
    gate.wait_metric("doorward_relays_total", &[("path", path)], 1.0);
    let payload = vec![b'x'; SIZE];
    let mut received = vec![0; SIZE];
    let mut figures: Vec<u64> = (0..=ROUNDS)
        .map(|round| {
            let before = nanoseconds(&gate);
            if down {
                client.send(b"!").unwrap();
                client.read_exact(&mut received).unwrap();
            } else {
                client.send(&payload).unwrap();
                backend.wait_received((SIZE * (round + 1)) as u64);
            }
            (nanoseconds(&gate) - before) * 100 / SIZE as u64
        })
        .skip(1)
        .collect();
    client.close_notify();
    let _ = client.read_to_end();
    figures.sort_unstable();
    figures[ROUNDS / 2]
}

/// The limit in hundredths.
fn limit(kernel: &str, path: &str, direction: &str) -> u64 {
    let mut lines = LIMITS.lines().map(|line| line.split('#').next().unwrap().split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|line| line.len() == 4 && line[..3] == [kernel, path, direction]);
    let limit = line.unwrap_or_else(|| panic!("cost.limits has no line for {kernel} {path} {direction}"))[3];
    (limit.parse::<f64>().unwrap() * 100.0) as u64
}

#[test]
#[ignore = "counts instructions, which needs an emulated processor: \"tests/all cost\" runs it"]
fn instructions_per_byte_stay_below_their_limits() {
    let kernel = std::env::var("DOORWARD_VM_KERNEL").expect("tests/vm/run.sh sets the name of the kernel");
    let pki = TestPki::new();
    let mut over = Vec::new();
    for (kernel_tls, path) in [("off", "copy"), ("auto", "kernel")] {
        for direction in ["down", "up"] {
            let figure = measure(&pki, kernel_tls, path, direction == "down");
            let limit = limit(&kernel, path, direction);
            let line = format!(
                "{kernel} {path} {direction}: {}.{:02} instructions per byte, at most {}.{:02}",
                figure / 100,
                figure % 100,
                limit / 100,
                limit % 100
            );
            println!("{line}");
            if figure > limit {
                over.push(line);
            }
        }
    }
    assert!(over.is_empty(), "{over:#?}");
}
