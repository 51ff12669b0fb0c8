//! Has a program of the owner change a record: `COMMAND… add|remove NAME VALUE`.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use super::Change;
use crate::model::names::visible;

/// How long it may run.
const LIMIT: Duration = Duration::from_secs(120);

/// How much of what it writes to stderr is read, in bytes.
const STDERR_MAX: u64 = 4096;

/// How much of that is shown, in characters.
const SHOWN_MAX: usize = 200;

/// How long the rest of that is waited for when it has ended.
const PIPE_TIMEOUT: Duration = Duration::from_secs(1);

/// Where programs are looked for, if the gate was started without a PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program and its first arguments.
pub(super) struct Program {
    command: Vec<String>,
    limit: Duration,
}

/// Ends a program that still runs, with its children.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Program {
    pub(super) fn new(command: &[String]) -> Self {
        Self { command: command.to_vec(), limit: LIMIT }
    }

    /// Runs it for a record.
    pub(super) async fn change(&self, change: Change, name: &str, value: &str) -> Result<(), String> {
        let Some((program, arguments)) = self.command.split_first() else { return Err("no program".to_owned()) };
        let verb = if change == Change::Add { "add" } else { "remove" };
        let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from(PATH));
        let mut command = Command::new(program);
        // The rest of the environment may hold secrets of the gate.
        command.args(arguments).args([verb, name, value]).env_clear().env("PATH", path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // A group of its own, so that its children are killed with it.
        let child = command.process_group(0).kill_on_drop(true).spawn();
        let mut child = child.map_err(|error| format!("{program} cannot be started: {error}"))?;
        let mut group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
        let ended = match timeout(self.limit, finish(&mut child)).await {
            Ok(ended) => {
                // Another process may have its number by now.
                group.0 = None;
                ended
            }
            Err(_) => Err(format!("was killed: it ran longer than {} seconds", self.limit.as_secs())),
        };
        ended.map_err(|error| format!("{program} {verb}: {error}"))
    }
}

async fn finish(child: &mut Child) -> Result<(), String> {
    let mut text = Vec::new();
    let mut stderr = child.stderr.take();
    // Read while it runs: a full pipe would hold it up.
    let status = {
        let reading = read(stderr.as_mut(), &mut text);
        tokio::pin!(reading);
        tokio::select! {
            status = child.wait() => {
                // What it has left behind may hold its stderr open.
                let _ = timeout(PIPE_TIMEOUT, &mut reading).await;
                status
            }
            () = &mut reading => child.wait().await,
        }
    };
    let status = status.map_err(|error| error.to_string())?;
    if status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    let last = visible(last, SHOWN_MAX);
    Err(if last.is_empty() { status.to_string() } else { format!("{status}: {last}") })
}

/// The beginning of what it writes; the rest is read and forgotten.
async fn read(stderr: Option<&mut ChildStderr>, text: &mut Vec<u8>) {
    let Some(stderr) = stderr else { return };
    let _ = (&mut *stderr).take(STDERR_MAX).read_to_end(text).await;
    let _ = tokio::io::copy(stderr, &mut tokio::io::sink()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell, with enough time to start on a busy machine.
    fn script(text: &str) -> Program {
        Program { command: ["/bin/sh", "-c", text].map(str::to_owned).to_vec(), limit: Duration::from_secs(5) }
    }

    fn has_ended(pid: &str) -> bool {
        match std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())) {
            // A zombie that init has not collected.
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        }
    }

    #[tokio::test]
    async fn program_that_does_not_end_is_killed_with_its_children() {
        let folder = tempfile::tempdir().expect("a folder");
        let pid = folder.path().join("pid");
        let program =
            script(&format!("trap '' TERM; sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", pid.display()));
        let error = program.change(Change::Add, "name", "value").await.expect_err("it does not end");
        assert_eq!(error, "/bin/sh add: was killed: it ran longer than 5 seconds");
        let child = std::fs::read_to_string(&pid).expect("its child");
        while !has_ended(&child) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn program_ends_with_the_order_that_runs_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let pid = folder.path().join("pid");
        let mut program = script(&format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", pid.display()));
        program.limit = Duration::from_secs(1000);
        let started = async {
            while !pid.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            ended = program.change(Change::Add, "name", "value") => panic!("{ended:?}"),
            () = started => {}
        }
        let child = std::fs::read_to_string(&pid).expect("its child");
        while !has_ended(&child) {
            tokio::task::yield_now().await;
        }
    }
}
