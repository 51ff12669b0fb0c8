//! Applies a change to the running gate, and verifies it: what the gate says is in force is compared with what was written.

use std::fmt::{Display, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::change::{Change, canonical, quoted};
use super::published::{Published, publish};
use super::running_gate::{GateSearch, RunningGate, find};
use super::{CaError, FolderArg};
use crate::ca::inventory::Store;
use crate::ca::revoke::WrittenList;
use crate::cli::exit;
use crate::config;
use crate::config::checked::{Config, RevocationList, RouteMode};
use crate::control::client::{self as ask, AskError, ReloadError, TakeError};
use crate::control::{InForce, RouteInForce};
use crate::install::Installed;
use crate::model::identity::Sha256;
use crate::model::names::{Name, printable};
use crate::model::shell;

/// Whether a change is in force.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    /// The gate was asked, and the change is in force on every route that it concerns.
    in_force: bool,
    /// The gate will read the change from its files when it starts the next time.
    after_restart: bool,
    /// The number of connections that were closed because they are no longer authorized.
    sessions_cut: usize,
    /// The same in words.
    #[serde(skip)]
    pub(super) text: String,
    /// What could not be verified, and what to do.
    #[serde(skip)]
    problem: Option<CaError>,
}

impl Outcome {
    fn unverified(why: &str) -> Self {
        let problem = not_in_force(format!("the change is written, but not verified to be in force: {why}"));
        Self { in_force: false, after_restart: false, sessions_cut: 0, text: String::new(), problem: Some(problem) }
    }

    /// What the command fails with, if something could not be verified.
    pub(super) fn result(&mut self) -> Result<(), CaError> {
        self.problem.take().map_or(Ok(()), Err)
    }
}

fn not_in_force(message: String) -> CaError {
    CaError { code: exit::NOT_IN_FORCE, message }
}

/// Writes the change to the installed gate's files, has a running gate read it, and asks what is in force.
pub(super) fn apply(args: &FolderArg, store: &Store, change: Change<'_>) -> Outcome {
    let Published { lists, certificate, text, failures } = publish(store, change);
    let mut outcome = match change {
        Change::Lists(_) => apply_placed(args, store, Change::Lists(&lists), change, failures),
        Change::Certificate { .. } if !failures.is_empty() => Outcome::unverified(&failures.join("\n")),
        Change::Certificate { file, new_key, new, old } => {
            let file = certificate.as_ref().unwrap_or(file);
            apply_placed(args, store, Change::Certificate { file, new_key, new, old }, change, failures)
        }
    };
    outcome.text.insert_str(0, &text);
    outcome
}

/// The same for a change in the files that the gate reads; `own` is the change in those of the owner. `failures` says which of
/// the gate's files could not be written.
fn apply_placed(
    args: &FolderArg,
    store: &Store,
    change: Change<'_>,
    own: Change<'_>,
    failures: Vec<String>,
) -> Outcome {
    match find(args, store) {
        GateSearch::Running(gate) => apply_to(&gate, change, failures),
        GateSearch::NotRunning(config) if !failures.is_empty() => Outcome::unverified(&format!(
            "no gate runs with {}, and one that starts would not use the change: {}",
            shell::path(&config),
            failures.join("\n")
        )),
        GateSearch::NotRunning(config) => not_running(&config, store, change, own),
        GateSearch::NoConfiguration if matches!(change, Change::Certificate { old: None, .. }) => Outcome {
            in_force: false,
            after_restart: false,
            sessions_cut: 0,
            text: format!("The gate's configuration must contain\n{}\n", change.config_lines()),
            problem: None,
        },
        GateSearch::NoConfiguration => Outcome::unverified(&format!(
            "no gate configuration found\n  if a gate runs, name its configuration: --config FILE. It must contain\n{}\n  \
             and the gate must read it: doorward reload",
            change.config_lines()
        )),
        GateSearch::Unknown(why) => Outcome::unverified(&why),
    }
}

/// The outcome if no gate runs: whether it reads the change when it starts.
fn not_running(file: &Path, store: &Store, change: Change<'_>, own: Change<'_>) -> Outcome {
    let shown = shell::path(file);
    let loaded = config::load(file).map(|config| (config, change)).or_else(|errors| {
        // Only the installed gate may read its key. The files that it names were copied from the owner's.
        let gate = Installed::find().filter(|gate| gate.config() == file && gate.is_of(store.folder()));
        gate.map_or(Err(errors), |gate| gate.load_with_owners_files().map(|config| (config, own)))
    });
    let Ok((config, change)) = loaded else {
        return Outcome::unverified(&format!(
            "no gate runs with {shown}, and none could start: the file has errors or is not readable\n  to see them: \
             doorward check --config {shown}"
        ));
    };
    if let Some(missing) = missing(&config, change) {
        return Outcome::unverified(&format!(
            "no gate runs with {shown}, and one that starts would not use the change: {missing}"
        ));
    }
    let text = "No gate is running here. A gate that you start will load the change; one that runs elsewhere needs: doorward \
                reload\n";
    Outcome { in_force: false, after_restart: true, sessions_cut: 0, text: text.to_owned(), problem: None }
}

