//! `doorward sessions`: who is in.

use std::process::ExitCode;

use clap::Args;

use super::asking::Asking;
use crate::control::{Answer, Request, SESSIONS_MAX, Sessions};
use crate::model::text::{self, bytes, counted, duration};

/// The options of `doorward sessions`.
#[derive(Args, Debug)]
pub(super) struct SessionsArgs {
    #[command(flatten)]
    asking: Asking,
}

pub(super) fn run(args: &SessionsArgs) -> ExitCode {
    let expected = |answer| match answer {
        Answer::Sessions(sessions) => Some(sessions),
        _ => None,
    };
    args.asking.run(&Request::Sessions { count: SESSIONS_MAX }, expected, text)
}

fn text(sessions: &Sessions) -> String {
    if sessions.sessions.is_empty() { "Nobody is in.\n".to_owned() } else { table(sessions) }
}

/// One line for each.
pub(super) fn table(sessions: &Sessions) -> String {
    let heading = ["device", "route", "from", "open for", "sent", "received", "path", "id"].map(str::to_owned);
    let rows = sessions.sessions.iter().map(|session| {
        let device = match &session.certificate {
            Some(certificate) if certificate.verified => certificate.name.clone(),
            Some(certificate) => format!("{} (unverified)", certificate.name),
            None => "no certificate".to_owned(),
        };
        [
            device,
            session.route.clone(),
            session.source.clone(),
            duration(i64::try_from(session.seconds).unwrap_or(i64::MAX)),
            bytes(session.bytes_to_backend),
            bytes(session.bytes_to_client),
            // Its backends are still dialled.
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
    fn those_that_are_not_listed_are_counted() {
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
        };
        for (open, end) in [(1, "copy  1\n"), (2, "\nand 1 older one\n"), (3, "\nand 2 older ones\n")] {
            let told = text(&Sessions { open, sessions: vec![session.clone()] });
            assert!(told.ends_with(end), "{told}");
        }
    }
}
