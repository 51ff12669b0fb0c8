//! What a gate uses: CPU, memory, descriptors; from `/proc`, of the process and its children.

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

/// CPU time used up to a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cpu {
    /// Of the threads there are, in nanoseconds.
    threads: u64,
    /// Of all threads there ever were, in clock ticks: 10 ms each.
    ticks: u64,
    /// Whether threads end on the way.
    threads_end: bool,
}

impl Cpu {
    /// The time used since `earlier`.
    ///
    /// The clock of the threads is exact but forgets threads that have ended. Where threads end (one for each
    /// connection, say) the coarse one counts, and needs enough operations to be good.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
        let exact = self.threads.saturating_sub(earlier.threads);
        let coarse = self.ticks.saturating_sub(earlier.ticks) * tick;
        Duration::from_nanos(if self.threads_end || coarse > exact + 3 * tick { coarse } else { exact })
    }
}

impl Processes {
    /// A process and all that descend from it. `threads_end` says that its threads come and go with connections.
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

    /// How many there are.
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

    /// Waits until the gate does nothing any more, and returns the CPU time used until then: what it still has to clean
    /// up belongs to the operations before.
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

    /// Proportional set size in KiB: its own memory, and its share of what it shares.
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

/// The fields of `/proc/PID/stat` behind the name, which may hold anything: state, parent, ...
fn stat(pid: u32) -> Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = text.rsplit_once(") ").ok_or("an odd /proc/PID/stat")?;
    Ok(fields.split(' ').map(str::to_owned).collect())
}
