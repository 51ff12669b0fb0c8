//! The client of the control socket.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::time::Instant;

use super::{ANSWER_MAX, Answer, InForce, ListTaken, NOT_UNDERSTOOD, Reloaded, Request, Upgraded};
use crate::model::names::visible;

/// For each step. A gate answers in milliseconds.
const TIMEOUT: Duration = Duration::from_secs(10);

/// For the answer to a reload, which may read lists with millions of entries.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(150);

/// For the answer to a revocation list.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);

/// For the answer to an upgrade: the new process may read lists with millions of entries.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest text of an answer that is shown, in characters.
const TEXT_MAX: usize = 64 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No gate answers.
    #[error(fmt = no_gate)]
    NoGate {
        /// The socket.
        socket: PathBuf,
        /// The error.
        error: io::Error,
    },
    /// The answer is not of a gate of this release.
    #[error("the gate at {socket} is not of this release\n  restart it: systemctl restart doorward")]
    NotUnderstood {
        /// The socket.
        socket: PathBuf,
    },
}

fn no_gate(socket: &Path, error: &io::Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let socket = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound => write!(
            f,
            "no gate is running: there is no socket {socket}\n  start it with \"doorward run\" and a section [control] in its \
             configuration, or give its socket with --socket or its configuration with --config"
        ),
        io::ErrorKind::ConnectionRefused => write!(
            f,
            "no gate is running: nothing listens on {socket}\n  the gate has ended without removing it; start it again with \
             \"doorward run\""
        ),
        io::ErrorKind::PermissionDenied => write!(
            f,
            "permission denied for the control socket {socket}\n  only the gate's user, members of the group of its service (\"doorward\"), and root may use it: run the \
             command with sudo, or log in again if you were added to the group just now"
        ),
        _ => write!(f, "the gate at {socket} does not answer: {error}\n  see its log"),
    }
}

/// Sends a request to the gate at `path`.
///
/// # Errors
/// If no gate answers. A refused request is an answer: [`Answer::Error`].
pub fn ask(path: &Path, request: &Request) -> Result<Answer, AskError> {
    ask_with(path, request, &[])
}

/// The same with data after the request line.
fn ask_with(path: &Path, request: &Request, payload: &[&[u8]]) -> Result<Answer, AskError> {
    let line = exchange(path, request, payload).map_err(|error| AskError::NoGate { socket: path.to_owned(), error })?;
    serde_json::from_str(&line).map_err(|_| AskError::NotUnderstood { socket: path.to_owned() })
}

/// Asks the gate at `path` which lists and certificates are in force, and which routes trust `authority`, a certificate in
/// DER.
///
/// # Errors
/// If no gate of this release answers.
pub fn in_force(path: &Path, authority: &[u8]) -> Result<InForce, AskError> {
    let request = Request::InForce { authority_bytes: authority.len() };
    match ask_with(path, &request, &[authority])? {
        Answer::InForce(in_force) => Ok(in_force),
        Answer::Error(error) if error != NOT_UNDERSTOOD => {
            Err(AskError::NoGate { socket: path.to_owned(), error: io::Error::other(visible(&error, TEXT_MAX)) })
        }
        _ => Err(AskError::NotUnderstood { socket: path.to_owned() }),
    }
}

/// Puts a revocation list in force at the gate at `path`, with the certificate of the authority that signed it. Both are
/// DER.
///
/// # Errors
/// If no gate of this release answers, or it refuses the list.
pub fn take_list(path: &Path, authority: &[u8], list: &[u8]) -> Result<ListTaken, TakeError> {
    let request = Request::TakeList { authority_bytes: authority.len(), list_bytes: list.len() };
    match ask_with(path, &request, &[authority, list]).map_err(TakeError::Ask)? {
        Answer::ListTaken(taken) => Ok(taken),
        Answer::Error(error) if error != NOT_UNDERSTOOD => Err(TakeError::No(visible(&error, TEXT_MAX))),
        _ => Err(TakeError::Ask(AskError::NotUnderstood { socket: path.to_owned() })),
    }
}

/// Why a revocation list was not put in force.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// No gate of this release answers.
    #[error(transparent)]
    Ask(AskError),
    /// The gate refuses the list, with this message.
    #[error("{0}")]
    No(String),
}

/// Why a reload was not done.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// No gate of this release answers.
    #[error(transparent)]
    Ask(AskError),
    /// The configuration has errors, and the gate keeps the one it has.
    #[error(fmt = refused)]
    Refused {
        /// The errors, as from `doorward check`.
        errors: Vec<String>,
        /// Revocation lists and `deny` entries that took effect all the same.
        in_force: Vec<String>,
        /// Sessions that were cut because of those.
        sessions_cut: usize,
    },
    /// The gate refuses the request, with this message.
    #[error("the gate refused the request: {0}")]
    No(String),
}

