//! The gate's end of the control socket. Whatever it is met with, it takes nothing from the gate.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::socket::{self, BindError, SocketFile};
use super::{
    AUTHORITY_MAX, Answer, Certificate, EXPIRIES_MAX, Expiring, InForce, LIST_MAX, ListInForce, ListTaken, Listening,
    LogError, NOT_UNDERSTOOD, REFUSALS_MAX, REQUEST_MAX, Refusal, Reloaded, Request, RouteInForce, RouteStatus,
    SESSIONS_MAX, Session, Sessions, Status, Why,
};
use crate::config::checked::Config;
use crate::explain::moment;
use crate::explain::refusals::{Shown, Wanted};
use crate::gate::{Gate, Reviewed};
use crate::reload::policy_report::Difference;
use crate::reload::{self, Cause, Current, Door, Reloader};
use crate::sessions::registry;
use crate::sessions::selector::Whom;
use crate::telemetry::expiries::Expiry;

/// Connections at once. For one more, the oldest is dropped: whoever has a question asks it at once.
const CONNECTIONS: usize = 8;
/// For the question.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// The most mistakes that an answer tells.
const ERRORS_MAX: usize = 1000;
/// For the answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// For what follows behind the line of a question.
const PAYLOAD_TIMEOUT: Duration = Duration::from_secs(10);
/// For a reload. It goes on if nobody waits for it any more.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(120);

/// What the gate is made of, for those who ask.
#[derive(Debug)]
pub(crate) struct Facts {
    config: PathBuf,
    since: OffsetDateTime,
    metrics: Option<String>,
}

impl Facts {
    /// Those of a gate that starts now with this configuration.
    pub(crate) fn of(config: &Config, metrics: Option<SocketAddr>) -> Self {
        Self {
            // Whoever asks may stand in another folder.
            config: std::path::absolute(&config.file).unwrap_or_else(|_| config.file.clone()),
            since: OffsetDateTime::now_utc(),
            metrics: metrics.map(|address| address.to_string()),
        }
    }
}

/// The bound socket.
#[derive(Debug)]
pub(crate) struct Control {
    listener: std::os::unix::net::UnixListener,
    facts: Arc<Facts>,
    own_user: u32,
    path: PathBuf,
    _file: SocketFile,
}

impl Control {
    /// Makes the socket.
    pub(crate) fn bind(path: &Path, facts: Facts) -> Result<Self, BindError> {
        let (listener, file) = socket::bind(path)?;
        let own_user = rustix::process::geteuid().as_raw();
        Ok(Self { listener, facts: Arc::new(facts), own_user, path: path.to_owned(), _file: file })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Answers until the gate is gone.
    pub(crate) async fn run(self, gate: Arc<Gate>, reloader: Reloader) {
        let Self { listener, facts, own_user, _file, .. } = self;
        // It belongs to the runtime that serves it. Adding it to that one's poll can fail for want of memory only.
        let Ok(listener) = UnixListener::from_std(listener) else { return };
        let mut connections = JoinSet::new();
        let mut in_order: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            while connections.try_join_next().is_some() {}
            in_order.retain(|connection| !connection.is_finished());
            if in_order.len() >= CONNECTIONS
                && let Some(oldest) = in_order.pop_front()
            {
                oldest.abort();
            }
            let welcome = stream.peer_cred().is_ok_and(|peer| may_ask(peer.uid(), own_user));
            let (gate, facts, reloader) = (Arc::clone(&gate), Arc::clone(&facts), reloader.clone());
            in_order.push_back(connections.spawn(async move {
                // Whoever breaks off has nobody to hear about it.
                let _ = converse(stream, welcome, &gate, &facts, &reloader).await;
            }));
        }
    }
}

/// The file's mode says so already; this holds where somebody has changed it.
const fn may_ask(user: u32, own_user: u32) -> bool {
    const ROOT: u32 = 0;
    user == own_user || user == ROOT
}

async fn converse(
    mut stream: UnixStream,
    welcome: bool,
    gate: &Gate,
    facts: &Facts,
    reloader: &Reloader,
) -> io::Result<()> {
    let answer = if welcome {
        match timeout(REQUEST_TIMEOUT, read_line(&mut stream)).await {
            Ok(Ok((line, rest))) => match serde_json::from_slice(&line) {
                Ok(request) => match payload(&request, rest, &mut stream).await {
                    Ok(payload) => answer(&request, payload, gate, facts, reloader).await,
                    Err(error) => Answer::Error(format!("what follows the question cannot be read: {error}")),
                },
                Err(_) => Answer::Error(NOT_UNDERSTOOD.to_owned()),
            },
            Ok(Err(error)) => Answer::Error(format!("the question cannot be read: {error}")),
            Err(_) => Answer::Error("the question did not come in time".to_owned()),
        }
    } else {
        Answer::Error("only the user that runs the gate, and root, may ask".to_owned())
    };
    let mut line = serde_json::to_vec(&answer).map_err(io::Error::other)?;
    line.push(b'\n');
    let write = async {
        stream.write_all(&line).await?;
        stream.shutdown().await
    };
    timeout(TIMEOUT, write).await?
}

