//! `doorward why`: why somebody was turned away, and what to do about it.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::asking::Asking;
use crate::control::{Answer, REFUSALS_MAX, Refusal, Request, Why};
use crate::explanation::lasting;
use crate::telemetry::refusals::{InvalidWanted, Wanted};

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
                "The gate remembers nobody like that. {rejected} connections were turned away since it was started; the \
                 log may have those that it has forgotten.\n\
                 If a device cannot get in and nothing is told of it here, its connection does not reach the gate: look at \
                 its name and at the router.\n"
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
        let _ = write!(out, "\n{untold} earlier like this are remembered: --count shows more.\n");
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
    fact("when", &format!("{} ago ({})", lasting(i64::try_from(refusal.seconds).unwrap_or(i64::MAX)), refusal.time));
    fact("from", &refusal.source);
    fact("asked for", refusal.server_name.as_deref().unwrap_or("no server name"));
    if let Some(route) = &refusal.route {
        fact("route", route);
    }
    fact("listener", &refusal.listener);
    fact("reason", &format!("{}/{}: {}", refusal.stage, refusal.reason, refusal.detail));
    fact("was told", refusal.alert.as_deref().unwrap_or("nothing, the connection was closed"));
    if let Some(certificate) = &refusal.certificate {
        let claimed = if certificate.verified { "" } else { " (this is only what was shown)" };
        fact("certificate", &format!("{}{claimed}", certificate.names.join(", ")));
        fact("issued by", &certificate.issuer);
        fact("valid", &format!("from {} to {}", certificate.not_before, certificate.not_after));
        fact("fingerprint", &format!("sha256:{}", certificate.fingerprint));
    }
    fact("log", &format!("id {}", refusal.id));
}
