//! `doorward certificate`: the certificate that the gate shows, its renewal, and the choice between an own and a public one.

mod renew;
mod seed;
mod status;
mod switch;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::control_args::ControlArgs;

/// Printed below the help text.
pub(super) const EXAMPLE: &str = "\
Example, for a gate whose devices trust an authority of yours:
  doorward certificate use public";

/// The options of `doorward certificate`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct CertificateArgs {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    control: ControlArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Order the public certificate now, and wait for the outcome
    ///
    /// The gate does so by itself in time. The exit code is 12 if no certificate is issued; the one in use stays in use.
    Renew(renew::RenewArgs),
    /// Use a public certificate, or one of an authority of your own
    ///
    /// Changes which certificate the configuration asks for, keeps the section before in comments, and has the gate reload. Open
    /// connections stay open. With "public", the gate shows its certificate until the public one is issued, and devices need no
    /// change. With "own", each device must trust your authority.
    Use(switch::UseArgs),
}

pub(super) fn run(args: &CertificateArgs) -> ExitCode {
    match &args.command {
        None => status::run(&args.control),
        Some(Command::Renew(args)) => renew::run(args),
        Some(Command::Use(args)) => switch::run(args),
    }
}
