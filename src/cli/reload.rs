//! `doorward reload`: the running gate reloads its configuration.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use super::control_args::ControlArgs;
use super::{exit, failed};
use crate::control::client::{ReloadError, reload};
use crate::control::{Listening, Reloaded};
use crate::model::text::table;
use crate::reload::policy_report::Change;

/// The options of `doorward reload`.
#[derive(Args, Debug)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    control: ControlArgs,

    /// If no gate answers on a control socket, send this process SIGHUP: for the unit, whose configuration may have no control socket
    #[arg(long, value_name = "PID", hide = true)]
    or_signal: Option<i32>,
}

pub(super) fn run(args: &ReloadArgs) -> ExitCode {
    let code = ask(args);
    let Some(process) = args.or_signal.and_then(Pid::from_raw).filter(|_| code == exit::NO_GATE.into()) else {
        return code;
    };
    match kill_process(process, Signal::HUP) {
        Ok(()) => {
            errln!("SIGHUP was sent instead. The log has the result of the reload.");
            exit::OK.into()
        }
        Err(error) => failed(exit::NO_GATE, &format!("cannot send SIGHUP to {}: {error}", process.as_raw_nonzero())),
    }
}

/// Asks on the control socket.
fn ask(args: &ReloadArgs) -> ExitCode {
    let socket = match args.control.socket() {
        Ok(socket) => socket,
        Err(code) => return code,
    };
    match reload(&socket) {
        Ok(reloaded) => {
            for warning in &reloaded.warnings {
                errln!("warning: {warning}");
            }
            args.control.print(&reloaded, text)
        }
        Err(error @ ReloadError::Refused { .. }) => failed(exit::CONFIG, &error),
        Err(error) => failed(exit::NO_GATE, &error),
    }
}

fn text(reloaded: &Reloaded) -> String {
    let mut out = "The configuration was reloaded.\n".to_owned();
    // Writing to a String cannot fail.
    for key in &reloaded.after_restart {
        let _ = writeln!(out, "Takes effect after a restart: {key}");
    }
    for (word, listeners) in [("Opened", &reloaded.opened), ("Closed", &reloaded.closed)] {
        for Listening { name, address } in listeners {
            let _ = writeln!(out, "{word} listener {name} on {address}");
        }
    }
    for (heading, changes) in [("Access gained:", &reloaded.gained), ("Access lost:", &reloaded.lost)] {
        if !changes.is_empty() {
            let _ = writeln!(out, "{heading}");
        }
        let row = |Change { client, routes }: &Change| [format!("  {client}"), routes.join(", ")];
        out.push_str(&table(&changes.iter().map(row).collect::<Vec<_>>()));
    }
    if reloaded.gained.is_empty() && reloaded.lost.is_empty() {
        out.push_str("Access is unchanged.\n");
    }
    let _ = writeln!(
        out,
        "Open connections kept: {}. Cut, because they are no longer admitted: {}.",
        reloaded.sessions_kept, reloaded.sessions_cut
    );
    out
}
