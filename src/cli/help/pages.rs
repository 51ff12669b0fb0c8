//! The man pages and completions of an installed gate.

use std::fs;
use std::io;

use super::generate::{completions, man};
use crate::install::Page;

/// The man pages and completions, each with its place in a system.
pub(in crate::cli) fn pages() -> io::Result<Vec<Page>> {
    let folder = tempfile::tempdir()?;
    man(folder.path())?;
    completions(folder.path())?;
    let mut entries: Vec<_> = fs::read_dir(folder.path())?.collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let mut pages = Vec::new();
    for entry in entries {
        let contents = fs::read(entry.path())?;
        pages.extend(entry.file_name().to_str().and_then(|name| Page::placed(name, contents)));
    }
    Ok(pages)
}
