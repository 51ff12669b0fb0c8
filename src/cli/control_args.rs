//! What the commands that ask a running gate have in common.

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

/// Which gate, and how to say it.
#[derive(Args, Debug)]
pub(super) struct ControlArgs {
    /// The gate's control socket [default: the one that its configuration names]
    #[arg(long, value_name = "PATH", conflicts_with = "file")]
    socket: Option<PathBuf>,

    #[command(flatten)]
    config: ConfigArg,

    /// How to say it
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

impl ControlArgs {
    /// Asks, and says the answer: as JSON, or as `text` puts it.
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
                return failed(exit::NO_GATE, &format!("the gate at {} does not answer: {error}", socket.display()));
            }
            Ok(answer) => answer,
            Err(error) => return failed(exit::NO_GATE, &error),
        };
        let Some(answer) = expected(answer) else {
            return failed(exit::UNEXPECTED, &"the gate answered another question than the one that was asked");
        };
        self.print(&answer, text)
    }

    /// Says an answer: as JSON, or as `text` puts it.
    pub(super) fn print<T: Serialize>(&self, answer: &T, text: impl FnOnce(&T) -> String) -> ExitCode {
        match self.format {
            // Whatever answers, nothing of it takes the terminal over.
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

    /// Where the gate is to be asked.
    pub(super) fn socket(&self) -> Result<PathBuf, ExitCode> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let file = match self.config.path() {
            Ok(file) => file,
            // Nobody here can say where it is, but it is where it usually is.
            Err(_) if !is_missing(Path::new(ControlSocket::OF_THE_SERVICE)) => {
                return Ok(ControlSocket::OF_THE_SERVICE.into());
            }
            Err(message) => return Err(failed(exit::NO_GATE, &message)),
        };
        let control = config::load_control(&file).map_err(|errors| {
            errln!("{errors}");
            ExitCode::from(exit::CONFIG)
        })?;
        let places = control.socket.places();
        let there = places.iter().find(|place| !is_missing(place)).or_else(|| places.first()).cloned();
        there.ok_or_else(|| {
            let message = format!(
                "by its configuration {} the gate has no control socket, so it cannot be asked\n  add these lines to it, \
                 and restart the gate:\n    [control]\n    socket = \"auto\"",
                file.display()
            );
            failed(exit::NO_GATE, &message)
        })
    }
}

/// Whether there is no such file. One that may not be seen is there: whoever asks for it is told that.
fn is_missing(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// The longest line of an answer, in characters.
const LINE_MAX: usize = 4096;
