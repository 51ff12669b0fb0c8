//! Findings as they are told to other processes: the control socket's answers, `--format json` and notices.

use serde::{Deserialize, Serialize};

use super::{Facts, Finding, Verdict, findings, verdict_sentence};
use crate::explain::clock::Clock;

/// Whether all is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldVerdict {
    /// `ok`, `warn`, `bad` or `new`.
    pub state: String,
    /// In a few words.
    pub headline: String,
    /// In a sentence.
    pub sentence: String,
}

/// A finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldFinding {
    /// What it is, from a closed list.
    pub kind: String,
    /// How much it matters: `bad`, `warn` or `note`.
    pub tone: String,
    /// What it is about: the name of a device, of a route, of a file or of a receiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What is the matter, in a few words.
    pub headline: String,
    /// What is known about it.
    pub sentence: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// The command that mends it, or shows more of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

impl ToldFinding {
    /// What is told of a finding at a moment.
    pub fn new(finding: &Finding, clock: &Clock) -> Self {
        Self {
            kind: finding.label().to_owned(),
            tone: finding.tone(clock.now()).label().to_owned(),
            subject: finding.subject().map(str::to_owned),
            headline: finding.headline(clock),
            sentence: finding.sentence(clock),
            advice: finding.advice(),
            command: finding.command(),
        }
    }
}

/// The verdict, and the findings behind it, the most important first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The verdict.
    pub verdict: ToldVerdict,
    /// The findings.
    pub findings: Vec<ToldFinding>,
}

impl Report {
    /// What is told of these facts at a moment.
    pub fn new(facts: &Facts, clock: &Clock) -> Self {
        let found = findings(facts, clock.now());
        let verdict = Verdict::of(&found, facts.has_met_a_device, clock.now());
        let (headline, sentence) = verdict_sentence(verdict, &found, facts, clock);
        Self {
            verdict: ToldVerdict { state: verdict.label().to_owned(), headline, sentence },
            findings: found.iter().map(|finding| ToldFinding::new(finding, clock)).collect(),
        }
    }
}
