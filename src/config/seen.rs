//! What the files of a configuration look like from outside: whether they may have changed since they were read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::checked::{Config, RouteMode};

/// The files a configuration was read from, and what they looked like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(BTreeMap<PathBuf, Option<Look>>);

/// Of what a name leads to, through all links: another file, or another state of the same one. What replaces a file, or is
/// written into it, or lets other people read it, changes some of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    file: (u64, u64),
    size: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Seen {
    /// Looks at these files.
    pub fn now(files: &BTreeSet<PathBuf>) -> Self {
        let look = |file: &PathBuf| {
            fs::metadata(file).ok().map(|file| Look {
                file: (file.dev(), file.ino()),
                size: file.size(),
                written: (file.mtime(), file.mtime_nsec()),
                changed: (file.ctime(), file.ctime_nsec()),
            })
        };
        Self(files.iter().map(|file| (file.clone(), look(file))).collect())
    }

    /// For each file of this, how it looked in `before`, if it was looked at then.
    #[must_use]
    pub fn or_before(mut self, before: &Self) -> Self {
        for (file, look) in &mut self.0 {
            if let Some(before) = before.0.get(file) {
                *look = *before;
            }
        }
        self
    }
}

impl Config {
    /// Every file that it was read from.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        let mut files = BTreeSet::from([self.file.clone()]);
        files.extend(self.metrics.inventory.iter().map(|inventory| inventory.file.clone()));
        for route in &self.routes {
            let RouteMode::Terminate(terminate) = &route.mode else { continue };
            files.extend([terminate.certificate.chain_file.clone(), terminate.certificate.key_file.clone()]);
            files.extend(terminate.client_auth.trust.iter().map(|anchor| anchor.file.clone()));
            files.extend(terminate.client_auth.revocation_lists.iter().map(|list| list.file.clone()));
        }
        files
    }
}
