//! The launcher: a process that starts the gate's own program again, and does nothing else.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use super::channel::{Channel, pair};
use super::child::{channel_at_stdin, ignore_signals};
use super::helpers::{Helpers, Starter};
use super::requests::{FromLauncher, OF_ONE_PROCESS, ToLauncher};
use super::taken::VARIABLE;

/// The command that a launcher is started with.
const COMMAND: &str = "launcher";

/// How much of what a process has written to stderr is kept.
const KEPT: usize = 8 * 1024;

/// How long the rest of its stderr is waited for after its end, and the end of the launcher.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Why there is no launcher.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(String);

impl From<io::Error> for Unavailable {
    fn from(error: io::Error) -> Self {
        Self(format!("a process for it could not be started: {error}"))
    }
}

impl Default for Unavailable {
    fn default() -> Self {
        Self("this gate was started without the process that would start another one".to_owned())
    }
}

/// Why there is no new process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// The launcher does not answer.
    #[error("the process that starts it does not answer: {0}")]
    Launcher(io::Error),
    /// The program cannot be started.
    #[error("{0}")]
    Program(String),
}

/// The gate's end of its launcher, which ends with it.
#[derive(Debug)]
pub struct Launcher {
    end: OwnedFd,
    child: Child,
    /// Whether another gate may be started.
    upgrades: Result<(), Unavailable>,
}

impl Launcher {
    /// Starts a launcher for the program and the arguments of this process. To be called before there are threads and before
    /// anything is read: it keeps nothing of this process but its folder, its environment and its output.
    ///
    /// # Errors
    /// Why this gate cannot be replaced.
    pub fn start() -> Result<Self, Unavailable> {
        let upgrades = match std::process::id() {
            1 => Err(Unavailable(
                "this gate is process 1, and its container ends with it: replace the container".to_owned(),
            )),
            _ => Ok(()),
        };
        let start = || {
            let program = own_program()?;
            let (end, other) = pair()?;
            let mut command = Command::new(&program);
            command.arg(COMMAND).arg("--").arg(&program).args(std::env::args_os().skip(1));
            command.env_remove(VARIABLE).stdin(Stdio::from(other));
            Ok(Self { end, child: command.spawn()?, upgrades })
        };
        start().map_err(|error: io::Error| Unavailable::from(error))
    }

    /// Must be called within a tokio runtime.
    pub(crate) fn connect(self) -> Result<Connected, Unavailable> {
        self.upgrades?;
        Ok(Connected { channel: Channel::new(self.end)?, child: Some(self.child) })
    }

    /// What has it start helpers. Must be called within a tokio runtime.
    pub(crate) fn starter(&self) -> io::Result<Starter> {
        Ok(Starter::new(Channel::new(self.end.try_clone()?)?))
    }
}

/// The file of this program, which another version may have replaced meanwhile.
fn own_program() -> io::Result<PathBuf> {
    let program = fs::read_link("/proc/self/exe")?;
    let replaced = program.to_str().and_then(|text| text.strip_suffix(" (deleted)")).map(PathBuf::from);
    Ok(replaced.filter(|_| !program.exists()).unwrap_or(program))
}

/// A [`Launcher`] that takes requests.
#[derive(Debug)]
pub(crate) struct Connected {
    channel: Channel,
    child: Option<Child>,
}

/// A process that the launcher has started.
#[derive(Debug)]
pub(crate) struct Launched<'a> {
    launcher: &'a mut Connected,
    /// Its process id.
    pub(crate) pid: u32,
}

impl Connected {
    /// Starts the program with `stdin`.
    pub(crate) async fn launch(&mut self, stdin: OwnedFd) -> Result<Launched<'_>, LaunchError> {
        let stderr = io::stderr();
        let sent = async {
            self.channel.send(&ToLauncher::Stderr, Some(stderr.as_fd())).await?;
            self.channel.send(&ToLauncher::Start, Some(stdin.as_fd())).await
        };
        sent.await.map_err(LaunchError::Launcher)?;
        // The other process has its own copy.
        drop(stdin);
        match self.answer().await.map_err(LaunchError::Launcher)? {
            FromLauncher::Started { pid } => Ok(Launched { launcher: self, pid }),
            FromLauncher::Failed { error } => Err(LaunchError::Program(error)),
            FromLauncher::Ended { .. } => Err(LaunchError::Launcher(io::Error::other("it answers another request"))),
        }
    }

    async fn answer(&self) -> io::Result<FromLauncher> {
        match self.channel.receive().await? {
            Some((answer, _)) => Ok(answer),
            None => Err(io::Error::other("it has ended")),
        }
    }
}

impl Launched<'_> {
    /// Waits for the end of the process. Returns its exit status and its last error.
    pub(crate) async fn ended(&self) -> Result<String, LaunchError> {
        match self.launcher.answer().await.map_err(LaunchError::Launcher)? {
            FromLauncher::Ended { status, error } => {
                Ok(error.map_or_else(|| status.clone(), |error| format!("{status}: {error}")))
            }
            _ => Err(LaunchError::Launcher(io::Error::other("it answers another request"))),
        }
    }

    /// Kills the process, and returns its last error.
    pub(crate) async fn kill(self) -> Result<String, LaunchError> {
        self.launcher.channel.send(&ToLauncher::Kill, None).await.map_err(LaunchError::Launcher)?;
        self.ended().await
    }

    /// Ends the launcher, not the process.
    pub(crate) async fn release(self) {
        let _ = self.launcher.channel.send(&ToLauncher::Release, None).await;
        if let Some(mut child) = self.launcher.child.take() {
            let _ = timeout(END_TIMEOUT, tokio::task::spawn_blocking(move || child.wait())).await;
        }
    }
}

