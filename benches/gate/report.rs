//! The median and range of the rounds, compared with the bounds.

use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::Result;
use crate::measure::{Figure, Sharing};
use crate::operations::Operation;
use crate::plan::{Bound, Group, Line};

/// The columns of the manual's table, with the cheapest of these; few, to fit a terminal.
const COLUMNS: [(&str, &[&str]); 4] = [
    ("Doorward", &["doorward"]),
    ("AES-128", &["doorward-aes128"]),
    ("tokio-rustls", &["tokio-rustls"]),
    ("HAProxy, nginx", &["haproxy", "nginx"]),
];

/// One figure of one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) group: &'static str,
    pub(crate) line: &'static str,
    pub(crate) column: &'static str,
    pub(crate) figure: Figure,
}

/// All figures.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) rounds: usize,
    measured: Vec<Measured>,
}

/// The rounds of one line and column.
#[derive(Clone, Copy, Debug, Serialize)]
struct Summary {
    least: f64,
    median: f64,
    greatest: f64,
    /// Of the round with the least value.
    #[serde(skip_serializing_if = "Option::is_none")]
    threads: Option<Sharing>,
}

/// The result for a bound.
#[derive(Debug, Serialize)]
struct Verdict {
    of: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'static str>,
    limit: f64,
    /// The ratios of the leasts and of the medians, or the values themselves for an absolute bound.
    least: f64,
    median: f64,
    /// Whether the least is within the limit, as other load only adds CPU time; for an absolute bound the median.
    ok: bool,
}

#[derive(Serialize)]
struct Row<'a> {
    group: &'a str,
    operation: &'a str,
    unit: &'a str,
    columns: Vec<(&'a str, Summary)>,
    bounds: Vec<Verdict>,
}

impl Report {
    pub(crate) const fn new(rounds: usize) -> Self {
        Self { rounds, measured: Vec::new() }
    }

    pub(crate) fn add(&mut self, measured: Measured) {
        self.measured.push(measured);
    }

    /// The number of figures.
    pub(crate) const fn count(&self) -> usize {
        self.measured.len()
    }

    fn summary(&self, group: &Group, line: &Line, column: &str) -> Option<Summary> {
        let mut figures: Vec<Figure> = self
            .measured
            .iter()
            .filter(|one| (one.group, one.line, one.column) == (group.name, line.name, column))
            .map(|one| one.figure)
            .collect();
        figures.sort_by(|one, other| one.value.total_cmp(&other.value));
        let middle = figures.len() / 2;
        let upper = figures.get(middle)?.value;
        let median = match figures.len() % 2 {
            1 => upper,
            _ => f64::midpoint(upper, figures.get(middle - 1)?.value),
        };
        let (first, last) = (figures.first()?, figures.last()?);
        Some(Summary { least: first.value, median, greatest: last.value, threads: first.threads })
    }

