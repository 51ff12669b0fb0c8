//! The commands of a device: `join`, and what reaches the services of a home through its gate.

pub(super) mod connect;
pub(super) mod forward;
pub(super) mod join;
pub(super) mod renew;
mod usable;

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, watch};

use crate::connector::homes::Homes;
use crate::connector::renew::{Renewals, Told};
use crate::connector::source::{Source, SourceError};

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