fn refused(errors: &[String], in_force: &[String], sessions_cut: &usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("the configuration has errors; the gate keeps the previous one")?;
    if !in_force.is_empty() {
        f.write_str("\nThese revocations took effect all the same:\n")?;
        in_force.iter().try_for_each(|entry| writeln!(f, "  {entry}"))?;
        write!(f, "Connections cut: {sessions_cut}. Errors")?;
    }
    f.write_str(":\n")?;
    errors.iter().try_for_each(|error| write!(f, "\n{error}\n"))
}

/// Has the gate at `socket` reload its configuration, and waits until that is done.
///
/// # Errors
/// If no gate of this release answers, or the configuration has errors.
pub fn reload(socket: &Path) -> Result<Reloaded, ReloadError> {
    match ask(socket, &Request::Reload).map_err(ReloadError::Ask)? {
        Answer::Reloaded(reloaded) => Ok(reloaded),
        // Escaped, so that no answer can control the terminal.
        Answer::NotReloaded { errors, in_force, sessions_cut } => {
            let lines = |text: &String| text.lines().map(|line| visible(line, TEXT_MAX)).collect::<Vec<_>>().join("\n");
            let [errors, in_force] = [errors, in_force].map(|texts| texts.iter().map(lines).collect());
            Err(ReloadError::Refused { errors, in_force, sessions_cut })
        }
        Answer::Error(error) => Err(ReloadError::No(visible(&error, TEXT_MAX))),
        _ => Err(ReloadError::Ask(AskError::NotUnderstood { socket: socket.to_owned() })),
    }
}

/// Why the gate was not replaced.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// No gate of this release answers.
    #[error(transparent)]
    Ask(AskError),
    /// The new process has not taken over.
    #[error("the gate was not replaced, and continues as before\n  {0}")]
    Failed(String),
    /// The gate refuses the request, with this message.
    #[error("the gate refused the request: {0}")]
    No(String),
}

/// Has the gate at `socket` replaced by a new process of its program, and waits until that accepts connections.
///
/// # Errors
/// If no gate of this release answers, or the new process does not take over.
pub fn upgrade(socket: &Path) -> Result<Upgraded, UpgradeError> {
    match ask(socket, &Request::Upgrade).map_err(UpgradeError::Ask)? {
        Answer::Upgraded(upgraded) => Ok(upgraded),
        // Escaped, so that no answer can control the terminal.
        Answer::NotUpgraded { error } => {
            let lines: Vec<String> = error.lines().map(|line| visible(line, TEXT_MAX)).collect();
            Err(UpgradeError::Failed(lines.join("\n")))
        }
        Answer::Error(error) if error != NOT_UNDERSTOOD => Err(UpgradeError::No(visible(&error, TEXT_MAX))),
        _ => Err(UpgradeError::Ask(AskError::NotUnderstood { socket: socket.to_owned() })),
    }
}

fn exchange(path: &Path, request: &Request, payload: &[&[u8]]) -> io::Result<String> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.connect_timeout(&SockAddr::unix(path)?, TIMEOUT)?;
    let answer_timeout = match request {
        Request::Reload => RELOAD_TIMEOUT,
        Request::TakeList { .. } => LIST_TIMEOUT,
        Request::Upgrade => UPGRADE_TIMEOUT,
        _ => TIMEOUT,
    };
    socket.set_write_timeout(Some(TIMEOUT))?;
    let mut line = serde_json::to_vec(request).map_err(io::Error::other)?;
    line.push(b'\n');
    // A gate that refuses at once does not read everything: its answer counts, not this error.
    let sent = [&*line].iter().chain(payload).try_for_each(|part| (&socket).write_all(part));
    // For the whole answer, however slowly it comes.
    let deadline = Instant::now() + answer_timeout;
    let mut answer = Vec::new();
    let mut buffer = [0; 8192];
    let mut complete = false;
    while !complete {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let count = match (&socket).read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        };
        let part = buffer.get(..count).unwrap_or_default();
        complete = part.contains(&b'\n');
        answer.extend_from_slice(part);
        if answer.len() > ANSWER_MAX {
            return Err(io::Error::other("the answer is too long"));
        }
    }
    if answer.is_empty() {
        sent?;
        return Err(io::Error::other("the connection was closed without an answer"));
    }
    // Invalid UTF-8 is no JSON, so parsing fails.
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
