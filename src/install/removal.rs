//! The steps that undo an installation.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::service;
use super::step::Step;
use super::system::System;
use super::{CONFIG, Error, FOLDER, ISSUER, Installed, PAGES, PKI, PROGRAM, Plan, RECORD, UNIT_FILE, USER, read_error};

/// What `systemctl enable` makes.
const ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/doorward.service";

/// The folder of the control socket. systemd makes and removes it; elsewhere it is made by hand.
const RUNTIME: &str = "/run/doorward";

/// What the service keeps.
const STATE: &str = "/var/lib/doorward";

/// What is to be removed.
#[derive(Clone, Debug)]
pub struct Removal {
    /// The system: `/`, or the folder of an image.
    pub root: PathBuf,
    /// Whether the configuration and the gate's user are removed as well.
    pub purge: bool,
    /// The paths of man pages and completions.
    pub pages: Vec<PathBuf>,
}

/// Looks at the system, and plans what is to be removed.
///
/// # Errors
/// If the system cannot be looked at.
pub fn removal(wanted: &Removal) -> Result<Plan, Error> {
    let system = System::look(&wanted.root).map_err(read_error(&wanted.root))?;
    let mut plan = Plan::new(&wanted.root);
    if system.is_packaged() {
        return Err(Error::Usage(
            "this program belongs to a package, which the package manager removes\n  on Debian: apt remove doorward, or apt \
             purge doorward"
                .to_owned(),
        ));
    }
    let systemctl = system.tool("systemctl").filter(|_| system.runs_systemd());
    // Its user cannot be removed while it runs.
    if systemctl.is_none() && system.gate_runs() {
        return Err(Error::Usage(format!(
            "a gate runs with {}, and systemd does not run here to end it\n  end it first; doorward status says its process",
            system.path(FOLDER).join(CONFIG).display()
        )));
    }
    if wanted.purge {
        keys_of_authorities(&system)?;
    }
    let systemctl_is_missing = systemctl.is_none();
    let unit = Step::remove(&system, Path::new(UNIT_FILE))?;
    if let (Some(_), Some(systemctl)) = (&unit, &systemctl) {
        plan.add(Some(Step::run(systemctl.clone(), &["disable", "--now", "doorward.service"], "ends the gate")));
    }
    service::remove_settings(&system, &mut plan)?;
    if system.path(service::SOCKET_UNIT).exists() {
        let socket = service::SOCKET_UNIT;
        plan.notes.push(format!("{socket} is yours and stays; to end it: systemctl disable --now doorward.socket"));
    }
    if plan.add(unit)
        && let Some(systemctl) = systemctl
    {
        plan.add(Some(Step::run(systemctl, &["daemon-reload"], "")));
    }
    if systemctl_is_missing {
        plan.add(Step::remove(&system, Path::new(ENABLED))?);
        plan.add(Step::remove_folder(&system, RUNTIME, "the folder of the control socket")?);
    }
    pages(&system, &wanted.pages, &mut plan)?;
    plan.add(Step::remove(&system, Path::new(PROGRAM))?);
    let configured = system.path(FOLDER).exists();
    if !wanted.purge {
        if configured {
            // Without the user, another one could get its number, and with it the gate's key.
            plan.notes.push(format!("{FOLDER} and the user {USER} stay; to remove them as well: --purge"));
        }
        return Ok(plan);
    }
    plan.add(Step::remove_folder(&system, FOLDER, "the configuration and the gate's key")?);
    plan.add(Step::remove_folder(&system, STATE, "what the gate has kept")?);
    plan.add(Step::remove_folder(&system, ISSUER, "the key of the renewal authority")?);
    let prefix = system.other_root().map(|root| root.display().to_string());
    let prefix: Vec<&str> = prefix.iter().flat_map(|root| ["--prefix", root]).collect();
    let (has_group, has_user) = (system.accounts.group(USER).is_some(), system.accounts.user(USER).is_some());
    let mut remove = |(tool, options): (&str, &[&str]), busybox: Option<&str>, note: &str| {
        if let Some(program) = system.tool(tool) {
            plan.steps.push(Step::run(program, &[&prefix[..], options, &[USER]].concat(), note));
        } else if let Some(program) = busybox.and_then(|busybox| system.tool(busybox)) {
            plan.steps.push(Step::run(program, &[USER], note));
        } else if let Some(busybox) = busybox {
            plan.notes.push(format!("{note} stays: neither {tool} nor {busybox} is on this system"));
        }
    };
    // The group first, by force: whether userdel removes it depends on the settings of the system. Busybox does it the other way:
    // delgroup refuses the group of a user, and deluser removes it as well.
    if has_group {
        remove(("groupdel", &["--force"]), (!has_user).then_some("delgroup"), "the group of the control socket");
    }
    if has_user {
        remove(("userdel", &[]), Some("deluser"), "the gate's user");
    }
    Ok(plan)
}

/// Man pages, completions, and the folders that are empty without them.
fn pages(system: &System, paths: &[PathBuf], plan: &mut Plan) -> Result<(), Error> {
    let mut steps = Vec::new();
    for page in paths {
        steps.extend(Step::remove(system, page)?);
    }
    if !steps.is_empty() {
        // The system has a folder for man pages itself.
        let kept = Path::new(PAGES).join("man");
        let folders: BTreeSet<&Path> = paths.iter().flat_map(|page| page.ancestors().skip(1)).collect();
        // Those within others first.
        for folder in folders.into_iter().rev().filter(|path| path.starts_with(PAGES) && *path != Path::new(PAGES)) {
            if folder != kept {
                steps.extend(Step::remove_empty(system, folder)?);
            }
        }
    }
    plan.add(Step::several(steps, &format!("remove man pages and shell completions from {PAGES}")));
    Ok(())
}

/// Without those keys, their owner can neither revoke a device nor add one: they are not deleted with the rest.
fn keys_of_authorities(system: &System) -> Result<(), Error> {
    let folder = Path::new(FOLDER).join(PKI);
    let installed = Installed::in_folder(&system.path(FOLDER));
    let entries = std::fs::read_dir(system.path(&folder)).into_iter().flatten().filter_map(Result::ok);
    // That of the gate's certificate is all that an installation without --with-authority has.
    let is_key = |name: String| name.ends_with("-key.pem") && name != "server-key.pem";
    let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    if installed.is_some_and(|installed| installed.authority() == folder) || names.any(is_key) {
        return Err(Error::Usage(format!(
            "{0} holds keys of authorities, which --purge would delete\n  move them elsewhere (and remove {FOLDER}/{RECORD}, if it \
             names {0}), or leave out --purge",
            folder.display()
        )));
    }
    Ok(())
}
