//! What expires next.

use std::collections::HashSet;
use std::path::Path;

use maud::{Markup, html};

use super::parts::{Answer, card as in_card, said};
use crate::explain::clock::Clock;
use crate::explain::finding::{Finding, SOON};
use crate::model::expiry::{Expiry, Kind};
use crate::model::text::in_words;
use crate::overview::View;

/// How many are shown.
const ROWS: usize = 12;

pub(super) fn card(view: &View) -> Markup {
    let now = view.clock.now().unix_timestamp();
    let lapsing: HashSet<&str> = view
        .facts
        .devices
        .iter()
        .filter(|device| device.is_guest || device.is_canary)
        .map(|device| device.name.as_str())
        .collect();
    let expiries = || view.facts.expiries.iter();
    // Of the devices those that need something, and the next one.
    let devices: Vec<&Expiry> = expiries()
        .filter(|expiry| expiry.kind.is_device() && expiry.at >= now && !lapsing.contains(expiry.name.as_str()))
        .collect();
    let soon = devices.iter().filter(|device| device.at - now < SOON.whole_seconds()).count();
    let later = devices.len().saturating_sub(soon + 1);
    let shown = |expiry: &&Expiry| {
        !expiry.kind.is_device() || devices.iter().take((soon + 1).min(ROWS)).any(|device| *device == *expiry)
    };
    let rows: Vec<&Expiry> = expiries().filter(shown).collect();
    let body = html! {
        @if rows.is_empty() {
            p.quiet { "Nothing expires: no route asks for certificates." }
        } @else {
            ol.list.two {
                @for expiry in rows.iter().take(ROWS) {
                    (line(view, expiry, if devices.get(soon) == Some(expiry) { later } else { 0 }))
                }
            }
        }
    };
    in_card("expires", "", "Expires next", Answer::quiet(String::new()), body)
}

fn line(view: &View, expiry: &Expiry, later: usize) -> Markup {
    let clock: &Clock = &view.clock;
    let left = expiry.at.saturating_sub(clock.now().unix_timestamp());
    let tone = view.findings.iter().find_map(|finding| match finding {
        Finding::Expiry(found) if found == expiry => Some(finding.tone(clock.now()).label()),
        Finding::RenewalFailed(_) if expiry.renewed_since.is_some() => Some(finding.tone(clock.now()).label()),
        _ => None,
    });
    let file = Path::new(&expiry.name)
        .file_name()
        .map_or_else(|| expiry.name.clone(), |name| name.to_string_lossy().into_owned());
    let (name, about) = match expiry.kind {
        Kind::Replaced => (said(&expiry.name), "device, its old certificate".to_owned()),
        Kind::Device | Kind::Met if later > 0 => (said(&expiry.name), format!("device, and {later} more later")),
        Kind::Device | Kind::Met => (said(&expiry.name), "device".to_owned()),
        Kind::Server if expiry.renewed_since.is_some() => (html! { "Public certificate" }, public(view)),
        Kind::Server => (html! { "Gate’s certificate" }, file),
        Kind::TrustAnchor => (html! { "Your authority" }, file),
        Kind::RevocationList => (html! { "Revocation list" }, file),
    };
    html! {
        li class=[tone] {
            span { b { (name) } br; span.quiet.small.said { (about) } } " "
            span class={ "r" @if tone.is_some() { " mark tone" } } {
                @if left < 0 { "expired" } @else { span.vh { "expires " } "in " (in_words(left)) }
                br; span.quiet.small { (clock.day_of_seconds(expiry.at)) }
            }
        }
    }
}

/// What is told of the public certificate below its name.
fn public(view: &View) -> String {
    let state = view.facts.public_certificate.as_ref().map(|public| public.short(&view.clock));
    state.unwrap_or_default()
}
