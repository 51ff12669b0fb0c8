//! `doorward status`: the state of the running gate.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::control_args::ControlArgs;
use crate::control::{Answer, BackendHealth, EarlierProcess, LogError, NoticeReceiver, Request, Status, ToldFinding};
use crate::explain::clock::Clock;
use crate::model::text::{counted, duration};

/// The options of `doorward status`.
#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    control: ControlArgs,
}

pub(super) fn run(args: &StatusArgs) -> ExitCode {
    let expected = |answer| match answer {
        Answer::Status(status) => Some(*status),
        _ => None,
    };
    args.control.run(&Request::Status, expected, |status| text(status, &Clock::system()))
}

/// How many expiries are shown.
const EXPIRIES_MAX: usize = 5;

fn text(status: &Status, clock: &Clock) -> String {
    let running = duration(i64::try_from(status.seconds).unwrap_or(i64::MAX));
    let mut out = if status.draining {
        format!(
            "The gate is stopping and admits no more connections. Still open: {}.\n\n",
            counted(status.sessions as u64, "connection")
        )
    } else {
        format!("The gate has been running for {running}.\n\n")
    };
    out.insert_str(0, &findings(status));
    // A gate of an older release has no findings.
    if let (None, Some(LogError { since, error })) = (&status.verdict, &status.log_error) {
        let _ = write!(out, "The log has not been written since {since}:\n{error}\n\n");
    }
    if let (None, Some(LogError { since, error })) = (&status.verdict, &status.history_error) {
        let _ = write!(out, "The history has not been written since {since}:\n{error}\n\n");
    }
    let of_older = status.notices.iter().filter(|_| status.verdict.is_none());
    for NoticeReceiver { receiver, error, failing_since, waiting } in of_older {
        let Some(error) = error else { continue };
        let since = clock.full_of(failing_since.as_deref().unwrap_or_default());
        let waiting =
            if *waiting > 0 { format!(" Waiting: {}.", counted(*waiting as u64, "message")) } else { String::new() };
        let _ = write!(
            out,
            "You have not been sent messages since {since}: {receiver}: {error}.{waiting}\nTo try it: doorward notify --test\n\n"
        );
    }
    let mut fact = |what: &str, text: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {what:<13}  {text}");
    };
    fact("version", &status.version);
    fact("process", &status.pid.to_string());
    fact("configuration", &format!("{}, loaded at {}", status.config, clock.full_of(&status.config_since)));
    if let Some(sandbox) = &status.sandbox {
        fact("sandbox", &if sandbox.mode == "off" { "off".to_owned() } else { sandbox.in_force.join(", ") });
        if !sandbox.capabilities.is_empty() {
            fact("keeps", &format!("{}, to use files of another user", sandbox.capabilities.join(", ")));
        }
        for missing in &sandbox.missing {
            fact("not in force", missing);
        }
    }
    for listener in &status.listeners {
        fact("listens on", &format!("{} ({})", listener.address, listener.name));
    }
    if let Some(metrics) = &status.metrics {
        fact("status page", &format!("http://{metrics}/ (for Prometheus: http://{metrics}/metrics)"));
    }
    fact(
        "connections",
        &format!(
            "{} since this process started, {} of them refused; {} open now",
            status.accepted, status.rejected, status.sessions
        ),
    );
    for EarlierProcess { pid, version, until, sessions, .. } in &status.earlier {
        let serves = match sessions {
            Some(sessions) => format!("serves {}", counted(*sessions as u64, "open connection")),
            None => "does not answer".to_owned(),
        };
        fact("earlier", &format!("process {pid} (version {version}) {serves}, until {} at most", clock.full_of(until)));
    }
    let receivers: Vec<&str> = status.notices.iter().map(|notice| notice.receiver.as_str()).collect();
    if !receivers.is_empty() {
        fact("messages to", &receivers.join(", "));
    }
    for route in &status.routes {
        let (names, backends) = (route.server_names.join(", "), route.backends.join(", then "));
        let lead = if route.server_names.len() == 1 { "leads" } else { "lead" };
        let machine = route.machine.as_ref().map(|state| format!(" ({state})")).unwrap_or_default();
        fact("route", &format!("{}: {names} {lead} to {backends}{machine}; {} open", route.name, route.sessions));
        for BackendHealth { backend, health, since, failure, .. } in &route.health {
            let since = since.as_ref().map(|since| format!(" since {}", clock.full_of(since)));
            let failure = failure.as_ref().map(|failure| format!(": {failure}"));
            let (since, failure) = (since.unwrap_or_default(), failure.unwrap_or_default());
            fact("", &format!("{backend} {health}{since}{failure}"));
        }
    }
    for host in &status.host_names {
        fact("host name", &format!("{}: {}", host.name, host.text));
    }
    if let Some(public) = &status.public_certificate {
        fact("certificate", &public.line);
    }
    if let Some(unattended) = &status.unattended_renewal {
        let runs = "certificates of devices are renewed without you".to_owned();
        let error = unattended.error.as_ref();
        fact("renewal", &error.map_or(runs, |error| format!("certificates are NOT renewed without you: {error}")));
    }
    for expiring in status.expiries.iter().take(EXPIRIES_MAX) {
        let date = expiring.at.split('T').next().unwrap_or_default();
        let when = match expiring.days_left {
            ..0 => format!("EXPIRED on {date}"),
            days => format!("{} left, until {date}", counted(days.unsigned_abs(), "day")),
        };
        fact("expires", &format!("{} {}: {when}", expiring.what, expiring.name));
    }
    if status.expiries.len() > EXPIRIES_MAX {
        fact("", "later ones are on the status page and in --format json");
    }
    if !status.config_errors.is_empty() {
        out.push_str("\nThe latest reload was refused because of these errors:\n");
        for error in &status.config_errors {
            let _ = write!(out, "\n{error}\n");
        }
    }
    if let Some(error) = &status.upgrade_error {
        let _ = write!(out, "\nThe latest upgrade failed, and nothing has changed:\n{error}\n");
    }
    if status.rejected > 0 {
        out.push_str("\nFor the latest refusal: doorward why\n");
    }
    out
}

