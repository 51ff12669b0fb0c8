//! What was counted, one row for each reason: `/status.json`, from which the page's script draws the chart.

use serde::Serialize;
use time::OffsetDateTime;

use super::history::{History, STEP, STEPS};
use crate::explain;
use crate::model::rejection::{Reason, Side};
use crate::telemetry::tally::{Counts, Tally};

/// A row of the chart.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// `admitted`, or `stage/reason`.
    pub(super) key: String,
    /// The same in words.
    pub(super) words: &'static str,
    /// Which side caused a rejection.
    #[serde(serialize_with = "label")]
    pub(super) side: Option<Side>,
    /// Since the gate was started.
    pub(super) total: u64,
    /// In each step, the oldest first; the last one has not ended.
    pub(super) steps: Vec<u64>,
}

fn label<S: serde::Serializer>(side: &Option<Side>, serializer: S) -> Result<S::Ok, S::Error> {
    side.map(Side::label).serialize(serializer)
}

/// `/status.json`.
#[derive(Debug, Serialize)]
struct Status {
    /// Now, in seconds since 1970.
    time: i64,
    /// How long a step is.
    step_seconds: u64,
    /// How many steps the chart is wide.
    width: usize,
    rows: Vec<Row>,
}

/// Admitted connections first, then each reason that occurred, the most frequent of late first.
pub(super) fn rows(total: &Counts, steps: &[Counts]) -> Vec<Row> {
    let mut rows: Vec<Row> = Reason::ALL
        .iter()
        .zip(&total.rejected)
        .enumerate()
        .filter(|(_, (_, total))| **total > 0)
        .map(|(index, (reason, total))| Row {
            key: reason.to_string(),
            words: explain::words(*reason).short,
            side: Some(reason.side()),
            total: *total,
            steps: steps.iter().map(|step| step.rejected.get(index).copied().unwrap_or(0)).collect(),
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.steps.iter().sum::<u64>(), row.total)));
    let admitted = Row {
        key: "admitted".to_owned(),
        words: "let in",
        side: None,
        total: total.admitted,
        steps: steps.iter().map(|step| step.admitted).collect(),
    };
    rows.insert(0, admitted);
    rows
}

/// The body of `/status.json`.
pub(super) fn json(tally: &Tally, history: &History) -> String {
    let (total, steps) = history.counts(tally);
    let status = Status {
        time: OffsetDateTime::now_utc().unix_timestamp(),
        step_seconds: STEP.as_secs(),
        width: STEPS + 1,
        rows: rows(&total, &steps),
    };
    // Numbers and fixed words are always JSON.
    serde_json::to_string(&status).unwrap_or_default()
}
