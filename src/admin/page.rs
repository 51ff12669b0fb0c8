//! The status page: a document that is complete without its script.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::chart::{self, Row};
use super::history::History;
use crate::config::expiries::Expiry;
use crate::explain::recent::Refusal;
use crate::explain::{self, advice, sentence};
use crate::http::Policy;
use crate::model::names::printable;
use crate::model::rejection::{Reason, Side};
use crate::model::source::Source;
use crate::model::text::{bytes, counted, date, duration, grouped};
use crate::overview::Overview;
use crate::telemetry::metrics::totals::Counts;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath \
                    fill='%232f7d6b' d='M3 16V5a5 5 0 0 1 10 0v11z'/%3E%3Ccircle cx='10' cy='9' r='1' \
                    fill='white'/%3E%3C/svg%3E";

/// How many refusals are listed; those with the same address and the same words count as one.
const LISTED: usize = 25;
/// How many sources are ranked.
const RANKED: usize = 10;
/// How many clients of a route are named.
const NAMED: usize = 6;
/// The longest name of a client.
const NAME_MAX: usize = 64;
/// Fewer days left than this are marked.
const SOON: i64 = 14;
const DAY: i64 = 86_400;

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
pub(super) fn page(gate: &Overview, history: &History, started: OffsetDateTime) -> String {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { "Doorward" }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" href=(ICON);
                noscript { meta http-equiv="refresh" content="15"; }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Doorward" }
                    p { "The one door to your network. A client without a certificate of yours is turned away here and \
                         reaches nothing behind it." }
                }
                p #silent role="status" hidden { "The gate does not answer. This page shows what it said last." }
                main #live { (live(gate, history, started)) }
                footer {
                    p { "Numbers for machines: " a href="/metrics" { "/metrics" } ". This page is read-only." }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    document.into_string()
}

/// What the page's script replaces every few seconds.
fn live(gate: &Overview, history: &History, started: OffsetDateTime) -> Markup {
    let now = OffsetDateTime::now_utc();
    let (total, steps) = history.counts(&gate.metrics.totals);
    let refusals = gate.refusals.latest(usize::MAX);
    html! {
        (refused_configuration(gate, now))
        (summary(gate, &total, started, now))
        (reasons(&chart::rows(&total, &steps)))
        (connected(gate))
        (expiries(&gate.metrics.expiries(), now))
        (latest_refusals(&refusals, now))
        (frequent_sources(&refusals, now))
    }
}

/// First on the page: the owner has changed something and may believe that it is in force.
fn refused_configuration(gate: &Overview, now: OffsetDateTime) -> Markup {
    let Some(refused) = gate.metrics.refused_configuration() else { return Markup::default() };
    html! {
        section.fault {
            h2 { "The changed configuration is not in force" }
            p.quiet {
                "Refused " (ago(refused.at, now)) "; the one before is still in force. The gate takes the file over once \
                 these mistakes are corrected:"
            }
            ul { @for error in &refused.errors { li { (error) } } }
        }
    }
}

fn summary(gate: &Overview, total: &Counts, started: OffsetDateTime, now: OffsetDateTime) -> Markup {
    let figures = [
        (gate.sessions.count() as u64 + gate.metrics.active_in_earlier(), "connected now"),
        (total.admitted, "let in"),
        (total.rejected.iter().sum(), "turned away"),
    ];
    html! {
        dl.figures { @for (figure, what) in figures { div { dd { (grouped(figure)) } dt { (what) } } } }
        p.quiet { "Counted since the gate was started, " (ago(started, now)) "." }
    }
}

