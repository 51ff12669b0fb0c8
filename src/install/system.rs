//! What there is on the system that is installed to.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::accounts::{Accounts, User};
use super::{CONFIG, FOLDER, INIT_SCRIPT, PACKAGED, UNIT_FILE, USER};
use crate::config::in_use::is_in_use;

/// The system below a folder, mostly `/`.
#[derive(Clone, Debug)]
pub(super) struct System {
    root: PathBuf,
    pub(super) accounts: Accounts,
}

impl System {
    pub(super) fn look(root: &Path) -> io::Result<Self> {
        Ok(Self { root: root.to_owned(), accounts: Accounts::read(root)? })
    }

    /// The absolute path `path` of that system, on this one.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether it is the running one, and not an image of another.
    pub(super) fn is_running(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The folder that it is below, if that is not `/`.
    pub(super) fn other_root(&self) -> Option<&Path> {
        (!self.is_running()).then_some(&*self.root)
    }

    /// Whether systemd starts its services.
    pub(super) fn has_systemd(&self) -> bool {
        ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"].iter().any(|path| self.path(path).exists())
    }

    /// Whether systemd runs, see sd_booted(3).
    pub(super) fn runs_systemd(&self) -> bool {
        self.is_running() && Path::new("/run/systemd/system").is_dir()
    }

    /// Whether the running program is that of a package, which brings its other files.
    pub(super) fn is_packaged(&self) -> bool {
        self.is_running() && std::env::current_exe().is_ok_and(|program| program == Path::new(PACKAGED))
    }

    /// Whether a package brings the unit.
    pub(super) fn has_packaged_unit(&self) -> bool {
        let name = Path::new(UNIT_FILE).file_name().unwrap_or_default();
        ["/usr/lib/systemd/system", "/lib/systemd/system"].iter().any(|folder| self.path(folder).join(name).exists())
    }

    /// The script that starts the gate of a package on the running system. Not one that a removed package left.
    pub(super) fn init_script(&self) -> Option<PathBuf> {
        Some(PathBuf::from(INIT_SCRIPT)).filter(|script| self.is_packaged() && script.exists())
    }

    /// Whether the script has yet to be told that it starts with the system (OpenWrt).
    pub(super) fn has_to_be_enabled(&self) -> bool {
        self.path("/etc/rc.common").exists()
            && !Command::new(INIT_SCRIPT).arg("enabled").output().is_ok_and(|output| output.status.success())
    }

    /// Whether a gate runs with the installed configuration.
    pub(super) fn gate_runs(&self) -> bool {
        is_in_use(&self.path(FOLDER).join(CONFIG)).unwrap_or(false)
    }

    /// The name of a user: from the files, else from where the running system looks (LDAP, for example).
    pub(super) fn user_with_id(&self, id: u32) -> Option<User> {
        if let Some(user) = self.accounts.user_with_id(id) {
            return Some(user.clone());
        }
        let output =
            self.is_running().then(|| Command::new("getent").args(["passwd", &id.to_string()]).output())?.ok()?;
        let line = String::from_utf8(output.stdout).ok()?;
        let mut fields = line.trim_end().split(':');
        Some(User { name: fields.next()?.to_owned(), id, group: fields.nth(2)?.parse().ok()? })
    }

    /// Numbers of the gate's user and group, if there are both.
    pub(super) fn gate(&self) -> Option<(u32, u32)> {
        let (user, group) = (self.accounts.user(USER)?, self.accounts.group(USER)?);
        Some((user.id, group.id))
    }

    /// Whether a program is in the folders of system programs. Not `$PATH`: root's steps use none of another user.
    pub(super) fn tool(&self, name: &str) -> Option<PathBuf> {
        let folders = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
        folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists())
    }

    /// Whether a program that changes nothing succeeds.
    pub(super) fn succeeds(&self, program: &Path, arguments: &[&str]) -> bool {
        Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
    }

    /// Whether `systemctl` says yes.
    pub(super) fn systemctl_says(&self, question: &str) -> bool {
        self.runs_systemd()
            && self.tool("systemctl").is_some_and(|program| {
                let asked = Command::new(program).args([question, "--quiet", "doorward.service"]).output();
                asked.is_ok_and(|output| output.status.success())
            })
    }
}
