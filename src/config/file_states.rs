//! What the files of a configuration look like from outside: whether they may have changed since they were read.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, StatxTimestamp, makedev, statx};

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

impl Look {
    fn at(file: &Path) -> Option<Self> {
        // Otherwise NFS and CIFS say for a minute what they knew a minute ago.
        let wanted = StatxFlags::BASIC_STATS;
        match statx(CWD, file, AtFlags::STATX_FORCE_SYNC, wanted) {
            Ok(file) => Some(Self {
                file: (makedev(file.stx_dev_major, file.stx_dev_minor), file.stx_ino),
                size: file.stx_size,
                written: moment(file.stx_mtime),
                changed: moment(file.stx_ctime),
            }),
            // A container's filter may refuse it as unknown.
            Err(_) => fs::metadata(file).ok().map(|file| Self {
                file: (file.dev(), file.ino()),
                size: file.size(),
                written: (file.mtime(), file.mtime_nsec()),
                changed: (file.ctime(), file.ctime_nsec()),
            }),
        }
    }
}

fn moment(time: StatxTimestamp) -> (i64, i64) {
    (time.tv_sec, i64::from(time.tv_nsec))
}

impl Seen {
    /// Looks at a file that is about to be read, if it is the first time: what is changed from now on counts as changed.
    pub fn look_at(&mut self, file: &Path) {
        if !self.0.contains_key(file) {
            self.0.insert(file.to_owned(), Look::at(file));
        }
    }

    /// Looks at the same files once more.
    #[must_use]
    pub fn again(&self) -> Self {
        Self(self.0.keys().map(|file| (file.clone(), Look::at(file))).collect())
    }

    /// These files, and of the `others` those that are not among them.
    #[must_use]
    pub fn and(mut self, others: &Self) -> Self {
        for (file, look) in &others.0 {
            self.0.entry(file.clone()).or_insert(*look);
        }
        self
    }

    /// Which files it is about.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }
}
