//! Whether the gate's user can read what the configuration names. Only root can tell: a thread takes the rights of that user, and
//! opens each file as the gate will.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::process::{Gid, Uid, geteuid};

use crate::config::checked::{Config, RouteMode};
use crate::config::credentials::OF_THE_RUNNING_SERVICE;
use crate::install::GateUser;
use crate::sys::credentials::act_as_member;

/// What to do about files that the user cannot read.
pub(super) const REMEDY: &str = "  the gate would not start. Of a gate that was installed, \"sudo doorward install\" sets owners and \
     modes; else give the file to that user (chown), or let it be read by a group that the user is in (chgrp, chmod g+r)";

/// What the user cannot read.
#[derive(Debug)]
pub(super) struct Findings {
    /// Files without which the gate does not start.
    pub(super) errors: Vec<String>,
    /// Files that it does without.
    pub(super) warnings: Vec<String>,
}

/// The user to read as: the one that was named, else that of the installed service.
///
/// # Errors
/// If one was named that cannot be used: in words.
pub(super) fn user(named: Option<&str>, config: &Path) -> Result<Option<GateUser>, String> {
    let is_root = geteuid().is_root();
    let Some(name) = named else { return Ok(GateUser::of_installed(config).filter(|_| is_root)) };
    let user = GateUser::named(name).ok_or_else(|| format!("--user {name}: there is no such user on this machine"))?;
    if is_root {
        Ok(Some(user))
    } else {
        Err(format!("--user {name}: only root can check what another user may read: sudo doorward check"))
    }
}

/// Opens every file as `user`, but for those of the folder of `credentials`.
///
/// # Errors
/// If this process may not become that user.
pub(super) fn check(config: &Config, user: &GateUser, credentials: Option<&Path>) -> io::Result<Findings> {
    let (id, group) = (Uid::from_raw(user.user), Gid::from_raw(user.group));
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    // systemd reads these as root, and hands them over.
    let handed_over = |file: &Path| {
        [Some(Path::new(OF_THE_RUNNING_SERVICE)), credentials]
            .into_iter()
            .flatten()
            .any(|folder| file.starts_with(folder))
    };
    let files = config.files().into_iter().filter(|file| !handed_over(file));
    // The service does not start in the current folder, so the folders above it count as well.
    let files: Vec<PathBuf> = files.map(|file| std::path::absolute(&file).unwrap_or(file)).collect();
    let unreadable = act_as_member(id, group, &groups, || {
        files.iter().filter_map(|file| unreadable(file).map(|why| (file, why))).collect::<Vec<_>>()
    })?;
    let mut findings = Findings { errors: Vec::new(), warnings: Vec::new() };
    for (file, why) in unreadable {
        let key = key_of(config, file);
        let text = format!("{key}: the gate's user, {}, cannot read {}: {why}", user.name, file.display());
        if key == INVENTORY { findings.warnings.push(text) } else { findings.errors.push(text) }
    }
    Ok(findings)
}

/// Why this process cannot read the file, with the folder that stops it.
fn unreadable(file: &Path) -> Option<String> {
    let error = File::open(file).and_then(|mut file| file.read(&mut [0])).err()?;
    if error.kind() != io::ErrorKind::PermissionDenied {
        return Some(error.to_string());
    }
    let mut folders: Vec<&Path> = file.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()).collect();
    folders.reverse();
    // Only where the folder may be searched.
    let closed = |folder: &&Path| {
        fs::metadata(folder.join(".")).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    Some(match folders.into_iter().find(closed) {
        Some(folder) => format!("it may not enter the folder {}", folder.display()),
        None => "the file's owner and mode do not permit it".to_owned(),
    })
}

/// The key that names the inventory.
const INVENTORY: &str = "metrics.inventory";

/// The key that names the file, whose path is absolute.
fn key_of(config: &Config, file: &Path) -> &'static str {
    let is = |named: &Path| std::path::absolute(named).is_ok_and(|named| named == file);
    if is(&config.file) {
        return "the configuration";
    }
    if config.metrics.inventory.as_ref().is_some_and(|inventory| is(&inventory.file)) {
        return INVENTORY;
    }
    if config.tickets.keys.iter().any(|key| is(&key.file)) {
        return "tickets.keys";
    }
    let named = config.served().find_map(|route| {
        let RouteMode::Terminate(terminate) = &route.mode else { return None };
        let auth = &terminate.client_auth;
        if is(&terminate.certificate.key_file) {
            Some("certificate.key")
        } else if is(&terminate.certificate.chain_file) {
            Some("certificate.chain")
        } else if auth.trust.iter().any(|anchor| is(&anchor.file)) {
            Some("client_auth.trust")
        } else if auth.revocation_lists.iter().any(|list| is(&list.file)) {
            Some("client_auth.revocation_lists")
        } else {
            None
        }
    });
    named.unwrap_or("a file")
}
