//! What works on a device that has joined a home: a line for each route.

use crate::bundle::BundleRoute;
use crate::connector::homes::{Home, Joined};
use crate::connector::ssh::proxy_command;
use crate::model::names::ServerNamePattern;
use crate::model::service::{PUBLIC_PORT, ServiceKind};
use crate::model::shell::word;
use crate::model::text::table;

/// The routes of `home`, each with how it is used. `joined` are all homes; `has_ssh`: whether ssh is set up.
pub(super) fn routes(joined: &Joined, home: &Home, program: &str, has_ssh: bool) -> String {
    let row = |route: &BundleRoute| {
        let name = joined.shortest(home, route);
        [format!("  {name}"), how(home, route, &name, program, has_ssh)]
    };
    table(&home.bundle.routes.iter().map(row).collect::<Vec<_>>())
}

fn how(home: &Home, route: &BundleRoute, name: &str, program: &str, has_ssh: bool) -> String {
    let host = match &route.server_name {
        ServerNamePattern::Wildcard(domain) => format!("NAME.{domain}"),
        other => other.to_string(),
    };
    match route.kind {
        ServiceKind::Http => {
            let port = home.bundle.port;
            let end = if port == PUBLIC_PORT { String::new() } else { format!(":{port}") };
            format!("https://{host}{end}/ in a browser that has the .p12 file")
        }
        ServiceKind::Ssh if has_ssh => format!("ssh {host}"),
        ServiceKind::Ssh => format!("ssh -o ProxyCommand={} {host}", word(&proxy_command(program))),
        ServiceKind::Smb | ServiceKind::Other => {
            let wanted = if route.host().is_some() { name } else { &host };
            format!("{} forward {}", word(program), word(wanted))
        }
    }
}
