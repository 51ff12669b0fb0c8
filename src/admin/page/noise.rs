//! The noise in one line that unfolds: what has nothing to do with the owner's devices.

use std::collections::HashMap;

use maud::{Markup, html};
use time::{Duration, OffsetDateTime};

use super::parts::short;
use crate::explain::finding::{is_trouble, pretended};
use crate::explain::recent::Refusal;
use crate::explain::{advice, sentence, words};
use crate::model::rejection::{Reason, Stage};
use crate::model::source::Source;
use crate::model::text::{grouped, times};
use crate::overview::View;

/// How many refusals are listed.
const LISTED: usize = 25;
/// Rows of 24 hours.
const DAYS: usize = 7;
const HOURS: usize = 24;
/// The height of the tallest bar.
const HEIGHT: u64 = 44;

pub(super) fn card(view: &View) -> Markup {
    let history = &view.history;
    let latest = latest(view);
    let hours = Hours::of(view);
    let (day, week) = (history.day.total(), history.week.total());
    if week == 0 && latest.is_empty() {
        return html! {
            section.card.noise #noise data-part aria-labelledby="noise-h" {
                h2.vh #noise-h { "Noise" }
                p {
                    b { "No unknown client was turned away yet." } " "
                    span.quiet {
                        "The first ones usually find a new public port within a day. That is normal; they get nothing."
                    }
                }
            }
        };
    }
    html! {
        section.card.noise #noise data-part aria-labelledby="noise-h" {
            h2.vh #noise-h { "Noise" }
            details {
                summary {
                    span {
                        b {
                            @if day == 1 { "1 unknown client turned away in 24 h, and it got nothing" }
                            @else { (grouped(day)) " unknown clients turned away in 24 h, none of them got anything" }
                        }
                        @if day > 1 {
                            " " span.quiet {
                                "from " @if history.day.sources == 1 { "one address" }
                                @else { (grouped(history.day.sources)) " addresses" }
                            }
                        }
                    }
                    (hours.spark())
                }
                div.noise-in {
                    (reasons(view))
                    (hours.table(view))
                    @if !latest.is_empty() { (table_of(view, &latest)) }
                }
            }
        }
    }
}

