//! The commands of a device: `join`, and what reaches the services of a home through its gate.

mod connect;
mod forward;
mod join;
mod renew;
mod usable;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, watch};

use crate::connector::homes::Homes;
use crate::connector::renew::{Renewals, Told};
use crate::connector::source::{Source, SourceError};

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// On a device: join a home, with the .doorward file that its owner has made for this device
    ///
    /// Asks for the password that was shown with the file, and keeps certificate and key in your own folder of settings, where
    /// "doorward connect" and "doorward forward" find them. Says how each service is used. A device can join several homes, and
    /// joining one again brings a renewed certificate.
    #[command(after_help = join::EXAMPLE)]
    Join(join::JoinArgs),
    /// Renew this device's certificate through the gate of a home that it has joined
    ///
    /// The key stays on this device. The owner of the gate has to approve it, unless that is automatic there: run it again, or with
    /// --wait. The certificate in use stays until the gate has taken the new one.
    #[command(after_help = renew::EXAMPLE)]
    Renew(renew::RenewArgs),
    /// Connect standard input and output to a service of a home: for ssh and other programs that cannot show a certificate
    ///
    /// For a device whose file was taken over by "doorward join". If the gate refuses the device, a sentence on stderr says why, and
    /// what to do.
    #[command(after_help = connect::EXAMPLE)]
    Connect(connect::ConnectArgs),
    /// Offer services of a home on local ports: SMB, databases, any program that cannot show a certificate
    ///
    /// Runs until SIGTERM or Ctrl-C. Only programs on this machine can connect to the ports. Each connection is made anew, so that a
    /// laptop can sleep and change its network; new files of the device are used once they are there.
    #[command(after_help = forward::EXAMPLE)]
    Forward(forward::ForwardArgs),
}

/// Runs a command.
pub(super) fn run(command: &Command) -> ExitCode {
    match command {
        Command::Join(args) => join::run(args),
        Command::Renew(args) => renew::run(args),
        Command::Connect(args) => connect::run(args),
        Command::Forward(args) => forward::run(args),
    }
}

/// Which device this is.
#[derive(Args, Debug)]
struct DeviceArg {
    /// Use this file of a device, whose key must not be encrypted, instead of the homes that this user has joined
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl DeviceArg {
    fn source(&self) -> Result<Source, SourceError> {
        match &self.file {
            Some(file) => Source::of_file(file),
            None => Source::of_homes(Homes::open()?),
        }
    }
}

/// Renews certificates in the last third of their lives, as long as the runtime runs. Returns whether it does so at this moment.
fn renews(
    runtime: &Runtime,
    device: &DeviceArg,
    used: Arc<Notify>,
    tell: impl Fn(&Told) + Send + Sync + 'static,
) -> watch::Receiver<bool> {
    // From now on: it is asked before anything was looked at.
    let (busy, is_busy) = watch::channel(true);
    match (&device.file, Homes::open()) {
        (None, Ok(homes)) => {
            runtime.spawn(async move { Renewals::of(homes).keep_looking(&used, busy, tell).await });
        }
        _ => {
            busy.send_replace(false);
        }
    }
    is_busy
}

/// A runtime of one thread: what is waited for is the network.
fn runtime() -> Result<Runtime, String> {
    Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())
}

/// This program, as another one is to run it: its name if the user's PATH leads to it, else its path.
pub(super) fn program() -> String {
    let Ok(own) = env::current_exe() else { return "doorward".to_owned() };
    let in_path = own.file_name().filter(|name| {
        let folders = env::var_os("PATH").unwrap_or_default();
        // The first one is the one that is run.
        let first = env::split_paths(&folders).map(|folder| folder.join(name)).find(|file| file.is_file());
        first.is_some_and(|file| is_same(&file, &own))
    });
    let file = in_path.map_or_else(|| own.to_string_lossy(), |name| name.to_string_lossy());
    file.into_owned()
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}
