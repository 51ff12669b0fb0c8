//! `doorward run`: the gate.

use std::io;
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{ConfigArg, exit, failed};
use crate::config::in_use::InUse;
use crate::model::text::counted;
use crate::reload::{Reloader, Trigger};
use crate::sandbox::Sandbox;
use crate::server::service_manager::{Message, tell};
use crate::server::{Opened, Server, StartError, Stopped};
use crate::telemetry::log::{self, Log};

/// The options of `doorward run`.
#[derive(Args, Debug)]
pub(super) struct RunArgs {
    #[command(flatten)]
    config: ConfigArg,
}

pub(super) fn run(args: &RunArgs) -> ExitCode {
    // Before anything is read: changes by other commands may come too late for this read.
    let starting = args.config.path().ok().map(|file| InUse::mark(&file));
    let config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let output = match log::Opened::new(&config.log) {
        Ok(output) => output,
        Err(error) => return failed(exit::START, &error),
    };
    let opened = match Opened::new(&config) {
        Ok(opened) => opened,
        Err(error) => return failed(exit::START, &error),
    };
    // Asked for before the files that say how many processors a container may use are out of reach.
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    // While this is the only thread: those that are started later inherit what is given up.
    let sandbox = match Sandbox::enter(&config) {
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
            let server = Server::new(config, Arc::clone(&log), opened, sandbox)?;
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
            let hangups = tokio::task::spawn(hangups(server.reloader()).map_err(StartError::Io)?);
            let stopped = server.run(stop, now).await;
            signals.abort();
            hangups.abort();
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

/// Reloads the configuration on each SIGHUP. The result is in the log.
fn hangups(reloader: Reloader) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        while hangup.recv().await.is_some() {
            tell(Message::Reloading).await;
            let _ = reloader.reload(Trigger::Signal).await;
            tell(Message::Ready).await;
        }
    })
}
