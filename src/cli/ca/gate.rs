//! Has the running gate take a change over, and proves that it has: it is asked what is in force, and that is compared with
//! what was written.

use std::fmt::{Display, Write as _};
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use serde::Serialize;

use super::running::{Found, Running, find};
use super::{CaError, FolderArg};
use crate::ca::inventory::Store;
use crate::cli::exit;
use crate::config;
use crate::config::checked::{Config, RevocationList, RouteMode};
use crate::control::ask::{self, AskError, ReloadError, TakeError};
use crate::control::{InForce, RouteInForce};
use crate::model::identity::Sha256;
use crate::model::names::{Name, printable};
use crate::model::shell;

/// What the gate makes of a change.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    /// The gate was asked, and it is in force on every route that it concerns.
    in_force: bool,
    /// The gate will find it in its own files when it starts the next time.
    after_restart: bool,
    /// So many connections ended by that, for they would not be let in any more.
    sessions_cut: usize,
    /// The same in words.
    #[serde(skip)]
    pub(super) text: String,
    /// What is not proved, and what to do about it.
    #[serde(skip)]
    problem: Option<CaError>,
}

impl Told {
    fn unproved(why: &str) -> Self {
        let problem = not_in_force(format!("what was changed is on the disk, and not known to be in force: {why}"));
        Self { in_force: false, after_restart: false, sessions_cut: 0, text: String::new(), problem: Some(problem) }
    }

    /// What the command fails with, if anything is not proved.
    pub(super) fn outcome(&mut self) -> Result<(), CaError> {
        self.problem.take().map_or(Ok(()), Err)
    }
}

fn not_in_force(message: String) -> CaError {
    CaError { code: exit::NOT_IN_FORCE, message }
}

/// A revocation list, and who has signed it.
#[derive(Debug)]
pub(super) struct List {
    /// The file.
    pub(super) file: PathBuf,
    /// The list in binary form.
    pub(super) der: Vec<u8>,
    /// The certificate of the authority that it is of.
    pub(super) authority: CertificateDer<'static>,
}

/// What has changed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Changed<'a> {
    /// Revocation lists.
    Lists(&'a [List]),
    /// The gate's certificate.
    Certificate {
        /// Its file.
        file: &'a PathBuf,
        /// Its fingerprint.
        new: Sha256,
        /// The fingerprint of the one that it replaces.
        old: Option<Sha256>,
    },
}

impl Changed<'_> {
    fn files(self) -> Vec<PathBuf> {
        match self {
            Self::Lists(lists) => lists.iter().map(|list| list.file.clone()).collect(),
            Self::Certificate { file, .. } => vec![file.clone()],
        }
    }

    /// What the configuration has to say.
    fn line(self) -> String {
        let files: Vec<String> = self.files().iter().map(|file| quoted(&real(file))).collect();
        match self {
            Self::Lists(_) => format!("  [client_auth]\n  revocation_lists = [{}]", files.join(", ")),
            Self::Certificate { .. } => format!("  [certificate]\n  chain = {}", files.join("")),
        }
    }
}

/// Lets a running gate take over what has changed, and asks it whether it has.
pub(super) fn tell_gate(args: &FolderArg, store: &Store, changed: Changed<'_>) -> Told {
    match find(args, store) {
        Found::Gate(gate) => told_by(&gate, changed),
        Found::None(config) => not_running(&config, changed),
        Found::NoConfiguration if matches!(changed, Changed::Certificate { old: None, .. }) => Told {
            in_force: false,
            after_restart: false,
            sessions_cut: 0,
            text: format!("The configuration of a gate must say\n{}\n", changed.line()),
            problem: None,
        },
        Found::NoConfiguration => Told::unproved(&format!(
            "there is no configuration of a gate here\n  if a gate runs, name its configuration: --config FILE. It must say\n{}\n  \
             and the gate must be told: doorward reload",
            changed.line()
        )),
        Found::Unknown(why) => Told::unproved(&why),
    }
}

/// What a gate will do with the change that does not run.
fn not_running(file: &Path, changed: Changed<'_>) -> Told {
    let shown = shell::path(file);
    let Ok(config) = config::load(file) else {
        return Told::unproved(&format!(
            "no gate runs with {shown}, and none could start: it has mistakes or cannot be read by you\n  doorward check \
             --config {shown} tells which"
        ));
    };
    if let Some(missing) = missing(&config, changed) {
        return Told::unproved(&format!(
            "no gate runs with {shown}, and one that starts will not look at it: {missing}"
        ));
    }
    let text = "No gate is running here that could be asked. It takes this over when it starts; one that runs elsewhere: \
                doorward reload, there\n";
    Told { in_force: false, after_restart: true, sessions_cut: 0, text: text.to_owned(), problem: None }
}

