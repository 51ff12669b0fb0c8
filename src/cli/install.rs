//! `doorward install`: the gate as a service of this machine.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{Format, exit, failed, folder_of_init, help};
use crate::config::checked::ControlSocket;
use crate::config::load_control;
use crate::control::client::ask;
use crate::control::{Answer, Request};
use crate::install::{Error, Plan, Removal, Wanted, configuration, plan, removal};
use crate::model::text::counted;
use crate::reload::expectations;

/// The end of the help text.
pub(super) const EXAMPLE: &str = "\
Example, where \"doorward init\" was run:
  sudo doorward install --dry-run
  sudo doorward install";

/// The options of `doorward install`.
#[derive(Args, Debug)]
pub(super) struct InstallArgs {
    /// The folder that "doorward init" wrote [default: the one that was installed from before, else "doorward" here; without
    /// either, an existing /etc/doorward]
    #[arg(value_name = "FOLDER", conflicts_with = "uninstall")]
    folder: Option<PathBuf>,

    /// Print the steps, and take none
    #[arg(long)]
    dry_run: bool,

    /// Replace an installed configuration that differs from that of the folder
    #[arg(long, conflicts_with = "uninstall")]
    replace_config: bool,

    /// Copy the authorities' keys and the devices' files to /etc/doorward as well. "doorward ca" then works there, and the
    /// folder is of no more use
    #[arg(long, conflicts_with = "uninstall")]
    with_authority: bool,

    /// Have systemd hand the gate's own keys to the service when it starts (LoadCredential=): their files are root's, and the
    /// gate's user may not read them. A gate that is installed in this way remains so
    #[arg(long, conflicts_with = "uninstall")]
    load_credential: bool,

    /// Stop the gate and remove what was installed, except for the configuration
    #[arg(long)]
    uninstall: bool,

    /// With --uninstall: remove the configuration as well, and the gate's user
    #[arg(long, requires = "uninstall")]
    purge: bool,

    /// Install to the system in this folder, an image for example. Nothing is started there
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    root: PathBuf,

    /// Output format: text for people on stderr, or JSON on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

#[derive(Serialize)]
struct Report<'a> {
    /// Whether the steps were taken.
    done: bool,
    steps: Vec<String>,
    notes: &'a [String],
    next: &'a [String],
}

pub(super) fn run(args: &InstallArgs) -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        return failed(
            exit::UNEXPECTED,
            &"installing changes the system, and looking at what is installed reads the gate's key: both need root\n  sudo \
              doorward install; to see its steps first: sudo doorward install --dry-run",
        );
    }
    match install(args) {
        Ok(()) => exit::OK.into(),
        Err(error) => {
            let code = match &error {
                Error::Usage(_) => exit::USAGE,
                Error::Config(_) => exit::CONFIG,
                _ => exit::UNEXPECTED,
            };
            failed(code, &error)
        }
    }
}

fn install(args: &InstallArgs) -> Result<(), Error> {
    let pages = help::pages().map_err(|error| Error::Usage(format!("cannot write man pages: {error}")))?;
    let plan = if args.uninstall {
        let pages = pages.into_iter().map(|page| page.path).collect();
        removal(&Removal { root: args.root.clone(), purge: args.purge, pages })?
    } else {
        plan(&Wanted {
            folder: args.folder.as_deref().map(folder_of_init),
            root: args.root.clone(),
            replace_config: args.replace_config,
            with_authority: args.with_authority,
            load_credential: args.load_credential,
            pages,
            gate: (args.root == Path::new("/")).then(running).flatten(),
            accept: expectations::check,
        })?
    };
    let text = args.format == Format::Text;
    let show = |step: &crate::install::Step| {
        if text {
            errln!("{step}");
        }
    };
    if args.dry_run {
        plan.steps.iter().for_each(show);
    } else {
        plan.take(show)?;
    }
    if text {
        tell(&plan, args)
    } else {
        print_json(&plan, args)
    }
    Ok(())
}

/// The process of the installed gate that accepts connections, if it answers.
fn running() -> Option<u32> {
    let file = configuration();
    let places =
        load_control(&file).map_or_else(|_| ControlSocket::usual_places(&file), |control| control.socket.places());
    places.into_iter().find_map(|socket| match ask(&socket, &Request::Status) {
        // Another gate may have the socket.
        Ok(Answer::Status(status)) if Path::new(&status.config) == file => Some(status.pid),
        _ => None,
    })
}

/// What is said after the steps.
fn tell(plan: &Plan, args: &InstallArgs) {
    for note in &plan.notes {
        errln!("note: {note}");
    }
    let steps = counted(plan.steps.len() as u64, "step");
    match (plan.steps.is_empty(), args.dry_run) {
        (true, _) if args.uninstall => errln!("Nothing is installed."),
        (true, _) => errln!("Everything is installed already. Nothing was changed."),
        (false, true) => errln!("{steps}. None was taken."),
        (false, false) => errln!("{steps}, all done."),
    }
    for next in &plan.next {
        errln!("next: {next}");
    }
}

fn print_json(plan: &Plan, args: &InstallArgs) {
    let steps = plan.steps.iter().map(ToString::to_string).collect();
    let report = Report { done: !args.dry_run, steps, notes: &plan.notes, next: &plan.next };
    // A report of texts can always be written as JSON.
    if let Ok(json) = serde_json::to_string_pretty(&report) {
        outln!("{json}");
    }
}
