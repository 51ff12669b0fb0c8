//! One line for each verdict, to stdout: text for people or JSON for machines.
//!
//! The fields are documented in the README and relied upon. Whatever a stranger chose (server names, names in
//! certificates) is escaped and bounded before it gets here.

use std::fmt;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::config::checked::LogFormat;
use crate::identity::Identity;
use crate::names::{printable, visible};

/// How many lines wait for a slow reader of stdout. Further ones are left out, and their number is told: a gate that waits
/// for its log could be stopped by filling it.
const WAITING_MAX: usize = 8192;

/// The longest text of a stranger's in a line.
const STRANGER_MAX: usize = 128;

/// The longest detail. Some come from libraries, which quote what they were sent.
const DETAIL_MAX: usize = 256;

/// Where lines go.
#[derive(Debug)]
pub struct Log {
    format: LogFormat,
    sender: Mutex<Option<SyncSender<String>>>,
    left_out: AtomicU64,
    writer: Mutex<Option<JoinHandle<()>>>,
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
        let (sender, receiver) = sync_channel::<String>(WAITING_MAX);
        let writer = std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            let mut out = io::BufWriter::new(out);
            while let Ok(line) = receiver.recv() {
                // Nobody may be reading any more; the gate goes on all the same.
                let _ = out.write_all(line.as_bytes());
                while let Ok(line) = receiver.try_recv() {
                    let _ = out.write_all(line.as_bytes());
                }
                let _ = out.flush();
            }
        })?;
        Ok(Self {
            format,
            sender: Mutex::new(Some(sender)),
            left_out: AtomicU64::new(0),
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Writes a line about the gate itself.
    pub fn event(&self, event: &Event) {
        let line = self.line(event);
        self.send(line);
    }

    /// Writes the line of a verdict.
    pub fn verdict(&self, verdict: &Verdict) {
        let line = self.line(verdict);
        self.send(line);
        let lines = self.left_out.swap(0, Ordering::Relaxed);
        if lines > 0 {
            self.send(self.line(&Event::LeftOut { lines }));
        }
    }

    /// Writes what is waiting and returns when it is written.
    pub fn finish(&self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
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

    fn send(&self, line: String) {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = sender.as_ref()
            && let Err(TrySendError::Full(_)) = sender.try_send(line)
        {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening { listener, address } => write!(f, "listening on {address} ({listener})"),
            Self::Metrics { address } => write!(f, "metrics on http://{address}/metrics"),
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
