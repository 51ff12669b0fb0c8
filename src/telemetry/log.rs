//! One line for each verdict: text for people or JSON for machines, to stdout or a file, or an entry of systemd's journal.
//!
//! The fields are documented in the README and relied upon. Whatever a stranger chose (server names, names in
//! certificates) is escaped and bounded before it gets here.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use super::file::LogFile;
use super::journal::{self, Journal, Priority};
use super::sampling::{LeftOut, Sampler};
use crate::config::checked::{self, LogFormat, LogOutput};
use crate::identity::Identity;
use crate::names::{printable, visible};
use crate::rejection::Reason;
use crate::source::{Prefixes, Source};

/// How many bytes wait for a slow reader. Further lines are left out, and their number is told: a gate that waits
/// for its log could be stopped by filling it.
const WAITING_MAX: usize = 4 * 1024 * 1024;

/// How long lines are collected before they are written together. To wake the writer for each of them would cost more than
/// writing it does.
const COLLECTING: Duration = Duration::from_millis(2);

/// The longest text of a stranger's in a line.
const STRANGER_MAX: usize = 128;

/// The longest detail. Some come from libraries, which quote what they were sent.
const DETAIL_MAX: usize = 256;

/// Where lines go.
#[derive(Debug)]
pub struct Log {
    form: Form,
    /// `None` writes every rejection.
    sampler: Option<Sampler>,
    queue: Arc<Queue>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What a line is.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// With an end of line.
    Line(LogFormat),
    /// Several, and an empty one at the end.
    Entry,
}

impl Form {
    /// How many lines of the log these are.
    fn count(self, lines: &[u8]) -> u64 {
        let ends = match self {
            Self::Line(_) => lines.iter().filter(|byte| **byte == b'\n').count(),
            Self::Entry => lines.windows(2).filter(|pair| pair == b"\n\n").count(),
        };
        u64::try_from(ends).unwrap_or(u64::MAX)
    }
}

/// Lines that are to be written.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// There is something to be written, or nothing will be any more.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    left_out: u64,
    /// How many of the lines tell of others that were left out, and of how many.
    told: (u64, u64),
    finished: bool,
}

/// A line about the gate itself.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A listener is bound.
    Listening {
        /// Which one.
        listener: String,
        /// Where, with the port the kernel chose if port 0 was asked for.
        address: SocketAddr,
    },
    /// The metrics listener is bound.
    Metrics {
        /// Where.
        address: SocketAddr,
    },
    /// The control socket is bound.
    Control {
        /// Where.
        socket: String,
    },
    /// Connections are taken.
    Ready,
    /// No more connections are taken; those there are may end.
    Draining,
    /// Another configuration is in force.
    Reloaded {
        /// Who wanted it.
        cause: &'static str,
        /// Connections that go on.
        sessions_kept: usize,
        /// Connections that end, since they would not be let in any more.
        sessions_cut: usize,
        /// What takes effect only after a restart.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        after_restart: Vec<String>,
        /// Who may go where he could not before.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        gained: Vec<String>,
        /// Who may no longer go where he could.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        lost: Vec<String>,
    },
    /// Another configuration was refused; the one before stays in force.
    ReloadFailed {
        /// Who wanted it.
        cause: &'static str,
        /// Every mistake in it.
        errors: Vec<String>,
    },
    /// Lines that were left out.
    LeftOut {
        /// How many.
        lines: u64,
        /// Why.
        cause: LeftOutCause,
        /// Whose rejections: an IPv4 address or an IPv6 /64; `None` for those of several sources.
        #[serde(skip_serializing_if = "Option::is_none")]
        source: Option<String>,
        /// Where they were rejected.
        #[serde(skip_serializing_if = "Option::is_none")]
        stage: Option<&'static str>,
        /// Why they were rejected.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'static str>,
    },
}

/// Why lines were left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftOutCause {
    /// There were too many rejections of the same kind.
    Sampling,
    /// The output did not take them, or not fast enough.
    Output,
}

