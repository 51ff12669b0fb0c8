//! A folder in which `doorward` is run.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::common::process::{Finished, run, tool};

/// The folder, with authorities in `pki` and devices in `devices`, as by default.
pub(crate) struct Home(TempDir);

impl Home {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// One with authorities for `home.example`.
    pub(crate) fn with_authorities() -> Self {
        let home = Self::new();
        home.ca(&["init", "--domain", "home.example"]).success();
        home
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The command `doorward` in it.
    pub(crate) fn doorward(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.current_dir(self.0.path());
        command
    }

    /// `doorward ca` with these arguments.
    #[track_caller]
    pub(crate) fn ca(&self, arguments: &[&str]) -> Finished {
        run(self.doorward().arg("ca").args(arguments))
    }

    /// The certificates in `doorward ca list`.
    #[track_caller]
    pub(crate) fn list(&self) -> Vec<Value> {
        let listing = self.ca(&["list", "--format", "json"]).success();
        let listing: Value = serde_json::from_slice(&listing.stdout).unwrap();
        listing["certificates"].as_array().unwrap().clone()
    }

    /// Name and status of every device in [`Home::list`].
    #[track_caller]
    pub(crate) fn devices(&self) -> Vec<String> {
        let all = self.list();
        let devices = all.iter().filter(|line| line["kind"] == "device");
        devices.map(|line| ["name", "status"].map(|key| line[key].as_str().unwrap()).join(" ")).collect()
    }

    /// `openssl` in it.
    #[track_caller]
    pub(crate) fn openssl(&self, arguments: &[&str]) -> Finished {
        run(tool("openssl", "openssl").current_dir(self.0.path()).args(arguments))
    }

    /// Every file below it with its contents, except the lock.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        walk(self.0.path(), &mut found);
        found.retain(|(path, _)| !path.ends_with(".lock"));
        found.sort();
        found
    }
}

fn walk(folder: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else {
            let contents = std::fs::read(&path).unwrap();
            found.push((path, contents));
        }
    }
}

/// The permission bits of a file or folder.
pub(crate) fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Checks that a command was refused with this exit code and that the message has these words.
#[track_caller]
pub(crate) fn refused(finished: Finished, code: i32, words: &[&str]) {
    let finished = finished.failure();
    assert_eq!(finished.status.code(), Some(code), "{finished}");
    assert!(finished.stderr.starts_with("error: "), "{finished}");
    for word in words {
        assert!(finished.stderr.contains(word), "{word:?} is missing: {finished}");
    }
}
