//! The rights that the gate takes away from itself once it has opened what it needs, so that a mistake in it, or in a library, is
//! worth little to an attacker.
//!
//! [`Sandbox::enter`] is called while the process has one thread: capabilities and Landlock are properties of a thread, and new
//! threads inherit them.

mod capabilities;
mod fence;
mod landlock;
mod needs;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
mod system_calls;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
mod system_calls {
    //! For other architectures there is no filter.

    pub(super) fn restrict(_: &super::Needs) -> Result<(), String> {
        Err("there is no filter for this architecture; that of the systemd unit applies, if there is one".to_owned())
    }
}

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::set_no_new_privs;

pub(crate) use self::fence::Fence;
use self::fence::Restricts;
use self::landlock::Restricted;
pub(crate) use self::needs::Needs;
use crate::config::checked::{Acme, Config, SandboxMode};

/// What is in force, and what it allows.
#[derive(Debug, Default)]
pub struct Sandbox {
    in_force: Restrictions,
    fence: Fence,
    runtime_folders: Option<OsString>,
}

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restrictions {
    /// The value of `sandbox.mode`; `None` for a demonstration, which has no sandbox.
    pub mode: Option<&'static str>,
    /// The parts, by their names in the manual.
    pub parts: Vec<&'static str>,
    /// Capabilities that the gate cannot do without.
    pub capabilities: Vec<&'static str>,
    /// The version of the kernel's Landlock interface; 0 for none.
    pub landlock: u32,
    /// What is not in force, and why.
    pub lacks: Vec<String>,
}

/// `mode = "require"`, and these parts are not in force.
#[derive(Debug, thiserror::Error)]
#[error(
    "[sandbox] mode = \"require\", but not all of it is in force:{}\n  run a kernel that has it, or write mode = \"auto\": the gate \
     then runs with what there is",
    .0.iter().map(|what| format!("\n    {what}")).collect::<String>()
)]
pub struct Incomplete(Vec<String>);

impl Sandbox {
    /// Gives up what a gate with this configuration does not need. To be called before any other thread is started.
    /// `former_control` is the control socket of a gate that this process replaces, if its file is to be removed.
    ///
    /// # Errors
    /// With `mode = "require"`, if any part is not in force.
    pub fn enter(config: &Config, former_control: Option<&Path>) -> Result<Self, Incomplete> {
        let runtime_folders = std::env::var_os("RUNTIME_DIRECTORY");
        let former_control = former_control.map(Path::to_owned);
        let needs = Needs { former_control, ..Needs::of(config, runtime_folders.as_deref()) };
        Self::enter_for(config.sandbox, &needs, runtime_folders)
    }

    /// Gives up what a process does not need that connects to this host and port, and does nothing else.
    ///
    /// # Errors
    /// As [`enter`](Self::enter).
    pub fn enter_to_reach(mode: SandboxMode, host: &str, port: u16) -> Result<Self, Incomplete> {
        Self::enter_for(mode, &Needs::to_reach(host, port), None)
    }

    /// Gives up what the process does not need that orders public certificates, and keeps them in this folder.
    ///
    /// # Errors
    /// As [`enter`](Self::enter).
    pub fn enter_to_order(mode: SandboxMode, acme: &Acme, folder: &Path) -> Result<Self, Incomplete> {
        Self::enter_for(mode, &Needs::to_order(acme, folder), None)
    }

    /// Gives up what the process does not need that renews certificates without the owner, and keeps its answers in this folder.
    ///
    /// # Errors
    /// As [`enter`](Self::enter).
    pub fn enter_to_renew(config: &Config, folder: &Path) -> Result<Self, Incomplete> {
        Self::enter_for(config.sandbox, &Needs::to_renew(config, folder), None)
    }

    fn enter_for(mode: SandboxMode, needs: &Needs, runtime_folders: Option<OsString>) -> Result<Self, Incomplete> {
        let word = match mode {
            SandboxMode::Auto => "auto",
            SandboxMode::Require => "require",
            SandboxMode::Off => "off",
        };
        let (mut in_force, mut fence) =
            (Restrictions { mode: Some(word), ..Restrictions::default() }, Fence::default());
        if mode == SandboxMode::Off {
            return Ok(Self { in_force, fence, runtime_folders });
        }
        enter(needs, &mut in_force, &mut fence);
        sufficient(mode, &in_force)?;
        Ok(Self { in_force, fence, runtime_folders })
    }

