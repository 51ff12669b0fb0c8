//! `[history]`: what is kept of connections across restarts.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// What is kept of connections across restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Where.
    pub folder: HistoryFolder,
    /// For how many days.
    pub days: u16,
}

impl History {
    /// Days unless the file says otherwise.
    pub const DAYS: u16 = 90;
}

/// The folder of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryFolder {
    /// There is none: the history begins anew with each start.
    Off,
    /// This one.
    At(PathBuf),
    /// In the folder that systemd has made for the gate, else at this path, which is beside the configuration.
    Auto(PathBuf),
}

/// The state folder of the gate of `deploy/doorward.service`.
pub(super) const STATE_OF_THE_SERVICE: &str = "/var/lib/doorward";

/// A folder of this name in the first of these state folders (`StateDirectory=`, systemd.exec(5): several are parted by colons),
/// else the one beside the configuration.
pub(super) fn in_state_folder(state_folders: Option<&OsStr>, name: &str, beside: &Path) -> PathBuf {
    let folder = state_folders.and_then(|folders| std::env::split_paths(folders).next());
    let folder = folder.filter(|folder| folder.is_absolute());
    folder.map_or_else(|| beside.to_owned(), |folder| folder.join(name))
}

impl HistoryFolder {
    /// Its default name.
    pub const NAME: &str = "history";

    /// Where the gate of `deploy/doorward.service` has it.
    pub const OF_THE_SERVICE: &str = "/var/lib/doorward/history";

    /// Where it is for a gate that has been given these state folders (`StateDirectory=`, systemd.exec(5): several are parted by
    /// colons).
    pub fn path(&self, state_folders: Option<&OsStr>) -> Option<PathBuf> {
        match self {
            Self::Off => None,
            Self::At(path) => Some(path.clone()),
            Self::Auto(beside) => Some(in_state_folder(state_folders, Self::NAME, beside)),
        }
    }

    /// The same for this process.
    pub fn of_this_process(&self) -> Option<PathBuf> {
        self.path(std::env::var_os("STATE_DIRECTORY").as_deref())
    }

    /// Where a gate may have it, the most likely one first: for commands that read it.
    pub fn places(&self) -> Vec<PathBuf> {
        match self {
            Self::Off => Vec::new(),
            Self::At(path) => vec![path.clone()],
            Self::Auto(beside) => {
                let service = Path::new(Self::OF_THE_SERVICE);
                let mut places = vec![beside.clone(), service.to_owned()];
                places.sort_by_key(|place| !place.is_dir());
                places
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_in_the_first_state_folder_of_the_service_manager() {
        let auto = HistoryFolder::Auto("/etc/doorward/history".into());
        let path = |folders: Option<&str>| auto.path(folders.map(OsStr::new));
        assert_eq!(path(None), Some("/etc/doorward/history".into()));
        assert_eq!(path(Some("")), Some("/etc/doorward/history".into()));
        assert_eq!(path(Some("/var/lib/doorward:/var/lib/other")), Some("/var/lib/doorward/history".into()));
        let at = HistoryFolder::At("/srv/history".into());
        assert_eq!(at.path(Some(OsStr::new("/var/lib/doorward"))), Some("/srv/history".into()));
        assert_eq!(HistoryFolder::Off.path(None), None);
    }
}
