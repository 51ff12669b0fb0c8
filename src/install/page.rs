//! Man pages and completions, and where they belong.

use std::path::PathBuf;

use super::PAGES;

/// A man page or completion, and where it belongs.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its absolute path.
    pub path: PathBuf,
    /// Its text.
    pub contents: Vec<u8>,
}

impl Page {
    /// A page with the place that its name says. `None` if it is neither a man page nor a completion.
    pub fn placed(name: &str, contents: Vec<u8>) -> Option<Self> {
        let path = match name.rsplit_once('.') {
            Some((_, section @ ("1" | "7"))) => format!("{PAGES}/man/man{section}/{name}"),
            Some((_, "bash")) => format!("{PAGES}/bash-completion/completions/doorward"),
            Some((_, "fish")) => format!("{PAGES}/fish/vendor_completions.d/{name}"),
            None if name.starts_with('_') => format!("{PAGES}/zsh/site-functions/{name}"),
            _ => return None,
        };
        Some(Self { path: path.into(), contents })
    }
}