/// What comes first: the verdict, and what else needs the owner.
fn findings(status: &Status) -> String {
    let Some(verdict) = &status.verdict else { return String::new() };
    let mut out = format!("{}.\n  {}\n", verdict.headline, verdict.sentence);
    let is_note = |finding: &&ToldFinding| finding.tone == "note";
    let mut important = status.findings.iter().filter(|finding| !is_note(finding));
    let act = |out: &mut String, finding: &ToldFinding| {
        if let Some(command) = &finding.command {
            let _ = writeln!(out, "    {command}");
        }
    };
    let first = if verdict.state == "new" { None } else { important.next() };
    if let Some(first) = first {
        if let Some(advice) = &first.advice {
            let _ = writeln!(out, "  {advice}");
        }
        act(&mut out, first);
    }
    for (index, finding) in important.enumerate() {
        out.push_str(if index == 0 { "\nNeeds you as well:\n" } else { "" });
        let _ = writeln!(out, "  {}. {}", finding.headline, finding.sentence);
        // The command does not mend this alone.
        if let Some(advice) = finding.advice.as_ref().filter(|_| finding.kind == "renewal_failed") {
            let _ = writeln!(out, "    {advice}");
        }
        act(&mut out, finding);
    }
    for (index, finding) in status.findings.iter().filter(is_note).enumerate() {
        out.push_str(if index == 0 { "\n" } else { "" });
        let _ = writeln!(out, "{}: {}", finding.headline, finding.sentence);
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::control::{Expiring, RouteStatus, SandboxStatus};
    use crate::explain::clock::Zone;

    fn clock() -> Clock {
        Clock::new(OffsetDateTime::UNIX_EPOCH, Zone::utc())
    }

    fn expiring(days_left: i64) -> Expiring {
        let [kind, what, name] = ["device", "the certificate of the device", "alice-phone"].map(str::to_owned);
        Expiring { kind, what, name, at: "2026-11-24T00:00:00Z".to_owned(), days_left }
    }

    #[test]
    fn counts_of_one_are_singular() {
        let route = |names: &[&str], sessions| RouteStatus {
            name: "nas".to_owned(),
            server_names: names.iter().map(|name| (*name).to_owned()).collect(),
            backends: vec!["192.168.1.10:5666".to_owned(), "192.168.1.11:5666".to_owned()],
            health: Vec::new(),
            machine: (sessions == 0).then(|| "asleep".to_owned()),
            sessions,
        };
        let mut status = Status {
            version: String::new(),
            pid: 1,
            since: String::new(),
            seconds: 60,
            draining: false,
            verdict: None,
            findings: Vec::new(),
            config: String::new(),
            config_since: String::new(),
            config_errors: Vec::new(),
            log_error: None,
            history_error: None,
            sandbox: None,
            listeners: Vec::new(),
            metrics: Some("127.0.0.1:9180".to_owned()),
            routes: vec![route(&["nas.home.example"], 1), route(&["a.home.example", "b.home.example"], 0)],
            host_names: Vec::new(),
            public_certificate: None,
            unattended_renewal: None,
            expiries: [-1, 0, 1, 2, 3, 4].map(expiring).into(),
            accepted: 2,
            rejected: 1,
            sessions: 1,
            notices: Vec::new(),
            earlier: Vec::new(),
            upgrade_error: None,
        };
        let shown = text(&status, &clock());
        assert!(shown.starts_with("The gate has been running for 1 minute.\n"), "{shown}");
        for line in [
            "  status page    http://127.0.0.1:9180/ (for Prometheus: http://127.0.0.1:9180/metrics)\n",
            "  connections    2 since this process started, 1 of them refused; 1 open now\n",
            "nas.home.example leads to 192.168.1.10:5666, then 192.168.1.11:5666; 1 open\n",
            "a.home.example, b.home.example lead to 192.168.1.10:5666, then 192.168.1.11:5666 (asleep); 0 open\n",
            "  expires        the certificate of the device alice-phone: EXPIRED on 2026-11-24\n",
            "alice-phone: 0 days left, until 2026-11-24\n",
            "alice-phone: 1 day left, until 2026-11-24\n",
            "                 later ones are on ",
            "\nFor the latest refusal: doorward why\n",
        ] {
            assert!(shown.contains(line), "{line} in {shown}");
        }
        status.log_error =
            Some(LogError { since: "2026-11-24T00:00:00Z".to_owned(), error: "the disk is full".to_owned() });
        let shown = text(&status, &clock());
        assert!(
            shown.contains("minute.\n\nThe log has not been written since 2026-11-24T00:00:00Z:\nthe disk"),
            "{shown}"
        );
        let receiver = |error: Option<&str>| NoticeReceiver {
            receiver: "https://ntfy.sh".to_owned(),
            error: error.map(str::to_owned),
            failing_since: error.map(|_| "2026-11-24T00:00:00Z".to_owned()),
            waiting: 2,
        };
        status.notices = vec![receiver(None)];
        let shown = text(&status, &clock());
        assert!(shown.contains("  messages to    https://ntfy.sh\n") && !shown.contains("not been sent"), "{shown}");
        status.notices = vec![receiver(Some("it answers 503"))];
        let shown = text(&status, &clock());
        assert!(
            shown.contains(
                "\n\nYou have not been sent messages since 2026-11-24 00:00:00 UTC: https://ntfy.sh: it answers 503. Waiting: 2 \
                 messages.\nTo try it: doorward notify --test\n\n"
            ),
            "{shown}"
        );
        let mut sandbox = SandboxStatus {
            mode: "auto".to_owned(),
            in_force: vec!["capabilities".to_owned(), "files".to_owned()],
            capabilities: vec!["CAP_DAC_READ_SEARCH".to_owned()],
            landlock: 1,
            missing: vec!["TCP ports are not restricted: that takes Linux 6.7".to_owned()],
        };
        status.sandbox = Some(Box::new(sandbox.clone()));
        let shown = text(&status, &clock());
        for line in [
            "  sandbox        capabilities, files\n",
            "  keeps          CAP_DAC_READ_SEARCH, to use files of another user\n",
            "  not in force   TCP ports are not restricted: that takes Linux 6.7\n",
        ] {
            assert!(shown.contains(line), "{line} in {shown}");
        }
        sandbox = SandboxStatus { mode: "off".to_owned(), in_force: Vec::new(), missing: Vec::new(), ..sandbox };
        status.sandbox = Some(Box::new(SandboxStatus { capabilities: Vec::new(), ..sandbox }));
        assert!(text(&status, &clock()).contains("  sandbox        off\n"), "{}", text(&status, &clock()));
        status.draining = true;
        assert!(text(&status, &clock()).contains("Still open: 1 connection.\n"));
        status.sessions = 2;
        assert!(text(&status, &clock()).contains("Still open: 2 connections.\n"));
    }
}
