//! `doorward generate`: man pages and completions, for those who package the program; key files for several gates.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Subcommand};
use clap_complete::{Shell, generate_to};

#[cfg(feature = "gate")]
use super::ticket_key::{self, TicketKeyArgs};
use crate::cli::{Cli, exit, failed};
use crate::manual::{TOPICS, roff};

/// The options of `doorward generate`.
#[derive(Args, Debug)]
pub(in crate::cli) struct GenerateArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make key files for session tickets that several gates share (tickets.keys), or replace them
    #[cfg(feature = "gate")]
    TicketKey(TicketKeyArgs),
    /// Man pages: a page a command, doorward-COMMAND(1), and a page a topic, doorward-TOPIC(7)
    Man(Folder),
    /// Completions for bash, zsh and fish
    Completions(Folder),
}

#[derive(Args, Debug)]
struct Folder {
    /// Where to write them; made if it does not exist
    folder: PathBuf,
}

pub(in crate::cli) fn run(args: &GenerateArgs) -> ExitCode {
    let (done, folder) = match &args.what {
        What::Man(Folder { folder }) => (man(folder), folder),
        What::Completions(Folder { folder }) => (completions(folder), folder),
        #[cfg(feature = "gate")]
        What::TicketKey(args) => return ticket_key::run(args),
    };
    match done {
        Ok(()) => exit::OK.into(),
        Err(error) => failed(exit::UNEXPECTED, &format!("cannot write to {}: {error}", folder.display())),
    }
}

pub(super) fn man(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    // What else --help says stands in sections of its own here.
    let mut command = Cli::command().after_long_help(None::<&str>);
    command.build();
    clap_mangen::generate_to(command.clone(), folder)?;
    let main = folder.join("doorward.1");
    let written = fs::read_to_string(&main)?;
    fs::write(&main, written + &roff::ending(&exit::codes()))?;
    for topic in TOPICS {
        fs::write(folder.join(format!("doorward-{}.7", topic.name)), roff::page(topic))?;
    }
    Ok(())
}

pub(super) fn completions(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut command = super::with_topics(Cli::command());
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, "doorward", folder)?;
    }
    Ok(())
}
