//! `doorward cut`: ends connections that are in.

use std::process::ExitCode;

use clap::Args;

use super::asking::Asking;
use super::sessions::table;
use crate::control::{Answer, Request, Sessions};
use crate::sessions::selector::{InvalidWhom, Whom};

/// What stands below the help text.
pub(super) const EXAMPLE: &str = "\
Examples:
  doorward cut 12                  the connection with that id (doorward sessions, the log)
  doorward cut alice-phone         every connection of that device
  doorward cut sha256:2951d183     of the certificate whose fingerprint begins so
  doorward cut 203.0.113.9         from that address (of an IPv6 address: its network, the first 64 bits)
  doorward cut route:ssh           every connection of that route
  doorward cut --all               every connection

It keeps nobody out: whoever has a valid certificate can come back at once. To keep a device out, put its fingerprint under
deny in the configuration: that cuts it as well.";

/// The options of `doorward cut`.
#[derive(Args, Debug)]
pub(super) struct CutArgs {
    #[command(flatten)]
    whom: WhomArg,

    #[command(flatten)]
    asking: Asking,
}

/// Which connections.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct WhomArg {
    /// The id of a connection, an IP address, a fingerprint or the beginning of one (sha256:…), the name of a device, or
    /// route: and the name of a route
    #[arg(value_name = "WHOM", value_parser = meant)]
    whom: Option<String>,

    /// Every connection
    #[arg(long)]
    all: bool,
}

/// Said here already if it means nobody.
fn meant(text: &str) -> Result<String, InvalidWhom> {
    Whom::parse(text).map(|_| text.to_owned())
}

pub(super) fn run(args: &CutArgs) -> ExitCode {
    let expected = |answer| match answer {
        Answer::Cut(cut) => Some(cut),
        _ => None,
    };
    // One of the two is given: clap sees to that.
    let request = match &args.whom {
        WhomArg { whom: Some(whom), .. } => Request::Cut { whom: whom.clone() },
        WhomArg { whom: None, all: _ } => Request::CutEverybody,
    };
    args.asking.run(&request, expected, text)
}

fn text(cut: &Sessions) -> String {
    match cut.open {
        0 => "Nobody is in who is meant by that: nothing was cut.\n".to_owned(),
        1 => format!("1 connection was cut:\n{}", table(cut)),
        count => format!("{count} connections were cut:\n{}", table(cut)),
    }
}
