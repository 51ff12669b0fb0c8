//! The names that a device can reach, as the gate's configuration has them.

use std::path::Path;

use crate::config;
use crate::config::checked::RouteMode;
use crate::model::names::ServerNamePattern;
use crate::model::shell;

/// The server names of all routes that ask for a certificate. None if there is no valid configuration: the pages for
/// devices then name no services.
pub(super) fn configured_server_names(config_file: &Path) -> Vec<ServerNamePattern> {
    if !config_file.exists() {
        return Vec::new();
    }
    let Ok(config) = config::load(config_file) else {
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