async fn reload(reloader: &Reloader) -> Answer {
    match timeout(RELOAD_TIMEOUT, reloader.reload(Cause::Command)).await {
        Ok(Ok(reload::Reloaded { warnings, after_restart, opened, closed, difference, kept, cut })) => {
            let Difference { gained, lost } = difference;
            Answer::Reloaded(Reloaded {
                warnings,
                after_restart,
                opened: opened.iter().map(listening).collect(),
                closed: closed.iter().map(listening).collect(),
                gained,
                lost,
                sessions_kept: kept,
                sessions_cut: cut,
            })
        }
        Ok(Err(reload::Refused { errors, in_force, cut })) => {
            Answer::NotReloaded { errors: told(&errors), in_force: told(&in_force), sessions_cut: cut }
        }
        Err(_) => Answer::Error("it takes very long; what comes of it will be in the gate's log".to_owned()),
    }
}

/// Reads up to the end of the line or of the stream, and gives what came behind the line as well.
async fn read_line(stream: &mut UnixStream) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut line = Vec::new();
    let mut buffer = [0; 512];
    loop {
        let count = stream.read(&mut buffer).await?;
        let part = buffer.get(..count).unwrap_or_default();
        let end = part.iter().position(|&byte| byte == b'\n');
        line.extend_from_slice(part.get(..end.unwrap_or(count)).unwrap_or_default());
        if line.len() > REQUEST_MAX {
            return Err(io::Error::other(format!("it has more than {REQUEST_MAX} bytes")));
        }
        if end.is_some() || count == 0 {
            let rest = end.and_then(|end| part.get(end + 1..)).unwrap_or_default().to_vec();
            return Ok((line, rest));
        }
    }
}

/// Reads what follows behind the line of a question: a certificate and a list. `begun` came with the line.
async fn payload(request: &Request, begun: Vec<u8>, stream: &mut UnixStream) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let (authority, list) = match *request {
        Request::InForce { authority_bytes } => (authority_bytes, 0),
        Request::TakeList { authority_bytes, list_bytes } => (authority_bytes, list_bytes),
        _ => return Ok((Vec::new(), Vec::new())),
    };
    if authority > AUTHORITY_MAX || list > LIST_MAX {
        return Err(io::Error::other(format!(
            "a certificate has at most {AUTHORITY_MAX} bytes here, and a list {LIST_MAX}"
        )));
    }
    let (mut bytes, wanted) = (begun, authority + list);
    let read = async {
        // Memory is taken as it comes, not as it is announced.
        let missing = u64::try_from(wanted.saturating_sub(bytes.len())).unwrap_or(0);
        stream.take(missing).read_to_end(&mut bytes).await
    };
    timeout(PAYLOAD_TIMEOUT, read).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if bytes.len() != wanted {
        return Err(io::Error::other(format!("there were {} bytes instead of {wanted}", bytes.len())));
    }
    let list = bytes.split_off(authority);
    Ok((bytes, list))
}

async fn answer(
    request: &Request,
    (authority, list): (Vec<u8>, Vec<u8>),
    gate: &Gate,
    facts: &Facts,
    reloader: &Reloader,
) -> Answer {
    let now = OffsetDateTime::now_utc();
    debug!(?request, "control request");
    match request {
        Request::Reload => reload(reloader).await,
        Request::InForce { .. } => {
            let authority = CertificateDer::from(authority);
            let routes = reloader.in_force(Some(&authority).filter(|authority| !authority.is_empty()));
            Answer::InForce(InForce { routes: routes.into_iter().map(in_force).collect() })
        }
        Request::TakeList { .. } => match reloader.take_list(list, authority).await {
            Ok(Reviewed { cut, .. }) => Answer::ListTaken(ListTaken { sessions_cut: cut }),
            Err(why) => Answer::Error(why),
        },
        Request::Cut { whom } => match Whom::parse(whom) {
            Err(error) => Answer::Error(error.to_string()),
            Ok(whom) => cut(gate, &whom, now),
        },
        Request::CutEverybody => cut(gate, &Whom::Everybody, now),
        Request::Status => Answer::Status(status(gate, facts, &reloader.current().borrow(), now)),
        Request::Sessions { count } => {
            let (sessions, open) = gate.sessions.newest((*count).min(SESSIONS_MAX));
            Answer::Sessions(Sessions { open, sessions: sessions.iter().map(|one| session(one, now)).collect() })
        }
        Request::Why { wanted, count } => match Wanted::parse(wanted) {
            Err(error) => Answer::Error(error.to_string()),
            Ok(wanted) => {
                let (refusals, known) = gate.refusals.find(&wanted, (*count).min(REFUSALS_MAX));
                Answer::Why(Why {
                    known,
                    rejected: gate.refusals.total(),
                    refusals: refusals.iter().map(|one| Refusal::new(one, now)).collect(),
                })
            }
        },
    }
}

