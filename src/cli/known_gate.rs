//! What a device is told of the gate, as its configuration says.

use std::path::Path;

use rustls::pki_types::CertificateDer;

use crate::config;
use crate::config::checked::RouteMode;
use crate::enrolment::{Gate, PUBLIC_PORT};
use crate::model::names::ServerNamePattern;
use crate::model::shell;

/// The gate as a device sees it: `root` vouches for it, and what it answers to is in the configuration. Without a right one
/// the pages for devices do without names.
pub(super) fn known_gate(root: CertificateDer<'static>, config_file: &Path) -> Gate {
    let routes = match config_file.exists().then(|| config::load(config_file)) {
        Some(Ok(config)) => config.routes,
        Some(Err(_)) => {
            errln!(
                "warning: {file} has mistakes, so the page for the device cannot name your services; doorward check \
                 --config {file} tells them",
                file = shell::path(config_file)
            );
            Vec::new()
        }
        None => Vec::new(),
    };
    let server_names: Vec<ServerNamePattern> = routes
        .into_iter()
        .filter(|route| matches!(route.mode, RouteMode::Terminate(_)))
        .flat_map(|route| route.server_names)
        .collect();
    Gate { root, server_names, port: PUBLIC_PORT }
}
