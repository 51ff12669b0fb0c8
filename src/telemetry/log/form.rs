//! How a line is written: for people, for machines, or for the journal.

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::fields::Line;
use crate::config::checked::LogFormat;
use crate::telemetry::journal;

/// What a line is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// With an end of line.
    Line(LogFormat),
    /// Several, and an empty one at the end.
    Entry,
}

impl Form {
    /// A line of this moment, with its end.
    pub(super) fn line(self, content: &impl Line) -> String {
        #[derive(Serialize)]
        struct Timed<'a, T> {
            time: &'a str,
            #[serde(flatten)]
            content: &'a T,
        }
        let time = || OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let mut line = match self {
            Self::Line(LogFormat::Json) => serde_json::to_string(&Timed { time: &time(), content }).unwrap_or_default(),
            Self::Line(LogFormat::Text) => format!("{} {content}", time()),
            Self::Entry => return journal::entry(&content.to_string(), content.priority(), content),
        };
        line.push('\n');
        line
    }

    /// How many lines of the log these are.
    pub(super) fn count(self, lines: &[u8]) -> u64 {
        let ends = match self {
            Self::Line(_) => lines.iter().filter(|byte| **byte == b'\n').count(),
            Self::Entry => lines.windows(2).filter(|pair| pair == b"\n\n").count(),
        };
        u64::try_from(ends).unwrap_or(u64::MAX)
    }
}
