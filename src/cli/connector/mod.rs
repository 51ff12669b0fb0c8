//! The commands of a device: what reaches the services of a home through its gate.

pub(super) mod connect;
pub(super) mod forward;

use std::path::PathBuf;

use clap::Args;

use crate::connector::source::Source;

/// Which device this is.
#[derive(Args, Debug)]
struct DeviceArg {
    /// Use this .doorward file instead of the homes that were joined; its key must not be encrypted
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl DeviceArg {
    fn source(&self) -> Result<Source, String> {
        match &self.file {
            Some(file) => Source::of_file(file),
            None => Err("no file of a device was given: --file FILE".to_owned()),
        }
    }
}

/// A runtime of one thread: what is waited for is the network.
fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())
}
