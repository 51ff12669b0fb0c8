//! The median and range of the rounds, compared with the bounds.

use std::fmt::Write as _;

use serde::Serialize;

use crate::Result;
use crate::plan::{Bound, Group, Line};

/// One figure of one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) group: &'static str,
    pub(crate) line: &'static str,
    pub(crate) column: &'static str,
    pub(crate) value: f64,
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
        let mut values: Vec<f64> = self
            .measured
            .iter()
            .filter(|one| (one.group, one.line, one.column) == (group.name, line.name, column))
            .map(|one| one.value)
            .collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let median = if values.len() % 2 == 1 { upper } else { f64::midpoint(upper, *values.get(middle - 1)?) };
        Some(Summary { least: *values.first()?, median, greatest: *values.last()? })
    }

    /// `None` if one of the values was not measured.
    fn verdict(&self, group: &Group, line: &Line, bound: Bound) -> Option<Verdict> {
        let (of, to, limit) = match bound {
            Bound::Ratio { of, to, limit } => (of, Some(to), limit),
            Bound::Most { of, limit } => (of, None, limit),
        };
        let own = self.summary(group, line, of)?;
        let (least, median) = match to {
            None => (own.least, own.median),
            Some(to) => {
                let other = self.summary(group, line, to)?;
                (own.least / other.least, own.median / other.median)
            }
        };
        Some(Verdict { of, to, limit, least, median, ok: least <= limit && median <= limit })
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

    /// For people: `median (least-greatest)`.
    pub(crate) fn text(&self, groups: &[Group]) -> String {
        let mut text =
            format!("median (least-greatest) of {} rounds; ratios: of the leasts / of the medians\n", self.rounds);
        let mut last = "";
        for row in self.rows(groups) {
            if row.group != last {
                last = row.group;
                let _ = writeln!(text, "\n== {} [{}]", row.group, row.unit);
            }
            let _ = writeln!(text, "{}", row.operation);
            for (column, Summary { least, median, greatest }) in &row.columns {
                let (median, least, greatest) = (short(*median), short(*least), short(*greatest));
                let _ = writeln!(text, "    {column:<16} {median:>8}  ({least}-{greatest})");
            }
            for Verdict { of, to, limit, least, median, ok } in &row.bounds {
                let verdict = if *ok { "ok" } else { "MISS" };
                let _ = match to {
                    Some(to) => {
                        writeln!(text, "    {of} / {to}: {least:.2} / {median:.2}, bound {limit:.2}: {verdict}")
                    }
                    None => {
                        writeln!(text, "    {of}: {} / {}, bound {limit}: {verdict}", short(*least), short(*median))
                    }
                };
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

/// Three significant digits.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
