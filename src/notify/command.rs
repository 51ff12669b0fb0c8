//! Runs a program for each message.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::failure::{Failure, LIMIT};
use super::message::Notice;
use crate::model::names::visible;

/// How much of what it writes to stderr is read, in bytes.
const STDERR_MAX: u64 = 4096;

/// How much of that is shown, in characters.
const SHOWN_MAX: usize = 200;

/// How long the rest of that is waited for when it has ended.
const PIPES_TIMEOUT: Duration = Duration::from_secs(1);

/// A program and its arguments.
#[derive(Clone, Debug)]
pub(crate) struct Program(Vec<String>);

impl Program {
    /// From the configuration.
    pub(crate) fn new(command: &[String]) -> Self {
        Self(command.to_vec())
    }

    /// Its path.
    pub(super) fn name(&self) -> String {
        self.0.first().cloned().unwrap_or_default()
    }

    /// Runs it with a message, as JSON at stdin and in its environment.
    pub(super) async fn deliver(&self, notice: &Notice) -> Result<String, Failure> {
        let Some((program, arguments)) = self.0.split_first() else { return Err(Failure::permanent("no program")) };
        let json = notice.json();
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        for field in ["event", "time", "domain", "subject", "title", "message", "priority"] {
            let value = json.get(field).and_then(|value| value.as_str()).unwrap_or_default();
            command.env(format!("DOORWARD_{}", field.to_ascii_uppercase()), value);
        }
        // A group of its own, so that its children are killed with it.
        let child = command.process_group(0).kill_on_drop(true).spawn();
        let mut child = child.map_err(|error| Failure::passing(format!("it cannot be started: {error}")))?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let run = timeout(LIMIT, finish(&mut child, json.to_string())).await;
        run.unwrap_or_else(|_| {
            if let Some(group) = group {
                let _ = kill_process_group(group, Signal::KILL);
            }
            Err(Failure::passing(format!("it was killed: it ran longer than {} seconds", LIMIT.as_secs())))
        })
    }
}

async fn finish(child: &mut Child, json: String) -> Result<String, Failure> {
    let mut pipes = JoinSet::new();
    if let Some(mut stdin) = child.stdin.take() {
        pipes.spawn(async move {
            // It may not read it.
            let _ = stdin.write_all(json.as_bytes()).await;
            Vec::new()
        });
    }
    if let Some(mut stderr) = child.stderr.take() {
        pipes.spawn(async move {
            let mut text = Vec::new();
            let _ = (&mut stderr).take(STDERR_MAX).read_to_end(&mut text).await;
            // The rest is read as well: it would wait for that.
            let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
            text
        });
    }
    let status = child.wait().await.map_err(|error| Failure::passing(error.to_string()))?;
    if status.success() {
        return Ok(status.to_string());
    }
    let mut text = Vec::new();
    // What it has left behind may hold its stderr open.
    let _ = timeout(PIPES_TIMEOUT, async {
        while let Some(read) = pipes.join_next().await {
            text.extend(read.unwrap_or_default());
        }
    })
    .await;
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    let last = visible(last, SHOWN_MAX);
    Err(Failure::passing(if last.is_empty() { status.to_string() } else { format!("{status}: {last}") }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::notice::NoticeEvent;
    use crate::notify::message::tests::notice;

    fn script(text: &str) -> Program {
        Program::new(&["/bin/sh", "-c", text].map(str::to_owned))
    }

    #[tokio::test]
    async fn program_gets_json_at_stdin_and_an_environment() {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("out");
        let program = script(&format!(
            "{{ cat; echo; echo \"$DOORWARD_EVENT $DOORWARD_SUBJECT $DOORWARD_PRIORITY $DOORWARD_DOMAIN\"; }} > {}",
            out.display()
        ));
        let notice = notice(NoticeEvent::Impostor, "phone", 1);
        assert_eq!(program.deliver(&notice).await.as_deref(), Ok("exit status: 0"));
        let written = std::fs::read_to_string(&out).expect("it has run");
        let (json, environment) = written.split_once('\n').expect("two lines");
        assert_eq!(serde_json::from_str::<serde_json::Value>(json).expect("JSON"), notice.json());
        assert_eq!(environment, "impostor phone urgent home.example\n");
    }

    #[tokio::test]
    async fn failure_has_the_status_and_the_last_line() {
        let failure =
            script("echo one >&2; echo two >&2; exit 3").deliver(&notice(NoticeEvent::Impostor, "p", 1)).await;
        assert_eq!(failure, Err(Failure::passing("exit status: 3: two")));
        let missing = Program::new(&["/nowhere/program".to_owned()]);
        let failure = missing.deliver(&notice(NoticeEvent::Impostor, "p", 1)).await.expect_err("no program");
        assert!(failure.error.starts_with("it cannot be started: "), "{failure:?}");
    }

    #[tokio::test]
    async fn program_that_does_not_end_is_killed_with_its_children() {
        let folder = tempfile::tempdir().expect("a folder");
        let (pid, fifo) = (folder.path().join("pid"), folder.path().join("fifo"));
        // A child that holds stderr open, and a program that ignores a polite request.
        let program = script(&format!(
            "trap '' TERM; sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; mkfifo {1}; cat {1}",
            pid.display(),
            fifo.display()
        ));
        let failure = program.deliver(&notice(NoticeEvent::Impostor, "p", 1)).await.expect_err("it does not end");
        assert!(failure.error.starts_with("it was killed"), "{failure:?}");
        let child = std::fs::read_to_string(&pid).expect("its child");
        let process = format!("/proc/{}/stat", child.trim());
        let ended = || match std::fs::read_to_string(&process) {
            // A zombie that init has not collected.
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        while !ended() {
            tokio::task::yield_now().await;
        }
    }
}
