//! The names that a device can reach, as the gate's configuration has them.

use std::path::Path;

use crate::config::checked::{Config, RouteMode};
use crate::config::{self, ConfigErrors};
use crate::install::Installed;
use crate::model::names::ServerNamePattern;
use crate::model::shell;

/// Loads a configuration. If it is that of the installed gate, whose key only the gate may read, the owner's files are enough.
fn load_as_owner(file: &Path) -> Result<Config, ConfigErrors> {
    config::load(file).or_else(|errors| match Installed::find().filter(|gate| gate.config() == file) {
        Some(gate) => gate.load_with_owners_files(),
        None => Err(errors),
    })
}

/// The server names of all routes that ask for a certificate. None if there is no valid configuration: the pages for
/// devices then name no services.
pub(super) fn configured_server_names(config_file: &Path) -> Vec<ServerNamePattern> {
    if !config_file.exists() {
        return Vec::new();
    }
    let Ok(config) = load_as_owner(config_file) else {
        errln!(
            "warning: {file} has errors, so the page for the device cannot name your services; to see them: doorward check \
             --config {file}",
            file = shell::path(config_file)
        );
        return Vec::new();
    };
    let terminated = config.routes.into_iter().filter(|route| matches!(route.mode, RouteMode::Terminate(_)));
    terminated.flat_map(|route| route.server_names).collect()
}
