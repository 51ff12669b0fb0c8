//! `doorward why`: why a client was refused, and what to do about it.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::control_args::ControlArgs;
use crate::control::{Answer, REFUSALS_MAX, Refusal, Request, ToldFinding, Why};
use crate::explain::clock::Clock;
use crate::explain::moment;
use crate::explain::recent::{InvalidWanted, Wanted};
use crate::model::text::{counted, duration};

/// The examples below the help text.
pub(super) const EXAMPLE: &str = "\
Examples:
  doorward why                     the refusal that matters most, as on the status page
  doorward why last                the latest refusal
  doorward why 203.0.113.9         of this address (IPv6: of its network)
  doorward why sha256:2951d183     of the certificate whose fingerprint starts with these digits
  doorward why alice-phone         of a certificate with this name";

/// The options of `doorward why`.
#[derive(Args, Debug)]
pub(super) struct WhyArgs {
    /// An IP address, a fingerprint (sha256:...) or its first digits, a device name, or "last"
    #[arg(value_name = "CLIENT", value_parser = checked)]
    wanted: Option<String>,

    /// How many refusals to show: of a client, the newest first
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 1, value_parser = count)]
    count: usize,

    #[command(flatten)]
    control: ControlArgs,
}

/// The word for all clients.
const LAST: &str = "last";

/// Refuses a text that matches no client before the gate is asked.
fn checked(text: &str) -> Result<String, InvalidWanted> {
    Wanted::parse(text).map(|_| text.to_owned())
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=REFUSALS_MAX).contains(&count) => Ok(count),
        _ => Err(format!("expected a number from 1 to {REFUSALS_MAX}")),
    }
}

pub(super) fn run(args: &WhyArgs) -> ExitCode {
    let wanted = args.wanted.as_deref().unwrap_or(LAST);
    // Of one client, the newest comes first.
    let ranked = args.wanted.is_none();
    let request = Request::Why { wanted: wanted.to_owned(), count: args.count, ranked };
    let expected = |answer| match answer {
        Answer::Why(why) => Some(why),
        _ => None,
    };
    args.control.run(&request, expected, |why| text(wanted, why, &Clock::system()))
}

fn text(wanted: &str, why: &Why, clock: &Clock) -> String {
    if why.refusals.is_empty() && !why.findings.is_empty() {
        return from_history(why);
    }
    if why.refusals.is_empty() {
        return match (wanted, why.rejected) {
            (_, 0) => "No connection has been refused since the gate was started.\n".to_owned(),
            ("last", _) => "No refusal is remembered.\n".to_owned(),
            (_, rejected) => format!(
                "The gate remembers no such refusal. Refused since it was started: {}. Earlier ones may be in the log.\n\
                 If a device cannot connect and is not listed here, its connection does not reach the gate: check the host \
                 name and the router.\n",
                counted(rejected, "connection")
            ),
        };
    }
    let mut out = String::new();
    for refusal in &why.refusals {
        if !out.is_empty() {
            out.push('\n');
        }
        describe(refusal, clock, &mut out);
    }
    for ToldFinding { headline, sentence, command, .. } in &why.findings {
        let _ = write!(out, "\n{headline}. {sentence}\n");
        if let Some(command) = command {
            let _ = writeln!(out, "    {command}");
        }
    }
    let hidden = why.known.saturating_sub(why.refusals.len());
    if hidden > 0 && wanted != "last" {
        let earlier = counted(hidden as u64, "earlier one");
        let _ = write!(out, "\nThe gate remembers {earlier}: --count shows more.\n");
    }
    out
}

/// What was found before the gate was started: refusals are in memory only.
fn from_history(why: &Why) -> String {
    let mut out = String::new();
    for ToldFinding { headline, sentence, advice, .. } in &why.findings {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{headline}.\n{sentence}\n{}\n", advice.as_deref().unwrap_or_default());
    }
    out.push_str("The gate has been started since, and remembers no more of it. The log may have more.\n");
    out
}

