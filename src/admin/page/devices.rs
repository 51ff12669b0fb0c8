//! The devices: when they were seen last, when their certificates expire, and what they need.

use std::collections::HashMap;

use maud::{Markup, html};

use super::parts::{Answer, card as in_card, command, moment, said};
use crate::explain::finding::{DeviceFacts, Finding, SOON, Tone};
use crate::model::expiry::Kind;
use crate::model::text::in_words;
use crate::overview::View;

/// How many rows are shown.
const ROWS: usize = 60;

/// The most important finding about each device that has one, and its place among all.
fn by_device(view: &View) -> HashMap<&str, (usize, &Finding)> {
    let mut found = HashMap::new();
    for (place, finding) in view.findings.iter().enumerate() {
        let device = match finding {
            Finding::RevocationNotInForce(found) => &found.device,
            Finding::Device(found) => &found.device,
            Finding::Expiry(found) if found.kind.is_device() => &found.name,
            _ => continue,
        };
        found.entry(device.as_str()).or_insert((place, finding));
    }
    found
}

struct Row<'a> {
    device: &'a DeviceFacts,
    finding: Option<&'a Finding>,
    /// That of the finding; last without one.
    place: usize,
    tone: Option<Tone>,
}

pub(super) fn card(view: &View) -> Markup {
    let now = view.clock.now();
    let findings = by_device(view);
    // Without an inventory, those that were met.
    let has_inventory = view.facts.devices.iter().any(|device| device.is_enrolled);
    let mut rows: Vec<Row<'_>> = view
        .facts
        .devices
        .iter()
        .map(|device| {
            let (place, finding) = findings.get(device.name.as_str()).copied().unzip();
            Row { device, finding, place: place.unwrap_or(usize::MAX), tone: finding.map(|finding| finding.tone(now)) }
        })
        .filter(|row| {
            let met = !has_inventory && (row.device.is_connected || row.device.last_seen.is_some());
            row.device.is_enrolled || row.finding.is_some() || met
        })
        .collect();
    rows.sort_by(|one, other| one.place.cmp(&other.place).then_with(|| one.device.name.cmp(&other.device.name)));
    let need = rows.iter().filter(|row| row.finding.is_some()).count();
    let answer = match (rows.len(), need) {
        (0, _) => "None enrolled".to_owned(),
        (all, 0) => format!("None of {all} needs anything"),
        (all, 1) => format!("1 of {all} needs you"),
        (all, need) => format!("{need} of {all} need you"),
    };
    let tone = rows.iter().filter_map(|row| row.tone).max();
    let body = html! {
        @if rows.is_empty() {
            p.quiet {
                "Each device gets a certificate of its own, so that a lost one can be shut out without touching the others."
            }
        } @else {
            table.stack.devices {
                caption.vh { "Your devices, those that need something first" }
                thead { tr {
                    th scope="col" { "Device" }
                    th scope="col" { "Last seen" }
                    th scope="col" { "Expires" }
                    th scope="col" { "Needs" }
                } }
                tbody { @for row in rows.iter().take(ROWS) { (line(view, row)) } }
            }
            @if rows.len() > ROWS { p.quiet.small { "and " (rows.len() - ROWS) " more: " code { "doorward ca list" } } }
        }
        @if !has_inventory && !rows.is_empty() {
            p.quiet.small {
                "These have connected. All devices, and when they expire, are shown with " code { "metrics.inventory" } "."
            }
        }
    };
    in_card("devices", "", "Your devices", Answer::toned(tone, answer), body)
}

fn line(view: &View, Row { device, finding, tone, .. }: &Row<'_>) -> Markup {
    let clock = &view.clock;
    let class = match tone {
        Some(tone) => tone.label(),
        None if device.is_canary => "off",
        None => "ok",
    };
    html! {
        tr class=(class) {
            th.mark scope="row" { (said(&device.name)) }
            td.nowrap {
                @if device.is_connected { "connected now" }
                @else if let Some(at) = device.last_seen { span.phone { "last seen " } (moment(clock, at)) }
                @else { span.quiet { "never" span.phone { " seen" } } }
            }
            (expires(view, device))
            @match finding {
                Some(Finding::Device(trouble)) => td {
                    strong.tone { (trouble.need()) } " " (trouble.reason()) " " (trouble.occasions(clock)) br;
                    (command(&trouble.command()))
                },
                Some(finding) => td {
                    strong.tone { (need(finding, clock.now().unix_timestamp())) } br;
                    @if let Some(mends) = finding.command() { (command(&mends)) }
                },
                None if device.is_canary => td.quiet { "nothing: a canary, which no device uses" },
                None if device.is_guest => td.quiet { "nothing: a guest pass, which is not renewed" },
                None => td.quiet.none { "nothing" },
            }
        }
    }
}

fn need(finding: &Finding, now: i64) -> String {
    match finding {
        Finding::RevocationNotInForce(found) => {
            format!("Its revocation is not in force on {}.", found.routes.join(", "))
        }
        Finding::Expiry(found) if found.kind == Kind::Replaced && found.at >= now => {
            format!("The certificate that was issued for it, in the next {}.", in_words(found.at - now))
        }
        Finding::Expiry(found) if found.at >= now => {
            format!("A new certificate in the next {}.", in_words(found.at - now))
        }
        _ => "A new certificate, if it is still used.".to_owned(),
    }
}

fn expires(view: &View, device: &DeviceFacts) -> Markup {
    let clock = &view.clock;
    let Some(at) = device.expires else { return html! { td.quiet { "unknown" span.phone { " expiry" } } } };
    let (left, day) = (at.saturating_sub(clock.now().unix_timestamp()), clock.day_of_seconds(at));
    let lapses = device.is_guest || device.is_canary;
    html! {
        @if left < 0 { td.nowrap.tone { "expired " (day) } }
        @else if left < SOON.whole_seconds() && !lapses { td.nowrap.tone { "in " (in_words(left)) ", " (day) } }
        @else { td.nowrap { span.phone { "expires " } (day) } }
    }
}
