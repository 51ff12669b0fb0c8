//! README.md and the manual say what the program does: their tables and samples are compared with the code, both ways.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

mod commands;
mod configuration;
mod links;
mod log;
mod tables;
mod threats;

use std::sync::LazyLock;

use doorward::manual::TOPICS;

/// README.md, and behind it every page of the manual.
static TEXT: LazyLock<String> = LazyLock::new(|| {
    let pages = TOPICS.iter().map(|topic| topic.text);
    std::iter::once(include_str!("../../README.md")).chain(pages).collect::<Vec<_>>().join("\n")
});

/// The rows of the table whose first column has this heading, cell by cell.
#[track_caller]
fn table(first_heading: &str) -> Vec<Vec<String>> {
    let heading = format!("| {first_heading} |");
    let mut lines = TEXT.lines().skip_while(|line| !line.starts_with(&heading));
    assert!(lines.next().is_some(), "the manual has no table that starts with {first_heading:?}");
    lines
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// The word in a cell: `` `word` `` without its ticks.
fn word(cell: &str) -> &str {
    cell.trim_matches('`')
}

/// A fenced block: its language, its text, and the line before it.
struct Block {
    language: &'static str,
    text: String,
    before: &'static str,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut before = "";
    let mut lines = TEXT.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            let lines = lines.by_ref().take_while(|line| line.trim_start() != "```");
            let text = lines.map(|line| format!("{line}\n")).collect();
            blocks.push(Block { language, text, before });
        }
        before = line;
    }
    blocks
}
