//! The form of the files: a line of JSON each, behind the beginning of its SHA-256. A line that is torn or damaged is known by that,
//! and costs no other.

use serde::{Deserialize, Serialize};

use super::batch::Batch;
use super::counts::Summary;
use super::overview::Visit;
use super::state::Checkpoint;
use crate::model::identity::Sha256;

/// The form that this release writes. It reads no later one.
pub(super) const FORMAT: u32 = 1;

/// The digits of a checksum.
const DIGITS: usize = 8;

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// The first one.
    Header(Header),
    /// What is known at the beginning of the file.
    State(Checkpoint),
    /// What is added to it.
    Add(Batch),
    /// Of a day that is over: the visits that ended then.
    Visits(Vec<Visit>),
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) format: u32,
    /// The totals of its hours, once the day is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) hours: Option<Vec<Summary>>,
}

/// What a file has.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) lines: Vec<Line>,
    /// How many lines could not be read.
    pub(super) damaged: usize,
    /// The last line is not complete: the machine or the gate stopped while it was written.
    pub(super) torn: bool,
}

/// Adds a line to a text.
pub(super) fn write(line: &Line, text: &mut Vec<u8>) {
    // Fails for maps whose keys are no text only.
    let json = serde_json::to_vec(line).unwrap_or_default();
    text.extend(checksum(&json).bytes());
    text.push(b' ');
    text.extend(json);
    text.push(b'\n');
}

fn checksum(json: &[u8]) -> String {
    let mut digits = Sha256::of(json).to_string();
    digits.truncate(DIGITS);
    digits
}

/// Reads lines.
pub(super) fn read(text: &[u8]) -> Contents {
    let mut contents = Contents::default();
    let mut rest = text;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        match one(&rest[..end]) {
            Some(line) => contents.lines.push(line),
            None => contents.damaged += 1,
        }
        rest = &rest[end + 1..];
    }
    contents.torn = !rest.is_empty();
    contents
}

/// The header, if the first line is one, whatever release wrote it.
pub(super) fn header(text: &[u8]) -> Option<Header> {
    let end = text.iter().position(|byte| *byte == b'\n')?;
    match one(&text[..end])? {
        Line::Header(header) => Some(header),
        _ => None,
    }
}

fn one(line: &[u8]) -> Option<Line> {
    let (digits, json) = line.split_at_checked(DIGITS)?;
    let json = json.strip_prefix(b" ")?;
    (checksum(json).as_bytes() == digits).then(|| serde_json::from_slice(json).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cut_at_any_byte_gives_its_whole_lines() {
        let lines = [
            Line::Header(Header {
                format: FORMAT,
                hours: Some(vec![Summary { hour: 7, noise: 9, ..Summary::default() }]),
            }),
            Line::State(Checkpoint::default()),
            Line::Add(Batch::default()),
        ];
        let mut text = Vec::new();
        let ends = lines.clone().map(|line| {
            write(&line, &mut text);
            text.len()
        });
        for cut in 0..=text.len() {
            let contents = read(&text[..cut]);
            let whole = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!((&contents.lines[..], contents.damaged), (&lines[..whole], 0), "cut at {cut}");
            assert_eq!(contents.torn, cut != 0 && !ends.contains(&cut), "cut at {cut}");
        }
    }

    #[test]
    fn damaged_line_costs_no_other_line() {
        let mut text = Vec::new();
        for noise in [1, 2, 3] {
            let summary = Summary { noise, ..Summary::default() };
            write(&Line::Header(Header { format: FORMAT, hours: Some(vec![summary]) }), &mut text);
        }
        let second = text.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
        for at in second..text.len() {
            let mut damaged = text.clone();
            damaged[at] ^= 1;
            let contents = read(&damaged);
            assert!(contents.lines.len() < 3 && header(&damaged).is_some(), "byte {at}");
            assert!(contents.damaged > 0 || contents.torn, "byte {at}");
        }
        assert!(read(b"\n[]\nwhatever\n").lines.is_empty());
    }
}
