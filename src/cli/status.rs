//! `doorward status`: how the running gate is.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::asking::Asking;
use crate::control::{Answer, Request, Status};
use crate::explanation::lasting;

/// The options of `doorward status`.
#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    asking: Asking,
}

pub(super) fn run(args: &StatusArgs) -> ExitCode {
    let expected = |answer| match answer {
        Answer::Status(status) => Some(status),
        _ => None,
    };
    args.asking.run(&Request::Status, expected, text)
}

fn text(status: &Status) -> String {
    let running = lasting(i64::try_from(status.seconds).unwrap_or(i64::MAX));
    let mut out = if status.draining {
        format!("The gate is being stopped: {} connections are still in.\n\n", status.sessions)
    } else {
        format!("The gate has been running for {running}.\n\n")
    };
    let mut fact = |what: &str, text: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {what:<13}  {text}");
    };
    fact("version", &status.version);
    fact("process", &status.pid.to_string());
    fact("configuration", &status.config);
    for listener in &status.listeners {
        fact("listens on", &format!("{} ({})", listener.address, listener.name));
    }
    if let Some(metrics) = &status.metrics {
        fact("metrics", &format!("http://{metrics}/metrics"));
    }
    fact(
        "connections",
        &format!("{} came, {} were turned away, {} are in now", status.accepted, status.rejected, status.sessions),
    );
    for route in &status.routes {
        let (names, backends) = (route.server_names.join(", "), route.backends.join(", then "));
        fact("route", &format!("{}: {names} leads to {backends}; {} in now", route.name, route.sessions));
    }
    if status.rejected > 0 {
        out.push_str("\nWhy the last one was turned away: doorward why\n");
    }
    out
}
