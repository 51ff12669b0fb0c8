//! Processes beside the gate that do one thing for it, as the launcher starts them, and again if one has ended unexpectedly: one
//! for each receiver of `[notify]`, the ACME agent, and what renews certificates without the owner.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::channel::Channel;
use super::requests::{HelperKind, OF_ONE_PROCESS, ToLauncher};
use super::taken::VARIABLE;

/// The first delay before it is started again, which doubles with each end.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// The longest one.
const LAST_DELAY: Duration = Duration::from_secs(300);
/// One that has run so long was all right.
const STEADY: Duration = Duration::from_secs(600);

/// Has the launcher start helpers.
#[derive(Clone, Debug)]
pub(crate) struct Starter(Arc<Channel>);

impl Starter {
    pub(super) fn new(channel: Channel) -> Self {
        Self(Arc::new(channel))
    }

    /// Starts a helper with `stdin` in the place of the one of the same kind, which ends when its channel is closed.
    pub(crate) async fn start(&self, kind: HelperKind, stdin: OwnedFd) -> io::Result<()> {
        self.0.send(&ToLauncher::Helper { kind }, Some(stdin.as_fd())).await
    }
}

/// The helpers of a launcher.
pub(super) struct Helpers {
    program: PathBuf,
    /// Of the gate, behind its command.
    arguments: Vec<OsString>,
    running: Vec<Helper>,
    /// Those that were replaced and have not ended yet.
    replaced: Vec<Child>,
}

struct Helper {
    kind: HelperKind,
    stdin: OwnedFd,
    child: Option<Child>,
    started: Instant,
    delay: Duration,
    /// When it is started again.
    again: Option<Instant>,
}

impl Helpers {
    pub(super) fn new(program: &Path, arguments: &[OsString]) -> Self {
        let arguments = arguments.iter().skip(1).cloned().collect();
        Self { program: program.to_owned(), arguments, running: Vec::new(), replaced: Vec::new() }
    }

    pub(super) fn start(&mut self, kind: HelperKind, stdin: OwnedFd) {
        if let Some(index) = self.running.iter().position(|helper| helper.kind == kind) {
            self.replaced.extend(self.running.swap_remove(index).child);
        }
        let started = Instant::now();
        let mut new = Helper { kind, stdin, child: None, started, delay: FIRST_DELAY, again: None };
        new.run(&self.program, &self.arguments);
        self.running.push(new);
    }

    /// When a helper is to be started again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.running.iter().filter_map(|helper| helper.again).min()
    }

    /// Collects those that have ended, and starts again those that are due.
    pub(super) fn look_after(&mut self) {
        self.replaced.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        for helper in &mut self.running {
            helper.look_after(&self.program, &self.arguments);
        }
        self.running.retain(|helper| helper.child.is_some() || helper.again.is_some());
    }
}

impl Helper {
    fn run(&mut self, program: &Path, arguments: &[OsString]) {
        (self.started, self.again) = (Instant::now(), None);
        let mut command = Command::new(program);
        command.args(self.kind.command().iter().map(OsStr::new)).args(arguments).env_remove(VARIABLE);
        for name in OF_ONE_PROCESS {
            command.env_remove(name);
        }
        // It writes to stderr only.
        command.stdout(Stdio::null());
        let spawned = self.stdin.try_clone().and_then(|stdin| command.stdin(Stdio::from(stdin)).spawn());
        match spawned {
            Ok(child) => self.child = Some(child),
            Err(_) => self.later(),
        }
    }

    fn later(&mut self) {
        if self.started.elapsed() >= STEADY {
            self.delay = FIRST_DELAY;
        }
        self.again = Some(Instant::now() + self.delay);
        self.delay = (2 * self.delay).min(LAST_DELAY);
    }

    fn look_after(&mut self, program: &Path, arguments: &[OsString]) {
        if let Some(child) = &mut self.child {
            match child.try_wait() {
                Ok(None) => {}
                // The gate has closed the channel.
                Ok(Some(status)) if status.success() => self.child = None,
                Ok(Some(_)) | Err(_) => {
                    self.child = None;
                    self.later();
                }
            }
        } else if self.again.is_some_and(|again| again <= Instant::now()) {
            self.run(program, arguments);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::requests::ReceiverKind;
    use super::*;
    use crate::handover::pair;

    /// Runs a program in the place of a gate's own until it has ended `times` times, on a clock that does not wait.
    async fn ends(program: &str, times: usize) -> (Helpers, Vec<Duration>) {
        let (_gate, stdin) = pair().expect("a pair");
        let mut helpers = Helpers::new(Path::new(program), &[]);
        helpers.start(HelperKind::Notifier(ReceiverKind::Webhook), stdin);
        let mut delays = Vec::new();
        while delays.len() < times && !helpers.running.is_empty() {
            if let Some(due) = helpers.due() {
                delays.push(due - Instant::now());
                tokio::time::advance(due - Instant::now()).await;
            }
            helpers.look_after();
            std::thread::yield_now();
        }
        (helpers, delays)
    }

    #[tokio::test(start_paused = true)]
    async fn helper_that_ends_is_started_again_later_and_later() {
        let (_, delays) = ends("/bin/false", 11).await;
        let seconds: Vec<u64> = delays.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        let (_, delays) = ends("/nowhere", 2).await;
        assert_eq!(delays.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn helper_that_has_done_its_work_is_not_started_again() {
        let (helpers, delays) = ends("/bin/true", 1).await;
        assert!(helpers.running.is_empty() && delays.is_empty());
    }
}
