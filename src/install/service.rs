//! What the service needs beyond its unit, which is the same everywhere: a drop-in for this configuration, and a kernel module.

use std::fmt::Write as _;
use std::path::Path;

use super::credentials::{DROP_IN, Keys};
use super::source::Named;
use super::step::{Owner, Step};
use super::system::System;
use super::{Error, Plan};
use crate::config::checked::KernelTls;

/// The folder of additions to the unit.
const DROP_INS: &str = "/etc/systemd/system/doorward.service.d";

/// The unit of sockets that systemd opens (socket activation), which the owner may have written.
pub(super) const SOCKET_UNIT: &str = "/etc/systemd/system/doorward.socket";

/// The modules that are loaded at the start of the system: the service may load none.
const MODULES: &str = "/etc/modules-load.d/doorward.conf";

/// The first port that any process may listen on, unless the kernel is told otherwise.
const FIRST_UNPRIVILEGED: u16 = 1024;

/// Writes what this configuration needs, and removes what it needs no longer. Whether the service has to be started again for it.
pub(super) fn settings(system: &System, named: &Named, keys: Option<&Keys>, plan: &mut Plan) -> Result<bool, Error> {
    if !system.has_systemd() {
        return Ok(false);
    }
    let text = drop_in(system, named, keys);
    let changed = if text.is_empty() {
        plan.add(Step::remove(system, Path::new(DROP_IN))?)
    } else {
        plan.add_missing_folders(system, Path::new(DROP_IN))?;
        let note = "what the service needs for this configuration";
        plan.add(Step::file(system, Path::new(DROP_IN), text.into_bytes(), (Owner::Root, 0o644), note)?)
    };
    modules(system, named.kernel_tls, plan)?;
    Ok(changed)
}

/// The text of the drop-in; empty if the unit is enough.
fn drop_in(system: &System, named: &Named, keys: Option<&Keys>) -> String {
    let mut settings = String::new();
    let lowest = named.ports.iter().find(|port| **port != 0 && **port < first_unprivileged(system));
    if let Some(port) = lowest.filter(|_| !system.path(SOCKET_UNIT).exists()) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            settings,
            "# The configuration has port {port}. Ports below {FIRST_UNPRIVILEGED} need this capability, which counts in the \
             first user namespace only.\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n\
             CapabilityBoundingSet=CAP_NET_BIND_SERVICE\nPrivateUsers=no"
        );
    }
    if let Some(keys) = keys {
        let _ = writeln!(
            settings,
            "# Only root may read the gate's keys. systemd hands them over when the service starts."
        );
        for line in keys.lines() {
            let _ = writeln!(settings, "{line}");
        }
        let _ = writeln!(
            settings,
            "# systemd 260 and later: also for a reload. An older one mentions this line and ignores it.\n\
             RefreshOnReload=credentials"
        );
    }
    if settings.is_empty() {
        return settings;
    }
    format!(
        "# \"doorward install\" writes this file. Your own settings: systemctl edit doorward\n\n[Service]\n{settings}"
    )
}

/// The kernel's limit where it is known.
fn first_unprivileged(system: &System) -> u16 {
    let set = system.is_running().then(|| std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start"));
    let set = set.and_then(Result::ok).and_then(|text| text.trim().parse().ok());
    set.unwrap_or(FIRST_UNPRIVILEGED)
}

/// The module of kernel TLS: loaded at the start of the system, and now.
fn modules(system: &System, kernel_tls: KernelTls, plan: &mut Plan) -> Result<(), Error> {
    if kernel_tls == KernelTls::Off {
        plan.add(Step::remove(system, Path::new(MODULES))?);
        return Ok(());
    }
    plan.add_missing_folders(system, Path::new(MODULES))?;
    let text = "# For kernel_tls in /etc/doorward/doorward.toml: the service may load no modules.\ntls\n";
    let note = "the kernel's TLS module, at the start of the system";
    plan.add(Step::file(system, Path::new(MODULES), text.into(), (Owner::Root, 0o644), note)?);
    let is_loaded = Path::new("/sys/module/tls").exists();
    let Some(modprobe) = system.tool("modprobe").filter(|_| system.is_running() && !is_loaded) else { return Ok(()) };
    // "auto" does without, and a kernel that has no such module must not keep the gate from being installed.
    if kernel_tls == KernelTls::Require || system.succeeds(&modprobe, &["--dry-run", "--quiet", "tls"]) {
        plan.add(Some(Step::run(modprobe, &["tls"], "the kernel's TLS module")));
    }
    Ok(())
}

/// Removes what [`settings`] wrote.
pub(super) fn remove_settings(system: &System, plan: &mut Plan) -> Result<(), Error> {
    plan.add(Step::remove(system, Path::new(DROP_IN))?);
    // The settings of systemctl edit are in this folder as well, and stay.
    plan.add(Step::remove_empty(system, Path::new(DROP_INS))?);
    plan.add(Step::remove(system, Path::new(MODULES))?);
    Ok(())
}
