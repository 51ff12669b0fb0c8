//! The log as entries of systemd's journal, in its native protocol
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>): a datagram an entry, a field a line.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

/// Where journald takes entries.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// How long journald may leave an entry waiting; a stop of the gate waits for its log.
const PATIENCE: Duration = Duration::from_secs(5);

/// The priority of an entry (syslog(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    /// Something is wrong with the gate.
    Error,
    /// Needs attention.
    Warning,
    /// Normal, but of note.
    Notice,
    /// For the record.
    Info,
}

/// An entry as it is sent. Each field is a line; an empty line ends the entry.
pub(super) fn entry(message: &str, priority: Priority, content: &impl Serialize) -> String {
    let mut entry = String::new();
    field(&mut entry, "MESSAGE", message);
    field(&mut entry, "PRIORITY", &u8::from(priority).to_string());
    field(&mut entry, "SYSLOG_IDENTIFIER", "doorward");
    // Our lines are made of texts, numbers and objects of them: all of it can be written.
    fields(&mut entry, "DOORWARD", &serde_json::to_value(content).unwrap_or_default());
    entry.push('\n');
    entry
}

impl From<Priority> for u8 {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Error => 3,
            Priority::Warning => 4,
            Priority::Notice => 5,
            Priority::Info => 6,
        }
    }
}

fn fields(entry: &mut String, name: &str, value: &Value) {
    match value {
        Value::Object(inner) => {
            for (key, value) in inner {
                fields(entry, &format!("{name}_{}", key.to_ascii_uppercase()), value);
            }
        }
        Value::String(text) => field(entry, name, text),
        other => field(entry, name, &other.to_string()),
    }
}

fn field(entry: &mut String, name: &str, value: &str) {
    entry.push_str(name);
    entry.push('=');
    // Whatever strangers chose is escaped long before; none of it shall ever be a field of its own.
    entry.extend(value.chars().map(|c| if c == '\n' { ' ' } else { c }));
    entry.push('\n');
}

/// The way to journald.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Journal {
    /// Connects to the socket at `path`.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), socket: connect(path)? })
    }

    fn send(&mut self, entry: &[u8]) -> io::Result<()> {
        if self.socket.send(entry).is_err() {
            // journald may have been started anew.
            self.socket = connect(&self.path)?;
            self.socket.send(entry)?;
        }
        Ok(())
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

impl Write for Journal {
    /// Sends entries, each to its empty line, and says how many bytes those were that journald took.
    fn write(&mut self, entries: &[u8]) -> io::Result<usize> {
        let mut rest = entries;
        while let Some(end) = rest.windows(2).position(|pair| pair == b"\n\n") {
            let (entry, next) = rest.split_at(end + 2);
            // The empty line is between us and ourselves only.
            match self.send(entry.strip_suffix(b"\n").unwrap_or(entry)) {
                Ok(()) => rest = next,
                Err(error) if rest.len() == entries.len() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(entries.len() - rest.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
