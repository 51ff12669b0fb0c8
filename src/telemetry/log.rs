//! One line for each verdict, to stdout: text for people or JSON for machines.
//!
//! The fields are documented in the README and relied upon. Whatever a stranger chose (server names, names in
//! certificates) is escaped and bounded before it gets here.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::config::checked::LogFormat;
use crate::identity::Identity;
use crate::names::{printable, visible};

/// How many bytes wait for a slow reader of stdout. Further lines are left out, and their number is told: a gate that waits
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
    format: LogFormat,
    queue: Arc<Queue>,
    writer: Mutex<Option<JoinHandle<()>>>,
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
    /// Lines that were left out because stdout was not read fast enough.
    LeftOut {
        /// How many.
        lines: u64,
    },
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
    /// From accept to the verdict, in seconds.
    pub seconds: f64,
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
    /// Lines in `format` to stdout.
    pub fn to_stdout(format: LogFormat) -> io::Result<Self> {
        Self::new(format, io::stdout())
    }

    /// Lines in `format` to `out`, written by a thread of their own.
    pub fn new(format: LogFormat, out: impl io::Write + Send + 'static) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let writer = {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new().name("log".to_owned()).spawn(move || queue.write_to(out))?
        };
        Ok(Self { format, queue, writer: Mutex::new(Some(writer)) })
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
        self.queue.lock().finished = true;
        self.queue.changed.notify_one();
        if let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = writer.join();
        }
    }

    fn line(&self, content: &(impl Serialize + fmt::Display)) -> String {
        #[derive(Serialize)]
        struct Timed<'a, T> {
            time: &'a str,
            #[serde(flatten)]
            content: &'a T,
        }
        let time = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let mut line = match self.format {
            LogFormat::Json => serde_json::to_string(&Timed { time: &time, content }).unwrap_or_default(),
            LogFormat::Text => format!("{time} {content}"),
        };
        line.push('\n');
        line
    }

    fn send(&self, line: &str) {
        let mut waiting = self.queue.lock();
        if waiting.lines.len() + line.len() > WAITING_MAX {
            waiting.left_out += 1;
            return;
        }
        let was_empty = waiting.lines.is_empty();
        if waiting.left_out > 0 {
            let lines = std::mem::take(&mut waiting.left_out);
            waiting.lines.extend(self.line(&Event::LeftOut { lines }).as_bytes());
        }
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
    fn write_to(&self, mut out: impl io::Write) {
        let mut lines = Vec::new();
        loop {
            let mut waiting = self.lock();
            while waiting.lines.is_empty() && !waiting.finished {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut waiting.lines, &mut lines);
            let finished = waiting.finished;
            drop(waiting);
            // Nobody may be reading any more; the gate goes on all the same.
            let _ = out.write_all(&lines);
            let _ = out.flush();
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

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening { listener, address } => write!(f, "listening on {address} ({listener})"),
            Self::Metrics { address } => write!(f, "metrics on http://{address}/metrics"),
            Self::Control { socket } => write!(f, "control socket at {socket}"),
            Self::Ready => f.write_str("ready"),
            Self::Draining => f.write_str("draining: no new connections, open ones may end"),
            Self::LeftOut { lines } => write!(f, "{lines} lines left out: stdout was not read fast enough"),
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
        // Once there is room, the next line says how many were not.
        while !log.queue.lock().lines.is_empty() {
            std::thread::yield_now();
        }
        log.verdict(&Verdict::default());
        log.finish();
        let lines = written.lines();
        let told: Vec<&String> = lines.iter().filter(|line| line.contains("lines left out")).collect();
        let [told] = told.as_slice() else { panic!("{told:?}") };
        let left_out: usize = told.split(' ').find_map(|word| word.parse().ok()).expect("a number");
        assert_eq!(left_out + lines.len() - 2, sent);
    }
}
