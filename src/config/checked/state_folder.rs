//! Folders of what outlives the gate: the history, requests for renewal, the public certificate.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// A folder that the gate, or a process beside it, writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateFolder {
    /// This one.
    At(PathBuf),
    /// Where the gate keeps what outlives it.
    Auto {
        /// What it is called in the folder that systemd has made for the gate.
        name: &'static str,
        /// The folder if systemd has made none. It is beside the configuration.
        beside: PathBuf,
    },
}

impl StateFolder {
    /// The state folder of the gate of `deploy/doorward.service`.
    pub const OF_THE_SERVICE: &str = "/var/lib/doorward";

    /// The folder for a gate that has been given these state folders (`StateDirectory=`, systemd.exec(5): several are parted by colons,
    /// the first counts).
    pub fn path(&self, state_folders: Option<&OsStr>) -> PathBuf {
        let (name, beside) = match self {
            Self::At(path) => return path.clone(),
            Self::Auto { name, beside } => (name, beside),
        };
        let state = state_folders.and_then(|folders| std::env::split_paths(folders).next());
        let state = state.filter(|folder| folder.is_absolute());
        state.map_or_else(|| beside.clone(), |state| state.join(name))
    }

    /// The same for this process.
    pub fn of_this_process(&self) -> PathBuf {
        self.path(std::env::var_os("STATE_DIRECTORY").as_deref())
    }

    /// Where a gate may have it, the most likely one first: for commands, which systemd gives no state folder.
    pub fn places(&self) -> Vec<PathBuf> {
        let mut places = vec![self.of_this_process()];
        if let Self::Auto { name, .. } = self {
            places.push(Path::new(Self::OF_THE_SERVICE).join(name));
        }
        places.sort_by_key(|place| !place.is_dir());
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_in_the_first_state_folder_of_the_service_manager() {
        let auto = StateFolder::Auto { name: "history", beside: "/etc/doorward/history".into() };
        let path = |folders: Option<&str>| auto.path(folders.map(OsStr::new));
        assert_eq!(path(None), Path::new("/etc/doorward/history"));
        assert_eq!(path(Some("")), Path::new("/etc/doorward/history"));
        assert_eq!(path(Some("/var/lib/doorward:/var/lib/other")), Path::new("/var/lib/doorward/history"));
        let at = StateFolder::At("/srv/history".into());
        assert_eq!(at.path(Some(OsStr::new("/var/lib/doorward"))), Path::new("/srv/history"));
    }

    #[test]
    fn commands_prefer_a_folder_that_exists() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |beside: &Path| StateFolder::Auto { name: "none-of-this-name", beside: beside.to_owned() };
        assert_eq!(at(folder.path()).places()[0], folder.path());
        assert_eq!(at(&folder.path().join("none")).places().len(), 2);
        assert_eq!(StateFolder::At("/srv/history".into()).places(), [Path::new("/srv/history")]);
    }
}
