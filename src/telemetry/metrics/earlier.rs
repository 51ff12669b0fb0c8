//! The counters of processes that upgrades have left, added to those of the process that answers on `/metrics`.
//!
//! A counter never goes back at an upgrade, and each connection is counted once: by the process that serves it. What says how
//! things are, such as expiries, is of the newest process alone.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use crate::telemetry::names;

/// Gauges that count, so that those of all processes add up.
const COUNTING: [&str; 2] = [names::CONNECTIONS_ACTIVE, names::HANDSHAKES_IN_PROGRESS];

/// What other processes have counted.
#[derive(Debug, Default)]
pub(super) struct EarlierCounts {
    /// Of those that have ended.
    ended: Series,
    /// Of those that run, by process id.
    running: HashMap<u32, Series>,
}

/// Families by name, each with its series in the order of the text.
type Series = BTreeMap<String, Family>;

#[derive(Clone, Debug, Default)]
struct Family {
    kind: String,
    values: BTreeMap<String, f64>,
}

impl EarlierCounts {
    /// A process that runs has counted so much by now.
    pub(super) fn count(&mut self, process: u32, text: &str) {
        self.running.insert(process, read(text, counts));
    }

    /// The same, unless the process has ended meanwhile.
    pub(super) fn count_if_running(&mut self, process: u32, text: &str) {
        if let Some(series) = self.running.get_mut(&process) {
            *series = read(text, counts);
        }
    }

    /// A process has ended, with these counters; `None` if it could not say: then those that it had last.
    pub(super) fn end(&mut self, process: u32, text: Option<&str>) {
        let last = self.running.remove(&process);
        let mut last = text.map(|text| read(text, counts)).or(last).unwrap_or_default();
        last.retain(|_, family| family.kind != "gauge");
        add(&mut self.ended, &last);
    }

    /// How many connections are open in those that run.
    pub(super) fn active(&self) -> u64 {
        let families = self.running.values().filter_map(|series| series.get(names::CONNECTIONS_ACTIVE));
        let active: f64 = families.flat_map(|family| family.values.values()).sum();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of connections")]
        let active = active as u64;
        active
    }

    /// Takes all of it, for another process that answers from now on: what ended ones have counted, and what those that run
    /// had counted last, by process id.
    pub(super) fn take(&mut self) -> (String, Vec<(u32, String)>) {
        let Self { ended, running } = std::mem::take(self);
        (write(ended), running.into_iter().map(|(process, series)| (process, write(series))).collect())
    }

    /// What ended processes have counted, as [`take`](Self::take) gave it in another process.
    pub(super) fn put(&mut self, text: &str) {
        add(&mut self.ended, &read(text, |_, _| true));
    }

    /// The text of this process, with what others have counted.
    pub(super) fn added_to(&self, text: String) -> String {
        if self.ended.is_empty() && self.running.is_empty() {
            return text;
        }
        let mut all = self.ended.clone();
        self.running.values().for_each(|running| add(&mut all, running));
        let mut out = String::with_capacity(text.len());
        let mut family = None::<(String, Family)>;
        for line in text.lines() {
            if let Some((name, _)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                rest(&mut out, family.take());
                family = all.remove_entry(name);
            } else if line.starts_with("# HELP ") {
                rest(&mut out, family.take());
            }
            let more = family.as_mut().zip(line.rsplit_once(' ')).and_then(|((_, family), (series, value))| {
                Some((series, value.parse::<f64>().ok()? + family.values.remove(series)?))
            });
            match more {
                Some((series, value)) => {
                    let _ = writeln!(out, "{series} {value}");
                }
                None => {
                    out.push_str(line);
                    out.push('\n');
                }
            }
        }
        rest(&mut out, family);
        out
    }
}

/// Series that only other processes have: those of a route that the configuration no longer has.
fn rest(out: &mut String, family: Option<(String, Family)>) {
    let Some((_, Family { values, .. })) = family else { return };
    // The text has an empty line behind each family.
    let blank = out.ends_with("\n\n");
    if blank {
        out.pop();
    }
    for (series, value) in values {
        let _ = writeln!(out, "{series} {value}");
    }
    if blank {
        out.push('\n');
    }
}