fn reasons(view: &View) -> Markup {
    let day: HashMap<Reason, u64> = view.history.day.reasons.iter().copied().collect();
    let mut rows: Vec<(Reason, u64, u64)> = view
        .history
        .week
        .reasons
        .iter()
        .map(|(reason, week)| (*reason, day.get(reason).copied().unwrap_or(0), *week))
        .collect();
    rows.sort_by_key(|(reason, day, week)| (std::cmp::Reverse((*day, *week)), *reason));
    html! {
        table.reasons {
            caption { "Reasons. Each connection counts once." }
            thead { tr {
                th scope="col" { "What happened" }
                th scope="col" class="num" { "24 h" }
                th scope="col" class="num" { "7 days" }
            } }
            tbody { @for (reason, day, week) in rows { tr {
                th scope="row" { (capitalized(words(reason).short)) br; code.quiet { (reason) } }
                td.num { (grouped(day)) }
                td.num.quiet { (grouped(week)) }
            } } }
        }
    }
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// What was turned away in each hour of the last days, this day first. One scale for all.
struct Hours {
    rows: [[u64; HOURS]; DAYS],
    /// The beginning of the last hour.
    last: OffsetDateTime,
    most: u64,
}

impl Hours {
    fn of(view: &View) -> Self {
        const HOUR: i64 = 3600;
        let number = |at: OffsetDateTime| at.unix_timestamp().div_euclid(HOUR);
        let now = number(view.clock.now());
        let mut rows = [[0; HOURS]; DAYS];
        for hour in &view.history.hours {
            let Ok(age) = usize::try_from(now - number(hour.start)) else { continue };
            if let Some(count) = rows.get_mut(age / HOURS).and_then(|row| row.get_mut(HOURS - 1 - age % HOURS)) {
                *count = hour.noise;
            }
        }
        let most = rows.iter().flatten().copied().max().unwrap_or(0);
        let last = OffsetDateTime::from_unix_timestamp(now * HOUR).unwrap_or_else(|_| view.clock.now());
        Self { rows, last, most }
    }

    /// The beginning of an hour.
    fn at(&self, row: usize, hour: usize) -> OffsetDateTime {
        let age = i64::try_from(row * HOURS + HOURS - 1 - hour).unwrap_or(0);
        self.last - Duration::hours(age)
    }

    fn bars(&self, row: &[u64; HOURS]) -> String {
        let mut path = String::new();
        for (hour, count) in row.iter().enumerate().filter(|(_, count)| **count > 0) {
            // What is not nothing is seen.
            let height = (count * HEIGHT).div_ceil(self.most.max(1));
            path.push_str(&format!("M{} {HEIGHT}v-{height}h8v{height}z", hour * 10));
        }
        path
    }

    fn spark(&self) -> Markup {
        let [day, ..] = &self.rows;
        html! {
            svg.spark width="144" height="24" viewBox="0 0 238 44" preserveAspectRatio="none" aria-hidden="true" {
                path d=(self.bars(day)) {}
            }
        }
    }

    fn table(&self, view: &View) -> Markup {
        let clock = &view.clock;
        let begin = clock.minutes(self.at(0, 0));
        let label = |row: usize| {
            let day = |at: OffsetDateTime| {
                let local = clock.local(at);
                let weekday = local.weekday().to_string();
                format!("{} {}", weekday.get(..3).unwrap_or_default(), local.day())
            };
            let to = if row == 0 { "now".to_owned() } else { day(self.at(row - 1, 0)) };
            format!("{} – {to}", day(self.at(row, 0)))
        };
        let local_hour = |hour: usize| usize::from(clock.local(self.at(0, hour)).hour());
        let ticks: String = (0..HOURS)
            .filter(|hour| local_hour(*hour) % 6 == 0)
            .map(|hour| format!("M{} 0v{HEIGHT}", hour * 10 - usize::from(hour > 0)))
            .collect();
        html! {
            table.hours.stack {
                caption {
                    "Hour by hour, each row from " (begin) " to " (begin) ". One scale for all: the tallest bar is "
                    (grouped(self.most)) " in an hour."
                }
                thead { tr {
                    th scope="col" { "Days" }
                    th scope="col" { "Turned away in each hour" }
                    th scope="col" class="num" { "Total" }
                    th scope="col" class="num" { "Busiest hour" }
                } }
                tbody { @for (number, row) in self.rows.iter().enumerate() { tr class=[(number == 0).then_some("first")] {
                    th scope="row" { (label(number)) }
                    td.bars {
                        svg width="238" height="44" viewBox="0 0 238 44" preserveAspectRatio="none" aria-hidden="true" {
                            path.tick d=(ticks) {}
                            path d=(self.bars(row)) {}
                        }
                    }
                    td.num { (grouped(row.iter().sum())) }
                    td.num.quiet { (self.busiest(view, number, row)) }
                } } }
                tfoot { tr aria-hidden="true" {
                    td {}
                    td.bars { span.axis { @for hour in 0..HOURS { span {
                        @if local_hour(hour) % 6 == 0 { (format!("{:02}", local_hour(hour))) }
                    } } } }
                    td {}
                    td {}
                } }
            }
        }
    }

    fn busiest(&self, view: &View, number: usize, row: &[u64; HOURS]) -> String {
        let busiest = row.iter().enumerate().max_by_key(|(hour, count)| (**count, std::cmp::Reverse(*hour)));
        match busiest {
            Some((hour, count)) if *count > 0 => {
                format!("{} at {}", grouped(*count), view.clock.minutes(self.at(number, hour)))
            }
            _ => "none".to_owned(),
        }
    }
}

/// The latest refusal of an address for a reason, and how many there were.
struct Latest<'a> {
    refusal: &'a Refusal,
    times: u64,
}

/// Without devices, impostors and services that do not answer.
fn latest(view: &View) -> Vec<Latest<'_>> {
    let mut found: Vec<Latest<'_>> = Vec::new();
    let mut places: HashMap<(Source, Reason), usize> = HashMap::new();
    for refusal in &view.refusals {
        // A service that is full answers all the same: no finding tells it.
        let is_down = refusal.reason().stage() == Stage::Backend && refusal.reason() != Reason::BackendFull;
        if is_trouble(refusal) || pretended(refusal).is_some() || is_down {
            continue;
        }
        let place = *places.entry((refusal.counted_as, refusal.reason())).or_insert(found.len());
        match found.get_mut(place) {
            Some(latest) => latest.times = latest.times.saturating_add(refusal.times),
            None => found.push(Latest { refusal, times: refusal.times }),
        }
    }
    found.truncate(LISTED);
    found
}

fn table_of(view: &View, latest: &[Latest<'_>]) -> Markup {
    let clock = &view.clock;
    html! {
        table.latest.stack {
            caption { "Latest refusals. The same source and reason is listed once; of IPv6 a source is a network." }
            thead { tr {
                th scope="col" { "When" }
                th scope="col" { "From" }
                th scope="col" { "What happened, and what to do" }
            } }
            tbody { @for Latest { refusal, times: count } in latest { tr {
                td.nowrap { (short(clock, refusal.at)) br; " " span.quiet.small { (times(*count)) } }
                td { code { (refusal.counted_as) } }
                td {
                    bdi.said { (sentence(refusal, clock.now())) } " " code.quiet { (refusal.reason()) } br;
                    span.quiet { bdi.said { (advice(refusal)) } }
                }
            } } }
        }
    }
}
