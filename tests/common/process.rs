//! Other programs: found where Debian puts them, run with a deadline, ended with their children.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::Instant;

use super::DEADLINE;

/// What `tests/all` installs.
const PACKAGES: &str = include_str!("../packages");

/// The command for `program`, which the Debian package `package` brings.
///
/// # Panics
///
/// If the program is not on this machine (a test that cannot run has failed), or `tests/packages` does not name its
/// package.
pub(crate) fn tool(program: &str, package: &str) -> Command {
    assert!(
        PACKAGES.lines().any(|line| line.split('#').next().unwrap_or_default().trim() == package),
        "tests/packages does not name {package}, which brings {program}"
    );
    // Not $PATH: these tests speak about Debian's versions, not about another one that a shell may prefer.
    let path = ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/lib/systemd"]
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{program} is not on this machine: apt-get install {package}"));
    let mut command = Command::new(path);
    command.env("LC_ALL", "C.UTF-8");
    command
}

/// `command`, run by a bash of `shell` after `script`, which may lower limits or mount something.
pub(crate) fn after_script(mut shell: Command, script: &str, command: &Command) -> Command {
    shell.arg("-euc").arg(format!("{script}\nexec \"$@\"")).arg("bash").arg(command.get_program());
    shell.args(command.get_args());
    shell
}

/// A bash in a mount namespace of its own.
pub(crate) fn mounting() -> Command {
    let mut unshare = tool("unshare", "util-linux");
    unshare.args(["--mount", "bash"]);
    unshare
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// What it wrote to stdout.
    pub(crate) stdout: Vec<u8>,
    /// What it wrote to stderr; bytes that are not UTF-8 are replaced.
    pub(crate) stderr: String,
    command: String,
}

impl Finished {
    /// What it wrote to stdout, as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// This program, if it ended well.
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        assert!(self.status.success(), "failed: {self}");
        self
    }

    /// This `doorward ca`, if it has written what it should, and no gate was there to prove that it is in force.
    #[track_caller]
    pub(crate) fn not_proved(self) -> Self {
        assert_eq!(self.status.code(), Some(10), "{self}");
        self
    }

    /// The output, if the program failed with an exit code rather than by a signal.
    #[track_caller]
    pub(crate) fn failure(self) -> Self {
        assert!(!self.status.success() && self.status.signal().is_none(), "should have failed: {self}");
        self
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, stderr, command, .. } = self;
        write!(f, "{command}\n{status}\nstdout: {}\nstderr: {stderr}", self.text())
    }
}

/// Runs a program to its end, without input.
///
/// # Panics
///
/// If it has not ended within three times [`DEADLINE`] (a browser is no quick starter); it is killed then, with all its
/// children.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Finished {
    run_with_input(command, b"")
}

/// As [`run`], for a program that may take so long.
#[track_caller]
pub(crate) fn run_for(command: &mut Command, limit: Duration) -> Finished {
    run_fed(command, b"", false, limit)
}

/// As [`run`], with `input` on stdin and then end of file.
#[track_caller]
pub(crate) fn run_with_input(command: &mut Command, input: &[u8]) -> Finished {
    run_fed(command, input, false, 3 * DEADLINE)
}

/// As [`run`], with `input` on stdin, which stays open: for programs that hang up at its end.
#[track_caller]
pub(crate) fn run_with_open_input(command: &mut Command, input: &[u8]) -> Finished {
    run_fed(command, input, true, 3 * DEADLINE)
}

#[track_caller]
fn run_fed(command: &mut Command, input: &[u8], stays_open: bool, limit: Duration) -> Finished {
    let name = format!("{command:?}");
    let mut child = command
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let group = group_of(&child);
    let (done, ended) = mpsc::channel();
    let stdin = child.stdin.take();
    let input = input.to_vec();
    let writer = thread::spawn(move || {
        // A program that does not want its input is no failure.
        let mut stdin = stdin?;
        let _ = stdin.write_all(&input);
        stays_open.then_some(stdin)
    });
    thread::spawn(move || done.send(child.wait_with_output()));
    let output = ended.recv_timeout(limit);
    kill(group, Signal::KILL);
    let in_time = output.is_ok();
    let output = output.or_else(|_| ended.recv()).unwrap().unwrap();
    drop(writer.join().unwrap());
    let finished = Finished {
        status: output.status,
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        command: name,
    };
    assert!(in_time, "killed, because it did not end: {finished}");
    finished
}

/// A program that serves until its test is over.
pub(crate) struct Daemon {
    child: Child,
    output: Arc<Mutex<Vec<u8>>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Daemon {
    /// Starts a program and waits until a process listens on `address`, without connecting to it: a forwarder would pass
    /// that connection on.
    ///
    /// # Panics
    ///
    /// If it ends, or does not listen within [`DEADLINE`].
    #[track_caller]
    pub(crate) fn start(command: &mut Command, address: SocketAddrV4) -> Self {
        Self::start_until(command, &format!("it listens at {address}"), || is_listening(address))
    }

    /// Starts a program and waits until it is `ready`.
    ///
    /// # Panics
    ///
    /// If it ends, or is not ready within [`DEADLINE`].
    #[track_caller]
    pub(crate) fn start_until(command: &mut Command, what: &str, mut ready: impl FnMut() -> bool) -> Self {
        let name = format!("{command:?}");
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let output = Arc::default();
        let readers = vec![
            collect(child.stdout.take().unwrap(), Arc::clone(&output)),
            collect(child.stderr.take().unwrap(), Arc::clone(&output)),
        ];
        let mut daemon = Self { child, output, readers };
        wait_until(&format!("{name}: {what}"), || {
            let ended = daemon.child.try_wait().unwrap();
            assert!(ended.is_none(), "{name} ended: {}", daemon.output());
            ready().then_some(())
        });
        daemon
    }

    /// Its process group, to which the processes belong that it starts.
    pub(crate) fn group(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far, to stdout and stderr.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let group = group_of(&self.child);
        kill(group, Signal::TERM);
        let patience = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < patience {
            thread::sleep(Duration::from_millis(5));
        }
        kill(group, Signal::KILL);
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        if thread::panicking() {
            eprintln!("what a daemon of the failed test had to say:\n{}", self.output());
        }
    }
}

/// Reads `pipe` to its end on a thread of its own.
fn collect(mut pipe: impl Read + Send + 'static, into: Arc<Mutex<Vec<u8>>>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            into.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
        }
    })
}

fn group_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Sends a signal to a process group, which may have ended already.
fn kill(group: Pid, signal: Signal) {
    let _ = kill_process_group(group, signal);
}

/// Asks again and again until there is an answer.
///
/// # Panics
///
/// If there is none within [`DEADLINE`].
#[track_caller]
pub(crate) fn wait_until<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = answer() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process listens on `address`, from the kernel's table (proc(5), `/proc/net/tcp`).
fn is_listening(address: SocketAddrV4) -> bool {
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).any(|fields| {
        const LISTEN: &str = "0A";
        fields.get(1) == Some(&local.as_str()) && fields.get(3) == Some(&LISTEN)
    })
}

/// A loopback address that no other test uses: for programs whose port must be given and cannot ask the kernel for
/// a free one. Any port below the ephemeral ones (32768) is free there, unless a service of the machine listens on it
/// on all addresses.
pub(crate) fn own_loopback() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let host = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(host < 255, "one process has only so many addresses");
    Ipv4Addr::new(127, 64 + high % 128, low, host)
}
