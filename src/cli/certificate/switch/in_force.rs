//! Writes the configuration, and has a running gate load it.

use std::path::Path;

use super::{Before, Refused};
use crate::cli::certificate::status::is_not_running;
use crate::cli::exit;
use crate::config::{self, START_ANEW};
use crate::control::client::{ReloadError, reload};
use crate::files::{self, Access, Existing, NewFile};

/// Whether a running gate uses the new text.
#[derive(Debug)]
pub(super) enum InForce {
    Yes {
        kept: usize,
        cut: usize,
    },
    NotRunning,
    /// Why not, and what to do.
    No(String),
}

/// Writes the configuration, and has a running gate load it. If that refuses it, the text before is put back.
pub(super) fn put_in_force(text: &str, before: &Before) -> Result<InForce, Refused> {
    write(&before.file, text)?;
    let sockets = config::load_control(&before.file).map(|control| control.socket.places()).unwrap_or_default();
    if sockets.is_empty() {
        return Ok(InForce::No("its configuration has no control socket\n  a gate that watches its files uses the change by now; else: systemctl reload doorward".to_owned()));
    }
    for socket in sockets {
        match reload(&socket) {
            Ok(reloaded) => return Ok(InForce::Yes { kept: reloaded.sessions_kept, cut: reloaded.sessions_cut }),
            Err(ReloadError::Ask(error)) if is_not_running(&error) => {}
            // The file is right, and this process cannot read it.
            Err(ReloadError::Refused { errors, .. }) if errors.iter().all(|error| error.contains(START_ANEW)) => {
                return Ok(InForce::No(format!("{}\n  doorward upgrade", errors.join("\n"))));
            }
            Err(error @ ReloadError::Refused { .. }) => {
                write(&before.file, &before.text)?;
                return Err((exit::CONFIG, format!("{} is as it was, since {error}", before.file.display())));
            }
            Err(error) => return Ok(InForce::No(error.to_string())),
        }
    }
    Ok(InForce::NotRunning)
}

fn write(file: &Path, text: &str) -> Result<(), Refused> {
    write_file(NewFile { path: file.to_owned(), contents: text.as_bytes().to_vec(), access: Access::Public })
}

pub(super) fn write_file(new: NewFile) -> Result<(), Refused> {
    let warnings = files::write_all(&[new], Existing::Replace).map_err(|error| {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        (exit::UNEXPECTED, format!("{error}{source}\n  as the user that it belongs to, or with sudo, run this again"))
    })?;
    warnings.iter().for_each(|warning| errln!("warning: {warning}"));
    Ok(())
}