fn reasons(rows: &[Row]) -> Markup {
    let class = |row: &Row| match row.side {
        None => "in",
        Some(Side::Client) => "out",
        Some(_) => "fault",
    };
    html! {
        section {
            h2 { "Connections" }
            table.door {
                thead { tr {
                    th { "What happened" }
                    th.chart { span { "30 minutes ago" } span { "now" } }
                    th.number { "last 30 min" }
                    th.number { "in all" }
                } }
                tbody { @for row in rows { tr class=(class(row)) {
                    th scope="row" { (row.words) @if row.side.is_some() { " " code { (row.key) } } }
                    td.chart data-key=(row.key) {}
                    td.number { (grouped(row.steps.iter().sum())) }
                    td.number { (grouped(row.total)) }
                } } }
            }
            @if rows.len() == 1 { p.quiet { "No client has been turned away yet." } }
        }
    }
}

/// The open sessions of one route.
#[derive(Default)]
struct RouteSessions {
    count: u64,
    bytes: u64,
    clients: BTreeMap<String, u64>,
}

fn connected(gate: &Overview) -> Markup {
    let names = gate.metrics.route_names();
    let mut routes: BTreeMap<&str, RouteSessions> =
        names.iter().map(|name| (name.as_str(), RouteSessions::default())).collect();
    let (sessions, _) = gate.sessions.newest(usize::MAX);
    for session in &sessions {
        let route = routes.entry(session.route.as_str()).or_default();
        route.count += 1;
        let moved = session.relay.moved();
        route.bytes += moved.to_backend + moved.to_client;
        let client = match &session.identity {
            None => session.source.ip().to_canonical().to_string(),
            Some(identity) => {
                let name = printable(&identity.display_name(), NAME_MAX);
                if identity.verified { name } else { format!("{name} (not verified)") }
            }
        };
        *route.clients.entry(client).or_default() += 1;
    }
    let earlier = gate.metrics.active_in_earlier();
    html! {
        section {
            h2 { "Connected now" }
            table {
                thead { tr { th { "Route" } th.number { "connections" } th.number { "moved" } th { "clients" } } }
                tbody { @for (name, route) in routes { tr {
                    th scope="row" { (name) }
                    td.number { (grouped(route.count)) }
                    td.number { (bytes(route.bytes)) }
                    td.who { (clients(&route.clients)) }
                } } }
            }
            @if earlier > 0 {
                p.quiet { (counted(earlier, "more connection")) " with a process that an upgrade has left: doorward sessions" }
            }
        }
    }
}

fn clients(clients: &BTreeMap<String, u64>) -> Markup {
    html! {
        @for (index, (name, count)) in clients.iter().take(NAMED).enumerate() {
            @if index > 0 { ", " }
            (name)
            @if *count > 1 { " ×" (count) }
        }
        @if clients.len() > NAMED { " and " (clients.len() - NAMED) " more" }
        @if clients.is_empty() { "none" }
    }
}

fn expiries(expiries: &[Expiry], now: OffsetDateTime) -> Markup {
    let row = |expiry: &Expiry| {
        let left = expiry.at.saturating_sub(now.unix_timestamp());
        let days = grouped(left.unsigned_abs() / DAY.unsigned_abs());
        let (class, days, mark) = match left.div_euclid(DAY) {
            ..0 => ("fault", "", "expired"),
            0..SOON => ("out", days.as_str(), "soon"),
            _ => ("in", days.as_str(), ""),
        };
        html! {
            tr class=(class) {
                th scope="row" { (expiry.kind.words()) " " code { (expiry.name) } }
                td.number { (days) @if !mark.is_empty() { " " strong { (mark) } } }
                td.date { (date(expiry.at)) }
            }
        }
    };
    html! {
        section {
            h2 { "Expiry dates" }
            p.quiet { "A certificate is a digital identity card. Like one, it is valid up to a date." }
            table {
                thead { tr { th { "What" } th.number { "days left" } th { "valid until" } } }
                tbody {
                    @for expiry in expiries { (row(expiry)) }
                    @if expiries.is_empty() { tr { td colspan="3" { "Nothing expires: no route asks for certificates." } } }
                }
            }
        }
    }
}

