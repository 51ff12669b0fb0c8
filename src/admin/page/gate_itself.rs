//! What is wrong with the gate itself. The card is there only if something is.

use maud::{Markup, html};

use super::parts::{Answer, card as in_card, command};
use crate::explain::finding::{Finding, Tone};
use crate::overview::View;

pub(super) fn card(view: &View) -> Markup {
    let clock = &view.clock;
    let found: Vec<&Finding> = view
        .findings
        .iter()
        .filter(|finding| {
            matches!(
                finding,
                Finding::ConfigurationRefused(_)
                    | Finding::NotIssued(_)
                    | Finding::RenewalFailed(_)
                    | Finding::Receiver(_)
                    | Finding::Log(_)
                    | Finding::History(_)
                    | Finding::Descriptors(_)
                    | Finding::Sandbox(_)
            )
        })
        .collect();
    let worst = found.iter().map(|finding| finding.tone(clock.now())).max();
    let Some(worst) = worst else { return Markup::default() };
    let body = html! {
        @for finding in found {
            div.lines {
                strong { (finding.headline(clock)) "." } "\n"
                @match finding {
                    Finding::ConfigurationRefused(refused) => {
                        "Refused " (clock.moment(refused.at)) "; the one before is still in force.\n"
                        @for error in &refused.errors { (error) "\n" }
                    }
                    Finding::RenewalFailed(found) => {
                        (finding.sentence(clock)) "\n"
                        @for remedy in found.failure().iter().flat_map(|failure| &failure.remedies) { (remedy) "\n" }
                    }
                    _ => { (finding.sentence(clock)) "\n" }
                }
                @if let Some(mends) = finding.command() { (command(&mends)) }
            }
        }
    };
    in_card("gate", "", "The gate itself", Answer::toned((worst != Tone::Note).then_some(worst), String::new()), body)
}
