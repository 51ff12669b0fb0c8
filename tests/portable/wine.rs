//! A Windows that Wine makes, and its user.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::common::process::run;

/// A user who has joined no home. The tests share one Windows, and have it one after the other.
pub(crate) struct Windows {
    program: PathBuf,
    profile: PathBuf,
}

impl Windows {
    pub(crate) fn new() -> Self {
        let named = |variable| env::var_os(variable).unwrap_or_else(|| panic!("tests/all portable sets {variable}"));
        let users = PathBuf::from(named("WINEPREFIX")).join("drive_c/users");
        let mut own = fs::read_dir(users).unwrap().map(|entry| entry.unwrap().path());
        let profile = own.find(|user| !user.ends_with("Public")).unwrap();
        let windows = Self { program: named("DOORWARD_WINDOWS").into(), profile };
        for left in ["AppData/Roaming/doorward", "AppData/Local/doorward", ".ssh"] {
            let _ = fs::remove_dir_all(windows.profile(left));
        }
        windows
    }

    /// A path in the folder of the user.
    pub(crate) fn profile(&self, path: &str) -> PathBuf {
        self.profile.join(path)
    }

    /// The file of a home.
    pub(crate) fn home(&self, name: &str) -> PathBuf {
        self.profile(&format!("AppData/Roaming/doorward/homes/{name}.doorward"))
    }

    /// `doorward.exe` with these arguments. The current folder is on a drive that Wine makes of `/`, so that paths of this machine
    /// lead where they do here.
    pub(crate) fn doorward(&self, arguments: &[&str]) -> Command {
        let mut command = wine();
        command.arg(&self.program).args(arguments);
        command
    }

    /// The same, started by a program beside it.
    pub(crate) fn started_by(&self, other: &str, arguments: &[&str]) -> Command {
        let mut command = wine();
        command.arg(self.program.with_file_name(other)).arg(&self.program).args(arguments);
        command
    }
}

fn wine() -> Command {
    let mut command = Command::new("/usr/lib/wine/wine64");
    command.env("WINEDEBUG", "-all").current_dir("/");
    command
}

#[test]
fn it_is_the_connector_alone() {
    let windows = Windows::new();
    assert!(run(&mut windows.doorward(&["--version"])).success().text().starts_with("doorward "));
    let refused = run(&mut windows.doorward(&["run"]));
    assert_eq!(refused.status.code(), Some(2), "{refused}");
    assert!(refused.stderr.contains("this build has the commands of a device alone"), "{refused}");
    let page = run(&mut windows.doorward(&["help", "ssh-and-smb"])).success();
    assert!(page.text().contains("doorward join"), "{page}");
}