/// The line of one verdict.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// `rejected` or `closed`.
    pub event: &'static str,
    /// A number for the connection, unique while the gate runs.
    pub id: u64,
    /// Where it arrived.
    pub listener: String,
    /// Who connected: address and port.
    pub source: String,
    /// The server name as the client sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// The JA4 fingerprint of its ClientHello.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ja4: Option<String>,
    /// The route, once it was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Where in the journey it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<&'static str>,
    /// Why.
    pub reason: &'static str,
    /// Who brought a rejection about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub side: Option<&'static str>,
    /// More about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The TLS alert that the client was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert: Option<String>,
    /// The certificate that was shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// What the handshake negotiated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// The backend that was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// How the bytes were moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<&'static str>,
    /// Payload from the client to the backend, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_to_backend: Option<u64>,
    /// Payload from the backend to the client, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_to_client: Option<u64>,
    /// Where the time went.
    pub durations: Durations,
    /// From accept to the verdict, in seconds.
    pub seconds: f64,
}

/// How long the steps took that a connection reached, in seconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Durations {
    /// From accept on, limits and a PROXY protocol header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admission: Option<f64>,
    /// To the whole ClientHello and its route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hello: Option<f64>,
    /// The TLS handshake, if the gate did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake: Option<f64>,
    /// To an open backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dial: Option<f64>,
    /// To the end of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay: Option<f64>,
}

/// The certificate in a line.
#[derive(Clone, Debug, Serialize)]
pub struct Certificate {
    /// What the holder is called.
    pub name: String,
    /// SHA-256 of the certificate.
    pub fingerprint: String,
    /// Its serial number.
    pub serial: String,
    /// Who issued it.
    pub issuer: String,
    /// When it expires.
    pub not_after: String,
    /// Whether a trust anchor vouches for it.
    pub verified: bool,
}

/// What a handshake negotiated, in a line.
#[derive(Clone, Debug, Serialize)]
pub struct Tls {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite.
    pub cipher_suite: String,
    /// Whether the session was resumed.
    pub resumed: bool,
}

impl From<&Identity> for Certificate {
    fn from(identity: &Identity) -> Self {
        Self {
            name: printable(&identity.display_name(), STRANGER_MAX),
            fingerprint: identity.fingerprint.to_string(),
            serial: printable(&identity.serial.to_string(), STRANGER_MAX),
            issuer: printable(&identity.issuer, STRANGER_MAX),
            not_after: OffsetDateTime::from_unix_timestamp(identity.not_after)
                .ok()
                .and_then(|at| at.format(&Rfc3339).ok())
                .unwrap_or_else(|| identity.not_after.to_string()),
            verified: identity.verified,
        }
    }
}

impl Log {
    /// The log that the configuration asks for. An error says what to do.
    pub fn open(settings: &checked::Log) -> io::Result<Self> {
        let log = match &settings.output {
            LogOutput::Stdout => Self::new(settings.format, io::stdout())?,
            LogOutput::File(path) => {
                let file = LogFile::open(path)
                    .map_err(|error| explained(&error, &format!("cannot write the log to {}", path.display())))?;
                Self::new(settings.format, file)?
            }
            LogOutput::Journald => Self::to_journal(Path::new(journal::SOCKET))?,
        };
        Ok(if settings.sampling { log.sampled() } else { log })
    }

    /// Lines in `format` to `out`, written by a thread of their own.
    pub fn new(format: LogFormat, out: impl io::Write + Send + 'static) -> io::Result<Self> {
        Self::start(Form::Line(format), out)
    }

    /// Entries with fields to the journald that listens at `socket`. An error says what to do.
    pub fn to_journal(socket: &Path) -> io::Result<Self> {
        let journal = Journal::connect(socket)
            .map_err(|error| explained(&error, &format!("cannot reach journald at {}", socket.display())))?;
        Self::start(Form::Entry, journal)
    }

