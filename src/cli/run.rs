//! `doorward run`: the gate.

use std::ffi::OsString;
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{ConfigArg, exit, failed};
use crate::acme::{self, AgentError};
use crate::config::in_use::InUse;
use crate::explain::clock::Zone;
use crate::handover::{HandOver, Launcher, launcher};
use crate::model::text::{self, counted};
use crate::sandbox::Sandbox;
use crate::server::service_manager::{Message, tell};
use crate::server::{Inherited, Opened, Requests, Server, StartError, Stopped};
use crate::sys::activation;
use crate::telemetry::log::{self, Log};
use crate::unattended::{self, RenewerError};

/// The options of `doorward run`.
#[derive(Args, Debug)]
pub(super) struct RunArgs {
    #[command(flatten)]
    config: ConfigArg,
}

impl RunArgs {
    /// The configuration file.
    pub(super) fn config(&self) -> Result<PathBuf, String> {
        self.config.path()
    }
}

/// The program that the launcher starts, and its arguments.
#[derive(Args, Debug)]
pub(super) struct LauncherArgs {
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

pub(super) fn launch(LauncherArgs { command }: &LauncherArgs) -> ExitCode {
    let Some((program, arguments)) = command.split_first() else { return exit::USAGE.into() };
    match launcher(Path::new(program), arguments) {
        Ok(()) => exit::OK.into(),
        Err(error) => failed(exit::UNEXPECTED, &error),
    }
}

pub(super) fn run(args: &RunArgs) -> ExitCode {
    // Before there are threads, and before anything is read: the launcher is to have nothing of the gate. And before the sandbox,
    // which the launcher would pass on to the process that replaces this one.
    let (passed, hand_over) = match activation::take().and_then(|passed| Ok((passed, HandOver::of_this_process()?))) {
        Ok(given) => given,
        Err(error) => return failed(exit::START, &error),
    };
    let launcher = Launcher::start();
    // Before anything is read: changes by other commands may come too late for this read.
    let starting = args.config.path().ok().map(|file| InUse::mark(&file));
    let config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let taken = match hand_over.map(HandOver::take).transpose() {
        Ok(taken) => taken,
        Err(error) => return failed(exit::START, &StartError::HandOver(error)),
    };
    let output = match log::Opened::new(&config.log) {
        Ok(output) => output,
        Err(error) => return failed(exit::START, &error),
    };
    let opened = match Opened::new(&config, Inherited { passed, taken, launcher }) {
        Ok(opened) => opened,
        Err(error) => return failed(exit::START, &error),
    };
    // Asked for before the files that say how many processors a container may use are out of reach.
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    // So is the file of the time zone.
    let _ = Zone::system();
    // While this is the only thread: those that are started later inherit what is given up.
    let sandbox = match Sandbox::enter(&config, opened.former_control()) {
        Ok(sandbox) => Arc::new(sandbox),
        Err(error) => return failed(exit::START, &StartError::Sandbox(error)),
    };
    let log = match Log::of(output) {
        Ok(log) => Arc::new(log),
        Err(error) => return failed(exit::START, &error),
    };
    let started = workers_runtime(workers).map_err(StartError::Io).and_then(|runtime| {
        runtime.block_on(async {
            let stop = CancellationToken::new();
            let now = CancellationToken::new();
            let mut server = Server::new(config, Arc::clone(&log), opened, sandbox)?;
            // The server has marked the configuration itself by now.
            drop(starting);
            for warning in server.warnings() {
                errln!("warning: {warning}");
            }
            if let Some(error) = server.control_error() {
                errln!("warning: {error}\n  the gate runs, but commands such as \"doorward why\" cannot reach it");
            }
            if let Some(warning) = server.warning() {
                errln!("warning: {warning}");
            }
            let signals = tokio::task::spawn(signals(stop.clone(), now.clone()).map_err(StartError::Io)?);
            let requests = tokio::task::spawn(requests(server.requests()).map_err(StartError::Io)?);
            tokio::task::spawn(tell_of_drain(server.requests(), stop.clone()));
            server.take_over().await?;
            let stopped = server.run(stop, now).await;
            signals.abort();
            requests.abort();
            Ok(stopped)
        })
    });
    let written = log.finish();
    match started {
        Ok(Stopped { cut: 0 }) => exit::OK.into(),
        Ok(Stopped { cut }) => {
            // If the log is blocked, stderr may be as well, and a blocked write would keep the gate from ending.
            if written {
                errln!("stopped; cut because they did not end in time: {}", counted(cut as u64, "connection"));
            }
            exit::CUT.into()
        }
        Err(error) => failed(exit::START, &error),
    }
}

/// Orders public certificates for the gate at stdin.
pub(super) fn order(args: &RunArgs) -> ExitCode {
    let file = match args.config() {
        Ok(file) => file,
        Err(message) => return failed(exit::CONFIG, &message),
    };
    match acme::agent(&file) {
        Ok(()) => exit::OK.into(),
        Err(error @ AgentError::NoChannel) => failed(exit::USAGE, &error),
        Err(error) => failed(exit::UNEXPECTED, &format!("no public certificate can be ordered: {error}")),
    }
}

/// `doorward renewer`
pub(super) fn renew(args: &RunArgs) -> ExitCode {
    let file = match args.config() {
        Ok(file) => file,
        Err(message) => return failed(exit::CONFIG, &message),
    };
    match unattended::renewer(&file) {
        Ok(()) => exit::OK.into(),
        Err(error @ RenewerError::NoChannel) => failed(exit::USAGE, &error),
        Err(error) => failed(exit::UNEXPECTED, &format!("no certificate can be renewed without the owner: {error}")),
    }
}

fn workers_runtime(workers: usize) -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()
}

pub(super) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// The first signal cancels `stop`, the second one `now`.
pub(super) fn signals(
    stop: CancellationToken,
    now: CancellationToken,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        for token in [stop, now] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            token.cancel();
        }
    })
}

/// Once the gate is stopped, says how long open connections have, and how to cut them at once.
pub(super) async fn tell_of_drain(gate: Requests, stop: CancellationToken) {
    stop.cancelled().await;
    let (connections, drain) = gate.draining().await;
    if connections > 0 {
        // On a thread that nothing waits for: stderr may be blocked.
        std::thread::spawn(move || {
            errln!(
                "stopping: {} may end within {}; a second Ctrl-C (or SIGTERM) cuts what is open",
                counted(connections as u64, "connection"),
                shown(drain)
            );
        });
    }
}

fn shown(drain: Duration) -> String {
    match i64::try_from(drain.as_secs()) {
        Ok(seconds) if drain.subsec_millis() == 0 => text::duration(seconds),
        _ => format!("{} ms", drain.as_millis()),
    }
}

/// Reloads the configuration on each SIGHUP, and has the gate replaced on each SIGUSR2. The result is in the log.
fn requests(gate: Requests) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut upgrade = signal(SignalKind::user_defined2())?;
    Ok(async move {
        let reloads = async {
            while hangup.recv().await.is_some() {
                tell(Message::Reloading).await;
                gate.reload().await;
                tell(Message::Ready).await;
            }
        };
        let upgrades = async {
            while upgrade.recv().await.is_some() {
                gate.upgrade().await;
            }
        };
        tokio::join!(reloads, upgrades);
    })
}
