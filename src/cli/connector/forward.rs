//! `doorward forward`: routes on local addresses.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::{DeviceArg, renews, runtime};
use crate::cli::{exit, failed};
use crate::connector::folder;
use crate::connector::forward::rule::{self, Rule};
use crate::connector::forward::service::service;
use crate::connector::forward::{self, ForwardError, Forwarder};
use crate::connector::homes::Homes;
use crate::connector::platform;
use crate::connector::source::Pinned;

/// The examples below the help text.
pub(in crate::cli) const EXAMPLE: &str = "\
Examples:
  doorward forward                       all routes, on the usual port of each
  doorward forward smb ssh=2222          these, ssh on 127.0.0.1:2222
  doorward forward db=unix:/run/user/1000/db.sock
  doorward forward --install             at every login
  doorward forward --status

A file of routes, ~/.config/doorward/forward.toml or for --config:

  [[forward]]
  route = \"ssh\"
  listen = \"127.0.0.1:2222\"             # or a port, or unix:/PATH; without it, the usual port";

/// The options of `doorward forward`.
#[derive(Args, Debug)]
pub(in crate::cli) struct ForwardArgs {
    /// A route, and where it is offered: a port, ADDRESS:PORT or unix:/PATH [default: all routes, on their usual ports]
    #[arg(value_name = "ROUTE[=LOCAL]")]
    rules: Vec<Rule>,

    #[command(flatten)]
    device: DeviceArg,

    /// A file of routes [default: forward.toml beside the homes, if no route is given]
    #[arg(long, short, value_name = "FILE", conflicts_with = "rules")]
    config: Option<PathBuf>,

    /// Permit addresses that other machines can reach: they use the services without a certificate of their own
    #[arg(long)]
    listen_beyond_loopback: bool,

    /// Write a file that starts this at every login, for systemd or launchd, instead of starting it now
    #[arg(long, conflicts_with = "status")]
    install: bool,

    /// Show what a running "doorward forward" of this user does
    #[arg(long)]
    status: bool,
}

pub(in crate::cli) fn run(args: &ForwardArgs) -> ExitCode {
    if args.status {
        return status();
    }
    let own = settings().filter(|file| args.rules.is_empty() && args.device.file.is_none() && file.exists());
    let rules = match args.config.as_ref().or(own.as_ref()) {
        None => Ok(args.rules.clone()),
        Some(file) => read(file),
    };
    let rules = match rules {
        Ok(rules) => rules,
        Err(error) => return failed(exit::USAGE, &error),
    };
    let source = match args.device.source() {
        Ok(source) => Arc::new(source),
        Err(error) => return failed(exit::USAGE, &error),
    };
    if args.install {
        return match forward::chosen(&source, &rules, args.listen_beyond_loopback) {
            Ok(chosen) => install(&chosen),
            Err(error) => failed(exit::USAGE, &error),
        };
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failed(exit::UNEXPECTED, &error),
    };
    platform::raise_open_files();
    renews(&runtime, &args.device, source.used(), |told| errln!("{}", told.text));
    let code = runtime.block_on(async {
        let log = Arc::new(|line: &str| errln!("{line}"));
        match Forwarder::bind(source, &rules, args.listen_beyond_loopback, log) {
            Ok(forwarder) => {
                forwarder.run(folder::status().as_deref(), platform::asked_to_stop()).await;
                exit::OK.into()
            }
            Err(error @ ForwardError::Listen(_)) => failed(exit::START, &error),
            Err(error) => failed(exit::USAGE, &error),
        }
    });
    runtime.shutdown_background();
    code
}

fn read(file: &Path) -> Result<Vec<Rule>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| failed(&error))?;
    rule::parse(&text, file)
}

/// The file of routes that is read where nothing else is said: beside the homes.
fn settings() -> Option<PathBuf> {
    let homes = Homes::open().ok()?;
    homes.folder().parent().map(|folder| folder.join("forward.toml"))
}

fn status() -> ExitCode {
    let Some(socket) = folder::status() else {
        let variable = folder::RUNTIME;
        return failed(
            exit::NO_GATE,
            &format!("{variable} is not set in the environment: its folder is where \"doorward forward\" answers"),
        );
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failed(exit::UNEXPECTED, &error),
    };
    match runtime.block_on(forward::status(&socket)) {
        Ok(text) => {
            outln!("{}", text.trim_end());
            exit::OK.into()
        }
        Err(error) => {
            failed(exit::NO_GATE, &format!("no \"doorward forward\" of this user runs ({}: {error})", socket.display()))
        }
    }
}

/// Writes the file that starts the same command at every login, with these rules.
fn install(chosen: &[(Rule, Pinned)]) -> ExitCode {
    let home = std::env::home_dir().filter(|home| home.is_absolute());
    let program = std::env::current_exe();
    let (Some(home), Ok(program)) = (home, program) else {
        return failed(exit::UNEXPECTED, &"the home folder of this user is not known: $HOME");
    };
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let config = config.unwrap_or_else(|| home.join(".config"));
    let arguments = match installed_arguments(chosen) {
        Ok(arguments) => arguments,
        Err(error) => return failed(exit::USAGE, &error),
    };
    let Some(service) = service(std::env::consts::OS, &home, &config, &program, &arguments) else {
        return failed(
            exit::USAGE,
            &"this system has neither systemd nor launchd: start \"doorward forward\" yourself\n  on Windows: with a shortcut in the \
              folder that Win+R, shell:startup opens",
        );
    };
    let is_there = service.path.exists();
    let written = std::fs::create_dir_all(service.path.parent().unwrap_or(&home))
        .and_then(|()| std::fs::write(&service.path, &service.text));
    if let Err(error) = written {
        return failed(exit::UNEXPECTED, &format!("{}: {error}", service.path.display()));
    }
    let path = service.path.display();
    let commands = if is_there {
        errln!("replaced: {path}\nstart it anew, and at every login:");
        service.restart
    } else {
        errln!("written: {path}\nstart it now and at every login:");
        service.start
    };
    commands.iter().for_each(|line| outln!("{line}"));
    errln!("undo that:");
    service.stop.iter().for_each(|line| errln!("{line}"));
    exit::OK.into()
}

/// The arguments of this command without `--install`. Paths are made whole: a service starts in another folder. Routes have their
/// home: another that is joined later may have one of the same name.
fn installed_arguments(chosen: &[(Rule, Pinned)]) -> Result<Vec<String>, String> {
    let lasting = |text: &str| {
        let rule: Rule = text.parse().ok()?;
        let (_, pinned) = chosen.iter().find(|(other, _)| *other == rule)?;
        Some(format!("{}{}", pinned.lasting, text.strip_prefix(&rule.route)?))
    };
    let mut arguments = vec!["forward".to_owned()];
    let mut is_path = false;
    for argument in std::env::args_os().skip(2) {
        let text = argument.into_string().map_err(|argument| format!("{} is not UTF-8", argument.display()))?;
        let absolute = |path: &str| std::path::absolute(path).map(|path| path.display().to_string());
        let whole = match text.split_once('=') {
            _ if is_path => absolute(&text),
            Some((option @ ("--file" | "--config"), path)) => absolute(path).map(|path| format!("{option}={path}")),
            _ => Ok(lasting(&text).unwrap_or_else(|| text.clone())),
        };
        is_path = ["--file", "--config", "-c"].contains(&text.as_str());
        if text != "--install" {
            arguments.push(whole.map_err(|error| format!("{text}: {error}"))?);
        }
    }
    Ok(arguments)
}