    fn start(form: Form, out: impl io::Write + Send + 'static) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let writer = {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new().name("log".to_owned()).spawn(move || queue.write_to(out, form))?
        };
        Ok(Self { form, sampler: None, queue, writer: Mutex::new(Some(writer)) })
    }

    /// Writes only some of many rejections of one source, and tells how many it left out. The settings of the sampling are
    /// those that the README gives.
    #[must_use]
    pub fn sampled(self) -> Self {
        Self { sampler: Some(Sampler::default()), ..self }
    }

    /// Whether the line of a rejection is to be made and written. To be asked once for each: what is not, is counted.
    pub fn takes(&self, client: IpAddr, reason: Reason) -> bool {
        self.takes_at(client, reason, Instant::now())
    }

    fn takes_at(&self, client: IpAddr, reason: Reason, now: Instant) -> bool {
        self.sampler.as_ref().is_none_or(|sampler| sampler.takes(Source::of(client, Prefixes::default()), reason, now))
    }

    /// Tells what was left out, once a minute. To be called now and then.
    pub fn tidy(&self) {
        self.tidy_at(Instant::now());
    }

    fn tidy_at(&self, now: Instant) {
        self.tell(self.sampler.iter().flat_map(|sampler| sampler.due(now)));
    }

    fn tell(&self, left_out: impl Iterator<Item = LeftOut>) {
        for LeftOut { source, reason, count } in left_out {
            self.event(&Event::LeftOut {
                lines: count,
                cause: LeftOutCause::Sampling,
                source: source.map(|source| source.to_string()),
                stage: Some(reason.stage().label()),
                reason: Some(reason.label()),
            });
        }
    }

    /// Writes a line about the gate itself.
    pub fn event(&self, event: &Event) {
        self.send(&self.line(event));
    }

    /// Writes the line of a verdict.
    pub fn verdict(&self, verdict: &Verdict) {
        self.send(&self.line(verdict));
    }

    /// Writes what is waiting and returns when it is written.
    pub fn finish(&self) {
        self.tell(self.sampler.iter().flat_map(Sampler::rest));
        let mut waiting = self.queue.lock();
        self.tell_missing(&mut waiting);
        waiting.finished = true;
        drop(waiting);
        self.queue.changed.notify_one();
        if let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = writer.join();
        }
    }

    fn line(&self, content: &impl Line) -> String {
        #[derive(Serialize)]
        struct Timed<'a, T> {
            time: &'a str,
            #[serde(flatten)]
            content: &'a T,
        }
        let time = || OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let mut line = match self.form {
            Form::Line(LogFormat::Json) => serde_json::to_string(&Timed { time: &time(), content }).unwrap_or_default(),
            Form::Line(LogFormat::Text) => format!("{} {content}", time()),
            Form::Entry => return journal::entry(&content.to_string(), content.priority(), content),
        };
        line.push('\n');
        line
    }

    /// Tells how many lines the output did not take, if it is any.
    fn tell_missing(&self, waiting: &mut Waiting) {
        let missing = std::mem::take(&mut waiting.left_out);
        if missing > 0 {
            waiting.told.0 += 1;
            waiting.told.1 += missing;
            waiting.lines.extend(self.line(&Event::not_taken(missing)).as_bytes());
        }
    }

    fn send(&self, line: &str) {
        let mut waiting = self.queue.lock();
        if waiting.lines.len() + line.len() > WAITING_MAX {
            waiting.left_out += 1;
            return;
        }
        let was_empty = waiting.lines.is_empty();
        self.tell_missing(&mut waiting);
        waiting.lines.extend(line.as_bytes());
        drop(waiting);
        if was_empty {
            self.queue.changed.notify_one();
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes lines as they come, until nothing comes any more.
    fn write_to(&self, mut out: impl io::Write, form: Form) {
        let mut lines = Vec::new();
        loop {
            let mut waiting = self.lock();
            while waiting.lines.is_empty() && !waiting.finished {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut waiting.lines, &mut lines);
            let (finished, (tellings, told)) = (waiting.finished, std::mem::take(&mut waiting.told));
            drop(waiting);
            // Nobody may be reading any more, or the disk may be full; the gate goes on all the same, and tells how many are
            // missing once it can.
            if out.write_all(&lines).and_then(|()| out.flush()).is_err() {
                self.lock().left_out += form.count(&lines).saturating_sub(tellings) + told;
            }
            // A burst needs room once; it is not kept for the next one.
            lines.clear();
            lines.shrink_to(64 * 1024);
            if finished {
                return;
            }
            std::thread::sleep(COLLECTING);
        }
    }
}

/// What a line can be made of.
trait Line: Serialize + fmt::Display {
    /// How pressing it is.
    fn priority(&self) -> Priority;
}

impl Line for Event {
    fn priority(&self) -> Priority {
        match self {
            Self::ReloadFailed { .. } => Priority::Error,
            Self::LeftOut { .. } => Priority::Warning,
            Self::Reloaded { .. } => Priority::Notice,
            Self::Listening { .. } | Self::Metrics { .. } | Self::Control { .. } | Self::Ready | Self::Draining => {
                Priority::Info
            }
        }
    }
}

impl Line for Verdict {
    fn priority(&self) -> Priority {
        match self.side {
            None => Priority::Info,
            // Strangers come every day.
            Some("client") => Priority::Notice,
            Some(_) if self.stage == Some("internal") => Priority::Error,
            Some(_) => Priority::Warning,
        }
    }
}

/// An error of the log with what it is about and what to do.
fn explained(error: &io::Error, what: &str) -> io::Error {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "\n  the user that doorward runs as must be able to write there (a service of systemd: LogsDirectory=doorward, and \
             output = \"/var/log/doorward/doorward.log\")"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "\n  nothing can be written there (a service of systemd: LogsDirectory=doorward, and output = \
             \"/var/log/doorward/doorward.log\")"
        }
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "\n  it does not exist on this machine: write output = \"stdout\" under [log], or another path"
        }
        _ => "",
    };
    io::Error::new(error.kind(), format!("{what}: {error}{remedy}"))
}

