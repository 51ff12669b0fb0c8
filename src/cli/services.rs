//! What a device can reach, as the gate's configuration has it.

use std::path::Path;

use crate::config::checked::{Config, RouteMode};
use crate::config::{self, ConfigErrors};
use crate::enrolment::{Reachable, Service};
use crate::install::Installed;
use crate::model::shell;

/// Loads a configuration. If it is that of the installed gate, whose key only the gate may read, the owner's files are enough.
fn load_as_owner(file: &Path) -> Result<Config, ConfigErrors> {
    config::load(file).or_else(|errors| match Installed::find().filter(|gate| gate.config() == file) {
        Some(gate) => gate.load_with_owners_files(),
        None => Err(errors),
    })
}

/// The services of all routes that ask for a certificate, and the public port. No services if there is no valid configuration:
/// the pages for devices then name none.
pub(super) fn configured_services(config_file: &Path) -> Reachable {
    if !config_file.exists() {
        return Reachable::default();
    }
    let Ok(config) = load_as_owner(config_file) else {
        errln!(
            "warning: {file} has errors, so the page for the device cannot name your services; to see them: doorward check \
             --config {file}",
            file = shell::path(config_file)
        );
        return Reachable::default();
    };
    let mut services = Vec::new();
    for route in config.routes {
        if let RouteMode::Terminate(_) = route.mode {
            let kind = route.kind;
            services.extend(route.server_names.into_iter().map(|server_name| Service { server_name, kind }));
        }
    }
    Reachable { services, port: config.public_port }
}
