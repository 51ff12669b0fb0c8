//! The status page: what a person wants to know about the gate, written out whole, so that it needs no script.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Watched;
use super::history::{History, STEP, STEPS};
use crate::explain::refusals::Refusal;
use crate::explain::{self, advice, counted, lasting, sentence};
use crate::html::Html;
use crate::model::names::printable;
use crate::model::rejection::{Reason, Side};
use crate::model::source::Source;
use crate::telemetry::metrics::totals::Counts;

/// The page around what is written anew each time: its parts are parted by comments.
const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// How many refusals are told, those that are told in the same words as one.
const TOLD: usize = 25;
/// How many sources are ranked.
const RANKED: usize = 10;
/// How many of those who are in are named for a route.
const NAMED: usize = 6;
/// The longest name of somebody who is in.
const NAME_MAX: usize = 64;
/// Fewer days left than this are a reason to act.
const SOON: i64 = 14;
const DAY: i64 = 86_400;

/// What the browser may do with the page: its own script and style, whose hashes are named, and questions to the gate.
pub(super) fn policy() -> String {
    let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
}

/// A row of the chart.
#[derive(Debug, Serialize)]
struct Row {
    /// `admitted`, or `stage/reason`.
    key: String,
    /// The same in words.
    words: &'static str,
    /// Who brought it about.
    side: Option<&'static str>,
    /// Since the gate was started.
    total: u64,
    /// In each step, the oldest first; the last one has not ended.
    steps: Vec<u64>,
}

/// `/status.json`: what the chart is drawn from.
#[derive(Debug, Serialize)]
struct Status {
    /// Now, in seconds since 1970.
    time: i64,
    /// How long a step is.
    step_seconds: u64,
    /// How many steps the chart is wide.
    width: usize,
    rows: Vec<Row>,
}

/// Let in first, and then each reason that there was, the most frequent of late first.
fn rows(total: &Counts, steps: &[Counts]) -> Vec<Row> {
    let mut rows: Vec<Row> = Reason::ALL
        .iter()
        .zip(&total.rejected)
        .enumerate()
        .filter(|(_, (_, total))| **total > 0)
        .map(|(index, (reason, total))| Row {
            key: reason.to_string(),
            words: explain::words(*reason).short,
            side: Some(reason.side().label()),
            total: *total,
            steps: steps.iter().map(|step| step.rejected.get(index).copied().unwrap_or(0)).collect(),
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.steps.iter().sum::<u64>(), row.total)));
    let admitted = Row {
        key: "admitted".to_owned(),
        words: "let in",
        side: None,
        total: total.admitted,
        steps: steps.iter().map(|step| step.admitted).collect(),
    };
    rows.insert(0, admitted);
    rows
}

/// The answer for `/status.json`.
pub(super) fn json(watched: &Watched, history: &History) -> String {
    let (total, steps) = history.shown(&watched.metrics.totals);
    let status = Status {
        time: OffsetDateTime::now_utc().unix_timestamp(),
        step_seconds: STEP.as_secs(),
        width: STEPS + 1,
        rows: rows(&total, &steps),
    };
    // Numbers and fixed words are always JSON.
    serde_json::to_string(&status).unwrap_or_default()
}

/// The answer for `/`.
pub(super) fn page(watched: &Watched, history: &History, started: OffsetDateTime) -> String {
    let mut html = Html::default();
    for part in TEMPLATE.split_inclusive("-->") {
        let (markup, place) = part.rsplit_once("<!--").unwrap_or((part, ""));
        html.raw(markup);
        match place.trim_end_matches("-->").trim() {
            "style" => drop(html.raw(STYLE)),
            "script" => drop(html.raw(SCRIPT)),
            "live" => live(&mut html, watched, history, started),
            _ => {}
        }
    }
    html.finish()
}

fn live(html: &mut Html, watched: &Watched, history: &History, started: OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    let (total, steps) = history.shown(&watched.metrics.totals);
    let refusals = watched.refusals.latest(usize::MAX);
    refused_configuration(html, watched, now);
    summary(html, watched, &total, started, now);
    at_the_door(html, &rows(&total, &steps));
    inside(html, watched);
    expiring(html, watched, now);
    latest(html, &refusals, now);
    sources(html, &refusals, now);
}

/// The owner has changed something and may believe that it holds.
fn refused_configuration(html: &mut Html, watched: &Watched, now: OffsetDateTime) {
    let Some(refused) = watched.metrics.refused_configuration() else { return };
    html.raw(
        "<section class=\"fault\"><h2>The configuration was not taken over</h2><p class=\"quiet\">That was tried ",
    );
    ago(html, refused.at, now);
    html.raw(", and the gate goes on with the one that it had. Mend this, and it is taken over:</p><ul>");
    for error in &refused.errors {
        html.raw("<li>").text(error);
    }
    html.raw("</ul></section>");
}