fn describe(refusal: &Refusal, clock: &Clock, out: &mut String) {
    let Refusal { explanation, advice, .. } = refusal;
    // Writing to a String cannot fail.
    let _ = write!(out, "{explanation}\n{advice}\n\n");
    let mut fact = |what: &str, text: &str| {
        let _ = writeln!(out, "  {what:<12}  {text}");
    };
    // The log has it in UTC; the id finds the line there.
    let at = clock.full_of(&refusal.time);
    fact("when", &format!("{} ago ({at})", duration(i64::try_from(refusal.seconds).unwrap_or(i64::MAX))));
    if refusal.times > 1 {
        fact("times", &format!("{}; this is the latest", refusal.times));
    }
    fact("from", &refusal.source);
    fact("asked for", refusal.server_name.as_deref().unwrap_or("no server name"));
    if let Some(route) = &refusal.route {
        fact("route", route);
    }
    fact("listener", &refusal.listener);
    fact("reason", &format!("{}/{}: {}", refusal.stage, refusal.reason, refusal.detail));
    fact("alert", refusal.alert.as_deref().unwrap_or("none, the connection was closed"));
    if let Some(certificate) = &refusal.certificate {
        let claimed = match (certificate.verified, certificate.anchored) {
            (true, _) => "",
            // Anyone can show a copy: certificates are public, and TLS 1.2 sends them in the clear.
            (false, true) => " (signed by a trusted authority; the client did not prove that it has the key)",
            (false, false) => " (not verified)",
        };
        fact("certificate", &format!("{}{claimed}", certificate.names.join(", ")));
        fact("issued by", &certificate.issuer);
        fact(
            "valid",
            &format!("from {} to {}", local(clock, certificate.not_before), local(clock, certificate.not_after)),
        );
        fact("fingerprint", &format!("sha256:{}", certificate.fingerprint));
    }
    fact("log", &format!("id {}", refusal.id));
}

/// Seconds since 1970 in the zone, or as they are if no calendar goes so far.
fn local(clock: &Clock, seconds: i64) -> String {
    clock.of_seconds(seconds).map_or_else(|| moment(seconds), |at| clock.full(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::clock::Zone;

    #[test]
    fn counts_of_one_are_singular() {
        let clock = Clock::new(time::OffsetDateTime::UNIX_EPOCH, Zone::fixed(1));
        let refusal = Refusal {
            explanation: "What happened.".to_owned(),
            advice: "What to do.".to_owned(),
            time: "2026-11-24T20:36:06.635434814Z".to_owned(),
            seconds: 61,
            id: 7,
            listener: "public".to_owned(),
            source: "192.0.2.7:1".to_owned(),
            server_name: None,
            route: None,
            stage: "client_hello".to_owned(),
            reason: "timeout".to_owned(),
            side: "client".to_owned(),
            detail: "the detail".to_owned(),
            alert: None,
            certificate: None,
            impostor: None,
            times: 1,
        };
        for (known, end) in [(2, "1 earlier one"), (3, "2 earlier ones")] {
            let shown = text(
                "192.0.2.7",
                &Why { known, rejected: 9, refusals: vec![refusal.clone()], findings: Vec::new() },
                &clock,
            );
            assert!(shown.contains("  when          1 minute ago (2026-11-24 21:36:06 +01:00)\n"), "{shown}");
            assert!(shown.ends_with(&format!("\nThe gate remembers {end}: --count shows more.\n")), "{shown}");
        }
        for (rejected, count) in [(1, "1 connection."), (2, "2 connections.")] {
            let shown =
                text("192.0.2.7", &Why { known: 0, rejected, refusals: Vec::new(), findings: Vec::new() }, &clock);
            assert!(shown.contains(&format!("Refused since it was started: {count} Earlier")), "{shown}");
        }
    }
}
