//! Why a command failed, and its exit code.

use std::fmt;
use std::io;

use crate::ca::Error;
use crate::ca::inventory::StoreError;
use crate::cli::{exit, share};
use crate::pki;

/// A command failed: the message, and the exit code.
#[derive(Debug)]
pub(in crate::cli) struct CaError {
    pub(in crate::cli) code: u8,
    pub(in crate::cli) message: String,
}

impl CaError {
    /// The arguments are wrong, or a file that they name.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { code: exit::USAGE, message: message.into() }
    }

    /// The same error with one more line.
    pub(super) fn with_line(self, line: &str) -> Self {
        Self { message: format!("{}\n  {line}", self.message), ..self }
    }

    /// Converts an error of the library. `remedy` is what to do if files would be overwritten.
    pub(super) fn with_remedy(remedy: &str) -> impl Fn(Error) -> Self {
        move |error| {
            let exists = matches!(error, Error::Exists(_));
            let error = Self::from(error);
            if exists { error.with_line(remedy) } else { error }
        }
    }
}

impl fmt::Display for CaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for CaError {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Exists(_) => exit::EXISTS,
            Error::Store(
                StoreError::Missing(_)
                | StoreError::KeyAway(_)
                | StoreError::Pki { source: pki::Error::WrongPassphrase, .. },
            ) => exit::USAGE,
            Error::Store(_) | Error::Pki(_) | Error::Enrolment(_) => exit::UNEXPECTED,
            _ => exit::USAGE,
        };
        Self { code, message: error.to_string() }
    }
}

impl From<StoreError> for CaError {
    fn from(error: StoreError) -> Self {
        Error::Store(error).into()
    }
}

impl From<share::NotShared> for CaError {
    fn from(error: share::NotShared) -> Self {
        Self { code: error.code, message: error.message }
    }
}

impl From<io::Error> for CaError {
    fn from(error: io::Error) -> Self {
        Self { code: exit::UNEXPECTED, message: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn existing_files_have_their_own_exit_code_and_remedy() {
        let error = CaError::with_remedy("replace them with --force")(Error::Exists(vec!["x".into()]));
        assert_eq!(error.code, exit::EXISTS);
        assert!(error.message.ends_with("nothing was written\n  replace them with --force"), "{error}");
        let error = CaError::with_remedy("replace them with --force")(Error::NoServerNames);
        assert_eq!(error.code, exit::USAGE);
        assert!(!error.message.contains("--force"), "{error}");
    }
}
