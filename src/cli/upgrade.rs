//! `doorward upgrade`: the running gate is replaced by a new process of its program.

use std::process::ExitCode;

use clap::Args;

use super::control_args::ControlArgs;
use super::{exit, failed};
use crate::control::Upgraded;
use crate::control::client::{UpgradeError, upgrade};
use crate::model::text::counted;

/// The options of `doorward upgrade`.
#[derive(Args, Debug)]
pub(super) struct UpgradeArgs {
    #[command(flatten)]
    control: ControlArgs,
}

pub(super) fn run(args: &UpgradeArgs) -> ExitCode {
    let socket = match args.control.socket() {
        Ok(socket) => socket,
        Err(code) => return code,
    };
    match upgrade(&socket) {
        Ok(upgraded) => args.control.print(&upgraded, text),
        Err(error @ UpgradeError::Failed(_)) => failed(exit::START, &error),
        Err(error) => failed(exit::NO_GATE, &error),
    }
}

fn text(Upgraded { pid, version, earlier_pid, earlier_sessions, earlier_until }: &Upgraded) -> String {
    let open = match earlier_sessions {
        0 => format!("Process {earlier_pid} ends."),
        count => format!(
            "{} with process {earlier_pid} until {}, or until {earlier_until}.",
            match count {
                1 => "1 open connection stays".to_owned(),
                _ => format!("{} stay", counted(*count as u64, "open connection")),
            },
            if *count == 1 { "it ends" } else { "they end" },
        ),
    };
    format!("Process {pid} (version {version}) accepts connections now.\n{open}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_one_are_singular() {
        let mut upgraded = Upgraded {
            pid: 2,
            version: "1.0".to_owned(),
            earlier_pid: 1,
            earlier_sessions: 0,
            earlier_until: "2026-11-28T12:00:00Z".to_owned(),
        };
        for (sessions, end) in [
            (0, "Process 1 ends.\n"),
            (1, "1 open connection stays with process 1 until it ends, or until 2026-11-28T12:00:00Z.\n"),
            (2, "2 open connections stay with process 1 until they end, or until 2026-11-28T12:00:00Z.\n"),
        ] {
            upgraded.earlier_sessions = sessions;
            let shown = text(&upgraded);
            assert!(shown.ends_with(end), "{shown}");
        }
    }
}
