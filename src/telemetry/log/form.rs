//! How a line is written: for people, for machines, or for the journal.

use std::io::Write as _;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::priority::Line;
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
    /// Appends a line of this moment, with its end.
    pub(super) fn append(self, lines: &mut Vec<u8>, content: &impl Line) {
        #[derive(Serialize)]
        struct Timed<'a, T> {
            time: &'a str,
            #[serde(flatten)]
            content: &'a T,
        }
        let now = OffsetDateTime::now_utc();
        // Neither formatting nor writing to a Vec can fail.
        match self {
            Self::Line(LogFormat::Json) => {
                let time = now.format(&Rfc3339).unwrap_or_default();
                let _ = serde_json::to_writer(&mut *lines, &Timed { time: &time, content });
                lines.push(b'\n');
            }
            Self::Line(LogFormat::Text) => {
                let _ = now.format_into(lines, &Rfc3339);
                let _ = writeln!(lines, " {content}");
            }
            Self::Entry => lines.extend(journal::entry(&content.to_string(), content.priority(), content).as_bytes()),
        }
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