/// Which part of the change this configuration does not use.
fn missing(config: &Config, change: Change<'_>) -> Option<String> {
    let named = config.files();
    let file = config.file.display();
    if let Some(missing) = change.files().iter().find(|wanted| !is_among(&named, wanted)) {
        return Some(format!(
            "the configuration does not name {}\n{file} must contain\n{}",
            missing.display(),
            change.config_lines()
        ));
    }
    let Change::Lists(lists) = change else { return None };
    let mut each = lists.iter().flat_map(|list| config.served().map(move |route| (list, route)));
    each.find_map(|(list, route)| {
        let RouteMode::Terminate(terminate) = &route.mode else { return None };
        let auth = &terminate.client_auth;
        if !auth.mode.verifies() {
            return Some(not_verifying(&route.name, &config.file));
        }
        let looked_at = is_among(auth.revocation_lists.iter().map(|list| &list.file), &list.file);
        (auth.trusts(&list.authority) && !looked_at).then(|| not_on_route(&route.name, &config.file, list))
    })
}

fn not_verifying(route: impl Display, config: &Path) -> String {
    format!(
        "the route {route} verifies no certificates, so revocation has no effect there\nIn {} its [client_auth] must \
         contain mode = \"require_and_verify\"",
        config.display()
    )
}

fn not_on_route(route: &Name, config: &Path, list: &WrittenList) -> String {
    format!(
        "the route {route} does not use {file}\nIn {} its [route.client_auth] must name this file as well: \
         revocation_lists = [{}]",
        config.display(),
        quoted(&canonical(&list.file)),
        file = list.file.display(),
    )
}

/// Sends the lists, has the files read, and compares what is in force.
fn apply_to(gate: &RunningGate, change: Change<'_>, failures: Vec<String>) -> Outcome {
    let (shown, socket) = (shell::path(&gate.config), shell::path(&gate.socket));
    let (mut cut, mut problems, mut lasting) = (0, Vec::from_iter(gate.other_gate.clone()), failures);
    if let Change::Lists(lists) = change {
        for list in lists {
            match ask::take_list(&gate.socket, &list.authority, &list.der) {
                Ok(taken) => cut += taken.sessions_cut,
                Err(TakeError::No(why)) => problems.push(format!("the gate rejects the list: {why}")),
                // A gate of another release still reads the files.
                Err(TakeError::Ask(error)) => problems.push(error.to_string()),
            }
        }
    }
    let (mut code, mut reloaded) = (exit::NOT_IN_FORCE, false);
    match ask::reload(&gate.socket) {
        Ok(done) => {
            cut += done.sessions_cut;
            reloaded = true;
        }
        Err(error @ ReloadError::Refused { .. }) => {
            code = exit::CONFIG;
            lasting.push(format!("{error}  correct them, then: doorward reload --config {shown}"));
            if let ReloadError::Refused { sessions_cut, .. } = error {
                cut += sessions_cut;
            }
        }
        Err(error) => lasting.push(format!("{error}\n  try again: doorward reload --socket {socket}")),
    }
    let compared = match change {
        Change::Lists(lists) => lists.iter().try_for_each(|list| {
            let in_force = ask::in_force(&gate.socket, &list.authority)?;
            compare_list(&in_force, list, &gate.config, &mut problems, reloaded.then_some(&mut lasting));
            Ok::<_, AskError>(())
        }),
        Change::Certificate { file, new, old, .. } => ask::in_force(&gate.socket, &[]).map(|in_force| {
            compare_certificate(&in_force, change, (file, new, old), &gate.config, &mut problems, reloaded)
        }),
    };
    if let Err(error) = compared {
        problems.push(error.to_string());
    }
    let (in_force, after_restart) = (problems.is_empty(), problems.is_empty() && lasting.is_empty());
    let mut text = match (in_force, after_restart) {
        (true, true) => "The gate has applied the change. ".to_owned(),
        (true, false) => "The change is in force. ".to_owned(),
        _ => String::new(),
    };
    if in_force || cut > 0 {
        // Writing to a String cannot fail.
        let _ = match cut {
            0 => writeln!(text, "No open connection was affected."),
            1 => writeln!(text, "1 open connection was closed."),
            count => writeln!(text, "{count} open connections were closed."),
        };
    }
    problems.dedup();
    lasting.dedup();
    let problem = if after_restart {
        None
    } else if in_force {
        let message =
            format!("the change is in force, but the next start of the gate would undo it: {}", lasting.join("\n"));
        Some(CaError { code, message })
    } else {
        problems.extend(lasting);
        let message = format!("the change is written, but not in force: {}", problems.join("\n"));
        Some(CaError { code, message })
    };
    Outcome { in_force, after_restart, sessions_cut: cut, text, problem }
}

