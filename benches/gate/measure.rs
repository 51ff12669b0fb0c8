//! CPU time, memory and descriptors of a gate and its children, from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use crate::Result;

/// The processes of one gate.
#[derive(Clone, Debug)]
pub(crate) struct Processes {
    pids: Vec<u32>,
    threads_end: bool,
}

/// The CPU time used so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cpu {
    /// Of the running threads, in nanoseconds.
    threads: u64,
    /// Of all threads, including ended ones, in clock ticks of 10 ms.
    ticks: u64,
    /// Whether threads end during the measurement.
    threads_end: bool,
}

impl Cpu {
    /// The time used since `earlier`.
    ///
    /// The clock of the threads is exact but excludes ended threads. Where threads end (such as one per connection) the
    /// coarse clock is used, which needs many operations to be accurate.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
        let exact = self.threads.saturating_sub(earlier.threads);
        let coarse = self.ticks.saturating_sub(earlier.ticks) * tick;
        Duration::from_nanos(if self.threads_end || coarse > exact + 3 * tick { coarse } else { exact })
    }
}

impl Processes {
    /// A process and its descendants. `threads_end` is set if it starts a thread per connection.
    pub(crate) fn of(root: u32, threads_end: bool) -> Result<Self> {
        let mut parents = HashMap::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            // A process may end while the list is read.
            let Ok(fields) = stat(pid) else { continue };
            if let Some(parent) = fields.get(1).and_then(|field| field.parse::<u32>().ok()) {
                parents.insert(pid, parent);
            }
        }
        let mut family = vec![root];
        loop {
            let more: Vec<u32> = parents
                .iter()
                .filter(|(pid, parent)| family.contains(parent) && !family.contains(pid))
                .map(|(pid, _)| *pid)
                .collect();
            if more.is_empty() {
                return Ok(Self { pids: family, threads_end });
            }
            family.extend(more);
        }
    }

    /// The number of processes.
    pub(crate) const fn count(&self) -> usize {
        self.pids.len()
    }

    /// The CPU time used so far.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        let mut cpu = Cpu { threads: 0, ticks: 0, threads_end: self.threads_end };
        for &pid in &self.pids {
            for task in fs::read_dir(format!("/proc/{pid}/task"))? {
                let text = match fs::read_to_string(task?.path().join("schedstat")) {
                    Ok(text) => text,
                    // The thread has ended.
                    Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(3) => {
                        continue;
                    }
                    Err(error) => return Err(format!("schedstat: {error}").into()),
                };
                cpu.threads += text.split(' ').next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
            }
            // utime and stime (proc(5)), counted from the state, which is the third field.
            let fields = stat(pid)?;
            let ticks = fields.get(11..13).unwrap_or_default().iter().filter_map(|field| field.parse::<u64>().ok());
            cpu.ticks += ticks.sum::<u64>();
        }
        Ok(cpu)
    }

    /// Waits until the gate is idle and returns the CPU time used until then: its cleaning up belongs to the operations
    /// before.
    pub(crate) fn quiet(&self) -> Result<Cpu> {
        let deadline = Instant::now() + Duration::from_secs(5);
        let (mut last, mut same) = (self.cpu()?, 0);
        while same < 3 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
            let now = self.cpu()?;
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
        Ok(last)
    }

    /// The proportional set size in KiB: private memory and a share of shared memory.
    pub(crate) fn memory(&self) -> Result<f64> {
        let mut sum = 0.0;
        for &pid in &self.pids {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or("no Pss in smaps_rollup")?;
            sum += line.split_whitespace().next().ok_or("no number in smaps_rollup")?.parse::<f64>()?;
        }
        Ok(sum)
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> Result<usize> {
        self.pids.iter().try_fold(0, |sum, pid| Ok(sum + fs::read_dir(format!("/proc/{pid}/fd"))?.count()))
    }

    /// Waits until no more than `most` descriptors are open, and returns how many are.
    pub(crate) fn let_go(&self, most: usize) -> Result<usize> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let open = self.descriptors()?;
            if open <= most || Instant::now() > deadline {
                return Ok(open);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The fields of `/proc/PID/stat` after the name, which may contain any characters: state, parent, ...
fn stat(pid: u32) -> Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = text.rsplit_once(") ").ok_or("an odd /proc/PID/stat")?;
    Ok(fields.split(' ').map(str::to_owned).collect())
}
