//! `doorward history`: which devices were admitted, from where, and how much they moved.

use std::process::ExitCode;

use clap::Args;
use time::{Duration, OffsetDateTime};

use super::control_args::ControlArgs;
use super::{exit, failed};
use crate::config;
use crate::control::client::{AskError, ask};
use crate::control::{Answer, History, Request, VISITS_MAX, history_of, moment_of};
use crate::explain::clock::Clock;
use crate::history::visits_of_folder;
use crate::model::names::visible;
use crate::model::text::{self, bytes, counted};

/// The examples below the help text.
pub(super) const EXAMPLE: &str = "\
Examples:
  doorward history                         of the last 24 hours
  doorward history --since 7d              of the last seven days
  doorward history --device alice-phone    of this device only";

/// The options of `doorward history`.
#[derive(Args, Debug)]
pub(super) struct HistoryArgs {
    /// How far back: a number and m, h or d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = span)]
    since: Duration,

    /// Only this device
    #[arg(long, value_name = "NAME")]
    device: Option<String>,

    #[command(flatten)]
    control: ControlArgs,
}

fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number and a unit, as in 90m, 12h or 7d".to_owned();
    let unit = text.char_indices().next_back().ok_or_else(wrong)?;
    let (number, seconds) = match unit {
        (at, 'm') => (&text[..at], 60),
        (at, 'h') => (&text[..at], 3600),
        (at, 'd') => (&text[..at], 86_400),
        _ => return Err(wrong()),
    };
    let number: u16 = number.parse().map_err(|_| wrong())?;
    if number == 0 { Err(wrong()) } else { Ok(Duration::seconds(i64::from(number) * seconds)) }
}

pub(super) fn run(args: &HistoryArgs) -> ExitCode {
    let socket = match args.control.socket() {
        Ok(socket) => socket,
        // Without a control socket the files still tell.
        Err(code) => return from_folder(args).unwrap_or(code),
    };
    let seconds = args.since.whole_seconds().unsigned_abs();
    let request = Request::History { seconds, device: args.device.clone(), count: VISITS_MAX };
    match ask(&socket, &request) {
        Ok(Answer::History(history)) => args.control.print(&history, text),
        Ok(Answer::Error(error)) => {
            let error = visible(&error, 1024);
            failed(exit::NO_GATE, &format!("the gate at {} refused the request: {error}", socket.display()))
        }
        Ok(_) => failed(exit::UNEXPECTED, &"the gate sent the answer to another request"),
        Err(error @ AskError::NotUnderstood { .. }) => failed(exit::NO_GATE, &error),
        Err(error) => from_folder(args).unwrap_or_else(|| failed(exit::NO_GATE, &error)),
    }
}

/// Reads the files, while no gate runs. `None` if there are none that can be read.
fn from_folder(args: &HistoryArgs) -> Option<ExitCode> {
    let config = args.control.config().path().ok()?;
    let folders = config::load_history(&config).ok()?.folder.map(|folder| folder.places()).unwrap_or_default();
    let now = OffsetDateTime::now_utc();
    let since = now - args.since;
    let visits = folders.iter().find_map(|folder| visits_of_folder(folder, since, now).ok())?;
    Some(args.control.print(&history_of(visits, args.device.as_deref(), VISITS_MAX), text))
}

fn text(history: &History) -> String {
    told(history, &Clock::system())
}

fn told(history: &History, clock: &Clock) -> String {
    if history.visits.is_empty() {
        return "No device was admitted in this time.\n".to_owned();
    }
    let heading = ["device", "route", "from", "since", "until", "connections", "moved"].map(str::to_owned);
    let moment = |text: &str| moment_of(text).map_or_else(|| text.to_owned(), |at| clock.moment(at));
    let rows = history.visits.iter().map(|visit| {
        let until = if visit.open > 0 { "connected now".to_owned() } else { moment(&visit.until) };
        let moved = visit.bytes_to_backend.saturating_add(visit.bytes_to_client);
        [
            visit.device.clone(),
            visit.route.clone(),
            visit.address.clone(),
            moment(&visit.since),
            until,
            visit.connections.to_string(),
            bytes(moved),
        ]
    });
    let rows: Vec<[String; 7]> = [heading].into_iter().chain(rows).collect();
    let mut out = text::table(&rows);
    let untold = history.known.saturating_sub(history.visits.len());
    if untold > 0 {
        out.push_str(&format!("and {}\n", counted(untold as u64, "earlier one")));
    }
    out.push_str(&format!(
        "Times are local ({}). What open connections moved in the last minute is not in it yet.\n",
        clock.zone()
    ));
    out
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::control::Visit;
    use crate::explain::clock::Zone;

    #[test]
    fn times_back_are_read() {
        assert_eq!(span("90m"), Ok(Duration::minutes(90)));
        assert_eq!((span("12h"), span("7d")), (Ok(Duration::hours(12)), Ok(Duration::days(7))));
        for wrong in ["", "h", "12", "0h", "-1h", "1w", "1 h", "99999999h", "ä"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn visits_are_told_in_local_time() {
        let clock = Clock::new(datetime!(2026-11-27 20:14:05 UTC), Zone::fixed(1));
        let visit = Visit {
            device: "alice-phone".to_owned(),
            route: "photos".to_owned(),
            address: "203.0.113.140".to_owned(),
            since: "2026-11-27T18:20:00Z".to_owned(),
            until: "2026-11-27T18:31:05Z".to_owned(),
            connections: 9,
            open: 0,
            bytes_to_backend: 1 << 20,
            bytes_to_client: 87 << 20,
        };
        let open = Visit { open: 1, since: "2026-11-26T22:31:00Z".to_owned(), ..visit.clone() };
        let shown = told(&History { known: 5, visits: vec![visit, open] }, &clock);
        assert_eq!(
            shown,
            "\
device       route   from           since            until           connections  moved
alice-phone  photos  203.0.113.140  today 19:20:00   today 19:31:05  9            88.0 MiB
alice-phone  photos  203.0.113.140  yesterday 23:31  connected now   9            88.0 MiB
and 3 earlier ones
Times are local (UTC+01:00). What open connections moved in the last minute is not in it yet.
"
        );
        assert_eq!(told(&History { known: 0, visits: Vec::new() }, &clock), "No device was admitted in this time.\n");
    }
}
