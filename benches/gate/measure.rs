//! CPU time, memory and descriptors of a gate and its children, from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::Result;

/// The processes of one gate.
#[derive(Clone, Debug)]
pub(crate) struct Processes {
    pids: Vec<u32>,
    threads_end: bool,
}

/// What was spent on one operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// In the unit of the line.
    pub(crate) value: f64,
    /// How the threads of the gate shared the work; only of CPU time.
    pub(crate) threads: Option<Sharing>,
}

/// How the threads of a gate shared the work.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sharing {
    /// How often a thread slept until another one or the kernel woke it up, for each operation.
    pub(crate) wake_ups: f64,
    /// The share of the busiest thread of the CPU time.
    pub(crate) busiest: f64,
    /// Operations in a second, as limited by the gate or the generator.
    pub(crate) rate: f64,
}

/// A moment in the life of a gate's threads.
#[derive(Debug)]
pub(crate) struct Moment {
    cpu: Cpu,
    /// By the number of the thread: nanoseconds, and how often it has slept.
    threads: HashMap<u32, (u64, u64)>,
    at: Instant,
}

impl From<f64> for Figure {
    fn from(value: f64) -> Self {
        Self { value, threads: None }
    }
}

impl Moment {
    /// The CPU time since `earlier`, and how the threads shared `operations`, which took until `done`.
    pub(crate) fn since(&self, earlier: &Self, operations: f64, done: Instant) -> (Duration, Sharing) {
        let grown = self.threads.iter().map(|(thread, (spent, slept))| {
            let (spent_before, slept_before) = earlier.threads.get(thread).copied().unwrap_or_default();
            (spent.saturating_sub(spent_before), slept.saturating_sub(slept_before))
        });
        let (mut all, mut most, mut sleeps) = (0, 0, 0);
        for (spent, slept) in grown {
            all += spent;
            most = most.max(spent);
            sleeps += slept;
        }
        #[expect(clippy::cast_precision_loss, reason = "exact below 2^53")]
        let [all, most, sleeps] = [all, most, sleeps].map(|number: u64| number as f64);
        let sharing = Sharing {
            wake_ups: sleeps / operations,
            busiest: most / all.max(1.0),
            rate: operations / done.saturating_duration_since(earlier.at).as_secs_f64(),
        };
        (self.cpu.since(earlier.cpu), sharing)
    }
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

    /// As [`Processes::quiet`], with every thread by itself.
    pub(crate) fn moment(&self) -> Result<Moment> {
        let cpu = self.quiet()?;
        let mut threads = HashMap::new();
        for &pid in &self.pids {
            for task in fs::read_dir(format!("/proc/{pid}/task"))? {
                let folder = task?.path();
                // The thread may have ended.
                let (Ok(spent), Ok(status)) =
                    (fs::read_to_string(folder.join("schedstat")), fs::read_to_string(folder.join("status")))
                else {
                    continue;
                };
                let spent = spent.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0);
                let slept = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
                let slept = slept.and_then(|number| number.trim().parse().ok()).unwrap_or(0);
                let thread = folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
                threads.insert(thread.ok_or("an odd name in /proc/PID/task")?, (spent, slept));
            }
        }
        Ok(Moment { cpu, threads, at: Instant::now() })
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
