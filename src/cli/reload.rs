//! `doorward reload`: the running gate takes its configuration over as it is in the file now.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::asking::Asking;
use super::{exit, failed};
use crate::control::ask::{ReloadError, reload};
use crate::control::{Listening, Reloaded};
use crate::model::text::table;
use crate::reload::policy_report::Change;

/// The options of `doorward reload`.
#[derive(Args, Debug)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    asking: Asking,
}

pub(super) fn run(args: &ReloadArgs) -> ExitCode {
    let socket = match args.asking.socket() {
        Ok(socket) => socket,
        Err(code) => return code,
    };
    match reload(&socket) {
        Ok(reloaded) => {
            for warning in &reloaded.warnings {
                errln!("warning: {warning}");
            }
            args.asking.say(&reloaded, text)
        }
        Err(error @ ReloadError::Refused { .. }) => failed(exit::CONFIG, &error),
        Err(error) => failed(exit::NO_GATE, &error),
    }
}

fn text(reloaded: &Reloaded) -> String {
    let mut out = "The configuration is in force as it is in the file now.\n".to_owned();
    // Writing to a String cannot fail.
    for what in &reloaded.after_restart {
        let _ = writeln!(out, "Only after a restart: {what}");
    }
    for (word, listeners) in [("Listens now", &reloaded.opened), ("Listens no longer", &reloaded.closed)] {
        for Listening { name, address } in listeners {
            let _ = writeln!(out, "{word} on {address} ({name})");
        }
    }
    for (heading, changes) in [
        ("Who may go where he could not before:", &reloaded.gained),
        ("Who may no longer go where he could:", &reloaded.lost),
    ] {
        if !changes.is_empty() {
            let _ = writeln!(out, "{heading}");
        }
        let row = |Change { who, routes }: &Change| [format!("  {who}"), routes.join(", ")];
        out.push_str(&table(&changes.iter().map(row).collect::<Vec<_>>()));
    }
    if reloaded.gained.is_empty() && reloaded.lost.is_empty() {
        out.push_str("Everybody may go where he could before, and nowhere else.\n");
    }
    let _ = writeln!(
        out,
        "Connections that go on: {}. Ended, since they would not be let in any more: {}.",
        reloaded.sessions_kept, reloaded.sessions_cut
    );
    out
}
