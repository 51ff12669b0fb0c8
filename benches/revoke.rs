//! The time from the command that revokes a device to the last byte of its last session, while all other sessions are busy.
//!
//! ```text
//! cargo bench --bench revoke               # 1,000 sessions of 50 devices, 10 of which are revoked one after the other
//! DOORWARD_BENCH_SMOKE=1 cargo bench --bench revoke
//! ```
//!
//! Measured from before the new list is written to the end of the stream at the client, including the reload of the whole
//! configuration. It fails if another session is cut or loses a byte.

// Makes Clippy treat this as test code, which may use unwrap(): a benchmark that cannot measure fails by panicking.
#![cfg(test)]

#[expect(dead_code, reason = "shared with the integration tests: a bench does not need everything")]
#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/reload/crowd.rs"]
mod crowd;

use std::time::Duration;

use crowd::{Crowd, tally};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn main() {
    let smoke = std::env::var_os("DOORWARD_BENCH_SMOKE").is_some_and(|value| value == "1");
    let (devices, sessions, lost) = if smoke { (5, 4, 2) } else { (50, 20, 10) };
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        tokio::spawn(measure(devices, sessions, lost)).await.unwrap();
    });
}

async fn measure(devices: u64, sessions: usize, lost: u64) {
    let mut crowd = Crowd::gather(devices, sessions).await;
    let mut lags = Vec::new();
    for device in 1..=lost {
        let all: Vec<u64> = (1..=device).collect();
        let begun = crowd.revoke(&all).await;
        let gone = crowd.gone(sessions).await;
        assert_eq!(tally(&gone).into_iter().collect::<Vec<_>>(), [(device, (sessions, 0))], "exactly its sessions");
        lags.extend(gone.iter().filter_map(|guest| guest.cut).map(|cut| cut - begun));
    }
    let (gate, rest) = crowd.part().await;
    let others: Vec<_> = (lost + 1..=devices).map(|device| (device, (0, sessions))).collect();
    assert_eq!(tally(&rest).into_iter().collect::<Vec<_>>(), others, "and no other session");
    let bytes: usize = rest.iter().map(|guest| guest.echoed).sum();
    tokio::task::block_in_place(|| drop(gate));

    lags.sort_unstable();
    let percent = |percent: usize| {
        let place = (lags.len() * percent).div_ceil(100).saturating_sub(1);
        lags.get(place).copied().unwrap_or_default()
    };
    let milliseconds = |lag: Duration| lag.as_secs_f64() * 1000.0;
    println!(
        "{} sessions of {devices} devices, {lost} devices revoked one after the other",
        devices as usize * sessions
    );
    println!("from the command to the last byte, of {} sessions:", lags.len());
    for (name, lag) in [("p50", percent(50)), ("p99", percent(99)), ("worst", percent(100))] {
        println!("  {name:<6} {:8.1} ms", milliseconds(lag));
    }
    println!("the others: {bytes} bytes there and back, none of them lost");
}