/// Adds to `problems` where a list is not in force, and to `lasting` where it is only until the next start. `lasting` is
/// `None` if the gate could not read its files: then that is reported already.
fn compare_list(
    in_force: &InForce,
    list: &WrittenList,
    config: &Path,
    problems: &mut Vec<String>,
    mut lasting: Option<&mut Vec<String>>,
) {
    let (digest, file) = (Sha256::of(&list.der).to_string(), list.file.display());
    let shown = shell::path(config);
    let read = RevocationList::read(list.der.clone(), &list.file);
    let issuer = read.as_ref().map(|list| printable(&list.issuer_in_words(), NAME_MAX)).unwrap_or_default();
    let number = read.and_then(|list| list.number_in_words());
    let same =
        |one: &&crate::control::ListInForce| one.sha256 == digest && one.issuer == issuer && one.number == number;
    for route in in_force.routes.iter().filter(|route| !route.verifies) {
        problems.push(not_verifying(&route.name, config));
    }
    let trusting: Vec<&RouteInForce> = in_force.routes.iter().filter(|route| route.trusts).collect();
    if trusting.is_empty() {
        problems.push(format!(
            "no route of the gate trusts the authority of {file}\nIf one should: trust under [client_auth] in {shown} \
             must name the certificate of this authority"
        ));
    }
    for route in &trusting {
        let mut these = route.revocation_lists.iter().filter(same).peekable();
        if these.peek().is_none() {
            problems.push(format!(
                "the route {} does not use the list in {file}\n  have the gate read its files again: doorward reload \
                 --config {shown}",
                route.name
            ));
        } else if these.all(|list| list.file.is_none())
            && let Some(lasting) = &mut lasting
        {
            lasting.push(lost_at_restart(in_force, route, list, &issuer, config));
        }
    }
}

/// Why a gate that starts would not read a list that is in force, and what to do.
fn lost_at_restart(
    in_force: &InForce,
    route: &RouteInForce,
    list: &WrittenList,
    issuer: &str,
    config: &Path,
) -> String {
    let (ours, shown) = (canonical(&list.file), shell::path(config));
    let older =
        route.revocation_lists.iter().filter(|other| other.issuer == issuer).find_map(|other| other.file.as_ref());
    if let Some(theirs) = older {
        return different_file(&ours, Path::new(theirs), config);
    }
    let none_has_lists =
        in_force.routes.iter().all(|route| route.revocation_lists.iter().all(|list| list.file.is_none()));
    let table = if none_has_lists {
        "[client_auth] must contain".to_owned()
    } else {
        format!("the [route.client_auth] of the route {} must contain", route.name)
    };
    format!(
        "the configuration does not name {file}\nIn {shown} {table} revocation_lists = [{}]\nand then: doorward reload \
         --config {shown}",
        quoted(&ours),
        file = list.file.display(),
    )
}

/// What to do if the gate's file `theirs` differs from `ours`.
fn different_file(ours: &Path, theirs: &Path, config: &Path) -> String {
    let (from, to, shown) = (shell::path(ours), shell::path(theirs), shell::path(config));
    if canonical(ours) == canonical(theirs) {
        return format!(
            "the gate sees another file under the name {to}, as happens if a single file is mounted into its container\n  \
             restart the container: docker restart CONTAINER; and mount the folder instead of the file"
        );
    }
    format!(
        "the gate reads {to}, not {from}\n  copy it: cp {from} {to}\n  if the gate runs in a container, copy it to the \
         file that has this name inside. Then: doorward reload --config {shown}"
    )
}

fn compare_certificate(
    in_force: &InForce,
    change: Change<'_>,
    (file, new, old): (&Path, Sha256, Option<Sha256>),
    config: &Path,
    problems: &mut Vec<String>,
    reloaded: bool,
) {
    let (new, old) = (new.to_string(), old.map(|old| old.to_string()));
    let shows = |route: &RouteInForce, digest: &String| route.certificates.first() == Some(digest);
    for route in in_force.routes.iter().filter(|route| old.as_ref().is_some_and(|old| shows(route, old))) {
        let why = different_file(&canonical(file), Path::new(&route.certificate_file), config);
        let why = if reloaded { format!(": {why}") } else { String::new() };
        problems.push(format!("the route {} still uses the old certificate{why}", route.name));
    }
    if problems.is_empty() && !in_force.routes.iter().any(|route| route.certificates == [new.clone()]) {
        let shown = shell::path(config);
        problems.push(format!(
            "no route of the gate uses this certificate\n{shown} must contain\n{}\nand then: doorward reload --config \
             {shown}",
            change.config_lines()
        ));
    }
}

/// The gate truncates the names of authorities in its answers to this length, in characters.
const NAME_MAX: usize = 200;

fn is_among<'a>(files: impl IntoIterator<Item = &'a PathBuf>, wanted: &Path) -> bool {
    let wanted = canonical(wanted);
    files.into_iter().any(|file| canonical(file) == wanted)
}