/// The launcher itself: starts `program` with `arguments` as often as the process at the other end of stdin asks for it, one at
/// a time, until that one has ended.
///
/// # Errors
/// If stdin is no channel.
pub fn launcher(program: &Path, arguments: &[OsString]) -> io::Result<()> {
    // It has no sandbox, so a gate that was taken over must not write to its memory. Where there is Landlock, that forbids it, too.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let end = channel_at_stdin()?.ok_or_else(|| io::Error::other("\"doorward run\" starts this command"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { serve(&Channel::new(end)?, program, arguments).await })
}

async fn serve(channel: &Channel, program: &Path, arguments: &[OsString]) -> io::Result<()> {
    let _ignored = ignore_signals()?;
    let mut children = signal(SignalKind::child())?;
    let (mut running, mut stderr) = (None::<Running>, None);
    let mut helpers = Helpers::new(program, arguments);
    loop {
        let due = helpers.due();
        tokio::select! {
            message = channel.receive() => match message? {
                Some((ToLauncher::Stderr, descriptor)) => stderr = descriptor,
                Some((ToLauncher::Start, Some(stdin))) if running.is_none() => {
                    let answer = match Running::start(program, arguments, stdin, stderr.take()) {
                        Ok(new) => {
                            let pid = new.child.id();
                            running = Some(new);
                            FromLauncher::Started { pid }
                        }
                        Err(error) => FromLauncher::Failed { error: format!("{}: {error}", program.display()) },
                    };
                    channel.send(&answer, None).await?;
                }
                Some((ToLauncher::Kill, _)) => {
                    if let Some(running) = &mut running {
                        let _ = running.child.kill();
                    }
                }
                Some((ToLauncher::Helper { kind }, Some(stdin))) => helpers.start(kind, stdin),
                Some((ToLauncher::Start | ToLauncher::Helper { .. } | ToLauncher::Release, _)) => return Ok(()),
                None => {
                    // The gate has ended before the other process could take over.
                    if let Some(running) = &mut running {
                        let _ = running.child.kill();
                    }
                    return Ok(());
                }
            },
            _ = children.recv() => {}
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
        helpers.look_after();
        if let Some(child) = &mut running
            && let Some(status) = child.child.try_wait()?
            && let Some(running) = running.take()
        {
            let error = running.last_error().await;
            channel.send(&FromLauncher::Ended { status: status.to_string(), error }, None).await?;
        }
    }
}

/// A process that was started.
struct Running {
    child: Child,
    written: Arc<Mutex<Vec<u8>>>,
    all_written: oneshot::Receiver<()>,
}

impl Running {
    fn start(program: &Path, arguments: &[OsString], stdin: OwnedFd, stderr: Option<OwnedFd>) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).env(VARIABLE, "1").stdin(Stdio::from(stdin)).stderr(Stdio::piped());
        for name in OF_ONE_PROCESS {
            command.env_remove(name);
        }
        let mut child = command.spawn()?;
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let (done, all_written) = oneshot::channel();
        if let Some(mut pipe) = child.stderr.take() {
            let kept = Arc::clone(&written);
            thread::spawn(move || {
                let mut to = stderr.map(fs::File::from);
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                    let new = buffer.get(..count).unwrap_or_default();
                    // Who has closed it does not want it.
                    let _ = to.as_mut().map(|to| to.write_all(new));
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.extend_from_slice(new);
                    let excess = kept.len().saturating_sub(KEPT);
                    kept.drain(..excess);
                }
                let _ = done.send(());
            });
        }
        Ok(Self { child, written, all_written })
    }

    async fn last_error(self) -> Option<String> {
        let _ = timeout(END_TIMEOUT, self.all_written).await;
        last_error(&String::from_utf8_lossy(&self.written.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// The last error in a text of several lines, else its last line: each with the lines behind it that are indented.
fn last_error(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = |is: fn(&str) -> bool| lines.iter().rposition(|line| is(line));
    let begin = last(|line| line.starts_with("error:"))
        .or_else(|| last(|line| line.contains("panicked at")))
        .or_else(|| last(|line| !line.starts_with(' ')))
        .unwrap_or_default();
    let error = lines.get(begin..).unwrap_or_default().iter().map(|line| line.trim()).collect::<Vec<_>>().join("; ");
    // Room for the rest of the message.
    let error: String = error.chars().take(1024).collect();
    (!error.is_empty()).then_some(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_error_is_the_last_block_that_says_error() {
        let text = "warning: a\nerror: old\nerror: cannot listen\n  choose another port\n\n";
        assert_eq!(last_error(text).as_deref(), Some("error: cannot listen; choose another port"));
        let panic = "thread 'main' panicked at a.rs:\nfault\nnote: run\n";
        assert_eq!(last_error(panic).as_deref(), Some("thread 'main' panicked at a.rs:; fault; note: run"));
        let mistake = "1 mistake in the configuration:\n\na.toml:1: nonsense\n  unknown key\n  fix: remove it\n\n";
        assert_eq!(last_error(mistake).as_deref(), Some("a.toml:1: nonsense; unknown key; fix: remove it"));
        assert_eq!(last_error(" \n"), None);
    }
}
