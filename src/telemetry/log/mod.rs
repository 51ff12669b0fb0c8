//! One line for each verdict: text for people or JSON for machines, to stdout or a file, or an entry of systemd's journal.
//!
//! The fields are documented in the README and relied upon. Whatever a stranger chose (server names, names in
//! certificates) is escaped and bounded before it gets here.

mod fields;
mod form;
mod health;
mod priority;
mod queue;
mod text;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::time::Instant;

pub use self::fields::{Durations, Event, LeftOutCause, LoggedImpostor, Tls, Verdict, detail, stranger};
use self::form::Form;
pub use self::health::{LogError, LogSeries};
pub(super) use self::queue::Output;
use self::queue::Queue;
use super::file::LogFile;
use super::journal::{self, Journal};
pub use super::sampling::Kind;
use super::sampling::{LeftOut, Sampler};
use crate::config::checked::{self, LogFormat, LogOutput};
use crate::model::identity::Sha256;
use crate::model::source::Source;

/// Where lines go.
#[derive(Debug)]
pub struct Log {
    /// `None` writes every verdict.
    sampler: Option<Sampler>,
    queue: Arc<Queue>,
}

/// An open output, to which nothing is written yet.
pub struct Opened {
    form: Form,
    out: Box<dyn Output + Send>,
    sampling: bool,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").finish_non_exhaustive()
    }
}

impl Opened {
    /// The output that the configuration asks for. An error says what to do.
    pub fn new(settings: &checked::Log) -> io::Result<Self> {
        let out: Box<dyn Output + Send> = match &settings.output {
            LogOutput::Stdout => Box::new(Other { out: io::stdout(), name: "stdout" }),
            LogOutput::File(path) => {
                let file = LogFile::open(path).map_err(|error| {
                    io::Error::new(
                        error.kind(),
                        explained(&error, &format!("cannot write the log to {}", path.display())),
                    )
                })?;
                Box::new(file)
            }
            LogOutput::Journald => Box::new(journal(Path::new(journal::SOCKET))?),
        };
        let form = match settings.output {
            LogOutput::Journald => Form::Entry,
            LogOutput::Stdout | LogOutput::File(_) => Form::Line(settings.format),
        };
        Ok(Self { form, out, sampling: settings.sampling })
    }
}

/// The way to the journald that listens at `socket`.
fn journal(socket: &Path) -> io::Result<Other<Journal>> {
    let journal = Journal::connect(socket).map_err(|error| {
        io::Error::new(error.kind(), explained(&error, &format!("cannot reach journald at {}", socket.display())))
    })?;
    Ok(Other { out: journal, name: "journald" })
}

impl Log {
    /// The log that the configuration asks for. An error says what to do.
    pub fn open(settings: &checked::Log) -> io::Result<Self> {
        Self::of(Opened::new(settings)?)
    }

    /// Starts the thread that writes to an open output.
    pub fn of(opened: Opened) -> io::Result<Self> {
        let Opened { form, out, sampling } = opened;
        let log = Self::start(form, out)?;
        Ok(if sampling { log.sampled() } else { log })
    }

    /// Lines in `format` to `out`, written by a thread of their own.
    pub fn new(format: LogFormat, out: impl io::Write + Send + 'static) -> io::Result<Self> {
        Self::start(Form::Line(format), Other { out, name: "its output" })
    }

    /// Entries with fields to the journald that listens at `socket`. An error says what to do.
    pub fn to_journal(socket: &Path) -> io::Result<Self> {
        Self::start(Form::Entry, journal(socket)?)
    }

    fn start(form: Form, out: impl Output + Send + 'static) -> io::Result<Self> {
        let queue = Arc::new(Queue::new(form));
        let writing = Arc::clone(&queue);
        // The thread is not joined: its output may block it for ever.
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writing.write_to(out))?;
        Ok(Self { sampler: None, queue })
    }

    /// Limits the lines about strangers for each source, and reports how many were left out. The quotas are documented in
    /// the README.
    #[must_use]
    pub fn sampled(self) -> Self {
        Self { sampler: Some(Sampler::default()), ..self }
    }

    /// Whether the line of a verdict on a stranger is to be written. To be asked once for each: a line that is not is
    /// counted.
    pub fn takes(&self, source: Source, kind: impl Into<Kind>) -> bool {
        self.takes_at(source, kind, Instant::now())
    }

    fn takes_at(&self, source: Source, kind: impl Into<Kind>, now: Instant) -> bool {
        self.sampler.as_ref().is_none_or(|sampler| sampler.takes(source, kind, now))
    }

    /// The same for the refusal of a certificate that a trust anchor signed.
    pub fn takes_device(&self, fingerprint: Sha256, kind: impl Into<Kind>) -> bool {
        self.sampler.as_ref().is_none_or(|sampler| sampler.takes_device(fingerprint, kind, Instant::now()))
    }

    /// The same for an impostor: each device that is pretended has a quota.
    pub fn takes_impostor(&self, name: &str, kind: impl Into<Kind>) -> bool {
        self.takes_device(Sha256::of(name.as_bytes()), kind)
    }

    /// Reports lines that were left out, once a minute. To be called now and then.
    pub fn tidy(&self) {
        self.tidy_at(Instant::now());
    }

    fn tidy_at(&self, now: Instant) {
        self.tell(self.sampler.iter().flat_map(|sampler| sampler.due(now)));
    }

    fn tell(&self, left_out: impl Iterator<Item = LeftOut>) {
        for LeftOut { source, fingerprint, kind, count } in left_out {
            self.event(&Event::LeftOut {
                lines: count,
                cause: LeftOutCause::Sampling,
                source: source.map(|source| source.to_string()),
                fingerprint: fingerprint.map(|fingerprint| fingerprint.to_string()),
                stage: Some(kind.stage()),
                reason: Some(kind.label()),
            });
        }
    }

    /// Why the output fails, if it does.
    pub fn error(&self) -> Option<LogError> {
        self.queue.health.error()
    }

    /// Lets these metrics say whether the output fails, and how many lines were not written.
    pub fn report_to(&self, series: LogSeries) {
        self.queue.health.report_to(series);
    }

    /// Writes a line about the gate itself.
    pub fn event(&self, event: &Event) {
        self.queue.send(event);
    }

    /// Writes the line of a verdict.
    pub fn verdict(&self, verdict: &Verdict<'_>) {
        self.queue.send(verdict);
    }

    /// Writes what is waiting and returns when it is written; or after a few seconds, if the output takes nothing. Says
    /// whether it was written.
    pub fn finish(&self) -> bool {
        self.tell(self.sampler.iter().flat_map(Sampler::rest));
        self.queue.finish()
    }
}

/// An output that needs no looking after.
struct Other<W> {
    out: W,
    name: &'static str,
}

impl<W: io::Write> io::Write for Other<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: io::Write> Output for Other<W> {
    fn name(&self) -> String {
        self.name.to_owned()
    }
}

/// An error of the log with what it is about and what to do.
fn explained(error: &io::Error, what: &str) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "\n  the user that doorward runs as must be able to write there (a service of systemd: LogsDirectory=doorward, and \
             output = \"/var/log/doorward/doorward.log\")"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "\n  nothing can be written there (a service of systemd: LogsDirectory=doorward, and output = \
             \"/var/log/doorward/doorward.log\")"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "\n  free some space; until then lines go to stderr, and a line in the log will say how many are missing"
        }
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "\n  it does not exist on this machine: write output = \"stdout\" under [log], or another path"
        }
        _ => "",
    };
    format!("{what}: {error}{remedy}")
}
