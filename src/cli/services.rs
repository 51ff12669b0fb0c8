//! What a device can reach, as the gate's configuration has it.

use std::path::Path;

use crate::config;
use crate::config::checked::RouteMode;
use crate::enrolment::{Service, ServiceKind};
use crate::model::shell;

/// The services of all routes that ask for a certificate. None if there is no valid configuration: the pages for
/// devices then name no services.
pub(super) fn configured_services(config_file: &Path) -> Vec<Service> {
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
    let mut services = Vec::new();
    for route in config.routes {
        if let RouteMode::Terminate(terminate) = route.mode {
            let kind = ServiceKind::of_protocols(&terminate.application_protocols);
            services.extend(route.server_names.into_iter().map(|server_name| Service { server_name, kind }));
        }
    }
    services
}