/// What of the change this configuration does not look at.
fn missing(config: &Config, changed: Changed<'_>) -> Option<String> {
    let named = config.files();
    let file = config.file.display();
    if let Some(missing) = changed.files().iter().find(|wanted| !is_among(&named, wanted)) {
        return Some(format!(
            "the configuration does not name {}\nIn {file} it must say\n{}",
            missing.display(),
            changed.line()
        ));
    }
    let Changed::Lists(lists) = changed else { return None };
    let mut each = lists.iter().flat_map(|list| config.routes.iter().map(move |route| (list, route)));
    each.find_map(|(list, route)| {
        let RouteMode::Terminate(terminate) = &route.mode else { return None };
        let auth = &terminate.client_auth;
        if !auth.mode.verifies() {
            return Some(verifies_none(&route.name, &config.file));
        }
        let looked_at = is_among(auth.revocation_lists.iter().map(|list| &list.file), &list.file);
        (auth.trusts(&list.authority) && !looked_at).then(|| on_route(&route.name, &config.file, list))
    })
}

fn verifies_none(route: impl Display, config: &Path) -> String {
    format!(
        "the route {route} verifies no certificate, so no list shuts anybody out there\nIn {} its [client_auth] must say mode = \
         \"require_and_verify\"",
        config.display()
    )
}

fn on_route(route: &Name, config: &Path, list: &List) -> String {
    format!(
        "the route {route} does not look at {file}\nIn {} its [route.client_auth] must name this file, too: revocation_lists = \
         [{}]",
        config.display(),
        quoted(&real(&list.file)),
        file = list.file.display(),
    )
}