fn counts(name: &str, kind: &str) -> bool {
    kind == "counter" || kind == "histogram" || COUNTING.contains(&name)
}

/// The families of a text that are `wanted`.
fn read(text: &str, wanted: impl Fn(&str, &str) -> bool) -> Series {
    let mut all = Series::new();
    let mut current = None;
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            current = wanted(name, kind).then(|| (name.to_owned(), kind.to_owned()));
        } else if let Some((name, kind)) = &current
            && let Some((series, value)) = line.rsplit_once(' ')
            && !line.starts_with('#')
            && let Ok(value) = value.parse::<f64>()
        {
            let family = all.entry(name.clone()).or_default();
            family.kind.clone_from(kind);
            *family.values.entry(series.to_owned()).or_default() += value;
        }
    }
    all
}

/// The text of these families.
fn write(all: Series) -> String {
    let mut text = String::new();
    for (name, Family { kind, values }) in all {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# TYPE {name} {kind}");
        for (series, value) in values {
            let _ = writeln!(text, "{series} {value}");
        }
    }
    text
}

fn add(to: &mut Series, more: &Series) {
    for (name, Family { kind, values }) in more {
        let family = to.entry(name.clone()).or_default();
        family.kind.clone_from(kind);
        for (series, value) in values {
            *family.values.entry(series.clone()).or_default() += value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(closed: u32, active: u32, expiry: u32) -> String {
        format!(
            "# HELP doorward_connections_closed_total closed\n# TYPE doorward_connections_closed_total counter\n\
             doorward_connections_closed_total{{route=\"nas\"}} {closed}\n\n\
             # TYPE doorward_connections_active gauge\ndoorward_connections_active{{route=\"nas\"}} {active}\n\n\
             # TYPE doorward_certificate_expiry_timestamp_seconds gauge\n\
             doorward_certificate_expiry_timestamp_seconds{{kind=\"a\",name=\"b\"}} {expiry}\n\n"
        )
    }

    #[test]
    fn counters_of_all_processes_add_up() {
        let mut others = EarlierCounts::default();
        assert_eq!(others.added_to(text(1, 2, 3)), text(1, 2, 3));
        others.count(7, &text(10, 20, 30));
        others.count(8, &text(100, 200, 300));
        others.count(8, &text(101, 199, 300));
        assert_eq!((others.added_to(text(1, 2, 3)), others.active()), (text(112, 221, 3), 219));
        // One ends in order; the other is killed with sessions open.
        others.end(7, Some(&text(30, 0, 30)));
        assert_eq!(others.added_to(text(1, 2, 3)), text(132, 201, 3));
        others.end(8, None);
        assert_eq!(others.added_to(text(1, 2, 3)), text(132, 2, 3));
        others.count(9, &text(7, 5, 3));
        assert_eq!(others.added_to(text(1, 2, 3)), text(139, 7, 3));
        let mut next = EarlierCounts::default();
        let (ended, running) = others.take();
        next.put(&ended);
        assert_eq!(next.added_to(text(1, 2, 3)), text(132, 2, 3));
        running.iter().for_each(|(process, counters)| next.count(*process, counters));
        assert_eq!(next.added_to(text(1, 2, 3)), text(139, 7, 3));
        assert_eq!(others.added_to(text(1, 2, 3)), text(1, 2, 3));
    }

    #[test]
    fn series_that_only_another_process_has_stay_in_their_family() {
        let mut others = EarlierCounts::default();
        others.count(7, &text(10, 0, 0).replace("nas", "ssh"));
        let shown = others.added_to(text(1, 2, 3));
        let expected = "doorward_connections_closed_total{route=\"nas\"} 1\n\
                        doorward_connections_closed_total{route=\"ssh\"} 10\n\n# TYPE";
        assert!(shown.contains(expected), "{shown}");
    }
}
