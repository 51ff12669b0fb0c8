//! What happens to a link, in words on stderr or as JSON on stdout.

use std::io::{self, Write as _};
use std::net::IpAddr;

use serde::Serialize;

use super::NotShared;
use crate::cli::{Format, exit};
use crate::enrolment::link::{Candidate, Notice, Outcome};
use crate::model::names::Name;

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
        authority: &'a str,
        authority_sha256: &'a str,
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
pub(super) fn report(format: Format, device: &Name, notice: Notice) {
    // A reader that is gone does not end the link.
    let _ = match (format, notice) {
        (Format::Text, Notice::Opened(by)) => writeln!(io::stderr().lock(), "{by} has opened the page."),
        (Format::Text, Notice::Interrupted(by, form)) => {
            let file = form.file_name(device);
            writeln!(io::stderr().lock(), "{by} has interrupted its download of {file}. The link still works.")
        }
        (Format::Json, Notice::Opened(by)) => Event::Opened { by }.print(),
        (Format::Json, Notice::Interrupted(by, form)) => Event::BrokenOff { by, file: &form.file_name(device) }.print(),
    };
}

/// Reports how the link ended. `next` is what to do for another try. If the page was never opened, `unopened` is the address
/// of the link.
pub(super) fn report_end(
    format: Format,
    device: &Name,
    outcome: Outcome,
    unopened: Option<IpAddr>,
    next: &str,
) -> Result<(), NotShared> {
    let file = match outcome {
        Outcome::Fetched(_, form) => form.file_name(device),
        _ => String::new(),
    };
    if format == Format::Json {
        let event = match outcome {
            Outcome::Fetched(by, _) => Event::Fetched { by, file: &file },
            Outcome::Expired => Event::Expired,
            Outcome::Guessed(by) => Event::Guessed { by },
            Outcome::Stopped(fetching) => Event::Stopped { fetching },
        };
        event.print().map_err(|error| NotShared::new(exit::UNEXPECTED, error))?;
    }
    let why = match outcome {
        Outcome::Fetched(by, _) => {
            if format == Format::Text {
                // A reader that is gone does not undo the delivery.
                let _ = writeln!(
                    io::stderr().lock(),
                    "{by} has downloaded {file}, and the link is closed. If that was not {device}: the file is worthless \
                     without the password. {next}"
                );
            }
            return Ok(());
        }
        Outcome::Expired => {
            let why = "the link has expired; no file was downloaded";
            match unopened {
                None => why.to_owned(),
                Some(address) => format!(
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