    /// `None` if one of the values was not measured.
    fn verdict(&self, group: &Group, line: &Line, bound: Bound) -> Option<Verdict> {
        let (of, others, limit): (_, &[&'static str], _) = match &bound {
            Bound::Ratio { of, to, limit } => (*of, std::slice::from_ref(to), *limit),
            Bound::Best { of, to, limit } => (*of, to, *limit),
            Bound::Most { of, limit } => {
                let own = self.summary(group, line, of)?;
                let (least, median) = (own.least, own.median);
                return Some(Verdict { of, to: None, limit: *limit, least, median, ok: median <= *limit });
            }
        };
        let own = self.summary(group, line, of)?;
        let others = others.iter().filter_map(|to| Some((*to, self.summary(group, line, to)?)));
        let (to, other) = others.min_by(|(_, one), (_, other)| one.least.total_cmp(&other.least))?;
        let (least, median) = (own.least / other.least, own.median / other.median);
        Some(Verdict { of, to: Some(to), limit, least, median, ok: least <= limit })
    }

    fn rows<'a>(&'a self, groups: &'a [Group]) -> impl Iterator<Item = Row<'a>> {
        groups.iter().flat_map(move |group| {
            group.lines.iter().map(move |line| Row {
                group: group.name,
                operation: line.name,
                unit: group.unit,
                columns: group
                    .columns
                    .iter()
                    .filter_map(|column| Some((column.label, self.summary(group, line, column.label)?)))
                    .collect(),
                bounds: line.bounds.iter().filter_map(|bound| self.verdict(group, line, *bound)).collect(),
            })
        })
    }

    /// The bounds that are exceeded, as text.
    pub(crate) fn exceeded(&self, groups: &[Group]) -> Vec<String> {
        let mut exceeded = Vec::new();
        for row in self.rows(groups) {
            for verdict in row.bounds.iter().filter(|verdict| !verdict.ok) {
                exceeded.push(format!("  {}: {verdict}", row.operation));
            }
        }
        exceeded
    }

    /// For people: `median (least-greatest)`; with `threads` also how the threads shared the work.
    pub(crate) fn text(&self, groups: &[Group], threads: bool) -> String {
        let mut text =
            format!("median (least-greatest) of {} rounds; ratios: of the leasts / of the medians\n", self.rounds);
        let mut last = "";
        for row in self.rows(groups) {
            if row.group != last {
                last = row.group;
                let _ = writeln!(text, "\n== {} [{}]", row.group, row.unit);
            }
            let _ = writeln!(text, "{}", row.operation);
            for (column, summary) in &row.columns {
                let (median, least) = (short(summary.median), short(summary.least));
                let _ = write!(text, "    {column:<20} {median:>8}  ({least}-{})", short(summary.greatest));
                if let Some(Sharing { wake_ups, busiest, rate }) = summary.threads.filter(|_| threads) {
                    let (wake_ups, rate, busiest) = (short(wake_ups), short(rate), busiest * 100.0);
                    let _ = write!(text, "  {wake_ups} wake-ups, busiest thread {busiest:.0} %, {rate}/s");
                }
                text.push('\n');
            }
            for verdict in &row.bounds {
                let _ = writeln!(text, "    {verdict}: {}", if verdict.ok { "ok" } else { "MISS" });
            }
        }
        text
    }

    /// The table of the manual: the leasts of the groups that compare gates.
    pub(crate) fn markdown(&self, groups: &[Group]) -> String {
        let mut text = String::new();
        let headings = COLUMNS.map(|(heading, _)| heading).join(" | ");
        let _ = writeln!(text, "| operation | {headings} | ratio | bound |\n|{}", "---|".repeat(COLUMNS.len() + 3));
        for group in groups.iter().filter(|group| group.compares_gates()) {
            for line in &group.lines {
                let idle = matches!(line.operation, Operation::Idle(..));
                let unit = if idle { "KiB" } else { group.unit };
                let cells = COLUMNS.iter().map(|(_, labels)| {
                    let summaries = labels.iter().filter_map(|label| self.summary(group, line, label));
                    summaries.map(|summary| summary.least).min_by(f64::total_cmp).map_or_else(|| "–".to_owned(), short)
                });
                let cells = cells.collect::<Vec<_>>().join(" | ");
                let verdicts = line.bounds.iter().filter_map(|bound| self.verdict(group, line, *bound));
                let (mut bounds, mut ratios) = (Vec::new(), Vec::new());
                for Verdict { to, limit, least, median, .. } in verdicts {
                    match to {
                        Some(to) => {
                            bounds.push(format!("{limit:.2} x {to}"));
                            ratios.push(format!("{least:.2} / {median:.2}"));
                        }
                        None => {
                            bounds.push(limit.to_string());
                            ratios.push(format!("{} / {}", short(least), short(median)));
                        }
                    }
                }
                let (bounds, ratios) = (bounds.join(", "), ratios.join(", "));
                let _ = writeln!(text, "| {} ({unit}) | {cells} | {ratios} | {bounds} |", line.name);
            }
        }
        text
    }

    /// For scripts.
    pub(crate) fn json(&self, groups: &[Group]) -> Result<String> {
        #[derive(Serialize)]
        struct Whole<'a> {
            rounds: usize,
            operations: Vec<Row<'a>>,
        }
        Ok(serde_json::to_string_pretty(&Whole { rounds: self.rounds, operations: self.rows(groups).collect() })?)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, to, limit, least, median, .. } = self;
        match to {
            Some(to) => write!(f, "{of} / {to}: {least:.2} / {median:.2}, bound {limit:.2}"),
            None => write!(f, "{of}: {} / {}, bound {limit}", short(*least), short(*median)),
        }
    }
}

/// Three significant digits.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