/// Hands the change over, has the files read, and compares.
fn told_by(gate: &Running, changed: Changed<'_>) -> Told {
    let (shown, socket) = (shell::path(&gate.config), shell::path(&gate.socket));
    let (mut cut, mut problems, mut lasting) = (0, Vec::from_iter(gate.other.clone()), Vec::new());
    if let Changed::Lists(lists) = changed {
        for list in lists {
            match ask::take_list(&gate.socket, &list.authority, &list.der) {
                Ok(taken) => cut += taken.sessions_cut,
                Err(TakeError::No(why)) => problems.push(format!("the gate does not take the list: {why}")),
                // One of another release reads the files all the same.
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
            lasting.push(format!("{error}  mend them, then: doorward reload --config {shown}"));
            if let ReloadError::Refused { sessions_cut, .. } = error {
                cut += sessions_cut;
            }
        }
        Err(error) => lasting.push(format!("{error}\n  try again: doorward reload --socket {socket}")),
    }
    let compared = match changed {
        Changed::Lists(lists) => lists.iter().try_for_each(|list| {
            let in_force = ask::in_force(&gate.socket, &list.authority)?;
            compare_list(&in_force, list, &gate.config, &mut problems, reloaded.then_some(&mut lasting));
            Ok::<_, AskError>(())
        }),
        Changed::Certificate { file, new, old } => ask::in_force(&gate.socket, &[]).map(|in_force| {
            compare_certificate(&in_force, changed, (file, new, old), &gate.config, &mut problems, reloaded)
        }),
    };
    if let Err(error) = compared {
        problems.push(error.to_string());
    }
    let (in_force, after_restart) = (problems.is_empty(), problems.is_empty() && lasting.is_empty());
    let mut text = match (in_force, after_restart) {
        (true, true) => "The gate has taken it over. ".to_owned(),
        (true, false) => "It is in force now. ".to_owned(),
        _ => String::new(),
    };
    if in_force || cut > 0 {
        // Writing to a String cannot fail.
        let _ = match cut {
            0 => writeln!(text, "No open connection had to end."),
            1 => writeln!(text, "1 open connection was ended."),
            count => writeln!(text, "{count} open connections were ended."),
        };
    }
    problems.dedup();
    lasting.dedup();
    let problem = if after_restart {
        None
    } else if in_force {
        let message =
            format!("it is in force now, but the next start of the gate would undo it: {}", lasting.join("\n"));
        Some(CaError { code, message })
    } else {
        problems.extend(lasting);
        let message = format!("what was changed is on the disk, and not in force: {}", problems.join("\n"));
        Some(CaError { code, message })
    };
    Told { in_force, after_restart, sessions_cut: cut, text, problem }
}

/// Where a list is not in force goes to `problems`, and where only until the next start to `lasting`; of a gate that could not
/// read its files that is known already.
fn compare_list(
    in_force: &InForce,
    list: &List,
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
        problems.push(verifies_none(&route.name, config));
    }
    let trusting: Vec<&RouteInForce> = in_force.routes.iter().filter(|route| route.trusts).collect();
    if trusting.is_empty() {
        problems.push(format!(
            "no route of the gate trusts the authority of {file}\nIf one should: in {shown} trust, under [client_auth], must \
             name the certificate of this authority"
        ));
    }
    for route in &trusting {
        let mut these = route.revocation_lists.iter().filter(same).peekable();
        if these.peek().is_none() {
            problems.push(format!(
                "the route {} has another list in force than {file}\n  let the gate read its files again: doorward reload \
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

/// Why a gate that starts would not find a list that is in force, and what to do.
fn lost_at_restart(in_force: &InForce, route: &RouteInForce, list: &List, issuer: &str, config: &Path) -> String {
    let (ours, shown) = (real(&list.file), config.display());
    let older =
        route.revocation_lists.iter().filter(|other| other.issuer == issuer).find_map(|other| other.file.as_ref());
    if let Some(theirs) = older {
        return copy_over(&ours, Path::new(theirs), config);
    }
    let none_has_lists =
        in_force.routes.iter().all(|route| route.revocation_lists.iter().all(|list| list.file.is_none()));
    let table = if none_has_lists {
        "[client_auth] must say".to_owned()
    } else {
        format!("the [route.client_auth] of the route {} must say", route.name)
    };
    format!(
        "the configuration does not name {file}\nIn {shown} {table} revocation_lists = [{}]\nand then: doorward reload --config \
         {shown}",
        quoted(&ours),
        file = list.file.display(),
    )
}

/// The gate has something else in its file `theirs` than is in `ours`.
fn copy_over(ours: &Path, theirs: &Path, config: &Path) -> String {
    let (from, to, shown) = (shell::path(ours), shell::path(theirs), shell::path(config));
    if real(ours) == real(theirs) {
        return format!(
            "under the name {to} the gate sees another file, as it does where that was mounted into its container as a single \
             file\n  start the container again: docker restart CONTAINER; and mount the folder instead of the file"
        );
    }
    format!(
        "the gate reads {to}, which is not {from}\n  copy it there: cp {from} {to}; if the gate runs in a container, to where it \
         has that name. Then: doorward reload --config {shown}"
    )
}

fn compare_certificate(
    in_force: &InForce,
    changed: Changed<'_>,
    (file, new, old): (&Path, Sha256, Option<Sha256>),
    config: &Path,
    problems: &mut Vec<String>,
    reloaded: bool,
) {
    let (new, old) = (new.to_string(), old.map(|old| old.to_string()));
    let shows = |route: &RouteInForce, digest: &String| route.certificates.first() == Some(digest);
    for route in in_force.routes.iter().filter(|route| old.as_ref().is_some_and(|old| shows(route, old))) {
        let why = copy_over(&real(file), Path::new(&route.certificate_file), config);
        let why = if reloaded { format!(": {why}") } else { String::new() };
        problems.push(format!("the route {} still shows the certificate of before{why}", route.name));
    }
    if problems.is_empty() && !in_force.routes.iter().any(|route| route.certificates == [new.clone()]) {
        let shown = shell::path(config);
        problems.push(format!(
            "no route of the gate shows this certificate\nIn {shown} it must say\n{}\nand then: doorward reload --config {shown}",
            changed.line()
        ));
    }
}

/// The longest name of an authority in an answer of the gate, in characters.
const NAME_MAX: usize = 200;

fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

fn real(file: &Path) -> PathBuf {
    file.canonicalize().or_else(|_| std::path::absolute(file)).unwrap_or_else(|_| file.to_owned())
}

fn is_among<'a>(files: impl IntoIterator<Item = &'a PathBuf>, wanted: &Path) -> bool {
    let wanted = real(wanted);
    files.into_iter().any(|file| real(file) == wanted)
}
