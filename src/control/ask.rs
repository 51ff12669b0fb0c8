//! The asking end of the control socket.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::{ANSWER_MAX, Answer, Reloaded, Request};
use crate::names::visible;

/// For each step. A gate answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// For the answer to a reload: there may be lists with millions of entries to be read.
const RELOAD_PATIENCE: Duration = Duration::from_secs(150);

/// The longest text of a gate's that is passed on, in characters.
const TEXT_MAX: usize = 64 * 1024;

/// Why there is no answer.
#[derive(Debug)]
pub enum AskError {
    /// No gate answers there.
    NoGate {
        /// Where.
        socket: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// What answers there is no gate, or one of another release.
    NotUnderstood {
        /// Where.
        socket: PathBuf,
    },
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoGate { socket, error } => {
                let socket = socket.display();
                match error.kind() {
                    io::ErrorKind::NotFound => write!(
                        f,
                        "no gate is running there: there is no socket {socket}\n  start it with \"doorward run\", with a \
                         section [control] in its configuration; or name its socket with --socket, or its configuration \
                         with --config"
                    ),
                    io::ErrorKind::ConnectionRefused => write!(
                        f,
                        "no gate is running there: nobody listens at {socket}\n  the gate has ended without removing it. \
                         Start it again with \"doorward run\""
                    ),
                    io::ErrorKind::PermissionDenied => write!(
                        f,
                        "you may not ask the gate at {socket}\n  only the user that runs it and root may: put sudo before \
                         the command"
                    ),
                    _ => write!(f, "the gate at {socket} does not answer: {error}\n  look at its log"),
                }
            }
            Self::NotUnderstood { socket } => write!(
                f,
                "what answers at {} is no gate of this release\n  was the gate restarted after an upgrade?",
                socket.display()
            ),
        }
    }
}

impl std::error::Error for AskError {}

/// Asks the gate at `path`.
///
/// # Errors
/// If there is none, or it does not answer. That it says no is an answer, too: [`Answer::Error`].
pub fn ask(path: &Path, request: &Request) -> Result<Answer, AskError> {
    let line = exchange(path, request).map_err(|error| AskError::NoGate { socket: path.to_owned(), error })?;
    serde_json::from_str(&line).map_err(|_| AskError::NotUnderstood { socket: path.to_owned() })
}

/// Why a gate has not taken its configuration over.
#[derive(Debug)]
pub enum ReloadError {
    /// There is none, or it does not answer.
    Ask(AskError),
    /// It goes on with the configuration it has, because of these mistakes in the new one, in the words of `doorward check`.
    Refused(Vec<String>),
    /// It says no, for another reason.
    No(String),
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ask(error) => error.fmt(f),
            Self::Refused(errors) => {
                f.write_str("the gate goes on with the configuration it has, because the new one has mistakes:\n")?;
                errors.iter().try_for_each(|error| write!(f, "\n{error}\n"))
            }
            Self::No(error) => write!(f, "the gate did not do it: {error}"),
        }
    }
}

impl std::error::Error for ReloadError {}

/// Lets the gate at `socket` take its configuration and all files over that it names, and waits until it has.
///
/// # Errors
/// If there is none, or it does not answer, or there are mistakes in the configuration: then nothing has changed.
pub fn reload(socket: &Path) -> Result<Reloaded, ReloadError> {
    match ask(socket, &Request::Reload).map_err(ReloadError::Ask)? {
        Answer::Reloaded(reloaded) => Ok(reloaded),
        // Whatever answers, nothing of it takes a terminal over.
        Answer::NotReloaded { errors } => {
            let lines = |text: &String| text.lines().map(|line| visible(line, TEXT_MAX)).collect::<Vec<_>>().join("\n");
            Err(ReloadError::Refused(errors.iter().map(lines).collect()))
        }
        Answer::Error(error) => Err(ReloadError::No(visible(&error, TEXT_MAX))),
        _ => Err(ReloadError::Ask(AskError::NotUnderstood { socket: socket.to_owned() })),
    }
}

fn exchange(path: &Path, request: &Request) -> io::Result<String> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.connect_timeout(&SockAddr::unix(path)?, PATIENCE)?;
    let patience = if *request == Request::Reload { RELOAD_PATIENCE } else { PATIENCE };
    socket.set_read_timeout(Some(patience))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut question = serde_json::to_vec(request).map_err(io::Error::other)?;
    question.push(b'\n');
    // A gate that says no at once does not read it.
    let sent = (&socket).write_all(&question);
    let mut line = String::new();
    BufReader::new((&socket).take(ANSWER_MAX)).read_line(&mut line)?;
    if line.is_empty() {
        sent?;
        return Err(io::Error::other("it hung up"));
    }
    Ok(line)
}
