//! What the gate's process uses, and whether it grows.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The resources of a process at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) pid: u32,
    pub(super) rss_kib: u64,
    pub(super) pss_kib: u64,
    /// Anonymous memory: heap and stacks.
    pub(super) heap_kib: u64,
    pub(super) descriptors: usize,
    pub(super) threads: usize,
    /// CPU time so far.
    pub(super) cpu: Duration,
}

impl Sample {
    /// Of a process that runs.
    pub(super) fn now(pid: u32) -> Self {
        Self::of(pid).unwrap()
    }

    /// Of a process, unless it has ended: proc(5), `smaps_rollup`, `fd`, `task` and `stat`.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok().filter(|text| !text.is_empty())?;
        let field = |name: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
        };
        let count = |folder: &str| Some(fs::read_dir(format!("/proc/{pid}/{folder}")).ok()?.count());
        Some(Self {
            at: Instant::now(),
            pid,
            rss_kib: field("Rss:"),
            pss_kib: field("Pss:"),
            heap_kib: field("Anonymous:"),
            descriptors: count("fd")?,
            threads: count("task")?,
            cpu: cpu_time(pid)?,
        })
    }

    /// When descriptors and threads have been the same for two seconds.
    pub(super) async fn at_rest(pid: u32) -> Self {
        let (mut last, mut same) = (Self::now(pid), 0);
        for _ in 0..100 {
            sleep(Duration::from_millis(200)).await;
            let now = Self::now(pid);
            same = if (now.descriptors, now.threads) == (last.descriptors, last.threads) { same + 1 } else { 0 };
            last = now;
            if same == 10 {
                break;
            }
        }
        last
    }

    /// When the kinds of descriptors, but for [`PIPE`], and the number of threads are these, or after half a minute. Threads
    /// that wait for work end after some seconds.
    pub(super) async fn settled(pid: u32, kinds: &BTreeMap<String, usize>, threads: usize) -> Self {
        let begun = Instant::now();
        loop {
            let sample = Self::now(pid);
            let same = without_pipes(&descriptors(pid)) == without_pipes(kinds);
            if same && sample.threads <= threads || begun.elapsed().as_secs() >= 30 {
                return sample;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
}

pub(super) fn without_pipes(kinds: &BTreeMap<String, usize>) -> BTreeMap<&str, usize> {
    kinds.iter().map(|(kind, count)| (kind.as_str(), *count)).filter(|(kind, _)| *kind != PIPE).collect()
}

/// What the descriptors of a process are, without the numbers of sockets and pipes, and how many of each kind.
pub(super) fn descriptors(pid: u32) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        // It may be closed meanwhile.
        let Ok(target) = fs::read_link(entry.unwrap().path()) else { continue };
        let target = target.display().to_string();
        let kind = target.split_once(":[").map_or(target.as_str(), |(kind, _)| kind);
        *kinds.entry(kind.to_owned()).or_default() += 1;
    }
    kinds
}

/// The kind of descriptors of which the gate keeps some that are free.
pub(super) const PIPE: &str = "pipe";

/// User and system time, in hundredths of a second.
fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses; utime and stime are the 14th and the 15th.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Duration::from_millis(10 * fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum::<u64>()))
}

/// How a figure grows in an hour: the median of the slopes between all pairs of samples (Theil and Sen). One buffer more in a
/// pool, which is kept, is a step and no growth; what is lost with each connection is growth.
#[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
pub(super) fn growth_per_hour(samples: &[Sample], figure: impl Fn(&Sample) -> u64) -> f64 {
    let mut slopes = Vec::new();
    for (number, one) in samples.iter().enumerate() {
        for other in &samples[number + 1..] {
            let hours = (other.at - one.at).as_secs_f64() / 3600.0;
            slopes.push((figure(other) as f64 - figure(one) as f64) / hours);
        }
    }
    slopes.sort_by(f64::total_cmp);
    slopes.get(slopes.len() / 2).copied().unwrap_or_default()
}
