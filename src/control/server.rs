//! The server of the control socket. All of its resources are limited, so that no client of it can affect the gate.

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

use super::socket::{self, BindError, Permitted, SocketFile};
use super::{
    AUTHORITY_MAX, Answer, Certificate, EXPIRIES_MAX, Expiring, InForce, LIST_MAX, ListInForce, ListTaken, Listening,
    LogError, NOT_UNDERSTOOD, REFUSALS_MAX, REQUEST_MAX, Refusal, Reloaded, Request, RouteInForce, RouteStatus,
    SESSIONS_MAX, SandboxStatus, Session, Sessions, Status, Why,
};
use crate::config::checked::Config;
use crate::config::expiries::Expiry;
use crate::explain::moment;
use crate::explain::recent::Wanted;
use crate::gate::Gate;
use crate::reload::policy_report::Difference;
use crate::reload::{self, Current, Reloader, Trigger};
use crate::sandbox::{Restrictions, Sandbox};
use crate::sessions::registry;
use crate::sessions::review::Reviewed;
use crate::sessions::selector::SessionSelector;
use crate::sys::credentials::peer_groups;

/// The most connections at once. One more closes the oldest: an honest client sends its request at once.
const CONNECTIONS: usize = 8;
/// For the request line.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// The most errors in an answer.
const ERRORS_MAX: usize = 1000;
/// For sending the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// For the data after a request line.
const PAYLOAD_TIMEOUT: Duration = Duration::from_secs(10);
/// For a reload. It goes on after this timeout.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(120);

/// What a status answer says and does not change while the gate runs.
#[derive(Debug)]
pub(crate) struct StaticFacts {
    config: PathBuf,
    since: OffsetDateTime,
    metrics: Option<String>,
    sandbox: Arc<Sandbox>,
}

