//! `doorward cut`: ends open connections.

use std::process::ExitCode;

use clap::Args;

use super::control_args::ControlArgs;
use super::sessions::table;
use crate::control::{Answer, Request, Sessions};
use crate::sessions::selector::{InvalidSessionSelector, SessionSelector};

/// What stands below the help text.
pub(super) const EXAMPLE: &str = "\
Examples:
  doorward cut 12                  the connection with this id (from doorward sessions or the log)
  doorward cut alice-phone         every connection of this device
  doorward cut sha256:2951d183     of the certificate whose fingerprint starts with these digits
  doorward cut 203.0.113.9         from this address (IPv6: from its /64 network)
  doorward cut route:ssh           every connection of this route
  doorward cut --all               every connection

A device with a valid certificate can reconnect at once. To keep it out, add its fingerprint to deny in the configuration:
that cuts its connections as well.";

/// The options of `doorward cut`.
#[derive(Args, Debug)]
pub(super) struct CutArgs {
    #[command(flatten)]
    connections: Connections,

    #[command(flatten)]
    control: ControlArgs,
}

/// Which connections.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Connections {
    /// A connection id, an IP address, a fingerprint (sha256:...) or its first digits, a device name, or route:NAME
    #[arg(value_name = "SELECTOR", value_parser = checked)]
    selector: Option<String>,

    /// Every connection
    #[arg(long)]
    all: bool,
}

/// Refuses a text that selects nothing before the gate is asked.
fn checked(text: &str) -> Result<String, InvalidSessionSelector> {
    SessionSelector::parse(text).map(|_| text.to_owned())
}

pub(super) fn run(args: &CutArgs) -> ExitCode {
    let expected = |answer| match answer {
        Answer::Cut(cut) => Some(cut),
        _ => None,
    };
    // clap accepts exactly one of the two.
    let request = match &args.connections {
        Connections { selector: Some(selector), .. } => Request::Cut { selector: selector.clone() },
        Connections { selector: None, all: _ } => Request::CutAll,
    };
    args.control.run(&request, expected, text)
}

fn text(cut: &Sessions) -> String {
    match cut.open {
        0 => "No open connection matches; nothing was cut.\n".to_owned(),
        1 => format!("1 connection was cut:\n{}", table(cut)),
        count => format!("{count} connections were cut:\n{}", table(cut)),
    }
}
