//! What `/metrics` says.

use std::collections::BTreeMap;

/// One scrape.
#[derive(Debug)]
pub(crate) struct Metrics(Vec<Series>);

/// One series of a scrape.
#[derive(Debug)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads Prometheus' text format.
    ///
    /// # Panics
    ///
    /// If a line is no series, or a series stands there twice.
    pub(crate) fn parse(text: &str) -> Self {
        let series: Vec<Series> = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| Series::parse(line).unwrap_or_else(|| panic!("not a series: {line}")))
            .collect();
        let mut seen = std::collections::HashSet::new();
        for Series { name, labels, .. } in &series {
            assert!(seen.insert((name, labels)), "{name}{labels:?} stands there twice");
        }
        Self(series)
    }

    /// The sum of all series of this name that carry these labels, whatever other labels they carry.
    ///
    /// # Panics
    ///
    /// If there is none: every series exists at 0 from the start, so a missing one is a mistake.
    #[track_caller]
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fitting: Vec<f64> = self
            .0
            .iter()
            .filter(|series| series.name == name)
            .filter(|series| labels.iter().all(|&(key, value)| series.labels.get(key).is_some_and(|v| v == value)))
            .map(|series| series.value)
            .collect();
        assert!(!fitting.is_empty(), "no series {name} with {labels:?}");
        fitting.iter().sum()
    }

    /// The values of one label, over all series of this name.
    pub(crate) fn label_values(&self, name: &str, label: &str) -> Vec<&str> {
        let series = self.0.iter().filter(|series| series.name == name);
        series.filter_map(|series| series.labels.get(label)).map(String::as_str).collect()
    }
}

impl Series {
    fn parse(line: &str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at(end);
        let mut labels = BTreeMap::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            while !rest.starts_with('}') {
                let (key, after) = rest.split_once("=\"")?;
                let (value, after) = unquote(after)?;
                labels.insert(key.to_owned(), value);
                rest = after.strip_prefix(',').unwrap_or(after);
            }
            rest = rest.get(1..)?;
        }
        let value = rest.split_whitespace().next()?.parse().ok()?;
        Some(Self { name: name.to_owned(), labels, value })
    }
}

/// A label value up to its closing quote, and what follows that.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            _ => value.push(c),
        }
    }
    None
}
