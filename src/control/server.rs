//! The server of the control socket. All of its resources are limited, so that no client of it can affect the gate.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::answers::StaticFacts;
use super::earlier::EarlierProcesses;
use super::merge::merged;
use super::socket::{self, BindError, Permitted, SocketFile};
use super::upgrades::Upgrades;
use super::{
    AUTHORITY_MAX, Answer, LIST_MAX, ListTaken, NOT_UNDERSTOOD, REQUEST_MAX, Request, answers, certificates, history,
};
use crate::gate::Gate;
use crate::overview::Overview;
use crate::reload::{Reloader, Trigger};
use crate::sessions::review::Reviewed;
use crate::sessions::selector::SessionSelector;
use crate::sys::credentials::peer_groups;

/// The most connections at once. One more closes the oldest: an honest client sends its request at once.
const CONNECTIONS: usize = 8;
/// For the request line.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// For sending the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// For the data after a request line.
const PAYLOAD_TIMEOUT: Duration = Duration::from_secs(10);
/// For reading the files of the history.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(8);
/// For a reload. It goes on after this timeout.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(120);

/// What answers are made of.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) gate: Arc<Gate>,
    pub(crate) overview: Arc<Overview>,
    pub(crate) reloader: Reloader,
    pub(crate) facts: StaticFacts,
    /// Processes that upgrades have left: they are asked as well.
    pub(crate) earlier: Arc<EarlierProcesses>,
    pub(crate) upgrades: Upgrades,
}

