//! The command line: one module a command. stdout is data, stderr is for people.

mod advice;
mod check;
mod demo;
pub mod exit;
mod explain;
pub mod init;
mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::{self, checked::Config};

/// The one door to your home network: it opens for devices with a certificate of yours, and for nobody else.
///
/// New here? "doorward demo" shows everything on this machine in one go, and "doorward init" sets up your own.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show everything at once on this machine: a gate, a device that gets in, strangers that do not
    Demo(demo::DemoArgs),
    /// Write a configuration, its certificates and the first devices into a folder, ready to run
    Init(init::InitArgs),
    /// Run the gate
    Run(run::RunArgs),
    /// Look for mistakes in the configuration, and show who may go where
    Check(check::CheckArgs),
    /// Say whether a certificate would get in, and why, without a connection
    Explain(explain::ExplainArgs),
}

/// Where the configuration is.
#[derive(clap::Args, Clone, Debug)]
struct ConfigArg {
    /// The configuration file [default: doorward.toml here, else /etc/doorward/doorward.toml]
    #[arg(long = "config", short, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// How to say something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl ConfigArg {
    fn path(&self) -> PathBuf {
        const HERE: &str = "doorward.toml";
        const SYSTEM: &str = "/etc/doorward/doorward.toml";
        match &self.file {
            Some(file) => file.clone(),
            None if !Path::new(HERE).exists() && Path::new(SYSTEM).exists() => SYSTEM.into(),
            None => HERE.into(),
        }
    }

    /// Loads it. Mistakes are told on stderr, every one; so are warnings, which do not keep it from being used.
    fn load(&self) -> Result<Config, ExitCode> {
        let file = self.path();
        match config::load(&file) {
            Ok(config) => {
                for warning in &config.warnings {
                    eprintln!("warning: {}: {}", warning.key, warning.message);
                }
                Ok(config)
            }
            Err(errors) => {
                eprintln!("{errors}");
                Err(exit::CONFIG.into())
            }
        }
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Init(args) => match init::run(&args) {
            Ok(()) => exit::OK.into(),
            Err(error) => {
                eprintln!("error: {error}");
                error.exit_code().into()
            }
        },
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Explain(args) => explain::run(&args),
    }
}

/// Says what went wrong and gives the code for it.
fn failed(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("error: {error}");
    code.into()
}
