//! Where values stand in the file, and the list that every mistake and every warning goes to.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::checked::Warning;
use super::credentials::Credentials;
use super::error::{ConfigError, ConfigErrors, START_ANEW, legible};
use super::file_states::Seen;
use crate::model::names::printable;

/// Where something stands: what an error names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The line, counted from 1; `None` for the file as a whole.
    pub(super) line: Option<usize>,
    /// The key path, as in `route[2] "ssh".allow`.
    pub(super) key: String,
}

impl Place {
    /// A key in this place that is not there: its own path, and the line of what should hold it.
    pub(super) fn child(&self, key: &str) -> Self {
        let key = if self.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.key) };
        Self { line: self.line, key }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// A text and where it stands.
pub(super) type Text = At<String>;

/// A key that may be missing.
///
/// A key whose value was refused is not missing: it was reported already, and advice to add it would be wrong.
#[derive(Clone, Debug, Default)]
pub(super) enum Given<T> {
    /// The key is not there.
    #[default]
    Absent,
    /// The key is there, but its value was refused and reported.
    Refused,
    /// The key is there.
    Value(At<T>),
}

impl<T> Given<T> {
    /// The value, if there is a good one.
    pub(super) fn value(&self) -> Option<&At<T>> {
        match self {
            Self::Value(at) => Some(at),
            Self::Absent | Self::Refused => None,
        }
    }

    /// The value itself, if there is a good one.
    pub(super) fn into_value(self) -> Option<T> {
        match self {
            Self::Value(at) => Some(at.value),
            Self::Absent | Self::Refused => None,
        }
    }

    /// Whether the key is missing.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// This one, or `other` if the key is not there.
    pub(super) fn or<'a>(&'a self, other: Option<&'a Self>) -> &'a Self {
        match (self, other) {
            (Self::Absent, Some(other)) => other,
            _ => self,
        }
    }
}

/// What is wrong with a value and what to write instead, before the place of the value is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) message: String,
    pub(super) remedy: String,
}

impl Problem {
    pub(super) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }
}

/// A text from the configuration or a file, in quotes, safe to print and not too long.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", printable(text, 100))
}

/// Collects every mistake and every warning.
pub(super) struct Report {
    file: PathBuf,
    line_starts: Vec<usize>,
    errors: Vec<ConfigError>,
    warnings: Vec<(Option<usize>, Warning)>,
    /// The files that were read.
    seen: Seen,
    /// Where keys are that a service manager hands over.
    pub(super) credentials: Credentials,
    may_read: MayRead,
}

/// Says of a file whether the sandbox of this process lets it be read.
pub(crate) type MayRead = Rc<dyn Fn(&Path) -> bool>;

impl Report {
    /// For the configuration `file` that holds `text`, outside of any sandbox.
    pub(super) fn new(file: &Path, text: &str) -> Self {
        Self::within(Rc::new(|_| true), file, text)
    }

    /// For the configuration `file` that holds `text`.
    pub(super) fn within(may_read: MayRead, file: &Path, text: &str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let (errors, warnings, seen) = (Vec::new(), Vec::new(), Seen::default());
        let credentials = Credentials::default();
        Self { file: file.to_owned(), line_starts, errors, warnings, seen, credentials, may_read }
    }

    /// The configuration file.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The line, counted from 1, of a byte of the text.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= offset)
    }

    /// Notes that a file is about to be read. Says so where the sandbox would refuse it.
    pub(super) fn look_at(&mut self, file: &Path) -> Result<(), Problem> {
        self.seen.look_at(file);
        if (self.may_read)(file) { Ok(()) } else { Err(outside(file)) }
    }

    /// The files that were read so far.
    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Notes a mistake.
    pub(super) fn error(&mut self, place: &Place, message: impl Into<String>, remedy: impl Into<String>) {
        self.errors.push(ConfigError {
            file: self.file.clone(),
            line: place.line,
            key: place.key.clone(),
            message: message.into(),
            remedy: remedy.into(),
        });
    }

    /// Notes what is wrong with the value at `place`.
    pub(super) fn problem(&mut self, place: &Place, problem: Problem) {
        self.error(place, problem.message, problem.remedy);
    }

    /// The value, or `None` with the problem noted.
    pub(super) fn taken<T>(&mut self, place: &Place, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.problem(place, problem)).ok()
    }

    /// Notes what is allowed but probably not meant.
    pub(super) fn warn(&mut self, place: &Place, message: impl Into<String>) {
        let warning = Warning { key: place.key.clone(), message: legible(&message.into()) };
        let entry = (place.line, warning);
        if !self.warnings.contains(&entry) {
            self.warnings.push(entry);
        }
    }

    /// Whether no mistake has been noted so far.
    pub(super) fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// The mistakes, where there is nothing to go on with.
    pub(super) fn into_errors(self) -> ConfigErrors {
        ConfigErrors::new(self.errors)
    }

    /// The warnings in the order of the file, if there was no mistake. Nothing is left of either.
    pub(super) fn finish(&mut self) -> Result<Vec<Warning>, ConfigErrors> {
        let (errors, mut warnings) = (std::mem::take(&mut self.errors), std::mem::take(&mut self.warnings));
        if errors.is_empty() {
            warnings.sort_by_key(|(line, _)| *line);
            Ok(warnings.into_iter().map(|(_, warning)| warning).collect())
        } else {
            Err(ConfigErrors::new(errors))
        }
    }
}

/// Why the sandbox does not let a file be read.
pub(super) fn outside(file: &Path) -> Problem {
    let file = file.display();
    Problem::new(
        format!("the sandbox of the running gate does not allow it to read {file}, which was not named at its start"),
        format!("{START_ANEW}; or put the file into a folder that was named then"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_from_one() {
        let report = Report::new(Path::new("x"), "a\nbc\n\nd");
        let lines: Vec<usize> = [0, 1, 2, 4, 5, 6, 99].into_iter().map(|offset| report.line(offset)).collect();
        assert_eq!(lines, [1, 1, 2, 2, 3, 4, 4]);
    }

    #[test]
    fn mistakes_are_reported_once_in_file_order() {
        let mut report = Report::new(Path::new("x"), "");
        let (late, early) = (Place { line: Some(9), key: "b".into() }, Place { line: Some(2), key: "a".into() });
        report.error(&late, "late", "x");
        report.error(&early, "early", "x");
        report.error(&late, "late", "x");
        let errors = report.finish().expect_err("two mistakes");
        let told: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
        assert_eq!(told, ["early", "late"]);
    }
}
