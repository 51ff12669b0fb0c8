//! What has to happen for the gate to notice a change.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use rustls::pki_types::CertificateDer;
use serde::Serialize;

use super::{CaError, FolderArg};
use crate::cli::exit;
use crate::config;
use crate::config::checked::{Config, RouteMode};
use crate::control::ask::{AskError, ReloadError, ask, reload};
use crate::control::{Answer, Request};
use crate::names::Name;
use crate::pki::inventory::Store;

/// What the gate makes of a change.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    /// A running gate has taken it over.
    in_force: bool,
    /// So many connections ended by that, for they would not be let in any more.
    sessions_cut: usize,
    /// The same in words, and what is left to do.
    #[serde(skip)]
    pub(super) text: String,
}

impl Told {
    const fn not_yet(text: String) -> Self {
        Self { in_force: false, sessions_cut: 0, text }
    }
}

/// A revocation list, and who has signed it.
#[derive(Debug)]
pub(super) struct List {
    /// The file.
    pub(super) file: PathBuf,
    /// The certificate of the authority that it is of.
    pub(super) authority: CertificateDer<'static>,
}

/// What has changed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Changed<'a> {
    /// Revocation lists.
    Lists(&'a [List]),
    /// The gate's certificate.
    Certificate(&'a PathBuf),
}

/// A configuration by which a change is not in force.
struct Missing<'a> {
    file: &'a Path,
    /// The route that does without it, if others do not.
    route: Option<Name>,
}

impl<'a> Changed<'a> {
    /// What the configuration has to say.
    fn line(self) -> String {
        let quoted = |file: &PathBuf| format!("{:?}", file.display().to_string());
        match self {
            Self::Lists(lists) => {
                let files: Vec<String> = lists.iter().map(|list| quoted(&list.file)).collect();
                format!("  [client_auth]\n  revocation_lists = [{}]", files.join(", "))
            }
            Self::Certificate(file) => format!("  [certificate]\n  chain = {}", quoted(file)),
        }
    }

    /// What of it this configuration does not look at.
    fn missing(self, config: &Config) -> Option<Missing<'a>> {
        let files = match self {
            Self::Lists(lists) => lists.iter().map(|list| &list.file).collect(),
            Self::Certificate(file) => vec![file],
        };
        let named = config.files();
        if let Some(file) = files.into_iter().find(|file| !is_among(&named, file)) {
            return Some(Missing { file, route: None });
        }
        let Self::Lists(lists) = self else { return None };
        // A route may have lists of its own, or none.
        let mut each = lists.iter().flat_map(|list| config.routes.iter().map(move |route| (list, route)));
        each.find_map(|(list, route)| {
            let RouteMode::Terminate(terminate) = &route.mode else { return None };
            let auth = &terminate.client_auth;
            let trusted = auth.mode.verifies() && auth.trust.iter().any(|anchor| anchor.certificate == list.authority);
            let looked_at = is_among(auth.revocation_lists.iter().map(|list| &list.file), &list.file);
            (trusted && !looked_at).then(|| Missing { file: &list.file, route: Some(route.name.clone()) })
        })
    }
}

