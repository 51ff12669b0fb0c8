//! Which gate is to be told of a change, or whether it is proved that none runs.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::FolderArg;
use crate::ca::inventory::Store;
use crate::config;
use crate::config::checked::ControlSocket;
use crate::config::in_use::{is_file_in_use, is_in_use};
use crate::control::ask::{AskError, ask};
use crate::control::{Answer, Request};
use crate::model::names::visible;
use crate::model::shell;

/// A gate that runs.
pub(super) struct Running {
    pub(super) socket: PathBuf,
    /// Its configuration, whatever led to the socket.
    pub(super) config: PathBuf,
    /// Another one runs with the configuration that led to the socket, and cannot be asked: what to do.
    pub(super) other: Option<String>,
}

/// What was found.
pub(super) enum Found {
    /// A gate that answers.
    Gate(Running),
    /// No gate runs with this configuration.
    None(PathBuf),
    /// There is no configuration that would lead to one.
    NoConfiguration,
    /// Whether one runs cannot be seen: why, and what to do.
    Unknown(String),
}

/// Looks for the gate of the configuration that was named, else of the one beside the folder of the authorities, else of the
/// usual one.
pub(super) fn find(args: &FolderArg, store: &Store) -> Found {
    let Some(file) = config_file(args, store) else {
        let service = Path::new(ControlSocket::OF_THE_SERVICE);
        return at(service).map_or_else(Found::Unknown, |gate| gate.map_or(Found::NoConfiguration, Found::Gate));
    };
    let shown = shell::path(&file);
    let Ok(control) = config::load_control(&file) else {
        return Found::Unknown(format!(
            "the gate's socket is not known, for {shown} has mistakes or cannot be read by you\n  doorward check --config \
                 {shown} tells which; then: doorward reload --config {shown}"
        ));
    };
    for socket in control.socket.places() {
        match at(&socket) {
            Ok(Some(gate)) => return Found::Gate(Running { other: other(&gate, &file), ..gate }),
            Ok(None) => {}
            Err(why) => return Found::Unknown(why),
        }
    }
    match is_in_use(&file) {
        Ok(false) => Found::None(file),
        Ok(true) => Found::Unknown(format!(
            "a gate runs with a configuration in the folder of {shown}, and has no control socket here\n  reload it where it \
             runs: systemctl reload doorward, or doorward reload there. For the next time: socket = \"PATH\" under [control], \
             in a folder that both can use"
        )),
        Err(error) => Found::Unknown(format!(
            "it cannot be seen whether a gate runs with {shown}: {error}\n  as the user that runs the gate, or with sudo: \
             doorward reload --config {shown}"
        )),
    }
}

/// Whether another gate than the one that answers uses `file`. Where that one's file cannot be seen, as from outside its
/// container, nothing says that it is another one.
fn other(gate: &Running, file: &Path) -> Option<String> {
    let [own, theirs] = [file, &gate.config].map(|file| file.metadata().ok());
    let (own, theirs) = (own?, theirs?);
    let differs = (own.dev(), own.ino()) != (theirs.dev(), theirs.ino());
    (differs && is_file_in_use(file).is_ok_and(|used| used)).then(|| {
        format!(
            "the gate at {} runs with {}, and another gate runs with {shown}, which has no control socket here\n  reload that one \
             where it runs: systemctl reload doorward, or doorward reload there. For the next time: socket = \"PATH\" under \
             [control] in {shown}, a path of its own",
            gate.socket.display(),
            gate.config.display(),
            shown = file.display()
        )
    })
}

/// The gate at a socket. `None`: no gate is there.
fn at(socket: &Path) -> Result<Option<Running>, String> {
    match socket.symlink_metadata() {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(format!(
                "cannot look at {}: {error}\n  as the user that runs the gate, or with sudo: doorward reload --socket {}",
                socket.display(),
                shell::path(socket)
            ));
        }
    }
    match ask(socket, &Request::Status) {
        Ok(Answer::Status(status)) => {
            Ok(Some(Running { socket: socket.to_owned(), config: status.config.into(), other: None }))
        }
        Ok(Answer::Error(error)) => {
            Err(format!("the gate at {} does not answer: {}", socket.display(), visible(&error, 1024)))
        }
        Ok(_) => Err(AskError::NotUnderstood { socket: socket.to_owned() }.to_string()),
        // Left by a gate that was killed.
        Err(AskError::NoGate { error, .. }) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

fn config_file(args: &FolderArg, store: &Store) -> Option<PathBuf> {
    let beside = || Some(store.path("../doorward.toml")).filter(|file| file.exists());
    let usual = || args.config.path().ok();
    if args.config.file.is_some() { usual() } else { beside().or_else(usual) }.filter(|file| file.exists())
}
