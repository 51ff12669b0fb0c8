//! What health checks of backends found.

use std::fmt;
use std::time::Duration;

use time::OffsetDateTime;

use super::backend_tls::BackendTlsFault;
use super::cause_data::{IoError, LookUp, Text};
use crate::model::names::printable;

/// The longest part of an answer that is shown, in characters.
const SHOWN: usize = 80;

/// What the health checks of a backend say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// No check has ended since the gate was started, or since the checks were configured. It counts as healthy.
    Unchecked,
    /// It may have connections.
    Healthy {
        /// Since when.
        since: OffsetDateTime,
    },
    /// It gets none.
    Unhealthy {
        /// Since when.
        since: OffsetDateTime,
        /// When the last check failed.
        checked: OffsetDateTime,
        /// Why.
        failure: CheckFailure,
    },
}

/// Why a health check of a backend failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckFailure {
    /// It did not accept the connection in time.
    NotAccepted,
    /// It cannot be reached.
    NotReached(IoError),
    /// Its host name could not be resolved.
    Unresolved(LookUp),
    /// It accepted the connection, and the check was not over in time.
    Silent {
        /// The time that a check has.
        after: Duration,
        /// What it was waited for; `None`: the end of the TLS handshake.
        expected: Option<Answer>,
    },
    /// It closed the connection, or reset it.
    Closed {
        /// What came before that, as far as it is shown.
        received: Answer,
        /// What should have come; `None`: the end of the TLS handshake.
        expected: Option<Answer>,
        /// The error; `None` for an orderly end.
        error: Option<IoError>,
    },
    /// It answered something else.
    Answered {
        /// Its answer, as far as it is shown.
        received: Answer,
        /// What should have come.
        expected: Answer,
    },
    /// The TLS handshake failed.
    Tls(Text),
    /// TLS as `backend_tls` asks for it did not come about.
    BackendTls(Box<BackendTlsFault>),
}

impl CheckFailure {
    /// The backend was not reached, or not by TLS as `backend_tls` asks for it: any connection to it would have failed.
    pub fn is_dialling(&self) -> bool {
        match self {
            Self::NotAccepted
            | Self::NotReached(_)
            | Self::Unresolved(_)
            | Self::Tls(_)
            | Self::BackendTls(_)
            | Self::Silent { expected: None, .. }
            | Self::Closed { expected: None, .. } => true,
            Self::Silent { .. } | Self::Closed { .. } | Self::Answered { .. } => false,
        }
    }
}

/// The first line of what a backend answered, or should have, escaped and cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer(Box<str>);

impl Answer {
    /// Of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // Without a first line, what there is in its place.
        let line = if line.is_empty() { bytes } else { line };
        Self(printable(&String::from_utf8_lossy(line), SHOWN).into())
    }

    /// Whether it is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// A backend whose health checks fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedCheck {
    /// The backend.
    pub backend: Text,
    /// Why the last check failed.
    pub failure: CheckFailure,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_a_line_without_anything_that_misleads() {
        let shown = |bytes: &[u8]| Answer::new(bytes).to_string();
        assert_eq!(shown(b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n"), "\"HTTP/1.1 400 Bad Request\"");
        assert_eq!(shown(b"a\x1b[31m\"\xff"), r#""a\u{1b}[31m\"\u{fffd}""#);
        assert_eq!(shown(b"\r\n"), "\"\\r\\n\"");
        assert!(Answer::new(b"").is_empty());
        assert!(shown(&[b'x'; 500]).chars().count() <= SHOWN + 3);
    }
}
