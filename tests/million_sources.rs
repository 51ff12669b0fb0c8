//! What is remembered about sources takes bounded memory. In a program of its own, so that nothing else is measured.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use doorward::admission::penalties::{SourceStatus, Table};
use doorward::model::rate_limit::Rate;
use doorward::model::source::{Prefixes, Source};
use tokio::time::Instant;

const MIB: usize = 1 << 20;

/// The memory of this process that is in use, in bytes (proc(5), `VmRSS`).
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn million_sources_take_bounded_memory() {
    let source = |number: u64| {
        let address = (0x2001_0db8_u128 << 96) + (u128::from(number) << 64);
        Source::of(IpAddr::V6(Ipv6Addr::from_bits(address)), Prefixes::default())
    };
    let rate = Some(Rate { burst: 900, interval: Duration::from_secs(4) });
    let before = memory();
    let now = Instant::now();
    let table = Table::new(now);
    let empty = memory().saturating_sub(before);
    let flood = |first: u64| {
        for number in first..first + 1_000_000 {
            assert_eq!(table.connects(source(number), now, rate), SourceStatus::Allowed { trusted: false });
            table.penalize(source(number), now, Duration::from_secs(5));
        }
        memory().saturating_sub(before)
    };
    let first = flood(0);
    let second = flood(1_000_000);
    println!("empty {} KiB, a million {} KiB, two million {} KiB", empty / 1024, first / 1024, second / 1024);
    assert!(empty < MIB, "{empty} bytes without a source");
    assert!(first < 8 * MIB, "{first} bytes");
    assert!(second < first + MIB, "{first}, then {second} bytes");
}
