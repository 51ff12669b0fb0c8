//! What a device can reach, as the gate's configuration has it.

use std::path::{Path, PathBuf};

use crate::config::checked::{Config, Route, RouteMode};
use crate::config::{self, ConfigErrors, nearest, server_trust};
use crate::enrolment::{PUBLIC_PORT, Reachable, Service, ServiceKind, home_of};
use crate::install::Installed;
use crate::model::device_name::DeviceName;
use crate::model::identity::GuestPass;
use crate::model::names::{Name, ServerNamePattern, printable};
use crate::model::shell;
use crate::model::text::table;
use crate::reload::policy_report::{Decision, SampleClient};

/// The longest name that a message shows, in characters.
const NAME_MAX: usize = 64;

/// Loads a configuration. If it is that of the installed gate, whose key only the gate may read, the owner's files are enough.
pub(super) fn load_as_owner(file: &Path) -> Result<Config, ConfigErrors> {
    config::load(file).or_else(|errors| match Installed::find().filter(|gate| gate.config() == file) {
        Some(gate) => gate.load_with_owners_files(),
        None => Err(errors),
    })
}

/// The gate's configuration, which says what a device may use. Every answer is the gate's own: see [`SampleClient::decision`].
pub(super) struct Configured {
    file: PathBuf,
    /// None if there is no valid configuration: nothing is known of the services then.
    config: Option<Config>,
}

impl Configured {
    /// Reads the configuration, if there is one. If it has errors, a warning says so.
    pub(super) fn load(file: &Path) -> Self {
        let config = if file.exists() { load_as_owner(file).ok() } else { None };
        if config.is_none() && file.exists() {
            errln!(
                "warning: {file} has errors, so the page for the device cannot name your services; to see them: doorward check \
                 --config {file}",
                file = shell::path(file)
            );
        }
        Self { file: file.to_owned(), config }
    }