fn summary(html: &mut Html, watched: &Watched, total: &Counts, started: OffsetDateTime, now: OffsetDateTime) {
    let figure = |html: &mut Html, figure: String, what: &'static str| {
        html.raw("<div><dd>").text(figure).raw("</dd><dt>").raw(what).raw("</dt></div>");
    };
    html.raw("<dl class=\"figures\">");
    figure(html, grouped(watched.sessions.count() as u64), "inside now");
    figure(html, grouped(total.admitted), "let in");
    figure(html, grouped(total.rejected.iter().sum()), "turned away");
    html.raw("</dl><p class=\"quiet\">Counted since the gate was started, ");
    ago(html, started, now);
    html.raw(".</p>");
}

fn at_the_door(html: &mut Html, rows: &[Row]) {
    html.raw(
        "<section><h2>At the door</h2><table class=\"door\"><thead><tr><th>What happened<th class=\"chart\">\
         <span>30 minutes ago</span><span>now</span><th class=\"number\">last 30 min<th class=\"number\">in all</thead><tbody>",
    );
    for row in rows {
        let class = match row.side {
            None => "in",
            Some(side) if side == Side::Client.label() => "out",
            Some(_) => "fault",
        };
        html.raw("<tr class=\"").raw(class).raw("\"><th scope=\"row\">").raw(row.words);
        if row.side.is_some() {
            html.raw(" <code>").text(&row.key).raw("</code>");
        }
        html.raw("<td class=\"chart\" data-key=\"").text(&row.key).raw("\"><td class=\"number\">");
        html.text(grouped(row.steps.iter().sum())).raw("<td class=\"number\">").text(grouped(row.total));
    }
    html.raw("</tbody></table>");
    if rows.len() == 1 {
        html.raw("<p class=\"quiet\">Nobody has been turned away yet.</p>");
    }
    html.raw("</section>");
}

/// What the sessions of one route come to.
#[derive(Default)]
struct Inside {
    sessions: u64,
    bytes: u64,
    who: BTreeMap<String, u64>,
}

fn inside(html: &mut Html, watched: &Watched) {
    let names = watched.metrics.route_names();
    let mut routes: BTreeMap<&str, Inside> = names.iter().map(|name| (name.as_str(), Inside::default())).collect();
    let (sessions, _) = watched.sessions.newest(usize::MAX);
    for session in &sessions {
        let route = routes.entry(session.route.as_str()).or_default();
        route.sessions += 1;
        let moved = session.relay.moved();
        route.bytes += moved.to_backend + moved.to_client;
        let who = match &session.identity {
            None => session.source.ip().to_canonical().to_string(),
            Some(identity) => {
                let name = printable(&identity.display_name(), NAME_MAX);
                if identity.verified { name } else { format!("{name} (not verified)") }
            }
        };
        *route.who.entry(who).or_default() += 1;
    }
    html.raw(
        "<section><h2>Inside now</h2><table><thead><tr><th>Route<th class=\"number\">connections<th class=\"number\">\
         moved<th>who</thead><tbody>",
    );
    for (name, route) in routes {
        html.raw("<tr><th scope=\"row\">").text(name).raw("<td class=\"number\">").text(grouped(route.sessions));
        html.raw("<td class=\"number\">").text(bytes(route.bytes)).raw("<td class=\"who\">");
        let names = route.who.len();
        for (index, (who, count)) in route.who.into_iter().take(NAMED).enumerate() {
            if index > 0 {
                html.raw(", ");
            }
            html.text(who);
            if count > 1 {
                html.raw(" ×").text(count);
            }
        }
        if names > NAMED {
            html.raw(" and ").text(names - NAMED).raw(" more");
        } else if names == 0 {
            html.raw("nobody");
        }
    }
    html.raw("</tbody></table></section>");
}

fn expiring(html: &mut Html, watched: &Watched, now: OffsetDateTime) {
    html.raw(
        "<section><h2>What expires</h2><p class=\"quiet\">A certificate is a digital identity card. Like one, it is good up \
         to a date.</p><table><thead><tr><th>What<th class=\"number\">days left<th>good until</thead><tbody>",
    );
    let expiries = watched.metrics.expiries();
    for expiry in &*expiries {
        let left = expiry.at.saturating_sub(now.unix_timestamp());
        let (class, words) = match left.div_euclid(DAY) {
            ..0 => ("fault", "expired"),
            0..SOON => ("out", "soon"),
            _ => ("in", ""),
        };
        html.raw("<tr class=\"").raw(class).raw("\"><th scope=\"row\">").raw(expiry.kind.words());
        html.raw(" <code>").text(&expiry.name).raw("</code><td class=\"number\">");
        if left < 0 {
            html.raw("<strong>expired</strong>");
        } else {
            html.text(grouped(left.unsigned_abs() / DAY.unsigned_abs()));
            if !words.is_empty() {
                html.raw(" <strong>").raw(words).raw("</strong>");
            }
        }
        html.raw("<td class=\"date\">");
        match OffsetDateTime::from_unix_timestamp(expiry.at) {
            Ok(at) => html.text(at.date()),
            Err(_) => html.raw("no date that a clock can show"),
        };
    }
    if expiries.is_empty() {
        html.raw("<tr><td colspan=\"3\">Nothing: no route asks for certificates.");
    }
    html.raw("</tbody></table></section>");
}

