//! A gate that cannot start because it is running already.

use std::io::ErrorKind;
use std::path::Path;

use super::StartError;
use crate::config::checked::ControlSocket;
use crate::config::in_use;
use crate::control::client::ask;
use crate::control::{self, Answer, Request};
use crate::listener::BindError;

/// `error`, or that the gate of this configuration runs already, if that is the cause.
pub(super) fn explained(error: StartError, file: &Path, control: &ControlSocket) -> StartError {
    let what = match &error {
        StartError::Bind(BindError { address, error, .. }) if error.kind() == ErrorKind::AddrInUse => {
            format!("listen on {address}")
        }
        StartError::Control { socket, error: control::BindError::InUse } => {
            format!("create the control socket {}", socket.display())
        }
        _ => return error,
    };
    match running(file, control) {
        Some(pid) => StartError::Running { pid, file: file.to_owned(), what },
        None => error,
    }
}

/// The process of the gate that runs with the configuration `file`.
fn running(file: &Path, control: &ControlSocket) -> Option<u32> {
    let same =
        |other: &str| file.canonicalize().ok().is_some_and(|file| Path::new(other).canonicalize().ok() == Some(file));
    let answering = control.places().into_iter().find_map(|socket| match ask(&socket, &Request::Status) {
        Ok(Answer::Status(status)) if same(&status.config) => Some(status.pid),
        _ => None,
    });
    answering.or_else(|| in_use::process(file))
}
