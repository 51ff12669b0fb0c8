//! What is wrong with a configuration, for readers who have never seen a certificate or a TOML file.

use std::path::PathBuf;

use crate::model::names::visible;

/// What to do about a file or a port that the sandbox of the running gate does not allow.
pub(crate) const START_ANEW: &str =
    "start the gate anew: doorward upgrade keeps its connections, systemctl restart doorward ends them";

/// One mistake: where it is, what is wrong, and what to write or do instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}\n  wrong: {}\n  fix:   {}", self.place(), indented(message), indented(remedy))]
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

impl ConfigError {
    /// File, line and key, as compilers write them.
    fn place(&self) -> String {
        let mut place = visible(&self.file.display().to_string(), usize::MAX);
        if let Some(line) = self.line {
            place += &format!(":{line}");
        }
        if !self.key.is_empty() {
            place += &format!(": {}", self.key);
        }
        place
    }
}

/// Keeps the lines of a longer text below each other.
fn indented(text: &str) -> String {
    legible(text).replace('\n', "\n         ")
}

/// A text of some lines, in which what it quotes of the configuration, such as a path, cannot control a terminal.
pub(super) fn legible(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(|line| visible(line, usize::MAX)).collect();
    lines.join("\n")
}

/// Every mistake of a configuration, in the order of the file; at least one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{}{} in the configuration:\n{}",
    .0.len(), if .0.len() == 1 { " mistake" } else { " mistakes" },
    .0.iter().map(|error| format!("\n{error}\n")).collect::<String>()
)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// These, or nothing if there is none.
    ///
    /// # Errors
    /// If there is one.
    pub(crate) fn of(errors: Vec<ConfigError>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self::new(errors)) }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_cannot_control_a_terminal() {
        let error = ConfigError {
            file: "a\x1b[2J.toml".into(),
            line: Some(3),
            key: "client_auth.trust".to_owned(),
            message: "there is no file pki/clien\ts.pem".to_owned(),
            remedy: "correct the path:\n  pki/\u{202e}clients.pem".to_owned(),
        };
        let shown = ConfigErrors::new(vec![error]).to_string();
        assert!(!shown.contains(['\t', '\x1b', '\u{202e}']), "{shown:?}");
        assert!(
            shown.contains("clien\\ts.pem\n  fix:   correct the path:\n           pki/\\u{202e}clients.pem"),
            "{shown:?}"
        );
    }
}
