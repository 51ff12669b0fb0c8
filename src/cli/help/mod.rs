//! `doorward help`: commands, as clap explains them, and the pages of the manual.

mod generate;
mod pager;
#[cfg(feature = "gate")]
mod pages;
#[cfg(feature = "gate")]
mod ticket_key;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::error::ErrorKind;
use clap::{Args, Command, CommandFactory as _};

use super::{Cli, exit};
use crate::manual::{TOPICS, terminal};

pub(super) use generate::{GenerateArgs, run as generate};
#[cfg(feature = "gate")]
pub(super) use pages::pages;

/// The options of `doorward help`.
#[derive(Args, Debug)]
pub(super) struct HelpArgs {
    /// A page of the manual, or a command
    ///
    /// Without one: all of them.
    // The possible values are added by `with_topics`: commands are among them.
    #[arg(index = 1, value_name = "TOPIC", hide_possible_values = true)]
    topic: Option<String>,

    /// A command of that command
    #[arg(index = 2, value_name = "COMMAND", hide = true)]
    rest: Vec<String>,
}

/// What `doorward --help` says below the options.
pub(super) fn after_long_help() -> String {
    let width = TOPICS.iter().map(|topic| topic.name.len()).max().unwrap_or_default();
    let topics = TOPICS.iter().map(|topic| format!("  {:width$}  {}\n", topic.name, topic.summary));
    format!("Manual (doorward help TOPIC):\n{}\n{}", topics.collect::<String>(), exit::HELP)
}

/// The command line with the topics and commands that `doorward help` takes, for suggestions and completions; and with
/// `doorward ca help`, which clap does not add where it does not add `doorward help`.
pub(super) fn with_topics(command: Command) -> Command {
    let topics = TOPICS.iter().map(|topic| PossibleValue::new(topic.name).help(topic.summary));
    let commands = command.get_subcommands().filter(|command| !command.is_hide_set()).map(|command| {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        PossibleValue::new(command.get_name().to_owned()).help(about)
    });
    let values: Vec<PossibleValue> = topics.chain(commands).collect();
    let nested = Command::new("help")
        .about("Print this message or the help of the given subcommand(s)")
        .arg(clap::Arg::new("command").value_name("COMMAND").num_args(0..));
    let command = command.mut_subcommand("help", |help| {
        help.mut_arg("topic", |arg| arg.value_parser(PossibleValuesParser::new(values)))
    });
    // Without the gate there is none.
    if command.find_subcommand("ca").is_none() {
        return command;
    }
    command.mut_subcommand("ca", |ca| ca.subcommand(nested))
}

/// The arguments with `ca help …` as `help ca …`.
pub(super) fn unnested(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if let [_, ca, help, ..] = arguments.as_mut_slice()
        && ca == "ca"
        && help == "help"
    {
        std::mem::swap(ca, help);
    }
    arguments
}

pub(super) fn run(args: &HelpArgs) -> ExitCode {
    let Some(topic) = &args.topic else { return clap_help(&[]) };
    let Some(topic) = TOPICS.iter().find(|known| known.name == topic) else {
        let path: Vec<&str> = std::iter::once(topic).chain(&args.rest).map(String::as_str).collect();
        return clap_help(&path);
    };
    if let Some(extra) = args.rest.first() {
        let message = format!("\"{}\" is a page of the manual: \"{extra}\" cannot follow it", topic.name);
        Cli::command().error(ErrorKind::UnknownArgument, message).exit();
    }
    pager::show(|look| terminal::page(topic, look))
}

/// What `doorward COMMAND --help` says.
fn clap_help(path: &[&str]) -> ExitCode {
    let mut command = with_topics(Cli::command());
    command.build();
    for word in path {
        // A command without commands would ignore the word: clap looks at --help first.
        if !command.has_subcommands() {
            let message = format!("unrecognized subcommand '{word}'");
            command.error(ErrorKind::InvalidSubcommand, message).exit();
        }
        let Some(next) = command.find_subcommand(word) else { break };
        command = next.clone();
    }
    let arguments = std::iter::once("doorward").chain(path.iter().copied()).chain(["--help"]);
    match with_topics(Cli::command()).try_get_matches_from(arguments) {
        Ok(_) => exit::OK.into(),
        Err(answer) => answer.exit(),
    }
}