fn latest_refusals(refusals: &[Arc<Refusal>], now: OffsetDateTime) -> Markup {
    // A client that tries again and again gets one entry.
    let mut listed: Vec<(&Refusal, String, u64)> = Vec::new();
    let mut entries: HashMap<(IpAddr, String), usize> = HashMap::new();
    for refusal in refusals {
        let sentence = sentence(refusal, now);
        let index = *entries.entry((refusal.source.ip(), sentence.clone())).or_insert(listed.len());
        match listed.get_mut(index) {
            Some((.., times)) => *times += 1,
            None => listed.push((refusal, sentence, 1)),
        }
    }
    html! {
        section {
            h2 { "Latest refusals" }
            @if listed.is_empty() { p.quiet { "None yet." } } @else {
                table.told {
                    thead { tr { th { "When" } th { "From" } th { "What happened, and what to do" } } }
                    tbody { @for (refusal, sentence, times) in listed.iter().take(LISTED) { tr {
                        td.when { (ago(refusal.at, now)) }
                        td.who { (refusal.source.ip().to_canonical()) }
                        td {
                            p { (sentence) @if *times > 1 { " " strong { (grouped(*times)) " times" } } }
                            p.quiet { (advice(refusal)) " " code { (refusal.reason()) } }
                        }
                    } } }
                }
            }
        }
    }
}

/// The refusals of one source.
struct SourceRefusals<'a> {
    count: u64,
    latest: &'a Refusal,
    reasons: HashMap<Reason, u64>,
}

impl SourceRefusals<'_> {
    fn most_frequent(&self) -> &'static str {
        let most = self.reasons.iter().max_by_key(|(reason, count)| (**count, reason.to_string()));
        most.map_or("", |(reason, _)| explain::words(*reason).short)
    }
}

/// `refusals` has the latest first.
fn frequent_sources(refusals: &[Arc<Refusal>], now: OffsetDateTime) -> Markup {
    let mut sources: HashMap<Source, SourceRefusals<'_>> = HashMap::new();
    for refusal in refusals {
        let new = || SourceRefusals { count: 0, latest: refusal, reasons: HashMap::new() };
        let source = sources.entry(refusal.counted_as).or_insert_with(new);
        source.count += 1;
        *source.reasons.entry(refusal.reason()).or_default() += 1;
    }
    let mut ranked: Vec<(String, SourceRefusals<'_>)> =
        sources.into_iter().map(|(source, refusals)| (source.to_string(), refusals)).collect();
    ranked.sort_by(|(a, one), (b, other)| other.count.cmp(&one.count).then_with(|| a.cmp(b)));
    html! {
        @if !ranked.is_empty() {
            section {
                h2 { "Most refused sources" }
                p.quiet { "By address, among " (counted(refusals.len() as u64, "refusal")) " that the gate remembers." }
                table {
                    thead { tr { th { "Address" } th.number { "times" } th { "mostly" } th { "last" } } }
                    tbody { @for (source, refusals) in ranked.iter().take(RANKED) { tr {
                        th.who scope="row" { (source) }
                        td.number { (grouped(refusals.count)) }
                        td { (refusals.most_frequent()) }
                        td.when { (ago(refusals.latest.at, now)) }
                    } } }
                }
            }
        }
    }
}

/// How long ago a moment was; the exact time is in the element's title.
fn ago(at: OffsetDateTime, now: OffsetDateTime) -> Markup {
    let exact = at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default();
    html! { time datetime=(exact) title=(exact) { (duration((now - at).whole_seconds())) " ago" } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_clients_are_text_and_bounded() {
        let named = |count: usize| (0..count).map(|n| (format!("<b>{n}\"'&</b>"), n as u64 + 1)).collect();
        assert_eq!(clients(&named(0)).into_string(), "none");
        assert_eq!(
            clients(&named(2)).into_string(),
            "&lt;b&gt;0&quot;'&amp;&lt;/b&gt;, &lt;b&gt;1&quot;'&amp;&lt;/b&gt; ×2"
        );
        assert!(clients(&named(NAMED + 3)).into_string().ends_with(" and 3 more"));
    }
}