/// Lets a running gate take over what has changed.
///
/// That there is none is no mistake. That it refuses is one: what was changed is on the disk, and not in force. Only what the
/// gate's own configuration looks at is said to be in force once it was taken over.
pub(super) fn tell_gate(args: &FolderArg, store: &Store, changed: Changed<'_>) -> Result<Told, CaError> {
    let Some(config_file) = config_file(args, store) else {
        return Ok(Told::not_yet(format!(
            "There is no configuration of a gate here. It must say\n{}\nand the gate must be told: doorward reload\n",
            changed.line()
        )));
    };
    let (running, why) = match running(&config_file) {
        Ok(running) => (running, None),
        Err(why) => (None, Some(why)),
    };
    // One that runs may have been started with another configuration: what counts is that one.
    let config_file = running.as_ref().map_or(config_file, |running| running.config.clone());
    let shown = config_file.display();
    let mistakes = format!("{shown} has mistakes or cannot be read by you; doorward check --config {shown} tells them");
    let config = config::load(&config_file);
    let missing = config.as_ref().ok().and_then(|config| changed.missing(config));
    if let Some(Missing { file, route: None }) = missing {
        return Ok(Told::not_yet(format!(
            "warning: this changes nothing yet, for the configuration {shown} does not name {}\nIt must say\n{}\n\
             and then: doorward reload --config {shown}\n",
            file.display(),
            changed.line(),
        )));
    }
    let route = missing.as_ref().and_then(|missing| missing.route.as_ref().map(|route| (missing.file, route)));
    let but = route.map(|(file, route)| {
        format!(
            "warning: the route {route} still lets in whom it let in before, for it does not look at {file}\nIn {shown} its \
             [route.client_auth] must name this file, too: revocation_lists = [{file:?}]\n",
            file = file.display().to_string()
        )
    });
    let Some(running) = running else {
        return Ok(match (why, config.is_ok()) {
            (Some(why), _) => not_known(why),
            (None, false) => not_known(mistakes),
            (None, true) => Told::not_yet(format!(
                "{}No gate is running here that could be asked. It takes this over when it starts; one that runs elsewhere: \
                 doorward reload, there\n",
                but.unwrap_or_default()
            )),
        });
    };
    let done = match reload(&running.socket) {
        Ok(done) => done,
        Err(error @ ReloadError::Refused { .. }) => {
            return Err(CaError {
                code: exit::CONFIG,
                message: format!("what was changed is on the disk, and not in force: {error}"),
            });
        }
        Err(error) => return Ok(not_known(error)),
    };
    if config.is_err() {
        return Ok(not_known(mistakes));
    }
    Ok(Told {
        in_force: but.is_none(),
        sessions_cut: done.sessions_cut,
        text: format!(
            "{}The gate has taken it over. {}\n",
            but.unwrap_or_default(),
            match done.sessions_cut {
                0 => "No open connection had to end.".to_owned(),
                1 => "1 open connection was ended.".to_owned(),
                count => format!("{count} open connections were ended."),
            }
        ),
    })
}

fn not_known(why: impl fmt::Display) -> Told {
    Told::not_yet(format!("warning: it is not known whether a gate has taken it over: {why}\n"))
}

/// A gate that runs.
struct Running {
    socket: PathBuf,
    /// Its configuration, whatever leads to the socket.
    config: PathBuf,
}

/// The gate at the socket that this configuration leads to. `None`: there is no socket. Otherwise why that is not known.
fn running(config_file: &Path) -> Result<Option<Running>, String> {
    let shown = config_file.display();
    let control = config::load_control(config_file).map_err(|_| {
        format!("its socket is not known, for {shown} has mistakes; doorward check --config {shown} tells them")
    })?;
    for socket in control.socket.places() {
        match socket.symlink_metadata() {
            Ok(_) => {
                let answer = ask(&socket, &Request::Status).map_err(|error| error.to_string())?;
                let Answer::Status(status) = answer else {
                    return Err(AskError::NotUnderstood { socket }.to_string());
                };
                return Ok(Some(Running { socket, config: status.config.into() }));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(format!(
                    "cannot look at {}: {error}\n  as the user that runs the gate, or with sudo: doorward reload --config \
                     {shown}",
                    socket.display()
                ));
            }
        }
    }
    Ok(None)
}

/// The configuration that was named, else the one beside the folder of the authorities, else the usual one.
fn config_file(args: &FolderArg, store: &Store) -> Option<PathBuf> {
    let beside = || Some(store.path("../doorward.toml")).filter(|file| file.exists());
    let usual = || args.config.path().ok();
    if args.config.file.is_some() { usual() } else { beside().or_else(usual) }.filter(|file| file.exists())
}

fn is_among<'a>(files: impl IntoIterator<Item = &'a PathBuf>, wanted: &Path) -> bool {
    let real = |file: &Path| file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let wanted = real(wanted);
    files.into_iter().any(|file| real(file) == wanted)
}