    /// What is in force.
    pub const fn in_force(&self) -> &Restrictions {
        &self.in_force
    }

    /// What is allowed.
    pub(crate) const fn fence(&self) -> &Fence {
        &self.fence
    }

    /// What another configuration needs.
    pub(crate) fn needs_of(&self, config: &Config) -> Needs {
        Needs::of(config, self.runtime_folders.as_deref())
    }
}

/// The folder by which a gate with this configuration could read this file although its sandbox is in force.
pub fn gate_would_read(config: &Config, file: &Path) -> Option<PathBuf> {
    Needs::of(config, std::env::var_os("RUNTIME_DIRECTORY").as_deref()).would_read(file)
}

/// Whether what is in force is as much as the mode wants.
fn sufficient(mode: SandboxMode, in_force: &Restrictions) -> Result<(), Incomplete> {
    match mode {
        SandboxMode::Require if !in_force.lacks.is_empty() => Err(Incomplete(in_force.lacks.clone())),
        SandboxMode::Require | SandboxMode::Auto | SandboxMode::Off => Ok(()),
    }
}

fn enter(needs: &Needs, in_force: &mut Restrictions, fence: &mut Fence) {
    let Restrictions { parts, capabilities, landlock, lacks, .. } = in_force;
    // Only a change of the program can bring this about; where /proc is not mounted, it is not seen.
    if fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
        lacks.push(
            "threads that run already keep their rights; this is a mistake of doorward: please report it".to_owned(),
        );
    }
    let mut part = |name, result: Result<(), String>| match result {
        Ok(()) => parts.push(name),
        Err(why) => lacks.push(why),
    };
    let first_port = first_unprivileged_port();
    let given_up = capabilities::give_up(needs);
    let first_port = if given_up.is_ok() { first_port } else { 0 };
    part(
        "capabilities",
        given_up.map(|kept| *capabilities = kept).map_err(|error| format!("capabilities are not given up: {error}")),
    );
    part("no_new_privs", set_no_new_privs(true).map_err(|error| format!("new privileges are not ruled out: {error}")));
    part(
        "no_dump",
        set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(|error| format!("memory dumps are not ruled out: {error}")),
    );
    let restricted = match landlock::restrict(needs) {
        Ok(restricted) => restricted,
        Err(why) => {
            lacks.push(format!("files and TCP ports are not restricted: {why}"));
            Restricted::default()
        }
    };
    lacks.extend(restricted.lacks());
    *landlock = restricted.version;
    for (is_in_force, name) in [
        (restricted.files(), "files"),
        (restricted.ports(), "tcp_ports"),
        (restricted.scopes(), "abstract_sockets"),
        (restricted.scopes(), "signals"),
    ] {
        parts.extend(is_in_force.then_some(name));
    }
    let filtered = system_calls::restrict(needs);
    let sockets = filtered.is_ok();
    match filtered {
        Ok(()) => parts.push("system_calls"),
        Err(why) => lacks.push(format!("system calls are not restricted: {why}")),
    }
    *fence = Fence::new(needs, Restricts { files: restricted.files(), ports: restricted.ports(), sockets }, first_port);
}

/// Ports below this one take CAP_NET_BIND_SERVICE (ip(7)).
fn first_unprivileged_port() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    text.trim().parse().unwrap_or(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn require_is_refused_if_anything_is_missing() {
        let whole = Restrictions { parts: vec!["files"], landlock: 6, ..Restrictions::default() };
        let lacks = Restrictions { lacks: vec!["no files".to_owned()], ..whole.clone() };
        assert!(sufficient(SandboxMode::Require, &whole).is_ok());
        let error = sufficient(SandboxMode::Require, &lacks).expect_err("it is required").to_string();
        assert!(error.contains("\n    no files\n"), "{error}");
        assert!(sufficient(SandboxMode::Auto, &lacks).is_ok());
    }
}
