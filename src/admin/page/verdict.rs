//! Whether all is well, in words; what else needs the owner; and the first steps of a new installation.

use std::net::IpAddr;

use maud::{Markup, html};

use super::parts::{command, unbroken};
use crate::explain::finding::{Finding, Tone, Verdict, verdict_sentence};
use crate::overview::View;

/// How many findings are listed.
const LISTED: usize = 4;

pub(super) fn card(view: &View) -> Markup {
    let clock = &view.clock;
    let (headline, sentence) = verdict_sentence(view.verdict, &view.findings, &view.facts, clock);
    let important: Vec<&Finding> =
        view.findings.iter().filter(|finding| finding.tone(clock.now()) != Tone::Note).collect();
    let first = important.first().filter(|_| matches!(view.verdict, Verdict::Bad | Verdict::Warn));
    let rest = important.get(usize::from(first.is_some())..).unwrap_or_default();
    html! {
        section class={ "verdict " (view.verdict.label()) } #verdict data-part role="status" aria-labelledby="verdict-h" {
            svg width="32" height="32" viewBox="0 0 24 24" aria-hidden="true" { path d=(shape(view.verdict)) {} }
            div {
                h2 #verdict-h { (unbroken(&headline, first.and_then(|first| first.subject()))) }
                p {
                    (sentence)
                    @if let Some((place, words)) = first.and_then(|first| link(first)) { " " a href=(place) { (words) } }
                }
                @if let Some(mends) = first.filter(|first| is_mended_here(first)).and_then(|first| first.command()) {
                    p { (command(&mends)) }
                }
            }
            @if !rest.is_empty() {
                div.findings {
                    h3 { "Needs you" }
                    ul {
                        @for finding in rest.iter().take(LISTED) {
                            li class={ (finding.tone(clock.now()).label()) " mark" } {
                                @if let Some((place, _)) = link(finding) {
                                    a href=(place) { (finding.headline(clock)) }
                                } @else {
                                    (finding.headline(clock))
                                }
                            }
                        }
                        @if rest.len() > LISTED { li { "and " (rest.len() - LISTED) " more" } }
                    }
                }
            }
            @if view.verdict == Verdict::New { (steps(view)) }
        }
    }
}

/// A check, a triangle, a diamond, a plus.
const fn shape(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "M12 2a10 10 0 1 0 0 20a10 10 0 1 0 0-20zM7.5 12.5l3 3 6-6.5",
        Verdict::Warn => "M12 2.5 22.5 21h-21zM12 9v5.5m0 3v.01",
        Verdict::Bad => "M12 1.5 22.5 12 12 22.5 1.5 12zM12 7.5v5.5m0 3.5v.01",
        Verdict::New => "M12 2a10 10 0 1 0 0 20a10 10 0 1 0 0-20zM12 7.5v9M7.5 12h9",
    }
}

/// Where more is said about a finding.
const fn link(finding: &Finding) -> Option<(&'static str, &'static str)> {
    match finding {
        Finding::Impostor(_) => Some(("#impostors", "What was shown")),
        Finding::Device(_) => Some(("#devices", "What it needs")),
        Finding::ServiceDown(_) => Some(("#services", "What to do")),
        Finding::NotIssued(_) | Finding::RenewalFailed(_) => Some(("#gate", "What to do")),
        Finding::Expiry(expiry) if expiry.kind.is_device() => Some(("#devices", "What it needs")),
        Finding::Expiry(_) => Some(("#expires", "What expires")),
        Finding::ConfigurationRefused(_) => Some(("#gate", "All mistakes")),
        Finding::Receiver(_)
        | Finding::Log(_)
        | Finding::History(_)
        | Finding::Descriptors(_)
        | Finding::Sandbox(_) => Some(("#gate", "The gate itself")),
        Finding::RevocationNotInForce(_) => None,
    }
}

/// Whether no card has its command.
const fn is_mended_here(finding: &Finding) -> bool {
    matches!(finding, Finding::RevocationNotInForce(_) | Finding::ConfigurationRefused(_))
        || matches!(finding, Finding::Expiry(expiry) if !expiry.kind.is_device())
}

/// What is done already has a check.
fn steps(view: &View) -> Markup {
    let enrolled = view.facts.devices.iter().filter(|device| device.is_enrolled && !device.is_canary).count();
    let address = view.public_side.listeners.first();
    let outside = view.refusals.iter().find(|refusal| is_outside(refusal.source.ip().to_canonical()));
    let name = view.public_side.server_name.as_deref();
    html! {
        ol.steps {
            li {
                h3 { "Enrol a device" }
                @if enrolled > 0 {
                    p { "✓ Done: " (enrolled) @if enrolled == 1 { " device has a certificate." } @else { " devices have certificates." } }
                } @else {
                    p { "Run this on the gate’s machine and scan the QR code with the phone. It then shows how to install its certificate." }
                    (command("doorward ca device alice-phone --qr"))
                }
            }
            li {
                h3 { "Forward one port" }
                @if outside.is_some() {
                    p { "✓ Done: a connection from outside has arrived." }
                } @else {
                    p {
                        "In your router: TCP port " (view.public_side.port) " to this machine"
                        @if let Some(address) = address { ", port " (address.port()) }
                        ". Nothing else."
                    }
                    p.quiet.small { "No connection from outside has arrived yet." }
                }
            }
            li {
                h3 { "Point the names home" }
                p {
                    "In your DNS: " @if let Some(name) = name { (name) " and the names of the other routes" } @else { "the names of the routes" }
                    ". If your address changes, use dynamic DNS."
                }
            }
            li {
                h3 { "Try it from outside" }
                p {
                    "Switch the phone’s Wi-Fi off and open "
                    @if let Some(name) = name { "https://" (name) @if view.public_side.port != 443 { ":" (view.public_side.port) } } @else { "a name of yours" }
                    ". Then the device appears under “Connected now”."
                }
            }
        }
    }
}

/// Whether an address is one of the internet's.
const fn is_outside(address: IpAddr) -> bool {
    let is_inside = match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            // Shared by the customers of a provider (RFC 6598).
            let is_shared = first == 100 && second & 0xc0 == 64;
            is_shared
                || address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified()
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_unique_local()
                || address.is_unicast_link_local()
        }
    };
    !is_inside
}
