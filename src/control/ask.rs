//! The asking end of the control socket.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::time::Instant;

use super::{ANSWER_MAX, Answer, InForce, ListTaken, NOT_UNDERSTOOD, Reloaded, Request};
use crate::model::names::visible;

/// For each step. A gate answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// For the answer to a reload: there may be lists with millions of entries to be read.
const RELOAD_PATIENCE: Duration = Duration::from_secs(150);

/// For the answer to a list that is handed over.
const LIST_PATIENCE: Duration = Duration::from_secs(60);

/// The longest text of a gate's that is passed on, in characters.
const TEXT_MAX: usize = 64 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No gate answers there.
    #[error(fmt = no_gate)]
    NoGate {
        /// Where.
        socket: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// What answers there is no gate, or one of another release.
    #[error(
        "what answers at {socket} is no gate of this release\n  restart the gate, so that it runs this release: systemctl \
         restart doorward"
    )]
    NotUnderstood {
        /// Where.
        socket: PathBuf,
    },
}

fn no_gate(socket: &Path, error: &io::Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let socket = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound => write!(
            f,
            "no gate is running there: there is no socket {socket}\n  start it with \"doorward run\", with a section \
             [control] in its configuration; or name its socket with --socket, or its configuration with --config"
        ),
        io::ErrorKind::ConnectionRefused => write!(
            f,
            "no gate is running there: nobody listens at {socket}\n  the gate has ended without removing it. Start it again \
             with \"doorward run\""
        ),
        io::ErrorKind::PermissionDenied => write!(
            f,
            "you may not ask the gate at {socket}\n  only the user that runs it and root may: put sudo before the command"
        ),
        _ => write!(f, "the gate at {socket} does not answer: {error}\n  look at its log"),
    }
}

/// Asks the gate at `path`.
///
/// # Errors
/// If there is none, or it does not answer. That it says no is an answer, too: [`Answer::Error`].
pub fn ask(path: &Path, request: &Request) -> Result<Answer, AskError> {
    ask_with(path, request, &[])
}

/// The same with what follows behind the line.
fn ask_with(path: &Path, request: &Request, payload: &[&[u8]]) -> Result<Answer, AskError> {
    let line = exchange(path, request, payload).map_err(|error| AskError::NoGate { socket: path.to_owned(), error })?;
    serde_json::from_str(&line).map_err(|_| AskError::NotUnderstood { socket: path.to_owned() })
}

/// Asks the gate at `path` what is in force, and which routes trust `authority`, a certificate in binary form.
///
/// # Errors
/// If there is none, or it does not answer, or is of another release.
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

/// Hands the gate at `path` a revocation list and the certificate of the authority that signed it, both in binary form. The
/// list is in force then.
///
/// # Errors
/// If there is none, or it does not answer, or does not take it.
pub fn take_list(path: &Path, authority: &[u8], list: &[u8]) -> Result<ListTaken, TakeError> {
    let request = Request::TakeList { authority_bytes: authority.len(), list_bytes: list.len() };
    match ask_with(path, &request, &[authority, list]).map_err(TakeError::Ask)? {
        Answer::ListTaken(taken) => Ok(taken),
        Answer::Error(error) if error != NOT_UNDERSTOOD => Err(TakeError::No(visible(&error, TEXT_MAX))),
        _ => Err(TakeError::Ask(AskError::NotUnderstood { socket: path.to_owned() })),
    }
}

/// Why a gate has not taken a revocation list.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// There is none, or it does not answer.
    #[error(transparent)]
    Ask(AskError),
    /// It does not take this list, for this reason.
    #[error("{0}")]
    No(String),
}

/// Why a gate has not taken its configuration over.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// There is none, or it does not answer.
    #[error(transparent)]
    Ask(AskError),
    /// It goes on with the configuration it has.
    #[error(fmt = refused)]
    Refused {
        /// The mistakes in the new one, in the words of `doorward check`.
        errors: Vec<String>,
        /// Revocation lists and `deny` entries that are in force nevertheless.
        in_force: Vec<String>,
        /// Sessions that end because of those.
        sessions_cut: usize,
    },
    /// It says no, for another reason.
    #[error("the gate did not do it: {0}")]
    No(String),
}

fn refused(errors: &[String], in_force: &[String], sessions_cut: &usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("the gate goes on with the configuration it has, because the new one has mistakes")?;
    if !in_force.is_empty() {
        f.write_str(".\nIn force nevertheless, for they take rights away:\n")?;
        in_force.iter().try_for_each(|what| writeln!(f, "  {what}"))?;
        write!(f, "Connections that were ended: {sessions_cut}. The mistakes")?;
    }
    f.write_str(":\n")?;
    errors.iter().try_for_each(|error| write!(f, "\n{error}\n"))
}

/// Lets the gate at `socket` take its configuration and all files over that it names, and waits until it has.
///
/// # Errors
/// If there is none, or it does not answer, or there are mistakes in the configuration: then nothing has changed.
pub fn reload(socket: &Path) -> Result<Reloaded, ReloadError> {
    match ask(socket, &Request::Reload).map_err(ReloadError::Ask)? {
        Answer::Reloaded(reloaded) => Ok(reloaded),
        // Whatever answers, nothing of it takes a terminal over.
        Answer::NotReloaded { errors, in_force, sessions_cut } => {
            let lines = |text: &String| text.lines().map(|line| visible(line, TEXT_MAX)).collect::<Vec<_>>().join("\n");
            let [errors, in_force] = [errors, in_force].map(|texts| texts.iter().map(lines).collect());
            Err(ReloadError::Refused { errors, in_force, sessions_cut })
        }
        Answer::Error(error) => Err(ReloadError::No(visible(&error, TEXT_MAX))),
        _ => Err(ReloadError::Ask(AskError::NotUnderstood { socket: socket.to_owned() })),
    }
}

fn exchange(path: &Path, request: &Request, payload: &[&[u8]]) -> io::Result<String> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.connect_timeout(&SockAddr::unix(path)?, PATIENCE)?;
    let patience = match request {
        Request::Reload => RELOAD_PATIENCE,
        Request::TakeList { .. } => LIST_PATIENCE,
        _ => PATIENCE,
    };
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut question = serde_json::to_vec(request).map_err(io::Error::other)?;
    question.push(b'\n');
    // A gate that says no at once does not read it.
    let sent = [&*question].iter().chain(payload).try_for_each(|part| (&socket).write_all(part));
    // For the whole answer: one that comes byte by byte is none.
    let until = Instant::now() + patience;
    let mut answer = Vec::new();
    let mut buffer = [0; 8192];
    let mut complete = false;
    while !complete {
        let left = until.saturating_duration_since(Instant::now());
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
            return Err(io::Error::other("its answer is too long"));
        }
    }
    if answer.is_empty() {
        sent?;
        return Err(io::Error::other("it hung up"));
    }
    // What is no text is no answer, and serde says so.
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
