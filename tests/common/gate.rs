//! The gate as its users have it: a process, a configuration file, log lines on stdout, metrics over HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use super::DEADLINE;
use super::metrics::Metrics;
use super::process::{Finished, run, wait_until};

/// The part of a configuration that is the same in nearly every test: one listener named `public`, metrics, both on
/// ports of the kernel's choice, and log lines for machines, every single one of them.
pub(crate) const LOCAL: &str = r#"
[[listener]]
name = "public"
address = "127.0.0.1:0"

[metrics]
address = "127.0.0.1:0"

[log]
format = "json"
sampling = "off"
"#;

/// A running gate.
///
/// When it is dropped, every connection must have been given a verdict ([`Gate::settled`]), SIGTERM must end it with
/// status 0, and none of its threads may have panicked meanwhile. A test that has failed already is not asked for this;
/// instead it shows the gate's log.
pub(crate) struct Gate {
    child: Child,
    folder: TempDir,
    log: Arc<Log>,
    readers: Vec<thread::JoinHandle<()>>,
    listeners: Vec<(String, SocketAddr)>,
    metrics: SocketAddr,
    stopped: bool,
}

#[derive(Default)]
struct Log {
    stdout: Mutex<Lines>,
    stderr: Mutex<String>,
    news: Condvar,
}

#[derive(Default)]
struct Lines {
    lines: Vec<Value>,
    ended: bool,
}

