//! `[renewal]`: devices ask for their next certificate through the gate.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::Route;
use super::history::{STATE_OF_THE_SERVICE, in_state_folder};
use crate::model::names::ServerName;

/// The renewal of device certificates through the gate.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// `server_name`: what devices ask for.
    pub server_name: ServerName,
    /// How the gate decides about clients that ask for this name. It has no backends: the gate answers.
    pub route: Route,
    /// `folder`: where requests and answers are.
    pub folder: RenewalFolder,
}

impl Renewal {
    /// What the log and the metrics call it, in the place of a route.
    pub const NAME: &str = "renewal";
}

/// The folder of requests and answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenewalFolder {
    /// This one.
    At(PathBuf),
    /// In the folder that systemd has made for the gate, else at this path, which is beside the configuration.
    Auto(PathBuf),
}

impl RenewalFolder {
    /// Its default name.
    pub const NAME: &str = "renewal";

    /// The folder for a gate that has been given these state folders (`StateDirectory=`, systemd.exec(5)).
    pub fn path(&self, state_folders: Option<&OsStr>) -> PathBuf {
        match self {
            Self::At(path) => path.clone(),
            Self::Auto(beside) => in_state_folder(state_folders, Self::NAME, beside),
        }
    }

    /// The same for this process.
    pub fn of_this_process(&self) -> PathBuf {
        self.path(std::env::var_os("STATE_DIRECTORY").as_deref())
    }

    /// Where a gate may have it, the most likely one first: for commands that use it.
    pub fn places(&self) -> Vec<PathBuf> {
        match self {
            Self::At(path) => vec![path.clone()],
            Self::Auto(beside) => {
                let mut places = vec![beside.clone(), Path::new(STATE_OF_THE_SERVICE).join(Self::NAME)];
                places.sort_by_key(|place| !place.is_dir());
                places
            }
        }
    }
}
