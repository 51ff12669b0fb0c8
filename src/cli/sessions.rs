//! `doorward sessions`: the open connections.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;

use super::control_args::ControlArgs;
use crate::control::{Answer, Request, SESSIONS_MAX, Sessions};
use crate::model::text::{self, bytes, counted, duration};

/// The options of `doorward sessions`.
#[derive(Args, Debug)]
pub(super) struct SessionsArgs {
    #[command(flatten)]
    control: ControlArgs,
}

pub(super) fn run(args: &SessionsArgs) -> ExitCode {
    let expected = |answer| match answer {
        Answer::Sessions(sessions) => Some(sessions),
        _ => None,
    };
    args.control.run(&Request::Sessions { count: SESSIONS_MAX }, expected, text)
}

fn text(sessions: &Sessions) -> String {
    if sessions.sessions.is_empty() {
        return "No connection is open.\n".to_owned();
    }
    let mut out = table(sessions);
    let mut earlier: BTreeMap<u32, u64> = BTreeMap::new();
    for process in sessions.sessions.iter().filter_map(|session| session.process) {
        *earlier.entry(process).or_default() += 1;
    }
    for (process, count) in earlier {
        out.push_str(&format!("{} with process {process}, which an upgrade has left\n", counted(count, "connection")));
    }
    out
}

/// One line for each session.
pub(super) fn table(sessions: &Sessions) -> String {
    let heading = ["device", "route", "from", "open for", "sent", "received", "path", "id"].map(str::to_owned);
    let rows = sessions.sessions.iter().map(|session| {
        let device = match &session.certificate {
            Some(certificate) if certificate.verified => certificate.name().to_owned(),
            Some(certificate) => format!("{} (unverified)", certificate.name()),
            None => "no certificate".to_owned(),
        };
        [
            device,
            session.route.clone(),
            session.source.clone(),
            duration(i64::try_from(session.seconds).unwrap_or(i64::MAX)),
            bytes(session.bytes_to_backend),
            bytes(session.bytes_to_client),
            // No backend has answered yet.
            session.backend.as_ref().map_or("(dialling)", |_| &session.path).to_owned(),
            session.id.to_string(),
        ]
    });
    let rows: Vec<[String; 8]> = [heading].into_iter().chain(rows).collect();
    let mut out = text::table(&rows);
    let untold = sessions.open.saturating_sub(sessions.sessions.len());
    if untold > 0 {
        out.push_str(&format!("and {}\n", counted(untold as u64, "older one")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Session;

    #[test]
    fn sessions_beyond_the_limit_are_counted() {
        let session = Session {
            id: 1,
            since: String::new(),
            seconds: 1,
            source: "192.0.2.7:1".to_owned(),
            listener: "public".to_owned(),
            route: "nas".to_owned(),
            certificate: None,
            backend: Some("127.0.0.1:22".to_owned()),
            path: "copy".to_owned(),
            bytes_to_backend: 0,
            bytes_to_client: 0,
            process: None,
        };
        for (open, end) in [(1, "copy  1\n"), (2, "\nand 1 older one\n"), (3, "\nand 2 older ones\n")] {
            let shown = text(&Sessions { open, sessions: vec![session.clone()] });
            assert!(shown.ends_with(end), "{shown}");
        }
    }
}