impl Log {
    fn stdout(&self) -> MutexGuard<'_, Lines> {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stderr(&self) -> MutexGuard<'_, String> {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    /// Starts the gate with a configuration in a new folder and waits until it is ready.
    ///
    /// # Panics
    ///
    /// If it ends, or is not ready within [`DEADLINE`], or writes a line to stdout that is no JSON.
    #[track_caller]
    pub(crate) fn start(config: &str) -> Self {
        Self::start_with(config, |_| ())
    }

    /// As [`Gate::start`], with something else about its process.
    #[track_caller]
    pub(crate) fn start_with(config: &str, change: impl FnOnce(&mut Command)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command(folder.path(), config);
        change(&mut command);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::<Log>::default();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (machines, people) = (Arc::clone(&log), Arc::clone(&log));
        let readers = vec![
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                    machines.stdout().lines.push(value);
                    machines.news.notify_all();
                }
                machines.stdout().ended = true;
                machines.news.notify_all();
            }),
            thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    people.stderr().extend([line.as_str(), "\n"]);
                }
            }),
        ];
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut gate = Self { child, folder, log, readers, listeners: Vec::new(), metrics: nowhere, stopped: false };
        gate.wait_for_line("the gate to be ready", |line| line["event"] == "ready");
        for line in gate.lines() {
            let address = || line["address"].as_str().and_then(|text| text.parse().ok()).unwrap();
            match line["event"].as_str() {
                Some("listening") => {
                    let name = line["listener"].as_str().unwrap().to_owned();
                    gate.listeners.push((name, address()));
                }
                Some("metrics") => gate.metrics = address(),
                _ => {}
            }
        }
        assert_ne!(gate.metrics, nowhere, "a test needs [metrics]: see LOCAL");
        gate
    }

    /// Starts the gate on this configuration and a control socket, `control.sock` in its folder: see [`Gate::ask`].
    #[track_caller]
    pub(crate) fn start_with_control(config: &str) -> Self {
        Self::start(&format!("{config}\n[control]\nsocket = \"control.sock\"\n"))
    }

    /// Runs the gate on a configuration that it must refuse, and returns how it did.
    #[track_caller]
    pub(crate) fn fails_to_start(config: &str) -> Finished {
        let folder = tempfile::tempdir().unwrap();
        run(&mut command(folder.path(), config)).failure()
    }

    /// Where the first listener listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listeners[0].1
    }

    /// Where the listener of this name listens.
    pub(crate) fn listener(&self, name: &str) -> SocketAddr {
        self.listeners.iter().find(|listener| listener.0 == name).unwrap().1
    }

    /// Where `/metrics` is served.
    pub(crate) fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The folder of its configuration, `doorward.toml`.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Every line it has written to stdout; a line that is no JSON is a [`Value::String`].
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.log.stdout().lines.clone()
    }

    /// What it has written to stderr.
    pub(crate) fn stderr(&self) -> String {
        self.log.stderr().clone()
    }

    /// Waits for a line of the log and returns the first that fits, which may be an old one.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.wait_for_lines(what, 1, fits).remove(0)
    }

    /// Waits until `count` lines of the log fit and returns them all, in order.
    #[track_caller]
    pub(crate) fn wait_for_lines(&self, what: &str, count: usize, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        let deadline = Instant::now() + DEADLINE;
        let mut log = self.log.stdout();
        loop {
            let fitting: Vec<Value> = log.lines.iter().filter(|line| fits(line)).cloned().collect();
            if fitting.len() >= count {
                return fitting;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || log.ended {
                let text: Vec<String> = log.lines.iter().map(Value::to_string).collect();
                let ended = if log.ended { " (the gate has ended)" } else { "" };
                drop(log);
                panic!("waited in vain for {what}{ended}; stdout:\n{}\nstderr:\n{}", text.join("\n"), self.stderr());
            }
            log = self.log.news.wait_timeout(log, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until exactly `count` connections were rejected at this stage for this reason, by the counter and by the
    /// log, and returns the log lines.
    ///
    /// # Panics
    ///
    /// If there are fewer within [`DEADLINE`], or more now, or the two disagree.
    #[track_caller]
    pub(crate) fn wait_rejected(&self, stage: &str, reason: &str, count: usize) -> Vec<Value> {
        let what = format!("{count} rejections for {stage}/{reason}");
        let lines = self.wait_for_lines(&what, count, |line| {
            line["event"] == "rejected" && line["stage"] == stage && line["reason"] == reason
        });
        assert_eq!(lines.len(), count, "{what} in the log: {lines:?}");
        let labels = [("stage", stage), ("reason", reason)];
        self.wait_metric("doorward_connections_rejected_total", &labels, count as f64);
        lines
    }

    /// Waits until exactly `count` connections of a route were closed, by the counter and by the log, and returns the
    /// log lines.
    #[track_caller]
    pub(crate) fn wait_closed(&self, route: &str, count: usize) -> Vec<Value> {
        let what = format!("{count} closed connections of the route {route}");
        let lines = self.wait_for_lines(&what, count, |line| line["event"] == "closed" && line["route"] == route);
        assert_eq!(lines.len(), count, "{what} in the log: {lines:?}");
        self.wait_metric("doorward_connections_closed_total", &[("route", route)], count as f64);
        lines
    }

    /// The metrics as they are now.
    #[track_caller]
    pub(crate) fn metrics(&self) -> Metrics {
        let (status, body) = self.get("/metrics");
        assert_eq!(status, 200, "{body}");
        Metrics::parse(&body)
    }

    /// Asks the metrics listener for `path`: status and body.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect_timeout(&self.metrics, DEADLINE).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        // In one segment: of several small ones, the last would wait for an acknowledgement.
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.metrics).as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        (status, body.to_owned())
    }

    /// Asks it over its control socket, by its configuration file, as people do: `doorward ARGUMENTS --config …`.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Finished {
        let config = self.folder().join("doorward.toml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        run(command.args(arguments).arg("--config").arg(config))
    }

    /// Waits until the series of this name with these labels sum up to `value`.
    ///
    /// # Panics
    ///
    /// If they do not within [`DEADLINE`], or no series fits: every series exists at 0 from the start.
    #[track_caller]
    pub(crate) fn wait_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut last = f64::NAN;
        let deadline = Instant::now() + DEADLINE;
        while last != value && Instant::now() < deadline {
            last = self.metrics().sum(name, labels);
            thread::sleep(Duration::from_millis(if last == value { 0 } else { 5 }));
        }
        assert_eq!(last, value, "waited in vain for {name} {labels:?}");
    }

    /// Waits until no connection is active, and returns the metrics then.
    ///
    /// # Panics
    ///
    /// If there is an active one after [`DEADLINE`], or a connection was accepted and neither rejected nor closed.
    #[track_caller]
    pub(crate) fn settled(&self) -> Metrics {
        let mut last = None;
        let deadline = Instant::now() + DEADLINE;
        loop {
            let metrics = self.metrics();
            let [accepted, rejected, closed, active] = [
                "doorward_connections_accepted_total",
                "doorward_connections_rejected_total",
                "doorward_connections_closed_total",
                "doorward_connections_active",
            ]
            .map(|name| metrics.sum(name, &[]));
            // Twice the same: a scrape may fall between two steps of one connection.
            let now = [accepted, rejected, closed, active];
            if active == 0.0 && accepted == rejected + closed && last == Some(now) {
                return metrics;
            }
            last = Some(now);
            assert!(
                Instant::now() < deadline,
                "not settled: accepted {accepted} = rejected {rejected} + closed {closed} + active {active}?"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The processor time it has used so far (proc(5), `/proc/PID/stat`, in hundredths of a second).
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The second field is the program's name in parentheses; utime and stime are the 14th and the 15th.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(10 * ticks)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Puts another configuration into its file, lets it be taken over by SIGHUP, and returns the line that says what came
    /// of it.
    #[track_caller]
    pub(crate) fn reload(&self, config: &str) -> Value {
        std::fs::write(self.folder().join("doorward.toml"), config).unwrap();
        self.hang_up()
    }

    /// Lets it take its configuration over once more by SIGHUP, and returns the line that says what came of it.
    #[track_caller]
    pub(crate) fn hang_up(&self) -> Value {
        let reported = |line: &Value| {
            line["cause"] == "signal" && (line["event"] == "reloaded" || line["event"] == "reload_failed")
        };
        let before = self.lines().iter().filter(|line| reported(line)).count();
        self.signal(Signal::HUP);
        self.wait_for_lines("the result of the reload", before + 1, reported).swap_remove(before)
    }

    /// Ends a gate that upgrades have replaced, and checks what a drop checks: no connection is open, and SIGTERM ends the
    /// process that accepts connections. The processes before it must have ended.
    #[track_caller]
    pub(crate) fn end_after_upgrades(mut self) {
        self.settled();
        let first = self.wait_for_end_of(self.child.id());
        assert!(first.is_none_or(|status| status.success()), "the first process has ended with {first:?}");
        self.signal_serving(Signal::TERM);
        // The launcher and every process before it have this pipe as well.
        wait_until("every process has ended", || self.log.stdout().ended.then_some(()));
        self.stopped = true;
        assert!(!self.stderr().contains("panicked at"), "a thread of the gate panicked:\n{}", self.stderr());
        let strange: Vec<Value> = self.lines().into_iter().filter(Value::is_string).collect();
        assert!(strange.is_empty(), "lines on stdout that are no JSON: {strange:?}");
    }

    /// Sends a signal to the process that the latest upgrade has started.
    pub(crate) fn signal_serving(&self, signal: Signal) {
        kill_process(*self.upgraded().last().unwrap(), signal).unwrap();
    }

    /// Waits until a process has ended. Returns how, if it is the first one.
    #[track_caller]
    pub(crate) fn wait_for_end_of(&mut self, pid: u32) -> Option<ExitStatus> {
        if pid == self.child.id() {
            return Some(wait_until("the first process has ended", || self.child.try_wait().unwrap()));
        }
        let path = format!("/proc/{pid}");
        wait_until("the process has ended", || (!Path::new(&path).exists()).then_some(None))
    }

    /// The processes that upgrades have started, in this order.
    pub(crate) fn upgraded(&self) -> Vec<Pid> {
        let pids = self.lines().into_iter().filter(|line| line["event"] == "upgraded");
        pids.filter_map(|line| Pid::from_raw(line["pid"].as_i64()?.try_into().ok()?)).collect()
    }

    /// Waits for its end, after the test itself has asked for it, and returns how it ended. Nothing is checked.
    #[track_caller]
    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        self.stopped = true;
        let status = wait_until("the gate has ended", || self.child.try_wait().unwrap());
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        status
    }
}

/// `doorward run` on this configuration, written to `doorward.toml` in `folder`.
fn command(folder: &Path, config: &str) -> Command {
    let file = folder.join("doorward.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.args(["run", "--config"]).arg(file);
    command
}

impl Drop for Gate {
    fn drop(&mut self) {
        if self.stopped {
            return;
        }
        if thread::panicking() {
            for pid in self.upgraded() {
                let _ = kill_process(pid, Signal::KILL);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
            let lines = self.lines();
            for line in lines.iter().skip(lines.len().saturating_sub(50)) {
                eprintln!("gate: {line}");
            }
            eprintln!("gate's stderr: {}", self.stderr());
            return;
        }
        let strange: Vec<Value> = self.lines().into_iter().filter(Value::is_string).collect();
        let settled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.settled()));
        self.signal(Signal::TERM);
        let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.wait_for_end()));
        if status.is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        assert!(settled.is_ok(), "not every connection was given a verdict: see above");
        assert!(status.is_ok_and(|status| status.success()), "SIGTERM does not end the gate with status 0");
        assert!(!self.stderr().contains("panicked at"), "a thread of the gate panicked:\n{}", self.stderr());
        assert!(strange.is_empty(), "lines on stdout that are no JSON: {strange:?}");
    }
}
