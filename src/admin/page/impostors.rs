//! Who pretended to be a device.

use maud::{Markup, html};

use super::parts::{Answer, card as in_card, moment, said};
use crate::explain::clock::Clock;
use crate::explain::finding::{Attempts, Finding, IMPOSTOR, Tone};
use crate::model::impostor::Claim;
use crate::model::text::times;
use crate::overview::View;

/// How many rows are shown.
const ROWS: usize = 5;

pub(super) fn card(view: &View) -> Markup {
    let (clock, attempts) = (&view.clock, &view.facts.impostors);
    let is_new = |attempts: &Attempts| clock.now() - attempts.last < IMPOSTOR;
    let recent = attempts.iter().filter(|attempts| is_new(attempts)).count();
    let answer = match (attempts.len(), recent) {
        (0, _) => format!("None since {}", clock.day(view.facts.remembers_since)),
        (_, 0) => "None in the last 24 h".to_owned(),
        (_, recent) => format!("{recent} in the last 24 h"),
    };
    let body = html! {
        @if attempts.is_empty() {
            p.quiet { "No forged certificate has carried the name of one of your devices." }
        } @else {
            table.stack.impostors {
                caption.vh { "Forged certificates that carry a name of your devices, the newest first" }
                thead { tr {
                    th scope="col" { "Pretended to be" }
                    th scope="col" { "From" }
                    th scope="col" { "When" }
                    th scope="col" { "What was shown" }
                } }
                tbody { @for attempts in attempts.iter().take(ROWS) { (line(view, attempts, is_new(attempts))) } }
            }
            @if attempts.len() > ROWS { p.quiet.small { "and " (attempts.len() - ROWS) " earlier" } }
        }
    };
    in_card("impostors", "", "Impostors", Answer::toned((recent > 0).then_some(Tone::Bad), answer), body)
}

fn line(view: &View, attempts: &Attempts, is_new: bool) -> Markup {
    let clock = &view.clock;
    html! {
        tr class=(if is_new { "bad" } else { "off" }) {
            th.mark scope="row" { (said(&attempts.name)) }
            td { code { (attempts.source) } }
            td.nowrap {
                (moment(clock, attempts.last)) br; " "
                span.quiet.small {
                    @if attempts.times == 1 { "once" }
                    @else { (times(attempts.times)) " since " (first(clock, attempts)) }
                }
            }
            td {
                (shown(clock, attempts))
                @if is_new {
                    br;
                    span.quiet.small {
                        (advice(view, attempts)) " "
                        "More: " code { "doorward why " (attempts.source) }
                    }
                }
            }
        }
    }
}

/// When it was tried first: the time alone if that was on the same day.
fn first(clock: &Clock, attempts: &Attempts) -> String {
    if clock.day(attempts.first) == clock.day(attempts.last) {
        clock.seconds(attempts.first)
    } else {
        clock.moment(attempts.first)
    }
}

fn shown(clock: &Clock, attempts: &Attempts) -> Markup {
    let made = attempts.shown.as_ref().and_then(|shown| clock.of_seconds(shown.not_before));
    let route = html! {
        @if let Some(route) = &attempts.route { ", for the route " span.route { (route) } }
    };
    let certificate = html! {
        @match &attempts.shown {
            Some(shown) if shown.issuer == format!("CN={}", attempts.name) => "A self-signed certificate",
            Some(shown) => { "A certificate of another authority, “" (said(&shown.issuer)) "”" },
            None => "A certificate",
        }
    };
    html! {
        @match attempts.claim {
            Some(Claim::Canary) => { "Its certificate, which is a canary" (route) "." },
            Some(Claim::CanaryRoute) => "Its server name, which no device is told.",
            None => { "Its own certificate, without the key to it" (route) "." },
            Some(claim) => {
                (certificate)
                @match claim {
                    Claim::Serial => " with its serial number",
                    Claim::Key => " with its public key",
                    _ => {},
                }
                @if let Some(made) = made { ", made " (clock.since(made)) }
                (route) ". Your authority did not sign it."
            },
        }
    }
}

fn advice(view: &View, attempts: &Attempts) -> String {
    match attempts.claim {
        Some(Claim::Name) => return "Nothing to do: the name was known, the key was not.".to_owned(),
        Some(Claim::Serial | Claim::Key) | None => {
            return "Nothing to do: a certificate is no secret, its key is.".to_owned();
        }
        Some(Claim::Canary | Claim::CanaryRoute) => {}
    }
    let of = |finding: &&Finding| matches!(finding, Finding::Impostor(found) if found.name == attempts.name);
    view.findings.iter().find(of).and_then(Finding::advice).unwrap_or_default()
}
