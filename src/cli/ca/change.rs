//! A change that a gate has to use: new revocation lists, or a new certificate of the gate.

use std::path::{Path, PathBuf};

use crate::ca::revoke::WrittenList;
use crate::model::identity::Sha256;

/// What was written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change<'a> {
    /// Revocation lists.
    Lists(&'a [WrittenList]),
    /// The gate's certificate.
    Certificate {
        /// Its file.
        file: &'a PathBuf,
        /// The file of its key, if that is new.
        new_key: Option<&'a PathBuf>,
        /// Its fingerprint.
        new: Sha256,
        /// The fingerprint of the one that it replaces.
        old: Option<Sha256>,
    },
}

impl Change<'_> {
    pub(super) fn files(self) -> Vec<PathBuf> {
        match self {
            Self::Lists(lists) => lists.iter().map(|list| list.file.clone()).collect(),
            Self::Certificate { file, .. } => vec![file.clone()],
        }
    }

    /// The lines that the configuration needs.
    pub(super) fn config_lines(self) -> String {
        let files: Vec<String> = self.files().iter().map(|file| quoted(&canonical(file))).collect();
        match self {
            Self::Lists(_) => format!("  [client_auth]\n  revocation_lists = [{}]", files.join(", ")),
            Self::Certificate { .. } => format!("  [certificate]\n  chain = {}", files.join("")),
        }
    }
}

/// A path as a string of the configuration.
pub(super) fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

/// The path without links, if the file is there.
pub(super) fn canonical(file: &Path) -> PathBuf {
    file.canonicalize().or_else(|_| std::path::absolute(file)).unwrap_or_else(|_| file.to_owned())
}
