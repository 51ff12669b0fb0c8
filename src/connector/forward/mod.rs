//! Routes on local addresses, for programs that cannot show a certificate.

mod hints;
pub mod rule;
pub mod service;
mod tunnel;

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
use super::source::Source;
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
        let all = source.routes();
        let every: Vec<Rule> = all.iter().map(|(name, _)| Rule { route: name.clone(), local: None }).collect();
        let rules = if rules.is_empty() { &every } else { rules };
        if rules.is_empty() {
            return Err(ForwardError::Rule("this device has no route that could be forwarded".to_owned()));
        }
        let mut bound = Vec::new();
        for rule in rules {
            let found = source.find(&rule.route).and_then(|target| Ok((target, source.remote(&rule.route)?)));
            let (target, remote) = found.map_err(|error| ForwardError::Rule(error.to_string()))?;
            let kind = target.route.kind;
            unlock(&remote, &log)?;
            let listener = match &rule.local {
                Some(local) => {
                    rule::check(local, beyond_loopback).map_err(ForwardError::Rule)?;
                    Listener::bind(local_of(local)).map_err(|error| taken(&rule.route, local, &error))?
                }
                None => usual(&rule.route, kind)?,
            };
            bound.push((listener, Arc::new(Tunnel::new(rule.route.clone())), kind));
        }
        Ok(Self { source, bound, log })
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
            log(&format!("{} on {listener}", tunnel.route));
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
                Err(error) => log(&format!("no answers to doorward forward --status: {}: {error}", path.display())),
            }
        }
        stop.await;
        let _ = stopping.send(true);
        log("stopping");
        let _ = timeout(STOP, async { while tasks.join_next().await.is_some() {} }).await;
    }
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
fn usual(route: &str, kind: ServiceKind) -> Result<Listener, ForwardError> {
    let ports = rule::usual_ports(route, kind);
    let mut last = None;
    for port in ports {
        let local = Local::Tcp(rule::loopback(port));
        match Listener::bind(local_of(&local)) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = Some(taken(route, &local, &error)),
        }
    }
    Err(last.unwrap_or_else(|| ForwardError::Listen(format!("no port for {route}"))))
}

fn taken(route: &str, local: &Local, error: &io::Error) -> ForwardError {
    let advice = format!("choose another one: doorward forward {route}=ADDRESS:PORT");
    ForwardError::Listen(match error.kind() {
        io::ErrorKind::AddrInUse => format!("{route}: {local} is in use by another program\n  {advice}"),
        io::ErrorKind::PermissionDenied if cfg!(windows) => {
            format!("{route}: {local} is reserved by Windows, or another program has it for itself\n  {advice}")
        }
        io::ErrorKind::PermissionDenied => {
            format!("{route}: this user may not listen on {local}\n  ports below 1024 are for administrators; {advice}")
        }
        io::ErrorKind::AddrNotAvailable => format!("{route}: {local} is no address of this machine\n  {advice}"),
        _ => format!("{route}: cannot listen on {local}: {error}"),
    })
}
