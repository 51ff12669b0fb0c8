//! What is wrong with a configuration, for somebody who has never seen a certificate or a TOML file.

use std::fmt;
use std::path::PathBuf;

/// One mistake: where it is, what is wrong, and what to write or do instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The configuration file.
    pub file: PathBuf,
    /// The line in it, counted from 1, if the mistake has one.
    pub line: Option<usize>,
    /// The key, as in `route[2] "ssh".allow`; entries are counted from 1. Empty for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to write or do instead.
    pub remedy: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, "\n  wrong: {}", indented(&self.message))?;
        write!(f, "\n  fix:   {}", indented(&self.remedy))
    }
}

impl std::error::Error for ConfigError {}

/// Keeps the lines of a longer text below each other.
fn indented(text: &str) -> String {
    text.replace('\n', "\n         ")
}

/// Every mistake of a configuration, in the order of the file; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Sorts by line. The same mistake reached twice (two routes that share the default certificate, say) is told once.
    pub(super) fn new(mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_key(|error| error.line);
        let mut once: Vec<ConfigError> = Vec::with_capacity(errors.len());
        for error in errors {
            if !once.contains(&error) {
                once.push(error);
            }
        }
        Self(once)
    }

    /// The mistakes, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a ConfigErrors {
    type Item = &'a ConfigError;
    type IntoIter = std::slice::Iter<'a, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => writeln!(f, "1 mistake in the configuration:")?,
            count => writeln!(f, "{count} mistakes in the configuration:")?,
        }
        self.0.iter().try_for_each(|error| write!(f, "\n{error}\n"))
    }
}

impl std::error::Error for ConfigErrors {}
