//! What happens to a link, in words on stderr or as JSON on stdout.

use std::io::{self, Write as _};
use std::net::IpAddr;

use serde::Serialize;

use super::NotShared;
use crate::cli::{Format, exit};
use crate::enrolment::link::{Candidate, Notice, Outcome};
use crate::model::device_name::DeviceName;

/// A line of `--format json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub(super) enum Event<'a> {
    Ready {
        device: &'a str,
        url: &'a str,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        other_addresses: &'a [Candidate],
        password: &'a str,
        expires_in_seconds: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        authority: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        authority_sha256: Option<String>,
    },
    Opened {
        by: IpAddr,
    },
    BrokenOff {
        by: IpAddr,
        file: &'a str,
    },
    Fetched {
        by: IpAddr,
        file: &'a str,
    },
    Expired,
    Guessed {
        by: IpAddr,
    },
    Stopped {
        #[serde(skip_serializing_if = "Option::is_none")]
        fetching: Option<IpAddr>,
    },
}

impl Event<'_> {
    pub(super) fn print(&self) -> io::Result<()> {
        let json = serde_json::to_string(self)?;
        writeln!(io::stdout().lock(), "{json}")
    }
}

/// Reports an event while the link is open.
pub(super) fn report(format: Format, device: &DeviceName, notice: Notice) {
    // A reader that is gone does not end the link.
    let _ = match (format, notice) {
        (Format::Text, Notice::Opened(by)) => writeln!(io::stderr().lock(), "{by} has opened the page."),
        (Format::Text, Notice::Interrupted(by, form)) => {
            let file = form.file_name(device);
            writeln!(io::stderr().lock(), "{by} has interrupted its download of {file}. The link still works.")
        }
        (Format::Text, Notice::Fetched(by, form)) => {
            let file = form.file_name(device);
            writeln!(
                io::stderr().lock(),
                "{by} has downloaded {file}. It can do so again until the link expires; no other address can. If that was not \
                 {device}: press Ctrl-C; the file is worthless without the password."
            )
        }
        (Format::Json, Notice::Opened(by)) => Event::Opened { by }.print(),
        (Format::Json, Notice::Interrupted(by, form)) => Event::BrokenOff { by, file: &form.file_name(device) }.print(),
        (Format::Json, Notice::Fetched(by, form)) => Event::Fetched { by, file: &form.file_name(device) }.print(),
    };
}

/// What clients have done with the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Progress {
    /// Nothing.
    Untouched,
    /// The page was opened.
    Opened,
    /// A file was downloaded.
    Fetched,
}

/// Reports how the link at `address` ended. `next` is what to do for another try.
pub(super) fn report_end(
    format: Format,
    device: &DeviceName,
    outcome: Outcome,
    progress: Progress,
    address: IpAddr,
    next: &str,
) -> Result<(), NotShared> {
    if format == Format::Json {
        let event = match outcome {
            Outcome::Expired => Event::Expired,
            Outcome::Guessed(by) => Event::Guessed { by },
            Outcome::Stopped(fetching) => Event::Stopped { fetching },
        };
        event.print().map_err(|error| NotShared::new(exit::UNEXPECTED, error))?;
    }
    if progress == Progress::Fetched && matches!(outcome, Outcome::Expired | Outcome::Stopped(None)) {
        if format == Format::Text {
            // A reader that is gone does not undo the delivery.
            let _ = writeln!(io::stderr().lock(), "The link is closed. {next}");
        }
        return Ok(());
    }
    let why = match outcome {
        Outcome::Expired => {
            let why = "the link has expired; no file was downloaded";
            match progress {
                Progress::Opened | Progress::Fetched => why.to_owned(),
                Progress::Untouched => format!(
                    "{why}\n  If the device could not open the link: it must be in the same network as {address}. Choose \
                     another address of this machine with --address, or with --port a port that the firewall allows."
                ),
            }
        }
        Outcome::Guessed(by) => format!(
            "the link is closed: too many requests for wrong paths, the last from {by}, look like attempts to guess it"
        ),
        Outcome::Stopped(None) => "stopped; no file was downloaded, and the link is closed".to_owned(),
        Outcome::Stopped(Some(by)) => format!(
            "stopped during a download by {by}, which may have the whole file; the link is closed. If that was not {device}: the \
             file is worthless without the password"
        ),
    };
    Err(NotShared::new(exit::NOT_FETCHED, format!("{why}\n  {next}")))
}