fn in_force(route: reload::RouteInForce) -> RouteInForce {
    let list = |list: reload::ListFacts| ListInForce {
        issuer: list.issuer,
        number: list.number,
        this_update: moment(list.this_update),
        sha256: list.sha256.to_string(),
        file: list.file.as_deref().map(whole),
    };
    RouteInForce {
        name: route.name,
        verifies: route.verifies,
        trusts: route.trusts,
        certificate_file: whole(&route.certificate_file),
        certificates: route.certificates.iter().map(ToString::to_string).collect(),
        revocation_lists: route.lists.into_iter().map(list).collect(),
    }
}

/// A path that means the same in another folder.
fn whole(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// As many mistakes as an answer tells.
fn told(errors: &[String]) -> Vec<String> {
    let more = errors.len().saturating_sub(ERRORS_MAX);
    let rest = (more > 0).then(|| format!("and {more} more: \"doorward check\" tells them all"));
    errors.iter().take(ERRORS_MAX).cloned().chain(rest).collect()
}

fn cut(gate: &Gate, whom: &Whom, now: OffsetDateTime) -> Answer {
    let cut = gate.cut(whom);
    let told = cut.iter().take(SESSIONS_MAX).map(|one| session(one, now)).collect();
    Answer::Cut(Sessions { open: cut.len(), sessions: told })
}

fn status(gate: &Gate, facts: &Facts, current: &Current, now: OffsetDateTime) -> Status {
    let (sessions, open) = gate.sessions.newest(usize::MAX);
    let snapshot = gate.snapshot.load();
    let routes = snapshot.in_order.iter().map(|route| RouteStatus {
        name: route.name.to_string(),
        server_names: route.server_names.iter().map(ToString::to_string).collect(),
        backends: route.backends.iter().map(ToString::to_string).collect(),
        sessions: sessions.iter().filter(|session| session.route == route.name).count(),
    });
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        since: rfc3339(facts.since),
        seconds: seconds(facts.since, now),
        draining: gate.draining.is_cancelled(),
        config: facts.config.display().to_string(),
        config_since: rfc3339(current.since),
        config_errors: told(&current.errors),
        log_error: gate.log.error().map(|error| LogError { since: rfc3339(error.since), error: error.what }),
        listeners: current.listeners.iter().map(|listener| listening(&listener.into())).collect(),
        metrics: facts.metrics.clone(),
        routes: routes.collect(),
        expiries: gate.metrics.expiries().iter().take(EXPIRIES_MAX).map(|one| expiring(one, now)).collect(),
        accepted: gate.accepted(),
        rejected: gate.refusals.total(),
        sessions: open,
    }
}

fn listening(Door { name, address }: &Door) -> Listening {
    Listening { name: name.to_string(), address: address.to_string() }
}

fn expiring(expiry: &Expiry, now: OffsetDateTime) -> Expiring {
    const DAY: i64 = 24 * 60 * 60;
    Expiring {
        kind: expiry.kind.label().to_owned(),
        what: expiry.kind.words().to_owned(),
        name: expiry.name.clone(),
        at: moment(expiry.at),
        days_left: expiry.at.saturating_sub(now.unix_timestamp()).div_euclid(DAY),
    }
}

fn session(session: &registry::Session, now: OffsetDateTime) -> Session {
    let moved = session.relay.moved();
    Session {
        id: session.id,
        since: rfc3339(session.since),
        seconds: seconds(session.since, now),
        source: session.source.to_string(),
        listener: session.listener.to_string(),
        route: session.route.to_string(),
        certificate: session.identity.as_deref().map(|identity| Certificate::from(&Shown::from(identity))),
        backend: session.backend.get().map(ToString::to_string),
        path: session.path.label().to_owned(),
        bytes_to_backend: moved.to_backend,
        bytes_to_client: moved.to_client,
    }
}

fn rfc3339(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

/// How long ago; a clock that was set back counts as no time.
fn seconds(since: OffsetDateTime, now: OffsetDateTime) -> u64 {
    u64::try_from((now - since).whole_seconds()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gates_user_and_root_may_ask() {
        assert!(may_ask(1000, 1000) && may_ask(0, 1000) && may_ask(0, 0));
        assert!(!may_ask(1001, 1000) && !may_ask(1000, 0));
    }
}
