//! What the gate's log tells, file after file.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// The most lines that are shown in full.
const SHOWN: usize = 5;

/// The lines of all files so far.
#[derive(Debug, Default)]
pub(super) struct Told {
    files: u64,
    /// Verdicts that were left out, and counted instead.
    left_out: u64,
    /// How many lines there are of each event.
    events: BTreeMap<String, u64>,
    /// Lines that should not be there.
    wrong: Vec<String>,
}

impl Told {
    /// Counts the lines of a file that is not written to any more.
    pub(super) fn read(&mut self, file: &Path) {
        self.files += 1;
        let text = std::fs::read_to_string(file).unwrap();
        if !text.is_empty() && !text.ends_with('\n') {
            self.wrong.push(format!("{} ends within a line", file.display()));
        }
        for text in text.lines() {
            let line: Value = serde_json::from_str(text).unwrap_or_default();
            let event = line["event"].as_str().unwrap_or("no JSON");
            *self.events.entry(event.to_owned()).or_default() += 1;
            let lost = line["cause"] == "output";
            match event {
                "left_out" if !lost => self.left_out += line["lines"].as_u64().unwrap(),
                // Whatever the gate itself got wrong.
                "no JSON" | "accept_failed" | "upgrade_failed" | "left_out" => self.wrong.push(text.to_owned()),
                "rejected" if line["stage"] == "internal" => self.wrong.push(text.to_owned()),
                _ => {}
            }
        }
    }

    /// How many lines there are of this event.
    pub(super) fn of(&self, event: &str) -> u64 {
        self.events.get(event).copied().unwrap_or_default()
    }

    /// How many verdicts were written or counted.
    pub(super) fn verdicts(&self) -> u64 {
        self.of("rejected") + self.of("closed") + self.left_out
    }

    /// Prints what there is, and returns what is wrong.
    pub(super) fn report(&self) -> Vec<String> {
        println!("the log: {} files, {} more verdicts counted in left_out lines", self.files, self.left_out);
        println!("its lines: {:?}", self.events);
        self.wrong.iter().take(SHOWN).map(|line| format!("a line of the log: {line}")).collect()
    }
}