fn latest(html: &mut Html, refusals: &[Arc<Refusal>], now: OffsetDateTime) {
    html.raw("<section><h2>Turned away lately</h2>");
    if refusals.is_empty() {
        html.raw("<p class=\"quiet\">Nobody yet.</p></section>");
        return;
    }
    html.raw("<table class=\"told\"><thead><tr><th>When<th>Who<th>What happened, and what to do</thead><tbody>");
    // Whoever tries again and again is told of once.
    let mut told: Vec<(&Refusal, String, u64)> = Vec::new();
    let mut places: HashMap<(IpAddr, String), usize> = HashMap::new();
    for refusal in refusals {
        let sentence = sentence(refusal, now);
        let place = *places.entry((refusal.source.ip(), sentence.clone())).or_insert(told.len());
        match told.get_mut(place) {
            Some((.., times)) => *times += 1,
            None => told.push((refusal, sentence, 1)),
        }
    }
    for (refusal, sentence, times) in told.into_iter().take(TOLD) {
        html.raw("<tr><td class=\"when\">");
        ago(html, refusal.at, now);
        html.raw("<td class=\"who\">").text(refusal.source.ip().to_canonical());
        html.raw("<td><p>").text(sentence);
        if times > 1 {
            html.raw(" <strong>").text(grouped(times)).raw(" times</strong>");
        }
        html.raw("</p><p class=\"quiet\">").text(advice(refusal));
        html.raw(" <code>").text(refusal.reason()).raw("</code></p>");
    }
    html.raw("</tbody></table></section>");
}

/// The refusals of one source, the latest first.
struct Turned<'a> {
    times: u64,
    latest: &'a Refusal,
    reasons: HashMap<Reason, u64>,
}

fn sources(html: &mut Html, refusals: &[Arc<Refusal>], now: OffsetDateTime) {
    if refusals.is_empty() {
        return;
    }
    let mut sources: HashMap<Source, Turned<'_>> = HashMap::new();
    for refusal in refusals {
        let source = sources.entry(refusal.counted_as).or_insert_with(|| Turned {
            times: 0,
            latest: refusal,
            reasons: HashMap::new(),
        });
        source.times += 1;
        *source.reasons.entry(refusal.reason()).or_default() += 1;
    }
    let mut ranked: Vec<(String, Turned<'_>)> =
        sources.into_iter().map(|(source, turned)| (source.to_string(), turned)).collect();
    ranked.sort_by(|(a, one), (b, other)| other.times.cmp(&one.times).then_with(|| a.cmp(b)));
    html.raw("<section><h2>Turned away most often</h2><p class=\"quiet\">By address, among ");
    html.text(counted(refusals.len() as u64, "refusal"));
    html.raw(
        " that the gate remembers.</p><table><thead><tr><th>Address<th class=\"number\">times\
         <th>mostly<th>last</thead><tbody>",
    );
    for (source, turned) in ranked.into_iter().take(RANKED) {
        let mostly = turned.reasons.into_iter().max_by_key(|(reason, times)| (*times, reason.to_string()));
        html.raw("<tr><th scope=\"row\" class=\"who\">").text(source);
        html.raw("<td class=\"number\">").text(grouped(turned.times)).raw("<td>");
        html.raw(mostly.map_or("", |(reason, _)| explain::words(reason).short)).raw("<td class=\"when\">");
        ago(html, turned.latest.at, now);
    }
    html.raw("</tbody></table></section>");
}

/// A moment, as people tell it; the exact one is behind it.
fn ago(html: &mut Html, at: OffsetDateTime, now: OffsetDateTime) {
    let exact = at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default();
    html.raw("<time datetime=\"").text(&exact).raw("\" title=\"").text(&exact).raw("\">");
    html.text(lasting((now - at).whole_seconds())).raw(" ago</time>");
}

/// A number with its thousands parted by commas.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// An amount of data.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let (mut tenths, mut unit) = (count / 100, 0);
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS.get(unit).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_as_people_read_them() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 999, 1000, 1_500_000, 999_999_999].map(bytes), ["0 B", "999 B", "1.0 kB", "1.5 MB", "999.9 MB"]);
        assert_eq!(bytes(u64::MAX), "18.4 EB");
    }
}
