//! Whether the services answer.

use maud::{Markup, html};

use super::parts::{Answer, card as in_card, command, since};
use crate::explain::finding::{Backend, BackendState, Finding, Service, ServiceDown, Tone, seen_of};
use crate::explain::look_up;
use crate::model::look_up::HostName;
use crate::overview::View;

/// How many are shown.
const ROWS: usize = 40;

pub(super) fn card(view: &View) -> Markup {
    let down = |service: &Service| {
        view.findings.iter().find_map(|finding| match finding {
            Finding::ServiceDown(found) if found.route == service.route => Some((found, finding)),
            _ => None,
        })
    };
    let mut services: Vec<(&Service, Option<(&ServiceDown, &Finding)>)> =
        view.facts.services.iter().map(|service| (service, down(service))).collect();
    services.sort_by_key(|(service, down)| (down.is_none(), service.route.clone()));
    let count = |fits: &dyn Fn(&BackendState) -> bool| services.iter().filter(|(one, _)| fits(&one.state())).count();
    let are_down = services.iter().filter(|(_, down)| down.is_some()).count();
    let up = count(&|state| matches!(state, BackendState::Up { .. }));
    let rest = services.len() - are_down - up;
    let answer = match (are_down, rest) {
        (0, 0) => format!("{up} up"),
        (0, rest) if up == 0 => format!("{rest} unused"),
        (0, rest) => format!("{up} up, {rest} unused"),
        (1, _) => format!("1 of {} is down", services.len()),
        (are_down, _) => format!("{are_down} of {} are down", services.len()),
    };
    // An answer that is looked up again as usual is no news.
    let unresolved: Vec<&HostName> = view.facts.host_names.iter().filter(|host| host.failed.is_some()).collect();
    let body = html! {
        ul.list { @for (service, down) in services.iter().take(ROWS) { (line(view, service, *down)) } }
        @if services.len() > ROWS { p.quiet.small { "and " (services.len() - ROWS) " more: " code { "doorward status" } } }
        @for host in unresolved.iter().take(ROWS) {
            p.advice.quiet { (host.name) ": " (look_up::words(host, view.clock.now())) }
        }
    };
    in_card("services", "", "Services", Answer::toned((are_down > 0).then_some(Tone::Bad), answer), body)
}

fn line(view: &View, service: &Service, down: Option<(&ServiceDown, &Finding)>) -> Markup {
    let clock = &view.clock;
    if let Some((found, finding)) = down {
        return html! {
            li.bad {
                b { (service.route) } " " strong.mark.tone { "down" } " "
                span.quiet.small.r { "since " (since(clock, found.since)) }
                p.advice {
                    (finding.sentence(clock)) " " (found.advice()) " Then check:" br;
                    @if let Some(check) = finding.command() { (command(&check)) }
                }
            }
        };
    }
    html! {
        @match service.state() {
            BackendState::Up { since: at } => li.ok {
                b { (service.route) } " " span.mark { "up" } " " span.quiet.small.r { "since " (since(clock, at)) }
                (failing(service))
            },
            BackendState::Down { tried, .. } => li.off {
                b { (service.route) } " " span.mark { "no answer" } " "
                span.quiet.small.r { "last tried " (since(clock, tried)) }
            },
            BackendState::Asleep { since: at } => li.off {
                b { (service.route) } " " span.mark { "asleep" } " "
                span.quiet.small.r { "since " (since(clock, at)) }
            },
            BackendState::Waking { since: at } => li.off {
                b { (service.route) } " " span.mark { "waking" } " "
                span.quiet.small.r { "since " (since(clock, at)) }
            },
            BackendState::Untried => li.off {
                b { (service.route) } " " span.mark { "unused" } " "
                span.quiet.small.r { "by devices so far" }
            },
        }
    }
}

/// The backends that do not answer, of a service that has others.
fn failing(service: &Service) -> Markup {
    let words = |backend: &Backend| match backend.state {
        BackendState::Down { seen, .. } => Some(seen_of(&backend.address, backend.failed_check(), seen)),
        _ => None,
    };
    let failing: Vec<String> = service.backends.iter().filter_map(words).collect();
    html! { @if !failing.is_empty() { p.advice.quiet { (failing.join(" ")) } } }
}
