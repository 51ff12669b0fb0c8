//! The commands of a device: `join`, and what reaches the services of a home through its gate.

pub(super) mod connect;
pub(super) mod forward;
pub(super) mod join;
pub(super) mod renew;
mod usable;

use std::env;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::connector::homes::Homes;
use crate::connector::renew::keep_renewing;
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

/// Renews certificates in the last third of their lives, as long as the runtime runs.
fn renews(runtime: &tokio::runtime::Runtime, device: &DeviceArg, tell: impl Fn(&str) + Send + Sync + 'static) {
    if let (None, Ok(homes)) = (&device.file, Homes::open()) {
        runtime.spawn(keep_renewing(homes, tell));
    }
}

/// A runtime of one thread: what is waited for is the network.
fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())
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
