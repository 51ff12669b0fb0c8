//! The end of an installation: the gate runs as what was installed.
//!
//! A new program takes over from the running one, so that no connection is refused or lost. systemd restarts the service only for
//! what a process cannot take over: credentials and capabilities, which systemd gives to the first process of the service.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::step::Step;
use super::system::System;
use super::{CONFIG, FOLDER, Plan, USER};

/// What has changed since the gate was started.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changes {
    /// The file of the program.
    pub(super) program: bool,
    /// The unit.
    pub(super) unit: bool,
    /// What the service needs for its configuration: the drop-in, the keys that systemd hands over.
    pub(super) settings: bool,
}

/// Starts the service or has the new program take over, or says what to do. `gate` is the process of the gate that answers.
pub(super) fn start(system: &System, program: &str, gate: Option<u32>, changes: Changes, plan: &mut Plan) {
    if let Some(systemctl) = system.tool("systemctl").filter(|_| system.runs_systemd()) {
        let active = system.systemctl_says("is-active");
        if !active || !system.systemctl_says("is-enabled") {
            let arguments = ["enable", "--now", "doorward.service"];
            plan.steps.push(Step::run(systemctl.clone(), &arguments, "starts now and with the system"));
        }
        if active {
            replace(system, (program, &systemctl), gate, changes, plan);
        }
        return;
    }
    let runs = gate.is_some() || system.gate_runs();
    if runs && (changes.program || gate.is_some_and(|gate| runs_another(system, gate, program))) {
        plan.next.push(
            "the gate still runs the program before; to replace it: doorward upgrade, which refuses and ends no connection. A \
             supervisor that takes the end of a process for the end of the service (procd, runit, s6) has to restart it instead"
                .to_owned(),
        );
    }
    if let Some(script) = system.init_script() {
        let script_says = |action, note| Step::run(script.clone(), &[action], note);
        if system.has_to_be_enabled() {
            plan.steps.push(script_says("enable", "starts with the system"));
        }
        if !runs {
            plan.steps.push(script_says("start", "starts now"));
        }
    } else if !system.is_running() {
        plan.next.push("in the system itself, run \"systemctl enable --now doorward\"".to_owned());
    } else if !runs {
        plan.next.push(format!(
            "systemd does not run here: to start the gate, as root or from your init system:\n  install -d -o {USER} -g {USER} \
             -m 0750 /run/doorward\n  RUNTIME_DIRECTORY=/run/doorward setpriv --reuid {USER} --regid {USER} --init-groups \
             --no-new-privs \\\n    {program} run --config {FOLDER}/{CONFIG}"
        ));
    }
}

/// Puts what was installed in the place of what the active service runs.
fn replace(system: &System, (program, systemctl): (&str, &Path), gate: Option<u32>, changes: Changes, plan: &mut Plan) {
    let restart = |note| Step::run(systemctl.to_owned(), &["restart", "doorward.service"], note);
    let other_program = gate.map_or(changes.program, |gate| changes.program || runs_another(system, gate, program));
    if changes.settings {
        plan.steps.push(restart("what the service needs has changed"));
    } else if other_program && gate.is_none() {
        plan.steps.push(restart("the program has changed, and no gate answers that could hand over to it"));
    } else if other_program {
        let config = format!("{FOLDER}/{CONFIG}");
        let note = "the new program takes over, and no connection is refused or lost";
        plan.steps.push(Step::run(Path::new(program).to_owned(), &["upgrade", "--config", &config], note));
        if changes.unit {
            plan.next.push(
                "the changed unit counts from the next start of the service on; to start it anew, which ends open connections: \
                 systemctl restart doorward"
                    .to_owned(),
            );
        }
    } else if changes.unit {
        plan.steps.push(restart("the unit has changed"));
    }
}

/// Whether a process runs another file than the installed program. Not if that cannot be seen.
fn runs_another(system: &System, process: u32, program: &str) -> bool {
    // What the link leads to, also if that has no name any more.
    let running = format!("/proc/{process}/exe");
    let [running, installed] = [Path::new(&running), &system.path(program)].map(|path| path.metadata().ok());
    let file = |there: std::fs::Metadata| (there.dev(), there.ino());
    running.zip(installed).is_some_and(|(running, installed)| file(running) != file(installed))
}
