//! `doorward connect`: a route on standard input and output.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use time::OffsetDateTime;
use tokio::time::timeout;

use super::{DeviceArg, renews, runtime};
use crate::cli::{exit, failed};
use crate::connector::fault::{Failure, Fault};
use crate::connector::renew::Told;
use crate::connector::session::LocalFault;
use crate::connector::stdio::{self, Ended};

/// How long a renewal that has begun holds the end of a session up.
const RENEWAL: Duration = Duration::from_secs(5);

/// The examples below the help text.
pub(in crate::cli) const EXAMPLE: &str = "\
Examples:
  ssh -o ProxyCommand='doorward connect %h' alice@ssh.home.example
  doorward connect ssh             the route ssh, if one home alone has it
  doorward connect ssh.home.example

The exit code is 0 when both sides have ended in order, 1 if standard input or output failed, 6 if the gate refuses this device,
8 if the gate cannot be reached, and 13 if the connection was cut, so that bytes may be missing.";

/// The options of `doorward connect`.
#[derive(Args, Debug)]
pub(in crate::cli) struct ConnectArgs {
    /// The route: its name, NAME.HOME, or its server name
    #[arg(value_name = "ROUTE")]
    route: String,

    #[command(flatten)]
    device: DeviceArg,
}

pub(in crate::cli) fn run(args: &ConnectArgs) -> ExitCode {
    let opened = args.device.source().and_then(|source| Ok((source.remote(&source.pin(&args.route)?)?, source.used())));
    let (remote, used) = match opened {
        Ok(opened) => opened,
        Err(error) => return failed(exit::USAGE, &error),
    };
    if let Err(error) = remote.tls.unlock() {
        return failed(exit::USAGE, &error);
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failed(exit::UNEXPECTED, &error),
    };
    // What a program like ssh shows of this one is for refusals, and for what will be one soon.
    let tell = |told: &Told| {
        if told.is_pressing {
            errln!("{}", told.text);
        }
    };
    let mut renews = renews(&runtime, &args.device, used, tell);
    let ended = runtime.block_on(async {
        let ended = stdio::run(&remote.endpoint, &remote.tls).await;
        if matches!(ended, Ended::Orderly) {
            // Sessions may all be shorter than a renewal.
            let _ = timeout(RENEWAL, renews.wait_for(|busy| !busy)).await;
        }
        ended
    });
    // A thread may still wait for standard input, and a name for its address.
    runtime.shutdown_background();
    let now = OffsetDateTime::now_utc();
    match ended {
        Ended::Orderly => exit::OK.into(),
        Ended::Failed(failure) => {
            let code = match &failure {
                Failure::Token(_) | Failure::Gate { fault: Fault::Token(_), .. } => exit::USAGE,
                Failure::Unreached(_) => exit::NO_GATE,
                Failure::Gate { fault: Fault::Unanswered, .. } => exit::LOST,
                Failure::Gate { .. } if failure.is_passing() => exit::NO_GATE,
                Failure::Gate { .. } => exit::REFUSED,
            };
            failed(code, &remote.facts.sentence(&failure, now))
        }
        Ended::Cut(address, fault) => failed(exit::LOST, &remote.facts.cut(address, &fault, now)),
        Ended::Local(LocalFault::Read(error)) => {
            failed(exit::UNEXPECTED, &format!("cannot read standard input: {error}"))
        }
        Ended::Local(LocalFault::Write(error)) => {
            failed(exit::UNEXPECTED, &format!("cannot write to standard output: {error}"))
        }
    }
}
