//! What a configuration is like from outside: where it is reached, and under which names.

use std::net::SocketAddr;

use super::checked::{Config, RouteMode};
use crate::model::names::ServerNamePattern;

/// Where and under which names a gate is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicSide {
    /// What the server names have in common: `home.example` of `nas.home.example` and `photos.home.example`.
    pub domain: Option<String>,
    /// The first server name that a client can ask for.
    pub server_name: Option<String>,
    /// `public_port`: what devices dial.
    pub port: u16,
    /// The addresses of the listeners.
    pub listeners: Vec<SocketAddr>,
    /// Whether a route verifies client certificates: only then there are devices.
    pub verifies: bool,
}

impl PublicSide {
    /// That of a configuration.
    pub fn of(config: &Config) -> Self {
        let patterns = || config.routes.iter().flat_map(|route| &route.server_names);
        let names: Vec<&str> = patterns()
            .filter_map(|pattern| match pattern {
                ServerNamePattern::Exact(name) | ServerNamePattern::Wildcard(name) => Some(name.as_str()),
                ServerNamePattern::Default => None,
            })
            .collect();
        let exact = patterns().find_map(|pattern| match pattern {
            ServerNamePattern::Exact(name) => Some(name.to_string()),
            _ => None,
        });
        Self {
            domain: common_domain(&names),
            server_name: exact,
            port: config.public_port,
            listeners: config.listeners.iter().map(|listener| listener.address).collect(),
            verifies: config.routes.iter().any(|route| match &route.mode {
                RouteMode::Terminate(terminate) => terminate.client_auth.mode.verifies(),
                RouteMode::Passthrough => false,
            }),
        }
    }
}

/// The longest domain of two labels or more that all names are, or are below. Without one, the first name.
fn common_domain(names: &[&str]) -> Option<String> {
    let first = names.first()?;
    let mut domain = match names.len() {
        // One name alone: what it is below is more likely the household's.
        1 => first.split_once('.').map(|(_, parent)| parent).filter(|parent| parent.contains('.')).or(Some(first)),
        _ => Some(*first),
    };
    let fits = |domain: &str| {
        names.iter().all(|name| name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
    };
    while let Some(candidate) = domain {
        if fits(candidate) {
            return Some(candidate.to_owned());
        }
        domain = candidate.split_once('.').map(|(_, parent)| parent).filter(|parent| parent.contains('.'));
    }
    Some((*first).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domain_is_what_the_names_have_in_common() {
        for (names, domain) in [
            (&["nas.home.example", "photos.home.example"][..], "home.example"),
            (&["nas.home.example", "home.example"], "home.example"),
            (&["nas.home.example"], "home.example"),
            (&["alice.duckdns.org", "nas.alice.duckdns.org"], "alice.duckdns.org"),
            (&["home.example"], "home.example"),
            (&["nas.home.example", "other.example"], "nas.home.example"),
            (&["ahome.example", "home.example"], "ahome.example"),
        ] {
            assert_eq!(common_domain(names).as_deref(), Some(domain), "{names:?}");
        }
        assert_eq!(common_domain(&[]), None);
    }
}