impl StaticFacts {
    /// Of a gate that starts now with this configuration.
    pub(crate) fn of(config: &Config, metrics: Option<SocketAddr>, sandbox: Arc<Sandbox>) -> Self {
        Self {
            sandbox,
            // Absolute: the client may have another working directory.
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
    admitted: Admitted,
    path: PathBuf,
    _file: SocketFile,
}

/// Who may send requests, besides root.
#[derive(Clone, Copy, Debug)]
struct Admitted {
    user: u32,
    group: Option<u32>,
}

impl Control {
    /// Creates the socket.
    pub(crate) fn bind(path: &Path, permitted: Permitted) -> Result<Self, BindError> {
        let (listener, file) = socket::bind(path)?;
        let group = match permitted {
            Permitted::User => None,
            Permitted::GroupOfFolder => socket::admit_group_of_folder(path)?,
        };
        let admitted = Admitted { user: rustix::process::geteuid().as_raw(), group };
        Ok(Self { listener, admitted, path: path.to_owned(), _file: file })
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Answers requests. Does not return.
    pub(crate) async fn run(self, gate: Arc<Gate>, reloader: Reloader, facts: StaticFacts) {
        let Self { listener, admitted, _file, .. } = self;
        let facts = Arc::new(facts);
        // Registered with the runtime that serves it. This fails only without memory.
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
            let allowed = is_allowed(&stream, admitted);
            let (gate, facts, reloader) = (Arc::clone(&gate), Arc::clone(&facts), reloader.clone());
            in_order.push_back(connections.spawn(async move {
                // A client that closed the connection needs no answer.
                let _ = handle(stream, allowed, &gate, &facts, &reloader).await;
            }));
        }
    }
}

/// Whether this client may send requests. The file's mode says the same, but it can be changed.
fn is_allowed(stream: &UnixStream, admitted: Admitted) -> bool {
    stream.peer_cred().is_ok_and(|peer| {
        // Read only where it matters.
        admits(admitted, peer.uid(), || {
            let mut groups = peer_groups(stream).unwrap_or_default();
            groups.push(peer.gid());
            groups
        })
    })
}

fn admits(admitted: Admitted, user: u32, groups: impl FnOnce() -> Vec<u32>) -> bool {
    const ROOT: u32 = 0;
    user == admitted.user || user == ROOT || admitted.group.is_some_and(|group| groups().contains(&group))
}

async fn handle(
    mut stream: UnixStream,
    allowed: bool,
    gate: &Gate,
    facts: &StaticFacts,
    reloader: &Reloader,
) -> io::Result<()> {
    let answer = if allowed {
        match timeout(REQUEST_TIMEOUT, read_line(&mut stream)).await {
            Ok(Ok((line, rest))) => match serde_json::from_slice(&line) {
                Ok(request) => match payload(&request, rest, &mut stream).await {
                    Ok(payload) => answer(&request, payload, gate, facts, reloader).await,
                    Err(error) => Answer::Error(format!("cannot read the data after the request: {error}")),
                },
                Err(_) => Answer::Error(NOT_UNDERSTOOD.to_owned()),
            },
            Ok(Err(error)) => Answer::Error(format!("cannot read the request: {error}")),
            Err(_) => Answer::Error("the request did not arrive in time".to_owned()),
        }
    } else {
        Answer::Error(
            "permission denied: only the gate's user, the group of its socket, and root may use the control socket"
                .to_owned(),
        )
    };
    let mut line = serde_json::to_vec(&answer).map_err(io::Error::other)?;
    line.push(b'\n');
    let write = async {
        stream.write_all(&line).await?;
        stream.shutdown().await
    };
    timeout(ANSWER_TIMEOUT, write).await?
}

async fn reload(reloader: &Reloader) -> Answer {
    match timeout(RELOAD_TIMEOUT, reloader.reload(Trigger::Command)).await {
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
            Answer::NotReloaded { errors: limited(&errors), in_force: limited(&in_force), sessions_cut: cut }
        }
        Err(_) => {
            Answer::Error("the reload takes too long to wait for; its result will be in the gate's log".to_owned())
        }
    }
}

/// Reads up to the end of the line or of the stream. Returns the line, and what was read after it.
async fn read_line(stream: &mut UnixStream) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut line = Vec::new();
    let mut buffer = [0; 512];
    loop {
        let count = stream.read(&mut buffer).await?;
        let part = buffer.get(..count).unwrap_or_default();
        let end = part.iter().position(|&byte| byte == b'\n');
        line.extend_from_slice(part.get(..end.unwrap_or(count)).unwrap_or_default());
        if line.len() > REQUEST_MAX {
            return Err(io::Error::other(format!("longer than {REQUEST_MAX} bytes")));
        }
        if end.is_some() || count == 0 {
            let rest = end.and_then(|end| part.get(end + 1..)).unwrap_or_default().to_vec();
            return Ok((line, rest));
        }
    }
}

/// Reads the data after a request line: a certificate and a list. `begun` was read with the line.
async fn payload(request: &Request, begun: Vec<u8>, stream: &mut UnixStream) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let (authority, list) = match *request {
        Request::InForce { authority_bytes } => (authority_bytes, 0),
        Request::TakeList { authority_bytes, list_bytes } => (authority_bytes, list_bytes),
        _ => return Ok((Vec::new(), Vec::new())),
    };
    if authority > AUTHORITY_MAX || list > LIST_MAX {
        return Err(io::Error::other(format!(
            "the limits are {AUTHORITY_MAX} bytes for a certificate and {LIST_MAX} for a list"
        )));
    }
    let (mut bytes, wanted) = (begun, authority + list);
    let read = async {
        // Memory is allocated for what arrives, not for what is announced.
        let missing = u64::try_from(wanted.saturating_sub(bytes.len())).unwrap_or(0);
        stream.take(missing).read_to_end(&mut bytes).await
    };
    timeout(PAYLOAD_TIMEOUT, read).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if bytes.len() != wanted {
        return Err(io::Error::other(format!("got {} of {wanted} bytes", bytes.len())));
    }
    let list = bytes.split_off(authority);
    Ok((bytes, list))
}

