//! Where the files of this user are.

use std::env;
use std::path::PathBuf;

/// The user's folder for this program's settings, as the system has it; `None` if the environment names none.
pub(super) fn settings() -> Option<PathBuf> {
    let above = if cfg!(windows) {
        named("APPDATA")
    } else if cfg!(target_os = "macos") {
        home().map(|home| home.join("Library").join("Application Support"))
    } else {
        named("XDG_CONFIG_HOME").or_else(|| home().map(|home| home.join(".config")))
    };
    above.map(|above| above.join("doorward"))
}

/// The variable that names the folder of this user for what lives as long as a program does.
pub const RUNTIME: &str = if cfg!(windows) {
    "LOCALAPPDATA"
} else if cfg!(target_os = "macos") {
    "TMPDIR"
} else {
    "XDG_RUNTIME_DIR"
};

/// Where a running forwarder answers. Without [`RUNTIME`] there is no place that is this user's alone.
pub fn status() -> Option<PathBuf> {
    named(RUNTIME).map(|folder| folder.join("doorward").join("forward.sock"))
}

/// The specification of XDG says that a relative path is ignored; elsewhere it would depend on where the program is started.
fn named(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The user's own folder.
pub(super) fn home() -> Option<PathBuf> {
    env::home_dir().filter(|home| home.is_absolute())
}