impl Event {
    fn not_taken(lines: u64) -> Self {
        Self::LeftOut { lines, cause: LeftOutCause::Output, source: None, stage: None, reason: None }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening { listener, address } => write!(f, "listening on {address} ({listener})"),
            Self::Metrics { address } => write!(f, "metrics on http://{address}/metrics"),
            Self::Control { socket } => write!(f, "control socket at {socket}"),
            Self::Ready => f.write_str("ready"),
            Self::Draining => f.write_str("draining: no new connections, open ones may end"),
            Self::Reloaded { cause, sessions_kept, sessions_cut, after_restart, gained, lost } => {
                write!(f, "reloaded ({cause}): {sessions_kept} connections go on, {sessions_cut} are cut")?;
                for (what, list) in [("may now", gained), ("may no longer", lost), ("after a restart", after_restart)] {
                    if !list.is_empty() {
                        write!(f, "; {what}: {}", list.join(", "))?;
                    }
                }
                Ok(())
            }
            Self::ReloadFailed { cause, errors } => {
                let errors: Vec<String> =
                    errors.iter().map(|error| error.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
                write!(f, "reload_failed ({cause}), nothing has changed: {}", errors.join("; "))
            }
            Self::LeftOut { lines, source, stage, reason, .. } => {
                write!(f, "left_out {lines} lines")?;
                match (stage, reason) {
                    (Some(stage), Some(reason)) => {
                        let source = source.as_deref().unwrap_or("several sources");
                        write!(f, " {stage}/{reason} of {source}: more of the same than is written one by one")
                    }
                    _ => f.write_str(": they could not be written, or not fast enough"),
                }
            }
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.event, self.source)?;
        match (&self.route, &self.server_name) {
            (Some(route), _) => write!(f, " route={route}")?,
            (None, Some(name)) => write!(f, " server_name=\"{name}\"")?,
            (None, None) => {}
        }
        match self.stage {
            Some(stage) => write!(f, " {stage}/{}", self.reason)?,
            None => write!(f, " {}", self.reason)?,
        }
        if let Some(certificate) = &self.certificate {
            write!(f, " certificate=\"{}\"", certificate.name)?;
            if !certificate.verified {
                f.write_str("(unverified)")?;
            }
        }
        if let Some(path) = self.path {
            write!(f, " path={path}")?;
        }
        if let (Some(up), Some(down)) = (self.bytes_to_backend, self.bytes_to_client) {
            write!(f, " to_backend={up} to_client={down}")?;
        }
        if let Some(alert) = &self.alert {
            write!(f, " alert={alert}")?;
        }
        if let Some(ja4) = self.ja4.as_ref().filter(|_| self.stage.is_some()) {
            write!(f, " ja4={ja4}")?;
        }
        write!(f, " {:.3}s", self.seconds)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        Ok(())
    }
}

/// A stranger's text, escaped and bounded for a line.
pub fn stranger(text: &str) -> String {
    printable(text, STRANGER_MAX)
}