async fn answer(
    request: &Request,
    (authority, list): (Vec<u8>, Vec<u8>),
    gate: &Gate,
    facts: &StaticFacts,
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
        Request::Cut { selector } => match SessionSelector::parse(selector) {
            Err(error) => Answer::Error(error.to_string()),
            Ok(selector) => cut(gate, &selector, now),
        },
        Request::CutAll => cut(gate, &SessionSelector::All, now),
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
        file: list.file.as_deref().map(absolute),
    };
    RouteInForce {
        name: route.name,
        verifies: route.verifies,
        trusts: route.trusts,
        certificate_file: absolute(&route.certificate_file),
        certificates: route.certificates.iter().map(ToString::to_string).collect(),
        revocation_lists: route.lists.into_iter().map(list).collect(),
    }
}

/// An absolute path, for clients with another working directory.
fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// As many errors as fit into an answer.
fn limited(errors: &[String]) -> Vec<String> {
    let more = errors.len().saturating_sub(ERRORS_MAX);
    let rest = (more > 0).then(|| format!("and {more} more: \"doorward check\" shows them all"));
    errors.iter().take(ERRORS_MAX).cloned().chain(rest).collect()
}

fn cut(gate: &Gate, selector: &SessionSelector, now: OffsetDateTime) -> Answer {
    let cut = gate.cut(selector);
    let shown = cut.iter().take(SESSIONS_MAX).map(|one| session(one, now)).collect();
    Answer::Cut(Sessions { open: cut.len(), sessions: shown })
}

fn status(gate: &Gate, facts: &StaticFacts, current: &Current, now: OffsetDateTime) -> Status {
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
        config_errors: limited(&current.errors),
        log_error: gate.log.error().map(|error| LogError { since: rfc3339(error.since), error: error.what }),
        sandbox: sandbox(facts.sandbox.in_force()),
        listeners: current.listeners.iter().map(|listener| listening(&listener.into())).collect(),
        metrics: facts.metrics.clone(),
        routes: routes.collect(),
        expiries: gate.metrics.expiries().iter().take(EXPIRIES_MAX).map(|one| expiring(one, now)).collect(),
        accepted: gate.accepted(),
        rejected: gate.refusals.total(),
        sessions: open,
    }
}

fn sandbox(Restrictions { mode, parts, capabilities, landlock, lacks }: &Restrictions) -> Option<Box<SandboxStatus>> {
    let owned = |words: &[&'static str]| words.iter().map(|word| (*word).to_owned()).collect();
    mode.map(|mode| {
        Box::new(SandboxStatus {
            mode: mode.to_owned(),
            in_force: owned(parts),
            capabilities: owned(capabilities),
            landlock: *landlock,
            missing: lacks.clone(),
        })
    })
}

fn listening(reload::Listening { name, address }: &reload::Listening) -> Listening {
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
        certificate: session.identity.as_deref().map(Certificate::from),
        backend: session.backend.get().map(ToString::to_string),
        path: session.path.label().to_owned(),
        bytes_to_backend: moved.to_backend,
        bytes_to_client: moved.to_client,
    }
}

fn rfc3339(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

/// How long ago, in seconds; 0 if the clock was set back.
fn seconds(since: OffsetDateTime, now: OffsetDateTime) -> u64 {
    u64::try_from((now - since).whole_seconds()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_gates_user_its_group_and_root_are_allowed() {
        let allows = |admitted: (u32, Option<u32>), user, groups: &[u32]| {
            admits(Admitted { user: admitted.0, group: admitted.1 }, user, || groups.to_vec())
        };
        assert!(allows((1000, None), 1000, &[]) && allows((1000, None), 0, &[]) && allows((0, None), 0, &[]));
        assert!(!allows((1000, None), 1001, &[1000]) && !allows((0, None), 1000, &[0]));
        assert!(allows((998, Some(997)), 1000, &[1000, 997]));
        assert!(!allows((998, Some(997)), 1000, &[1000, 998]));
    }
}
