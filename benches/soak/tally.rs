//! What was done how often, and what went wrong.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most failures of one kind that are described.
const DESCRIBED: usize = 5;

#[derive(Debug, Default)]
struct Line {
    done: u64,
    failed: u64,
    described: Vec<String>,
    /// If it was never done, a check of it could not fail.
    expected: bool,
}

/// The tally of a run.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<BTreeMap<&'static str, Line>>);

impl Tally {
    fn lines(&self) -> MutexGuard<'_, BTreeMap<&'static str, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something went as it should.
    pub(super) fn done(&self, what: &'static str) {
        self.lines().entry(what).or_default().done += 1;
    }

    /// Something did not.
    pub(super) fn failed(&self, what: &'static str, why: String) {
        let mut lines = self.lines();
        let line = lines.entry(what).or_default();
        line.failed += 1;
        if line.described.len() < DESCRIBED {
            line.described.push(why);
        }
    }

    /// This has to be done at least once.
    pub(super) fn expect(&self, what: &'static str) {
        self.lines().entry(what).or_default().expected = true;
    }

    pub(super) fn count(&self, what: &'static str, result: Result<(), String>) {
        match result {
            Ok(()) => self.done(what),
            Err(why) => self.failed(what, why),
        }
    }

    /// How often this was done.
    pub(super) fn of(&self, what: &str) -> u64 {
        self.lines().get(what).map_or(0, |line| line.done)
    }

    /// Prints the table, and returns the failures.
    pub(super) fn report(&self) -> Vec<String> {
        println!("| {:<44} | {:>9} | {:>6} |", "what", "done", "failed");
        println!("|{:-<46}|{:->10}:|{:->7}:|", "", "", "");
        let mut failures = Vec::new();
        for (what, Line { done, failed, described, expected }) in self.lines().iter() {
            println!("| {what:<44} | {done:>9} | {failed:>6} |");
            if *expected && *done == 0 {
                failures.push(format!("{what}: never done"));
            }
            failures.extend(described.iter().map(|why| format!("{what}: {why}")));
        }
        println!();
        failures
    }
}
