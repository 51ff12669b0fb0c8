//! `doorward renew`: the device's own certificate, through the gate.

use std::process::ExitCode;
use std::thread;

use clap::Args;
use tokio::runtime::Builder;

use crate::cli::{exit, failed};
use crate::connector::fault::Failure;
use crate::connector::homes::{Home, Homes};
use crate::connector::remote::tls_of;
use crate::connector::renew::{Attempt, Key, RenewError, renew};
use crate::model::names::ServerName;
use crate::model::shell::word;

/// Printed below the help text.
pub(crate) const EXAMPLE: &str = "\
Examples:
  doorward renew
  doorward renew home.example --wait
  doorward renew --new-key     makes a new key, and keeps it beside the old one until the owner has decided";

/// The options of `doorward renew`.
#[derive(Args, Debug)]
pub(crate) struct RenewArgs {
    /// The home, if this device has joined several
    #[arg(value_name = "HOME")]
    home: Option<String>,

    /// Make a new key for the new certificate
    #[arg(long)]
    new_key: bool,

    /// Wait until the owner has decided
    #[arg(long)]
    wait: bool,

    /// The server name of the gate's renewal service [default: what the file of this device says]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    server_name: Option<ServerName>,
}

fn parse_name(text: &str) -> Result<ServerName, String> {
    ServerName::parse(text).map_err(|_| "not a host name".to_owned())
}

pub(crate) fn run(args: &RenewArgs) -> ExitCode {
    match find(args.home.as_deref()) {
        Ok((homes, home)) => attempt(&homes, &home, args),
        Err(why) => failed(exit::USAGE, &why),
    }
}

/// The home that is meant.
fn find(name: Option<&str>) -> Result<(Homes, Home), String> {
    let homes = Homes::open().map_err(|error| error.to_string())?;
    if let Some(name) = name {
        let home = homes.get(name).map_err(|error| error.to_string())?;
        let home = home.ok_or_else(|| {
            format!(
                "this device has not joined a home called {}\n  to see those that it has: doorward join --list; the owner of a gate renews a device with: doorward ca renew",
                word(name)
            )
        })?;
        return Ok((homes, home));
    }
    let mut joined = homes.joined().map_err(|error| error.to_string())?;
    if let Some(broken) = joined.broken.first() {
        return Err(broken.to_string());
    }
    match joined.homes.len() {
        0 => {
            Err("this device has not joined a home\n  take the file that its owner gave you: doorward join FILE"
                .to_owned())
        }
        1 => Ok((homes, joined.homes.swap_remove(0))),
        _ => {
            let names: Vec<&str> = joined.homes.iter().map(|home| home.name.as_str()).collect();
            Err(format!("this device has joined several homes\n  say which: {}", names.join(", ")))
        }
    }
}

fn attempt(homes: &Homes, home: &Home, args: &RenewArgs) -> ExitCode {
    let key = if args.new_key { Key::New } else { Key::Same };
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(exit::UNEXPECTED, &error),
    };
    // The user is asked for the PIN of a token before anything else.
    let unlocked = tls_of(&home.bundle).map(|tls| tls.unlock());
    if let Ok(Err(error)) = unlocked {
        return failed(exit::USAGE, &error);
    }
    let mut told = false;
    loop {
        match runtime.block_on(renew(homes, home, key, args.server_name.as_ref())) {
            Ok(Attempt::Renewed { not_after }) => {
                errln!(
                    "The certificate of {} for {} is renewed, valid until {}.",
                    home.bundle.device,
                    home.name,
                    not_after.date()
                );
                return exit::OK.into();
            }
            Ok(Attempt::Waits { again, key }) => {
                if !told {
                    errln!(
                        "The owner of {} has to approve the request: doorward ca approve {}\nThe SHA-256 of its key is {key}.",
                        home.name,
                        word(home.bundle.device.as_str())
                    );
                }
                told = true;
                if !args.wait {
                    errln!("Then run this command again.");
                    return exit::WAITING.into();
                }
                thread::sleep(again);
            }
            Err(error) => return failed(code(&error), &error),
        }
    }
}

fn code(error: &RenewError) -> u8 {
    match error {
        RenewError::NotReached { failure, .. } => match &**failure {
            failure if failure.token().is_some() => exit::USAGE,
            Failure::Unreached(_) => exit::NO_GATE,
            failure if failure.is_passing() => exit::NO_GATE,
            Failure::Gate { .. } | Failure::Token(_) => exit::REFUSED,
        },
        RenewError::Refused { .. } => exit::REFUSED,
        RenewError::NoService { .. }
        | RenewError::Encrypted { .. }
        | RenewError::NewInToken { .. }
        | RenewError::Token(_)
        | RenewError::Unusable(_) => exit::USAGE,
        _ => exit::UNEXPECTED,
    }
}
