//! Finds the running gate that uses the folder, or proves that there is none.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::FolderArg;
use super::folder::config_of;
use crate::ca::inventory::Store;
use crate::config;
use crate::config::checked::ControlSocket;
use crate::config::in_use::{is_file_in_use, is_in_use};
use crate::control::client::{AskError, ask};
use crate::control::{Answer, Request};
use crate::model::names::visible;
use crate::model::shell;

/// A running gate that answers on its control socket.
pub(super) struct RunningGate {
    pub(super) socket: PathBuf,
    /// The configuration that it says it runs with.
    pub(super) config: PathBuf,
    /// Why another gate, which cannot be asked, may be concerned as well, and what to do.
    pub(super) other_gate: Option<String>,
}

/// What was found.
pub(super) enum GateSearch {
    /// A gate that answers.
    Running(RunningGate),
    /// No gate runs with this configuration.
    NotRunning(PathBuf),
    /// There is no configuration that would lead to a gate.
    NoConfiguration,
    /// It is not known whether a gate runs: why, and what to do.
    Unknown(String),
}

/// Looks for the gate of the configuration that `--config` names, else of the gate that was installed from the folder of the
/// authorities, else of the configuration beside that folder, else of the default one.
pub(super) fn find(args: &FolderArg, store: &Store) -> GateSearch {
    let Some(file) = config_file(args, store) else {
        return match gate_at(Path::new(ControlSocket::OF_THE_SERVICE)) {
            Ok(Some(gate)) => GateSearch::Running(gate),
            Ok(None) => GateSearch::NoConfiguration,
            Err(why) => GateSearch::Unknown(why),
        };
    };
    let shown = shell::path(&file);
    let Ok(control) = config::load_control(&file) else {
        return GateSearch::Unknown(format!(
            "the gate's control socket is not known: {shown} has errors or is not readable\n  to see them: doorward check \
             --config {shown}; then: doorward reload --config {shown}"
        ));
    };
    for socket in control.socket.places() {
        match gate_at(&socket) {
            Ok(Some(gate)) => {
                return GateSearch::Running(RunningGate { other_gate: other_gate(&gate, &file), ..gate });
            }
            Ok(None) => {}
            Err(why) => return GateSearch::Unknown(why),
        }
    }
    match is_in_use(&file) {
        Ok(false) => GateSearch::NotRunning(file),
        Ok(true) => GateSearch::Unknown(format!(
            "a gate runs with a configuration in the folder of {shown}, but has no control socket here\n  reload it where \
             it runs: systemctl reload doorward, or doorward reload. To avoid this: socket = \"PATH\" under [control], in \
             a folder that both can use"
        )),
        Err(error) => GateSearch::Unknown(format!(
            "cannot tell whether a gate runs with {shown}: {error}\n  as the user that runs the gate, or with sudo: \
             doorward reload --config {shown}"
        )),
    }
}

/// Whether another gate than the one that answers uses `file`. If that one's file is not visible, as from outside its
/// container, nothing indicates another gate.
fn other_gate(gate: &RunningGate, file: &Path) -> Option<String> {
    let [own, theirs] = [file, &gate.config].map(|file| file.metadata().ok());
    let (own, theirs) = (own?, theirs?);
    let differs = (own.dev(), own.ino()) != (theirs.dev(), theirs.ino());
    (differs && is_file_in_use(file).is_ok_and(|used| used)).then(|| {
        format!(
            "the gate at {} runs with {}, and another gate runs with {shown}, which has no control socket here\n  reload \
             that one where it runs: systemctl reload doorward, or doorward reload. To avoid this: socket = \"PATH\" under \
             [control] in {shown}, a path of its own",
            gate.socket.display(),
            gate.config.display(),
            shown = file.display()
        )
    })
}

/// The gate that listens on a control socket, if there is one.
fn gate_at(socket: &Path) -> Result<Option<RunningGate>, String> {
    match socket.symlink_metadata() {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(format!(
                "cannot access {}: {error}\n  as the user that runs the gate, or with sudo: doorward reload --socket {}",
                socket.display(),
                shell::path(socket)
            ));
        }
    }
    match ask(socket, &Request::Status) {
        Ok(Answer::Status(status)) => {
            Ok(Some(RunningGate { socket: socket.to_owned(), config: status.config.into(), other_gate: None }))
        }
        Ok(Answer::Error(error)) => {
            Err(format!("the gate at {} reports an error: {}", socket.display(), visible(&error, 1024)))
        }
        Ok(_) => Err(AskError::NotUnderstood { socket: socket.to_owned() }.to_string()),
        // Left behind by a gate that was killed.
        Err(AskError::NoGate { error, .. }) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// The configuration of the gate of these authorities, if it is here.
pub(super) fn config_file(args: &FolderArg, store: &Store) -> Option<PathBuf> {
    let default = || args.config.path().ok();
    let file = if args.config.file.is_some() {
        default()
    } else {
        Some(config_of(store)).filter(|file| file.exists()).or_else(default)
    };
    file.filter(|file| file.exists())
}
