//! `doorward check --from-outside`: how to see whether the port is open. Only from another network can that be seen.

use std::fmt::Write as _;
use std::net::{IpAddr, ToSocketAddrs};

use crate::config::checked::{Config, Route, RouteMode};
use crate::model::names::{ServerName, ServerNamePattern};
use crate::model::service::{PUBLIC_PORT, ServiceKind};
use crate::model::shell;

/// What to do, as text for people.
pub(super) fn text(config: &Config) -> String {
    let port = config.public_port;
    let mut out = format!(
        "Is TCP port {port} open to the internet? That is to be seen from outside only: this machine, and every device in your network,\n\
         may take a shorter way.\n"
    );
    let Some((name, route)) = first_name(config) else {
        out.push_str("\nNo route has a name of its own, so there is none to try.\n");
        return out;
    };
    out.push('\n');
    out.push_str(&resolved(name, &addresses(name, port)));
    let address = if port == PUBLIC_PORT { format!("https://{name}/") } else { format!("https://{name}:{port}/") };
    let config_file = shell::path(&config.file);
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "
1. On a phone with a certificate, with Wi-Fi switched off: {}
2. On any other device outside: the same must fail, with a message that a certificate is required.
3. On a computer outside:
     openssl s_client -connect {name}:{port} -servername {name} </dev/null
   \"alert certificate required\"   the port is open, and the gate refuses clients without a certificate: it works
   \"Connection refused\"           the router does not forward port {port} to this machine, or the gate does not run
   no answer                      the provider or a firewall blocks the port, or the name leads elsewhere
4. What the gate saw of it, with the address it came from:
     doorward why --config {config_file}
",
        if route.kind == ServiceKind::Http {
            format!("open {address}")
        } else {
            format!("connect to {name}, port {port}")
        },
    );
    out
}

/// The first name that can be tried: of a page in a browser, if there is one.
fn first_name(config: &Config) -> Option<(&ServerName, &Route)> {
    let terminating = || config.routes.iter().filter(|route| matches!(route.mode, RouteMode::Terminate(_)));
    let web = terminating().filter(|route| route.kind == ServiceKind::Http);
    web.chain(terminating()).find_map(|route| {
        let exact = route.server_names.iter().find_map(|name| match name {
            ServerNamePattern::Exact(name) => Some(name),
            ServerNamePattern::Wildcard(_) | ServerNamePattern::Default => None,
        });
        exact.map(|name| (name, route))
    })
}

fn addresses(name: &ServerName, port: u16) -> Vec<IpAddr> {
    (name.as_str(), port).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect()).unwrap_or_default()
}

/// Where the name leads, as this machine sees it.
fn resolved(name: &ServerName, addresses: &[IpAddr]) -> String {
    let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    if addresses.is_empty() {
        return format!(
            "{name} has no address: point it to your router's public address first, in DNS or with dynamic DNS.\n"
        );
    }
    let mut out = format!("{name} leads to {}, as this machine sees it.\n", shown.join(", "));
    if addresses.iter().all(is_private) {
        out.push_str(
            "That is an address of your own network. From outside, the name must lead to your router's public address: look it up on a\n\
             phone with Wi-Fi switched off.\n",
        );
    }
    out
}

/// Whether the address is not one of the internet: of a home network, of this machine, or shared by a provider's customers.
fn is_private(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            // 100.64.0.0/10 (RFC 6598) is a provider's: no port can be opened there.
            address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_that_leads_nowhere_or_home_is_told() {
        let name = ServerName::parse("nas.home.example").expect("a name");
        let said = |addresses: &[&str]| {
            let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().expect("an address")).collect();
            resolved(&name, &addresses)
        };
        assert!(said(&[]).contains("has no address: point it to"));
        assert!(said(&["192.168.1.5", "fd00::5"]).contains("an address of your own network"));
        assert!(said(&["100.64.0.1"]).contains("an address of your own network"));
        assert_eq!(
            said(&["203.0.113.7", "fd00::5"]),
            "nas.home.example leads to 203.0.113.7, fd00::5, as this machine sees it.\n"
        );
    }
}
