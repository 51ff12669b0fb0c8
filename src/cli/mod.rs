//! The command line: one module a command. stdout is data, stderr is for people.

/// Writes a line to stdout. Whoever reads along may have gone, as `head` does; the exit code is for the others.
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

mod asking;
pub mod ca;
mod check;
mod cut;
mod demo;
mod diagnostics;
pub mod exit;
mod explain;
mod help;
pub mod init;
mod known_gate;
mod reload;
mod run;
mod sessions;
mod share;
mod status;
mod why;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::config::{self, checked::Config};

/// The one door to your home network: it opens for devices with a certificate of yours, and for nobody else.
///
/// New here? "doorward demo" shows everything on this machine in one go, and "doorward init" sets up your own.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, disable_help_subcommand = true, after_long_help = help::after_long_help())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show everything at once on this machine: a gate, a device that gets in, strangers that do not
    ///
    /// A little web server stands for a NAS, a gate stands before it, a device with a certificate gets in, and strangers
    /// do not. Nothing on this machine is changed, and nobody outside of it can connect. The gate then stays up to be
    /// tried with curl, until Ctrl-C.
    Demo(demo::DemoArgs),
    /// Write a configuration, its certificates and the first devices into a folder, ready to run
    ///
    /// Every device gets a file to import (.p12) and a password for it. The passwords are shown once and stored nowhere;
    /// a lost one costs nothing, for the same certificate and key are in the folder as .pem files.
    #[command(after_help = init::EXAMPLE)]
    Init(init::InitArgs),
    /// Certificates: let devices in, renew them, shut them out, look into them
    Ca(ca::CaArgs),
    /// Hand a device its certificate over a link that works once
    ///
    /// Shows a code to be scanned and a password. Behind the link are steps for every kind of device, and an archive made
    /// anew under that password, which is stored nowhere. The link is in your home network only, works once and for
    /// minutes, and ends with the command.
    #[command(after_help = share::EXAMPLE)]
    Share(share::ShareArgs),
    /// Run the gate
    ///
    /// One line on stdout for every connection that was turned away or has ended. SIGTERM or SIGINT (Ctrl-C) stops it:
    /// connections that are open then have timeouts.drain (30 seconds) to end; a second signal ends them at once.
    Run(run::RunArgs),
    /// Look for mistakes in the configuration, and show who may go where
    ///
    /// Reads the configuration and every file it names, says what is wrong or odd, and shows who may go where. It opens
    /// no port, so it can be asked while the gate runs.
    Check(check::CheckArgs),
    /// Say whether a certificate would get in, and why, without a connection
    ///
    /// Decides as the gate would decide now, and says what to do about a no. The exit code is 0 for yes and 6 for no.
    #[command(after_help = explain::EXAMPLE)]
    Explain(explain::ExplainArgs),
    /// Say why somebody was turned away, and what to do about it
    ///
    /// Asks the running gate, which remembers the latest refusals: 512 in which a certificate was shown, and 512 in which
    /// none was.
    #[command(after_help = why::EXAMPLE)]
    Why(why::WhyArgs),
    /// Show how the running gate is
    Status(status::StatusArgs),
    /// Show who is in
    ///
    /// One line for each connection that is open now, the newest first, with the bytes it has moved so far.
    Sessions(sessions::SessionsArgs),
    /// Let the running gate take its configuration over as it is in the file now
    ///
    /// The file and all files it names are read anew: certificates, trust, revocation lists. If there is a mistake anywhere,
    /// nothing changes, and you are told every mistake. Connections go on if they would be let in by the new configuration;
    /// the others are ended.
    Reload(reload::ReloadArgs),
    /// End connections that are open: of a device, an address, a route, or all
    #[command(after_help = cut::EXAMPLE)]
    Cut(cut::CutArgs),
    /// Show a page of the manual, or the help of a command
    ///
    /// The manual is part of the program: nothing is read from elsewhere. On a terminal it is shown by the program that
    /// $PAGER names, or less.
    Help(help::HelpArgs),
    /// Write man pages and shell completions, for packages
    #[command(hide = true)]
    Generate(help::GenerateArgs),
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

/// Where the configuration is looked for if nothing is said, in this order.
const DEFAULT_FILES: [&str; 2] = ["doorward.toml", "/etc/doorward/doorward.toml"];

/// Where `doorward init` writes it if nothing else is said.
const FROM_INIT: &str = "doorward/doorward.toml";

impl ConfigArg {
    /// The file, or what to say if there is none.
    fn path(&self) -> Result<PathBuf, String> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        if let Some(file) = DEFAULT_FILES.iter().map(Path::new).find(|file| file.exists()) {
            return Ok(file.to_owned());
        }
        let [here, system] = DEFAULT_FILES;
        let remedy = if Path::new(FROM_INIT).exists() {
            format!("name the one that \"doorward init\" wrote: --config {FROM_INIT}")
        } else {
            "name yours with --config FILE, or have one made: doorward init --help".to_owned()
        };
        Err(format!("there is no {here} in this folder, and no {system}\n  {remedy}"))
    }

    /// Loads it. Mistakes are told on stderr, every one; so are warnings, which do not keep it from being used.
    fn load(&self) -> Result<Config, ExitCode> {
        let file = self.path().map_err(|message| failed(exit::CONFIG, &message))?;
        match config::load(&file) {
            Ok(config) => {
                for warning in &config.warnings {
                    errln!("warning: {}: {}", warning.key, warning.message);
                }
                Ok(config)
            }
            Err(errors) => {
                errln!("{errors}");
                Err(exit::CONFIG.into())
            }
        }
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let mut command = help::with_topics(Cli::command());
    let arguments = help::unnested(std::env::args_os().collect());
    let matches = command.try_get_matches_from_mut(arguments).unwrap_or_else(|error| error.exit());
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit());
    diagnostics::start();
    match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Init(args) => match init::run(&args) {
            Ok(()) => exit::OK.into(),
            Err(error) => failed(error.exit_code(), &error),
        },
        Command::Ca(args) => ca::run(args),
        Command::Share(args) => share::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Why(args) => why::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Sessions(args) => sessions::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Cut(args) => cut::run(&args),
        Command::Help(args) => help::run(&args),
        Command::Generate(args) => help::generate(&args),
    }
}

/// Says what went wrong and gives the code for it.
fn failed(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    errln!("error: {error}");
    code.into()
}
