//! Parts that several cards have.

use maud::{Markup, html};
use time::OffsetDateTime;

use crate::explain::clock::Clock;
use crate::explain::finding::Tone;
use crate::model::names::printable;

/// The longest name that a client chose, in characters.
const NAME_MAX: usize = 64;

/// A card with a heading, and the answer to its question.
pub(super) fn card(id: &str, class: &str, heading: &str, answer: Answer, body: Markup) -> Markup {
    html! {
        section class={ "card" @if !class.is_empty() { " " (class) } } id=(id) data-part aria-labelledby={ (id) "-h" } {
            div class={ "head" @if let Some(tone) = answer.tone { " " (tone.label()) } } {
                h2 id={ (id) "-h" } { (heading) }
                @if !answer.text.is_empty() { p { (answer.text) } }
            }
            (body)
        }
    }
}

/// The answer to the question of a card.
pub(super) struct Answer {
    tone: Option<Tone>,
    text: String,
}

impl Answer {
    pub(super) const fn quiet(text: String) -> Self {
        Self { tone: None, text }
    }

    pub(super) const fn toned(tone: Option<Tone>, text: String) -> Self {
        Self { tone, text }
    }
}

/// A moment: `today 19:42:07`.
pub(super) fn moment(clock: &Clock, at: OffsetDateTime) -> Markup {
    html! { time datetime=(clock.datetime(at)) { (clock.moment(at)) } }
}

/// Since when something lasts: older ones as a date.
pub(super) fn since(clock: &Clock, at: OffsetDateTime) -> Markup {
    html! { time datetime=(clock.datetime(at)) { (clock.since(at)) } }
}

/// A moment without the word "today".
pub(super) fn short(clock: &Clock, at: OffsetDateTime) -> Markup {
    let text = if clock.day(at) == clock.today() { clock.seconds(at) } else { clock.moment(at) };
    html! { time datetime=(clock.datetime(at)) { (text) } }
}

/// A command, selected by one click.
pub(super) fn command(text: &str) -> Markup {
    html! { code.cmd { (text) } }
}

/// Text that a client chose: escaped, cut, and apart from the direction of the text around it.
pub(super) fn said(text: &str) -> Markup {
    html! { bdi.said { (cut(text)) } }
}

/// What is escaped already, cut.
pub(super) fn cut(text: &str) -> String {
    if text.chars().count() <= NAME_MAX { text.to_owned() } else { printable(text, NAME_MAX) }
}

/// A headline in which the name of its subject is not broken.
pub(super) fn unbroken(text: &str, subject: Option<&str>) -> Markup {
    const SHORT: usize = 24;
    match subject
        .filter(|subject| subject.len() <= SHORT)
        .and_then(|subject| text.split_once(subject).zip(Some(subject)))
    {
        Some(((before, after), subject)) => html! { (before) span.nowrap { (subject) } (after) },
        None => html! { (text) },
    }
}