    /// The routes that ask for a certificate, each with whether it admits the device.
    fn routes<'a>(&'a self, device: &'a SampleClient) -> impl Iterator<Item = (&'a Route, bool)> {
        let routes = self.config.iter().flat_map(|config| &config.routes);
        routes.filter(|route| matches!(route.mode, RouteMode::Terminate(_))).map(|route| {
            let admitted = device.decision(route) == Decision::Admitted;
            (route, admitted)
        })
    }

    /// The names of the routes that admit the device; `None` if there is no valid configuration.
    pub(super) fn admitting(&self, device: &SampleClient) -> Option<Vec<String>> {
        self.config.as_ref()?;
        Some(self.routes(device).filter(|(_, admitted)| *admitted).map(|(route, _)| route.name.to_string()).collect())
    }

    /// The services that the device may use, and the public port. If there are none, all of them: the pages for a device that is
    /// yet to be allowed name them as well.
    pub(super) fn reachable(&self, device: &SampleClient) -> Reachable {
        let Some(config) = &self.config else { return Reachable::default() };
        let of = |only_admitted: bool| {
            let routes = self.routes(device).filter(move |(_, admitted)| *admitted || !only_admitted);
            let services = routes.flat_map(|(route, admitted)| {
                let service = move |name: &ServerNamePattern| Service {
                    route: route.name.clone(),
                    server_name: name.clone(),
                    kind: route.kind,
                    admitted,
                };
                route.server_names.iter().map(service)
            });
            services.collect::<Vec<_>>()
        };
        let admitted = of(true);
        let services = if admitted.is_empty() { of(false) } else { admitted };
        // Of all routes: it is the same for every device, and stays the same when a device may use more.
        let home = home_of(self.routes(device).flat_map(|(route, _)| &route.server_names));
        Reachable {
            services,
            port: config.public_port,
            trusted_already: Some(server_trust::is_public(config)),
            home,
            renewal: config.renewal.as_ref().map(|renewal| renewal.server_name.clone()),
        }
    }

    /// Which routes the device may use, and how: lines for people. Empty if there is no valid configuration.
    pub(super) fn text(&self, device: &SampleClient) -> String {
        let Some(config) = &self.config else { return String::new() };
        let rows: Vec<[String; 2]> = self
            .routes(device)
            .filter(|(_, admitted)| *admitted)
            .map(|(route, _)| {
                let names: Vec<String> =
                    route.server_names.iter().map(|name| address(name, route.kind, config.public_port)).collect();
                [format!("  {}", route.name), names.join(", ")]
            })
            .collect();
        if rows.is_empty() { String::new() } else { format!("It may use these routes:\n{}", table(&rows)) }
    }

    /// A warning with the line to write, if no route admits the device, or one that its guest pass is for does not. In the first
    /// case there is no file for `doorward join`; `again` is the command that makes one when a route admits the device.
    pub(super) fn warning(
        &self,
        name: &str,
        guest: Option<&GuestPass>,
        device: &SampleClient,
        again: &str,
    ) -> Option<String> {
        let routes: Vec<(&Route, bool)> = self.routes(device).collect();
        let mut refused =
            routes.iter().filter(|(route, admitted)| !admitted && guest.is_none_or(|pass| pass.covers(&route.name)));
        let (route, _) = match guest {
            None if routes.iter().any(|(_, admitted)| *admitted) => return None,
            _ => refused.next()?,
        };
        let shown = printable(name, NAME_MAX);
        let which =
            if guest.is_some() { format!("the route {} does not admit", route.name) } else { "no route admits".into() };
        let entries = route.allow_entries.iter().map(|entry| entry.text.as_str()).chain([name]);
        let entries: Vec<String> = entries.map(|entry| toml::Value::from(entry).to_string()).collect();
        let again = if routes.iter().any(|(_, admitted)| *admitted) {
            String::new()
        } else {
            format!("\n  until then there is no file for \"doorward join\"; after the change, this makes it: {again}")
        };
        Some(format!(
            "{which} {shown}; to change that, write below the [[route]] {:?} in {}:\n  allow = [{}]{again}",
            route.name.as_str(),
            shell::path(&self.file),
            entries.join(", ")
        ))
    }

    /// Refuses the name of a route that there is not.
    pub(super) fn check_routes(&self, wanted: &[Name]) -> Result<(), String> {
        let Some(config) = &self.config else { return Ok(()) };
        let known: Vec<&str> = config.routes.iter().map(|route| route.name.as_str()).collect();
        for name in wanted {
            let Some(route) = config.routes.iter().find(|route| route.name == *name) else {
                let hint = match nearest(name.as_str(), &known) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("the routes are: {}", known.join(", ")),
                };
                return Err(format!("{} has no route called {:?}\n  {hint}", shell::path(&self.file), name.as_str()));
            };
            if matches!(route.mode, RouteMode::Passthrough) {
                return Err(format!(
                    "the route {:?} is passthrough: it asks for no certificate\n  name a route with mode = \"terminate\"",
                    name.as_str()
                ));
            }
        }
        Ok(())
    }
}

/// How a service is opened.
fn address(name: &ServerNamePattern, kind: ServiceKind, port: u16) -> String {
    let host = match name {
        ServerNamePattern::Exact(name) => name.to_string(),
        ServerNamePattern::Wildcard(domain) => format!("NAME.{domain}"),
        ServerNamePattern::Default => "any other name".to_owned(),
    };
    let end = if port == PUBLIC_PORT { String::new() } else { format!(":{port}") };
    match (kind, name) {
        (_, ServerNamePattern::Default) => host,
        (ServiceKind::Http, _) => format!("https://{host}{end}/"),
        (ServiceKind::Ssh, _) => format!("ssh {host}"),
        (ServiceKind::Smb | ServiceKind::Other, _) => format!("{host}:{port}"),
    }
}

/// A device with this name and pass, as the gate will see it.
pub(super) fn sample(name: &DeviceName, guest: Option<&GuestPass>) -> SampleClient {
    SampleClient::device(name.as_str(), guest.cloned())
}