/// The bound socket.
#[derive(Debug)]
pub(crate) struct Control {
    listener: std::os::unix::net::UnixListener,
    admitted: Admitted,
    path: PathBuf,
    file: Arc<SocketFile>,
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
        Ok(Self::new(listener, file, path, group))
    }

    /// Takes the socket of the process that this one replaces.
    pub(crate) fn adopt(path: &Path, socket: socket2::Socket, permitted: Permitted) -> io::Result<Self> {
        let (listener, file) = socket::adopt(path, socket)?;
        let group = match permitted {
            Permitted::User => None,
            Permitted::GroupOfFolder => socket::admitted_group(path)?,
        };
        Ok(Self::new(listener, file, path, group))
    }

    fn new(listener: std::os::unix::net::UnixListener, file: SocketFile, path: &Path, group: Option<u32>) -> Self {
        let admitted = Admitted { user: rustix::process::geteuid().as_raw(), group };
        Self { listener, admitted, path: path.to_owned(), file: Arc::new(file) }
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its file, which is removed when the last of these is dropped.
    pub(crate) fn file(&self) -> Arc<SocketFile> {
        Arc::clone(&self.file)
    }

    /// Another descriptor of the socket.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.listener.try_clone().map(OwnedFd::from)
    }

    /// Answers requests until `closed` is cancelled; then the socket is closed, and those that have been accepted are answered.
    pub(crate) async fn run(self, context: Arc<Context>, closed: CancellationToken) {
        let Self { listener, admitted, file, .. } = self;
        // Registered with the runtime that serves it. This fails only without memory.
        let Ok(listener) = UnixListener::from_std(listener) else { return };
        let mut connections = JoinSet::new();
        let mut in_order: VecDeque<AbortHandle> = VecDeque::new();
        while let Some(accepted) = closed.run_until_cancelled(listener.accept()).await {
            let Ok((stream, _)) = accepted else {
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
            let context = Arc::clone(&context);
            in_order.push_back(connections.spawn(async move { context.serve(stream, allowed).await }));
        }
        drop((listener, file));
        while connections.join_next().await.is_some() {}
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

impl Context {
    /// Answers the request of a client that is `allowed` to ask, or refuses it.
    pub(crate) async fn serve(&self, stream: UnixStream, allowed: bool) {
        // A client that closed the connection needs no answer.
        let _ = handle(stream, allowed, self).await;
    }
}

async fn handle(mut stream: UnixStream, allowed: bool, context: &Context) -> io::Result<()> {
    let answer = if allowed {
        match timeout(REQUEST_TIMEOUT, read_line(&mut stream)).await {
            Ok(Ok((line, rest))) => match serde_json::from_slice(&line) {
                Ok(request) => match payload(&request, rest, &mut stream).await {
                    Ok(payload) => answer(&request, payload, context).await,
                    Err(error) => Answer::Error(format!("cannot read the data after the request: {error}")),
                },
                Err(_) => Answer::Error(NOT_UNDERSTOOD.to_owned()),
            },
            Ok(Err(error)) => Answer::Error(format!("cannot read the request: {error}")),
            Err(_) => Answer::Error("the request did not arrive in time".to_owned()),
        }
    } else {
        // Read all the same: closing a socket with unread bytes is a reset, which takes the answer back.
        let _ = timeout(REQUEST_TIMEOUT, read_line(&mut stream)).await;
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
        Ok(result) => answers::reloaded(result),
        Err(_) => {
            Answer::Error("the reload takes too long to wait for; its result will be in the gate's log".to_owned())
        }
    }
}

/// Reads up to the end of the line or of the stream. Returns the line, and what was read after it.
async fn read_line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Vec<u8>, Vec<u8>)> {
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
async fn payload(
    request: &Request,
    begun: Vec<u8>,
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<(Vec<u8>, Vec<u8>)> {
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

/// The request in the bytes of a client, and the data after it, for the fuzzer.
#[doc(hidden)]
pub async fn fuzz_read(mut bytes: &[u8]) -> Option<(Request, Vec<u8>, Vec<u8>)> {
    let (line, rest) = read_line(&mut bytes).await.ok()?;
    let request = serde_json::from_slice(&line).ok()?;
    let (authority, list) = payload(&request, rest, &mut bytes).await.ok()?;
    Some((request, authority, list))
}

/// The answer of this process and of the earlier ones.
async fn answer(request: &Request, payload: (Vec<u8>, Vec<u8>), context: &Context) -> Answer {
    debug!(?request, "control request");
    if !context.earlier.are_concerned(request) {
        return own_answer(request, payload, context).await;
    }
    let sent = payload.clone();
    let sent = [sent.0.as_slice(), &sent.1];
    let others = context.earlier.ask(request, &sent);
    let (own, others) = tokio::join!(own_answer(request, payload, context), others);
    merged(own, others)
}

async fn own_answer(request: &Request, (authority, list): (Vec<u8>, Vec<u8>), context: &Context) -> Answer {
    let now = OffsetDateTime::now_utc();
    let Context { gate, overview, reloader, facts, .. } = context;
    match request {
        Request::Reload => reload(reloader).await,
        Request::InForce { .. } => {
            let authority = CertificateDer::from(authority);
            let authority = Some(&authority).filter(|authority| !authority.is_empty());
            answers::everything_in_force(reloader.in_force(authority))
        }
        Request::TakeList { .. } => match reloader.take_list(list, authority).await {
            Ok(Reviewed { cut, .. }) => Answer::ListTaken(ListTaken { sessions_cut: cut }),
            Err(why) => Answer::Error(why),
        },
        Request::Cut { selector } => match SessionSelector::parse(selector) {
            Err(error) => Answer::Error(error.to_string()),
            Ok(selector) => answers::cut(gate, &selector, now),
        },
        Request::CutAll => answers::cut(gate, &SessionSelector::All, now),
        Request::Status => {
            let mut status = answers::status(gate, overview, facts, &reloader.current().borrow(), now);
            status.upgrade_error = context.upgrades.error();
            Answer::Status(Box::new(status))
        }
        Request::Sessions { count } => answers::sessions(gate, *count, now),
        Request::History { seconds, device, count } => {
            let since =
                i64::try_from(*seconds).ok().and_then(|seconds| now.checked_sub(time::Duration::seconds(seconds)));
            let (gate, device, count) = (Arc::clone(gate), device.clone(), *count);
            let since = since.unwrap_or(OffsetDateTime::UNIX_EPOCH);
            // A disk that does not answer must not keep other requests waiting.
            let read = spawn_blocking(move || history::answer(&gate, since, device.as_deref(), count));
            match timeout(HISTORY_TIMEOUT, read).await {
                Ok(Ok(answer)) => answer,
                _ => Answer::Error("the files of the history cannot be read in time".to_owned()),
            }
        }
        Request::Why { wanted, count, ranked } => answers::why(gate, &context.overview, wanted, *count, *ranked, now),
        Request::Upgrade => match context.upgrades.request().await {
            Ok(upgraded) => Answer::Upgraded(upgraded),
            Err(error) => Answer::NotUpgraded { error },
        },
        Request::Certificates | Request::RenewCertificate => {
            certificates::answer(gate, &reloader.current().borrow().config, request)
        }
        Request::Counters => Answer::Counters(gate.metrics.render()),
    }
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
