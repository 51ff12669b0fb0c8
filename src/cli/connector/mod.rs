//! The commands of a device: `join`, and what it can do afterwards.

pub(super) mod join;
pub(super) mod renew;
mod usable;

use std::env;
use std::path::Path;

/// This program, as another one is to run it: its name if the user's PATH leads to it, else its path.
pub(super) fn program() -> String {
    let Ok(own) = env::current_exe() else { return "doorward".to_owned() };
    let in_path = own.file_name().filter(|name| {
        let folders = env::var_os("PATH").unwrap_or_default();
        // The first one is the one that is run.
        let first = env::split_paths(&folders).map(|folder| folder.join(name)).find(|file| file.is_file());
        first.is_some_and(|file| is_same(&file, &own))
    });
    let file = in_path.map_or_else(|| own.to_string_lossy(), |name| name.to_string_lossy());
    file.into_owned()
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}
