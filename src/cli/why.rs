//! `doorward why`: why somebody was turned away, and what to do about it.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::asking::Asking;
use crate::control::{Answer, REFUSALS_MAX, Refusal, Request, Why};
use crate::explain::refusals::{InvalidWanted, Wanted};
use crate::model::text::{counted, duration};

/// What stands below the help text.
pub(super) const EXAMPLE: &str = "\
Examples:
  doorward why                     the last one who was turned away
  doorward why 203.0.113.9         that address (of an IPv6 address: the network it is in)
  doorward why sha256:2951d183     the certificate whose fingerprint begins so
  doorward why alice-phone         whoever showed a certificate with that name";

/// The options of `doorward why`.
#[derive(Args, Debug)]
pub(super) struct WhyArgs {
    /// An IP address, a fingerprint or the beginning of one (sha256:…), the name of a device, or the word last
    #[arg(value_name = "WHO", default_value = "last", value_parser = meant)]
    wanted: String,

    /// How many to tell about, the newest first
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 1, value_parser = count)]
    count: usize,

    #[command(flatten)]
    asking: Asking,
}

fn meant(text: &str) -> Result<String, InvalidWanted> {
    Wanted::parse(text).map(|_| text.to_owned())
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=REFUSALS_MAX).contains(&count) => Ok(count),
        _ => Err(format!("a number from 1 to {REFUSALS_MAX}")),
    }
}

pub(super) fn run(args: &WhyArgs) -> ExitCode {
    let request = Request::Why { wanted: args.wanted.clone(), count: args.count };
    let expected = |answer| match answer {
        Answer::Why(why) => Some(why),
        _ => None,
    };
    args.asking.run(&request, expected, |why| text(&args.wanted, why))
}

fn text(wanted: &str, why: &Why) -> String {
    if why.refusals.is_empty() {
        return match (wanted, why.rejected) {
            (_, 0) => "Nobody has been turned away since the gate was started.\n".to_owned(),
            ("last", _) => "Nobody is remembered.\n".to_owned(),
            (_, rejected) => format!(
                "The gate remembers nobody like that. Turned away since it was started: {}. The log may have those that it \
                 has forgotten.\n\
                 If a device cannot get in and nothing is told of it here, its connection does not reach the gate: look at \
                 its name and at the router.\n",
                counted(rejected, "connection")
            ),
        };
    }
    let mut out = String::new();
    for refusal in &why.refusals {
        if !out.is_empty() {
            out.push('\n');
        }
        tell(refusal, &mut out);
    }
    let untold = why.known.saturating_sub(why.refusals.len());
    if untold > 0 && wanted != "last" {
        let earlier = counted(untold as u64, "earlier one");
        let _ = write!(out, "\nThe gate remembers {earlier} like this: --count shows more.\n");
    }
    out
}

fn tell(refusal: &Refusal, out: &mut String) {
    let Refusal { explanation, advice, .. } = refusal;
    // Writing to a String cannot fail.
    let _ = write!(out, "{explanation}\n{advice}\n\n");
    let mut fact = |what: &str, text: &str| {
        let _ = writeln!(out, "  {what:<12}  {text}");
    };
    // Nobody reads fractions of a second; whoever looks for the line in the log has the id.
    let second = refusal.time.split('.').next().unwrap_or_default().trim_end_matches('Z');
    fact("when", &format!("{} ago ({second}Z)", duration(i64::try_from(refusal.seconds).unwrap_or(i64::MAX))));
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
    fact("was told", refusal.alert.as_deref().unwrap_or("nothing, the connection was closed"));
    if let Some(certificate) = &refusal.certificate {
        let claimed = match (certificate.verified, certificate.anchored) {
            (true, _) => "",
            // Certificates are no secrets: TLS 1.2 sends them in the clear.
            (false, true) => " (signed by a trusted authority; the client did not prove that it has the key)",
            (false, false) => " (so it says itself; not verified)",
        };
        fact("certificate", &format!("{}{claimed}", certificate.names.join(", ")));
        fact("issued by", &certificate.issuer);
        fact("valid", &format!("from {} to {}", certificate.not_before, certificate.not_after));
        fact("fingerprint", &format!("sha256:{}", certificate.fingerprint));
    }
    fact("log", &format!("id {}", refusal.id));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_told_as_one() {
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
            times: 1,
        };
        for (known, end) in [(2, "1 earlier one like this"), (3, "2 earlier ones like this")] {
            let told = text("192.0.2.7", &Why { known, rejected: 9, refusals: vec![refusal.clone()] });
            assert!(told.contains("  when          1 minute ago (2026-11-24T20:36:06Z)\n"), "{told}");
            assert!(told.ends_with(&format!("\nThe gate remembers {end}: --count shows more.\n")), "{told}");
        }
        for (rejected, count) in [(1, "1 connection."), (2, "2 connections.")] {
            let told = text("192.0.2.7", &Why { known: 0, rejected, refusals: Vec::new() });
            assert!(told.contains(&format!("Turned away since it was started: {count} The log")), "{told}");
        }
    }
}
