//! The command line: one module a command. stdout is data, stderr is for people.

/// Writes a line to stdout. A closed pipe, as after `head`, is no error.
macro_rules! outln {
    ($($text:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stdout().lock(), format_args!("{}\n", format_args!($($text)*)));
    }};
}

/// The same to stderr.
macro_rules! errln {
    ($($text:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stderr().lock(), format_args!("{}\n", format_args!($($text)*)));
    }};
}

mod corrections;
pub mod exit;
mod help;

#[cfg(feature = "connector")]
mod connector;

#[cfg(feature = "gate")]
pub mod ca;
#[cfg(feature = "gate")]
mod certificate;
#[cfg(feature = "gate")]
mod check;
#[cfg(feature = "gate")]
mod control_args;
#[cfg(feature = "gate")]
mod cut;
#[cfg(feature = "gate")]
mod demo;
#[cfg(feature = "gate")]
mod diagnostics;
#[cfg(feature = "gate")]
mod explain;
#[cfg(feature = "gate")]
mod gate;
#[cfg(feature = "gate")]
mod history;
#[cfg(feature = "gate")]
pub mod init;
#[cfg(feature = "gate")]
mod install;
#[cfg(feature = "gate")]
mod notify;
#[cfg(feature = "gate")]
mod reload;
#[cfg(feature = "gate")]
mod run;
#[cfg(feature = "gate")]
mod services;
#[cfg(feature = "gate")]
mod sessions;
#[cfg(feature = "gate")]
mod share;
#[cfg(feature = "gate")]
mod status;
#[cfg(feature = "gate")]
mod upgrade;
#[cfg(feature = "gate")]
mod why;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

#[cfg(feature = "gate")]
pub use self::gate::Format;
#[cfg(feature = "gate")]
use self::gate::{ConfigArg, CredentialsArg, FROM_INIT, folder_of_init, in_place_of};

#[cfg_attr(
    feature = "gate",
    doc = "A mutual-TLS gate for your home network: it admits devices with a certificate you issued, and refuses all other clients.",
    doc = "",
    doc = "New here? \"doorward demo\" shows it on this machine, and \"doorward init\" sets up your own."
)]
#[cfg_attr(
    not(feature = "gate"),
    doc = "Reaches services of a home through its Doorward gate: for devices. The gate is not part of this build.",
    doc = "",
    doc = "Begin with the .doorward file that the owner of the home made for this device: \"doorward join FILE\"."
)]
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, disable_help_subcommand = true, after_long_help = help::after_long_help())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[cfg(feature = "gate")]
    #[command(flatten)]
    Gate(Box<gate::Command>),
    #[cfg(feature = "connector")]
    #[command(flatten)]
    Device(connector::Command),
    /// Show a page of the manual, or the help of a command
    ///
    /// The manual is part of the program: nothing is read from elsewhere. On a terminal it is shown by the program that
    /// $PAGER names, or less.
    Help(help::HelpArgs),
    #[cfg_attr(
        feature = "gate",
        doc = "Make a key file for session tickets that several gates share; and man pages and shell completions"
    )]
    #[cfg_attr(not(feature = "gate"), doc = "Make man pages and shell completions")]
    Generate(help::GenerateArgs),
}

/// Runs the command that the command line names.
pub fn main() -> ExitCode {
    let mut command = help::with_topics(Cli::command());
    let arguments = help::unnested(std::env::args_os().collect());
    #[cfg(feature = "gate")]
    let arguments = match init::answered(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return failed(exit::USAGE, &error),
    };
    let matches = command
        .try_get_matches_from_mut(arguments.clone())
        .unwrap_or_else(|error| corrections::corrected(error, &mut command, &arguments).exit());
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit());
    match cli.command {
        #[cfg(feature = "gate")]
        Command::Gate(command) => gate::run(*command),
        #[cfg(feature = "connector")]
        Command::Device(command) => connector::run(&command),
        Command::Help(args) => help::run(&args),
        Command::Generate(args) => help::generate(&args),
    }
}

/// Prints an error and returns its exit code.
fn failed(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    errln!("error: {error}");
    code.into()
}
