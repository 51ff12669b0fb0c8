//! What has to happen for the gate to notice a change.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{CaError, FolderArg};
use crate::cli::exit;
use crate::config;
use crate::control::ask::{ReloadError, reload};
use crate::pki::inventory::Store;

/// What the gate makes of a change.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    /// A running gate has taken it over.
    in_force: bool,
    /// So many connections ended by that, for they would not be let in any more.
    sessions_cut: usize,
    /// The same in words, and what is left to do.
    #[serde(skip)]
    pub(super) text: String,
}

impl Told {
    const fn not_yet(text: String) -> Self {
        Self { in_force: false, sessions_cut: 0, text }
    }
}

/// What has changed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Changed<'a> {
    /// Revocation lists.
    Lists(&'a [PathBuf]),
    /// The gate's certificate.
    Certificate(&'a PathBuf),
}

impl<'a> Changed<'a> {
    fn files(self) -> &'a [PathBuf] {
        match self {
            Self::Lists(files) => files,
            Self::Certificate(file) => std::slice::from_ref(file),
        }
    }

    /// What the configuration has to say.
    fn line(self) -> String {
        let quoted = |file: &PathBuf| format!("{:?}", file.display().to_string());
        match self {
            Self::Lists(files) => {
                let files: Vec<String> = files.iter().map(quoted).collect();
                format!("  [client_auth]\n  revocation_lists = [{}]", files.join(", "))
            }
            Self::Certificate(file) => format!("  [certificate]\n  chain = {}", quoted(file)),
        }
    }
}

/// Lets a running gate take over what has changed.
///
/// That there is none is no mistake. That it refuses is one: what was changed is on the disk, and not in force.
pub(super) fn tell_gate(args: &FolderArg, store: &Store, changed: Changed<'_>) -> Result<Told, CaError> {
    let Some(config_file) = config_file(args, store) else {
        return Ok(Told::not_yet(format!(
            "There is no configuration of a gate here. It must say\n{}\nand the gate must be told: doorward reload\n",
            changed.line()
        )));
    };
    let config = config_file.display();
    let named = config::load(&config_file).map(|config| config.files());
    if let Ok(named) = &named
        && let Some(missing) = changed.files().iter().find(|file| !is_among(named, file))
    {
        return Ok(Told::not_yet(format!(
            "warning: this changes nothing yet, for the configuration {config} does not name {missing}\nIt must say\n{}\n\
             and then: doorward reload --config {config}\n",
            changed.line(),
            missing = missing.display(),
        )));
    }
    let places = config::load_control(&config_file).map(|control| control.socket.places()).unwrap_or_default();
    let Some(socket) = places.iter().find(|place| place.symlink_metadata().is_ok()) else {
        return Ok(Told::not_yet(
            "No gate is running here that could be asked. It takes this over when it starts; one that runs elsewhere: \
             doorward reload, there\n"
                .to_owned(),
        ));
    };
    match reload(socket) {
        Ok(done) => Ok(Told {
            in_force: true,
            sessions_cut: done.sessions_cut,
            text: format!(
                "The gate has taken it over. {}\n",
                match done.sessions_cut {
                    0 => "No open connection had to end.".to_owned(),
                    1 => "1 open connection was ended.".to_owned(),
                    count => format!("{count} open connections were ended."),
                }
            ),
        }),
        Err(error @ ReloadError::Refused(_)) => Err(CaError {
            code: exit::CONFIG,
            message: format!("what was changed is on the disk, and not in force: {error}"),
        }),
        Err(error) => {
            Ok(Told::not_yet(format!("warning: it is not known whether a gate has taken it over: {error}\n")))
        }
    }
}

/// The configuration that was named, else the one beside the folder of the authorities, else the usual one.
fn config_file(args: &FolderArg, store: &Store) -> Option<PathBuf> {
    let beside = || Some(store.path("../doorward.toml")).filter(|file| file.exists());
    let usual = || args.config.path().ok();
    if args.config.file.is_some() { usual() } else { beside().or_else(usual) }.filter(|file| file.exists())
}

fn is_among<'a>(files: impl IntoIterator<Item = &'a PathBuf>, wanted: &Path) -> bool {
    let real = |file: &Path| file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let wanted = real(wanted);
    files.into_iter().any(|file| real(file) == wanted)
}
