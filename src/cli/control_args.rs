//! The options of the commands that use the control socket, and the exchange with the gate.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{ConfigArg, Format, exit, failed};
use crate::config;
use crate::config::checked::ControlSocket;
use crate::control::client::ask;
use crate::control::{Answer, Request};
use crate::model::names::visible;

/// Which gate, and the output format.
#[derive(Args, Debug)]
pub(super) struct ControlArgs {
    /// The gate's control socket [default: the one in its configuration]
    #[arg(long, value_name = "PATH", conflicts_with = "file")]
    socket: Option<PathBuf>,

    #[command(flatten)]
    config: ConfigArg,

    /// Output format
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

impl ControlArgs {
    /// Sends a request and prints the answer: as JSON, or as `text` formats it.
    pub(super) fn run<T: Serialize>(
        &self,
        request: &Request,
        expected: impl FnOnce(Answer) -> Option<T>,
        text: impl FnOnce(&T) -> String,
    ) -> ExitCode {
        let socket = match self.socket() {
            Ok(socket) => socket,
            Err(code) => return code,
        };
        let answer = match ask(&socket, request) {
            Ok(Answer::Error(error)) => {
                let error = visible(&error, 1024);
                return failed(
                    exit::NO_GATE,
                    &format!("the gate at {} refused the request: {error}", socket.display()),
                );
            }
            Ok(answer) => answer,
            Err(error) => return failed(exit::NO_GATE, &error),
        };
        let Some(answer) = expected(answer) else {
            return failed(exit::UNEXPECTED, &"the gate sent the answer to another request");
        };
        self.print(&answer, text)
    }

    /// Prints an answer: as JSON, or as `text` formats it.
    pub(super) fn print<T: Serialize>(&self, answer: &T, text: impl FnOnce(&T) -> String) -> ExitCode {
        match self.format {
            // Escaped, so that no answer can control the terminal.
            Format::Text => {
                for line in text(answer).lines() {
                    outln!("{}", visible(line, LINE_MAX));
                }
            }
            Format::Json => match serde_json::to_string_pretty(answer) {
                Ok(json) => outln!("{json}"),
                Err(error) => return failed(exit::UNEXPECTED, &error),
            },
        }
        exit::OK.into()
    }

    /// Whether the gate is the one of a configuration, rather than the one at a socket.
    pub(super) const fn is_of_configuration(&self) -> bool {
        self.socket.is_none()
    }

    /// The configuration.
    pub(super) const fn config(&self) -> &ConfigArg {
        &self.config
    }

    /// The path of the control socket.
    pub(super) fn socket(&self) -> Result<PathBuf, ExitCode> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let file = match self.config.path() {
            Ok(file) => file,
            // Without a configuration: the socket of the systemd service, if there is one.
            Err(_) if !is_missing(Path::new(ControlSocket::OF_THE_SERVICE)) => {
                return Ok(ControlSocket::OF_THE_SERVICE.into());
            }
            Err(message) => return Err(failed(exit::NO_GATE, &message)),
        };
        let places = match config::load_control(&file) {
            Ok(control) => control.socket.places(),
            Err(errors) => {
                // A gate that is running has loaded the file before it was broken, and tells these errors itself.
                let unreadable = errors.iter().all(|error| error.key.is_empty());
                let usual = ControlSocket::usual_places(&file);
                if !unreadable || usual.iter().all(|place| is_missing(place)) {
                    errln!("{errors}");
                    return Err(exit::CONFIG.into());
                }
                usual
            }
        };
        let found = places.iter().find(|place| !is_missing(place)).or_else(|| places.first()).cloned();
        found.ok_or_else(|| {
            let message = format!(
                "the configuration {} has no control socket\n  add these lines to it, and restart the \
                 gate:\n    [control]\n    socket = \"auto\"",
                file.display()
            );
            failed(exit::NO_GATE, &message)
        })
    }
}

/// Whether there is no such file. One without permission counts as present: connecting gives the error for that.
fn is_missing(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// The longest line of an answer, in characters.
const LINE_MAX: usize = 4096;