/// More about a verdict, bounded for a line.
pub fn detail(text: &str) -> String {
    visible(text, DETAIL_MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::net::UnixDatagram;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// What was written, for the test to read.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("a lock").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn lines(&self) -> Vec<String> {
            String::from_utf8(self.0.lock().expect("a lock").clone())
                .expect("text")
                .lines()
                .map(str::to_owned)
                .collect()
        }
    }

    #[test]
    fn every_line_is_written_and_in_order() {
        let written = Written::default();
        let log = Log::new(LogFormat::Json, written.clone()).expect("a log");
        for id in 0..1000 {
            log.verdict(&Verdict { id, ..Verdict::default() });
        }
        log.finish();
        let lines = written.lines();
        let ids = lines.iter().map(|line| {
            serde_json::from_str::<serde_json::Value>(line).expect("JSON")["id"].as_u64().expect("a number")
        });
        assert!(ids.eq(0..1000));
    }

    /// 5,000 a second for 30 s, as a scanner sends them that the limits of connections do not stop.
    #[test]
    fn a_flood_of_rejections_takes_a_few_kibibytes_and_is_told_in_full() {
        const REJECTED: u32 = 150_000;
        for format in [LogFormat::Text, LogFormat::Json] {
            for sources in [1, 100, REJECTED] {
                let written = Written::default();
                let log = Log::new(format, written.clone()).expect("a log").sampled();
                let begin = Instant::now();
                for number in 0..REJECTED {
                    let client = IpAddr::from((0xc000_0200 + number % sources).to_be_bytes());
                    let now = begin + Duration::from_micros(200) * number;
                    if log.takes_at(client, Reason::ServerNameUnknown, now) {
                        log.verdict(&Verdict {
                            event: "rejected",
                            source: SocketAddr::new(client, 65_535).to_string(),
                            server_name: Some("x".repeat(STRANGER_MAX)),
                            detail: Some("x".repeat(DETAIL_MAX)),
                            ..Verdict::default()
                        });
                    }
                    // As often as a running gate is tidied.
                    if number % 25_000 == 0 {
                        log.tidy_at(now);
                    }
                }
                log.finish();
                let lines = written.lines();
                let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
                assert!(bytes < 64 * 1024, "{format:?}, {sources} sources: {bytes} bytes");
                let told = lines.iter().filter(|line| line.contains("left_out"));
                let left_out: usize = told
                    .clone()
                    .map(|line| match format {
                        LogFormat::Text => line.split(' ').find_map(|word| word.parse().ok()).expect("a number"),
                        LogFormat::Json => {
                            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
                            assert_eq!((&line["stage"], &line["cause"]), (&"route".into(), &"sampling".into()));
                            usize::try_from(line["lines"].as_u64().expect("a number")).expect("a count")
                        }
                    })
                    .sum();
                let told = told.count();
                assert!(told <= 33, "{told} lines about what was left out");
                assert_eq!(lines.len() - told + left_out, usize::try_from(REJECTED).expect("a count"));
            }
        }
    }

    /// The fields of the next entry that journald would see.
    fn entry(journald: &UnixDatagram) -> BTreeMap<String, String> {
        let mut buffer = [0; 8192];
        let length = journald.recv(&mut buffer).expect("an entry");
        let text = std::str::from_utf8(&buffer[..length]).expect("text");
        let fields = text.strip_suffix('\n').expect("an end").split('\n');
        let fields = fields.map(|field| field.split_once('=').expect("a field"));
        let entry: BTreeMap<String, String> =
            fields.clone().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        assert_eq!(entry.len(), fields.count(), "a field stands twice: {text}");
        let known =
            |name: &str| name.starts_with("DOORWARD_") || ["MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER"].contains(&name);
        let plain = |name: &str| name.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit());
        assert!(entry.keys().all(|name| known(name) && plain(name) && name.len() <= 64), "{text}");
        entry
    }

    #[test]
    fn journald_is_sent_native_fields() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("socket");
        let refused = Log::to_journal(&socket).expect_err("nobody is there").to_string();
        assert!(refused.contains("cannot reach journald at") && refused.contains("\"stdout\""), "{refused}");

        let journald = UnixDatagram::bind(&socket).expect("a socket");
        journald.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        let log = Log::to_journal(&socket).expect("a log");
        log.event(&Event::Ready);
        log.verdict(&Verdict {
            event: "rejected",
            id: 7,
            source: "192.0.2.1:5".to_owned(),
            stage: Some("certificate"),
            reason: "expired",
            side: Some("client"),
            detail: Some("one\nPRIORITY=0\n\nMESSAGE=two".to_owned()),
            certificate: Some(Certificate {
                name: "alice-phone".to_owned(),
                fingerprint: String::new(),
                serial: String::new(),
                issuer: String::new(),
                not_after: String::new(),
                verified: false,
            }),
            durations: Durations { hello: Some(0.5), ..Durations::default() },
            ..Verdict::default()
        });
        let ready = entry(&journald);
        let text = |entry: &BTreeMap<String, String>, name: &str| entry.get(name).cloned().unwrap_or_default();
        assert_eq!(text(&ready, "MESSAGE"), "ready");
        assert_eq!((text(&ready, "PRIORITY"), text(&ready, "SYSLOG_IDENTIFIER")), ("6".into(), "doorward".into()));
        assert_eq!(text(&ready, "DOORWARD_EVENT"), "ready");
        let rejected = entry(&journald);
        assert!(text(&rejected, "MESSAGE").starts_with("rejected 192.0.2.1:5 certificate/expired "), "{rejected:?}");
        for (name, value) in [
            ("PRIORITY", "5"),
            ("DOORWARD_ID", "7"),
            ("DOORWARD_SOURCE", "192.0.2.1:5"),
            ("DOORWARD_REASON", "expired"),
            ("DOORWARD_DETAIL", "one PRIORITY=0  MESSAGE=two"),
            ("DOORWARD_CERTIFICATE_NAME", "alice-phone"),
            ("DOORWARD_CERTIFICATE_VERIFIED", "false"),
            ("DOORWARD_DURATIONS_HELLO", "0.5"),
        ] {
            assert_eq!(text(&rejected, name), value, "{name}");
        }

        // journald goes and comes back.
        drop(journald);
        fs::remove_file(&socket).expect("a socket");
        log.verdict(&Verdict { event: "closed", ..Verdict::default() });
        while log.queue.lock().left_out == 0 {
            std::thread::yield_now();
        }
        let journald = UnixDatagram::bind(&socket).expect("a socket");
        journald.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        log.verdict(&Verdict { event: "closed", ..Verdict::default() });
        log.finish();
        let missing = entry(&journald);
        assert_eq!((text(&missing, "DOORWARD_LINES"), text(&missing, "PRIORITY")), ("1".into(), "4".into()));
        let closed = entry(&journald);
        assert_eq!((text(&closed, "DOORWARD_EVENT"), text(&closed, "PRIORITY")), ("closed".into(), "6".into()));
    }

    #[test]
    fn lines_that_could_not_be_written_are_counted_until_it_can_be_told() {
        /// Fails while the test says so.
        struct Broken(Arc<AtomicBool>, Written);
        impl io::Write for Broken {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if self.0.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { self.1.write(bytes) }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (written, broken) = (Written::default(), Arc::new(AtomicBool::new(true)));
        let log = Log::new(LogFormat::Json, Broken(Arc::clone(&broken), written.clone())).expect("a log");
        for id in 1..=20 {
            log.verdict(&Verdict { id, ..Verdict::default() });
            // Some of them together, and with those that tell of the ones before.
            while id % 3 == 0 && log.queue.lock().left_out != id {
                std::thread::yield_now();
            }
        }
        while log.queue.lock().left_out != 20 {
            std::thread::yield_now();
        }
        broken.store(false, Ordering::SeqCst);
        log.verdict(&Verdict { id: 21, ..Verdict::default() });
        log.finish();
        let lines: Vec<serde_json::Value> =
            written.lines().iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(
            (&lines[0]["lines"], &lines[0]["cause"], &lines[1]["id"]),
            (&20.into(), &"output".into(), &21.into())
        );
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn lines_that_nobody_reads_fast_enough_are_counted() {
        /// Nothing is read before the test says so.
        struct Stalled(Arc<Mutex<()>>, Written);
        impl io::Write for Stalled {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _held = self.0.lock().expect("a lock");
                self.1.write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (written, gate) = (Written::default(), Arc::new(Mutex::new(())));
        let log = Log::new(LogFormat::Text, Stalled(Arc::clone(&gate), written.clone())).expect("a log");
        let held = gate.lock().expect("a lock");
        let long = Verdict { detail: Some("x".repeat(1000)), ..Verdict::default() };
        let sent = 3 * WAITING_MAX / 1000;
        for _ in 0..sent {
            log.verdict(&long);
        }
        assert!(log.queue.lock().lines.len() <= WAITING_MAX);
        drop(held);
        log.finish();
        let lines = written.lines();
        let told: Vec<&String> = lines.iter().filter(|line| line.contains("left_out")).collect();
        let [told] = told.as_slice() else { panic!("{told:?}") };
        let left_out: usize = told.split(' ').find_map(|word| word.parse().ok()).expect("a number");
        assert_eq!(left_out + lines.len() - 1, sent);
    }
}
