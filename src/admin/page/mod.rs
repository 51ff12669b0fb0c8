//! The status page: one card for each question, in the order in which the owner asks them. The document is complete without its
//! script, which only keeps it up to date.
//!
//! | file | card |
//! |---|---|
//! | `verdict` | whether all is well, what needs the owner, and the first steps |
//! | `gate_itself` | a configuration that was refused, a log that cannot be written |
//! | `connected`, `devices`, `impostors` | who is connected, which device has trouble, who pretended to be one |
//! | `services`, `expiries` | what answers, what expires |
//! | `noise` | everything else that was turned away |

mod connected;
mod devices;
mod expiries;
mod gate_itself;
mod impostors;
mod noise;
mod parts;
mod services;
mod verdict;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::explain::finding::{Verdict, verdict_sentence};
use crate::http::Policy;
use crate::model::text::duration;
use crate::overview::View;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The browser runs the page's own script and style, by their hashes, and connects to the gate only.
pub(super) fn policy() -> Policy {
    Policy::new(&format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        Policy::hash_source(SCRIPT),
        Policy::hash_source(STYLE)
    ))
}

/// The body of `/`.
pub(super) fn page(view: &View) -> String {
    let clock = &view.clock;
    let domain = view.public_side.domain.as_deref();
    let (headline, _) = verdict_sentence(view.verdict, &view.findings, &view.facts, clock);
    let local = clock.local(clock.now());
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (title(domain, &headline)) }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" id="icon" href=(icon(view.verdict));
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    svg width="20" height="20" viewBox="0 0 16 16" aria-hidden="true" {
                        path d="M3 16V5a5 5 0 0 1 10 0v11zm7-8a1 1 0 1 0 0 2 1 1 0 0 0 0-2z" {}
                    }
                    h1 { @if let Some(domain) = domain { (domain) " " span { "Doorward" } } @else { "Doorward" } }
                    div.asof {
                        span #asof data-part {
                            "As of " time datetime=(clock.datetime(clock.now())) {
                                (local.weekday()) " " (local.date()) ", " (clock.seconds(clock.now()))
                            }
                        }
                        " " button #pause type="button" hidden { "Pause" }
                    }
                }
                p #stale .stale role="status" hidden { "The gate does not answer. This page shows what it said last." }
                main {
                    (verdict::card(view))
                    div.columns {
                        div {
                            (gate_itself::card(view))
                            (connected::card(view))
                            (devices::card(view))
                            (impostors::card(view))
                        }
                        div {
                            (services::card(view))
                            (expiries::card(view))
                        }
                    }
                    (noise::card(view))
                }
                (footer(view))
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    document.into_string()
}

fn footer(view: &View) -> Markup {
    let clock = &view.clock;
    let running = duration((clock.now() - view.started).whole_seconds());
    html! {
        footer #foot data-part {
            span { "Doorward " (env!("CARGO_PKG_VERSION")) }
            span {
                "Running for " (running)
                @if let Some(since) = view.history.since { ", history since " (clock.day(since)) }
            }
            span { @match clock.zone().as_str() { "UTC" => "Times are in UTC", zone => { "Times are local (" (zone) ")" } } }
            a href="/metrics" { "/metrics" }
        }
    }
}

/// As in `home.example: somebody pretended to be alice-phone · Doorward`.
fn title(domain: Option<&str>, headline: &str) -> String {
    let Some(domain) = domain else { return format!("{headline} · Doorward") };
    // Names of devices and routes keep their case; other headlines are sentences.
    let is_sentence =
        ["All ", "Ready ", "Somebody ", "The ", "Your ", "A "].iter().any(|word| headline.starts_with(word));
    let mut characters = headline.chars();
    match characters.next() {
        Some(first) if is_sentence => {
            format!("{domain}: {}{} · Doorward", first.to_lowercase(), characters.as_str())
        }
        _ => format!("{domain}: {headline} · Doorward"),
    }
}

/// A door in the colour of the verdict.
fn icon(verdict: Verdict) -> String {
    let colour = match verdict {
        Verdict::Ok => "2f7d6b",
        Verdict::Warn => "c77d0a",
        Verdict::Bad => "d5453a",
        Verdict::New => "3b76d9",
    };
    format!(
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath fill='%23{colour}' \
         d='M3 16V5a5 5 0 0 1 10 0v11z'/%3E%3Ccircle cx='10' cy='9' r='1' fill='white'/%3E%3C/svg%3E"
    )
}

#[cfg(test)]
mod tests;
