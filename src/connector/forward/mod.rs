//! Routes on local addresses, for programs that cannot show a certificate.

mod hints;
pub mod rule;
pub mod service;
mod tunnel;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::hints::hint;
use self::rule::{Local, Rule};
use self::tunnel::Tunnel;
use super::platform::{self, Listener, StatusSocket};
use super::remote::Remote;
use super::source::{Pinned, Source};
use crate::model::service::ServiceKind;

/// How long open sessions have to end in order when the program is told to stop.
const STOP: Duration = Duration::from_secs(5);

/// Takes a line for the user.
pub type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// Why nothing is forwarded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// A route or an address that cannot be.
    #[error("{0}")]
    Rule(String),
    /// An address that cannot be listened on.
    #[error("{0}")]
    Listen(String),
}

/// Local addresses that are listened on.
pub struct Forwarder {
    source: Arc<Source>,
    bound: Vec<(Listener, Arc<Tunnel>, ServiceKind)>,
    log: Log,
}

impl std::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarder").field("bound", &self.bound.len()).finish_non_exhaustive()
    }
}

impl Forwarder {
    /// Listens for these routes, or for all of them if there is no rule. One that cannot be listened for: none is.
    pub fn bind(source: Arc<Source>, rules: &[Rule], beyond_loopback: bool, log: Log) -> Result<Self, ForwardError> {
        let chosen = chosen(&source, rules, beyond_loopback)?;
        for (rule, pinned) in &chosen {
            let remote = source.remote(pinned);
            unlock(&remote.map_err(|error| ForwardError::Rule(rule.wrong_route(error)))?, &log)?;
        }
        // The addresses that were asked for go before usual ones, which have others to fall back on.
        let (asked, usual): (Vec<_>, Vec<_>) =
            chosen.iter().enumerate().partition(|(_, (rule, _))| rule.local.is_some());
        let mut bound = BTreeMap::new();
        for (index, (rule, pinned)) in asked.iter().chain(&usual) {
            let listener = match &rule.local {
                Some(local) => {
                    let earlier =
                        asked.iter().map(|(_, (rule, _))| rule).take_while(|other| !std::ptr::eq(*other, rule));
                    Listener::bind(local_of(local)).map_err(|error| refused(rule, local, &error, earlier))?
                }
                None => first_free(rule, pinned.kind)?,
            };
            bound.insert(index, (listener, Arc::new(Tunnel::new(pinned.clone())), pinned.kind));
        }
        Ok(Self { source, bound: bound.into_values().collect(), log })
    }

