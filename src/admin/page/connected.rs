//! Who is connected, and who was in the last day.

use std::collections::HashMap;
use std::net::IpAddr;

use maud::{Markup, html};
use time::OffsetDateTime;

use super::parts::{Answer, card as in_card, cut, said, short};
use crate::explain::certificate::Certificate;
use crate::explain::clock::Clock;
use crate::history::Visit;
use crate::model::text::{bytes, counted, grouped};
use crate::overview::View;
use crate::relay::Moved;

/// How many rows are shown.
const ROWS: usize = 20;
/// How many that have ended are shown.
const ENDED: usize = 30;

/// The open connections of one device on one route from one address.
struct Row {
    device: Option<String>,
    verified: bool,
    route: String,
    address: IpAddr,
    since: OffsetDateTime,
    connections: u64,
    moved: u64,
    /// What of that is in the history.
    noted: u64,
}

fn rows(view: &View) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut places: HashMap<(Option<String>, &str, IpAddr), usize> = HashMap::new();
    for session in &view.sessions {
        let shown = session.identity.as_deref().map(Certificate::from);
        let device = shown.as_ref().map(|shown| cut(shown.name()));
        let (route, address) = (session.route.as_str(), session.source.ip().to_canonical());
        let (moved, noted) = (total(session.relay.moved()), total(session.noted()));
        let place = *places.entry((device.clone(), route, address)).or_insert(rows.len());
        if let Some(row) = rows.get_mut(place) {
            row.connections += 1;
            row.moved = row.moved.saturating_add(moved);
            row.noted = row.noted.saturating_add(noted);
            row.since = row.since.min(session.since);
            continue;
        }
        let (verified, since) = (shown.is_none_or(|shown| shown.verified), session.since);
        rows.push(Row { device, verified, route: route.to_owned(), address, since, connections: 1, moved, noted });
    }
    // What the device did just before belongs to it.
    for visit in view.history.visits.iter().filter(|visit| visit.open > 0) {
        let key = (Some(cut(&visit.device)), visit.route.as_str(), visit.address.to_canonical());
        if let Some(row) = places.get(&key).and_then(|place| rows.get_mut(*place)) {
            row.since = row.since.min(visit.since);
            let before = visit.to_backend.saturating_add(visit.to_client).saturating_sub(row.noted);
            row.moved = row.moved.saturating_add(before);
        }
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.since));
    rows
}

const fn total(moved: Moved) -> u64 {
    moved.to_backend.saturating_add(moved.to_client)
}

pub(super) fn card(view: &View) -> Markup {
    let rows = rows(view);
    let devices: std::collections::BTreeSet<&str> = rows.iter().filter_map(|row| row.device.as_deref()).collect();
    let others = rows.iter().any(|row| row.device.is_none());
    let answer = match (devices.len(), others) {
        (0, false) => "No device".to_owned(),
        (0, true) => "No device, others without a certificate".to_owned(),
        (count, _) => counted(count as u64, "device"),
    };
    let body = html! {
        @if rows.is_empty() {
            p.quiet { "A device is listed here with its route and address as long as it is connected." }
        } @else {
            table.stack.sessions {
                caption.vh { "Devices that are connected now, the newest first" }
                (head("Since"))
                tbody { @for row in rows.iter().take(ROWS) { (open(&view.clock, row)) } }
            }
            @if rows.len() > ROWS { p.quiet.small { "and " (rows.len() - ROWS) " more: " code { "doorward sessions" } } }
        }
        @if view.sessions_elsewhere > 0 {
            p.quiet.small {
                (counted(view.sessions_elsewhere, "more connection")) " with a process that an upgrade has left: "
                code { "doorward sessions" }
            }
        }
        (last_day(view))
    };
    in_card("connected", "", "Connected now", Answer::quiet(answer), body)
}

fn head(when: &str) -> Markup {
    html! {
        thead { tr {
            th scope="col" { "Device" }
            th scope="col" { "Route" }
            th scope="col" { "From" }
            th scope="col" { (when) }
            th scope="col" class="num" { "Moved" }
        } }
    }
}

fn route(name: &str, connections: u64) -> Markup {
    html! {
        span.route { (name) }
        @if connections > 1 { " " span.quiet.small { (grouped(connections)) " connections" } }
    }
}

fn open(clock: &Clock, row: &Row) -> Markup {
    html! {
        tr {
            th scope="row" {
                @if let Some(device) = &row.device {
                    (said(device)) @if !row.verified { " " span.quiet.small { "not verified" } }
                } @else {
                    span.quiet { "no certificate" }
                }
            }
            td { (route(&row.route, row.connections)) }
            td { code { (row.address) } }
            td.nowrap { span.phone { "since " } (short(clock, row.since)) }
            td.num { (bytes(row.moved)) span.phone { " moved" } }
        }
    }
}

fn last_day(view: &View) -> Markup {
    let visits = &view.history.visits;
    if visits.is_empty() {
        return Markup::default();
    }
    let devices: std::collections::BTreeSet<&str> = visits.iter().map(|visit| &*visit.device).collect();
    let connections = visits.iter().map(|visit| visit.connections).sum();
    let moved =
        visits.iter().map(|visit| visit.to_backend.saturating_add(visit.to_client)).fold(0, u64::saturating_add);
    let open: u64 = view
        .sessions
        .iter()
        .filter(|session| session.identity.is_some())
        .map(|session| total(session.relay.moved()).saturating_sub(total(session.noted())))
        .fold(0, u64::saturating_add);
    let ended: Vec<&Visit> = visits.iter().filter(|visit| visit.open == 0).collect();
    html! {
        details.more {
            summary {
                "Last 24 h: " (counted(devices.len() as u64, "device")) ", " (counted(connections, "connection")) ", "
                (bytes(moved.saturating_add(open)))
            }
            @if ended.is_empty() {
                p { "All of them are still connected." }
            } @else {
                table.stack.sessions {
                    caption.vh { "Connections of the last 24 hours that have ended, the newest first" }
                    (head("When"))
                    tbody { @for visit in ended.iter().take(ENDED) { tr {
                        th scope="row" { (said(&visit.device)) }
                        td { (route(visit.route.as_str(), visit.connections)) }
                        td { code { (visit.address.to_canonical()) } }
                        td.nowrap { (period(&view.clock, visit)) }
                        td.num { (bytes(visit.to_backend.saturating_add(visit.to_client))) span.phone { " moved" } }
                    } } }
                }
                @if ended.len() > ENDED { p { "and " (ended.len() - ENDED) " more" } }
            }
        }
    }
}

/// From when to when, to the minute.
fn period(clock: &Clock, visit: &Visit) -> String {
    let day = |at| if clock.day(at) == clock.today() { String::new() } else { "yesterday ".to_owned() };
    let (from, to) = (clock.minutes(visit.since), clock.minutes(visit.until));
    let (first, last) = (day(visit.since), day(visit.until));
    match (from == to && first == last, first == last) {
        (true, _) => format!("{first}{from}"),
        (false, true) => format!("{first}{from} to {to}"),
        (false, false) => format!("{first}{from} to {last}{to}"),
    }
}
