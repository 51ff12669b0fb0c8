//! `[control]`: the socket on which a running gate answers.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The socket on which the running gate answers requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Where it is.
    pub socket: ControlSocket,
}

/// Where the control socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlSocket {
    /// There is none.
    Off,
    /// There, or the gate does not start.
    At(PathBuf),
    /// In the folder that systemd has made for the gate, else at this path, which is beside the configuration. If it cannot be
    /// made, the gate does without.
    Auto(PathBuf),
}

impl ControlSocket {
    /// The default name of its file.
    pub const NAME: &str = "control.sock";

    /// Where the gate of `deploy/doorward.service` makes it.
    pub const OF_THE_SERVICE: &str = "/run/doorward/control.sock";

    /// Where a gate makes it that has been given these runtime folders (`RuntimeDirectory=`, systemd.exec(5): several are
    /// parted by colons).
    pub fn path(&self, runtime_folders: Option<&OsStr>) -> Option<PathBuf> {
        match self {
            Self::Off => None,
            Self::At(path) => Some(path.clone()),
            Self::Auto(beside) => {
                let folder = runtime_folders.and_then(|folders| std::env::split_paths(folders).next());
                Some(
                    folder
                        .filter(|folder| folder.is_absolute())
                        .map_or_else(|| beside.clone(), |folder| folder.join(Self::NAME)),
                )
            }
        }
    }

    /// Where a gate with `socket = "auto"` in this configuration file may have made it.
    pub fn usual_places(config: &Path) -> Vec<PathBuf> {
        Self::Auto(config.with_file_name(Self::NAME)).places()
    }

    /// Where a gate may have made it, most likely path first: for the commands that connect to it.
    pub fn places(&self) -> Vec<PathBuf> {
        match self {
            Self::Off => Vec::new(),
            Self::At(path) => vec![path.clone()],
            Self::Auto(beside) => vec![beside.clone(), Self::OF_THE_SERVICE.into()],
        }
    }
}