    /// Forwards until it is to `stop`: nothing is listened on any more then, and open sessions are ended in order. Answers
    /// questions about it on a local socket of this path.
    pub async fn run(self, status: Option<&Path>, stop: impl Future<Output = ()>) {
        let Self { source, bound, log } = self;
        let (stopping, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let tunnels: Vec<(String, Arc<Tunnel>)> =
            bound.iter().map(|(listener, tunnel, _)| (listener.to_string(), Arc::clone(tunnel))).collect();
        for (listener, tunnel, kind) in bound {
            log(&format!("{} on {listener}", tunnel.pinned.shown));
            let local: Option<Local> = listener.address().map(Local::Tcp);
            if let Some(hint) = local.and_then(|local| hint(kind, &local, std::env::consts::OS)) {
                log(&format!("  {hint}"));
            }
            tasks.spawn(tunnel::listen(listener, tunnel, Arc::clone(&source), Arc::clone(&log), stopped.clone()));
        }
        if let Some(path) = status {
            match StatusSocket::bind(path) {
                Ok(socket) => {
                    let text = move || tunnels.iter().map(|(local, tunnel)| tunnel.status(local)).collect::<String>();
                    let mut stopped = stopped.clone();
                    tasks.spawn(async move {
                        tokio::select! {
                            () = socket.answer(text) => {}
                            _ = stopped.wait_for(|stopped| *stopped) => {}
                        }
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    log(
                        "another \"doorward forward\" of this user runs: --status tells of that one, and not of this one",
                    );
                }
                Err(error) => log(&format!("no answers to doorward forward --status: {}: {error}", path.display())),
            }
        }
        stop.await;
        let _ = stopping.send(true);
        log("stopping");
        let _ = timeout(STOP, async { while tasks.join_next().await.is_some() {} }).await;
    }
}

/// The rules that are meant, or one for each route if there is none, with the route of each.
///
/// # Errors
/// What is wrong with a rule, whatever is listened on now.
pub fn chosen(source: &Source, rules: &[Rule], beyond_loopback: bool) -> Result<Vec<(Rule, Pinned)>, ForwardError> {
    let wrong = |error: &dyn std::fmt::Display| ForwardError::Rule(error.to_string());
    let rules = match rules {
        [] => source.routes().map_err(|error| wrong(&error))?.into_iter().map(|(name, _)| Rule::of(name)).collect(),
        rules => rules.to_vec(),
    };
    if rules.is_empty() {
        return Err(wrong(&"this device has no route that could be forwarded"));
    }
    let pinned = |rule: Rule| {
        if let Some(local) = &rule.local {
            rule::check(local, beyond_loopback).map_err(|error| wrong(&rule.wrong_local(error)))?;
        }
        let pinned = source.pin(&rule.route).map_err(|error| wrong(&rule.wrong_route(error)))?;
        Ok((rule, pinned))
    };
    rules.into_iter().map(pinned).collect()
}

/// Asks for the PIN of the device's token at the start, when the user may be there. It may be plugged in later if a file has
/// the PIN.
fn unlock(remote: &Remote, log: &Log) -> Result<(), ForwardError> {
    match remote.tls.unlock() {
        Err(error) if error.is_passing() && remote.tls.is_unattended() => log(&error.to_string()),
        Err(error) => return Err(ForwardError::Rule(error.to_string())),
        Ok(()) => {}
    }
    Ok(())
}

/// What a running forwarder says about itself.
pub async fn status(path: &Path) -> io::Result<String> {
    platform::ask_status(path).await
}

fn local_of(local: &Local) -> platform::Address<'_> {
    match local {
        Local::Tcp(address) => platform::Address::Tcp(*address),
        Local::Unix(path) => platform::Address::Unix(path),
    }
}

/// Listens on the first usual port that is free.
fn first_free(rule: &Rule, kind: ServiceKind) -> Result<Listener, ForwardError> {
    let ports = rule::usual_ports(&rule.route, kind);
    let mut last = None;
    for port in ports {
        let local = Local::Tcp(rule::loopback(port));
        match Listener::bind(local_of(&local)) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = Some(refused(rule, &local, &error, std::iter::empty())),
        }
    }
    Err(last.unwrap_or_else(|| ForwardError::Listen(format!("no port for {}", rule.route))))
}

/// Why an address cannot be listened on; `earlier` are the rules whose addresses are.
fn refused<'a>(
    rule: &Rule,
    local: &Local,
    error: &io::Error,
    mut earlier: impl Iterator<Item = &'a Rule>,
) -> ForwardError {
    let (route, advice) = (&rule.route, rule.advice());
    let is_taken = error.kind() == io::ErrorKind::AddrInUse;
    let shares = |other: &&Rule| other.local.as_ref().is_some_and(|other| other.overlaps(local));
    if let Some(other) = earlier.find(shares).filter(|_| is_taken) {
        let text = format!("{} and {route} share {local}\n  give each an address of its own", other.route);
        return ForwardError::Rule(rule.wrong_local(text));
    }
    let text = match error.kind() {
        io::ErrorKind::AddrInUse => format!("{route}: {local} is in use by another program\n  {advice}"),
        io::ErrorKind::PermissionDenied if cfg!(windows) => {
            format!("{route}: {local} is reserved by Windows, or another program has it for itself\n  {advice}")
        }
        io::ErrorKind::PermissionDenied => {
            format!("{route}: this user may not listen on {local}\n  ports below 1024 are for administrators; {advice}")
        }
        io::ErrorKind::AddrNotAvailable => format!("{route}: {local} is no address of this machine\n  {advice}"),
        _ => format!("{route}: cannot listen on {local}: {error}"),
    };
    ForwardError::Listen(rule.wrong_local(text))
}
