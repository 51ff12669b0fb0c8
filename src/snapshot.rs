//! One generation of built configuration: what a connection needs to know, all of it from the same moment.

use std::fmt;
use std::sync::Arc;

use crate::authorize::{PassthroughPolicy, Policy};
use crate::config::checked::{Backend, Config, RouteMode, SendProxyProtocol, Timeouts};
use crate::handshake::config::{InvalidTls, RouteTls};
use crate::names::Name;
use crate::route::RouteTable;

/// Everything that connections look things up in. Built whole or not at all, and never changed.
#[derive(Debug)]
pub struct Snapshot {
    /// Where server names lead.
    pub routes: RouteTable<Route>,
    /// How long each phase may take.
    pub timeouts: Timeouts,
}

/// A route, ready to be used.
#[derive(Debug)]
pub struct Route {
    /// Its name.
    pub name: Name,
    /// Where it leads.
    pub backends: Vec<Backend>,
    /// The PROXY protocol header its backends are sent.
    pub send_proxy_protocol: SendProxyProtocol,
    /// Who may use it.
    pub access: Access,
}

/// Who may use a route.
#[derive(Debug)]
pub enum Access {
    /// Whoever shows a certificate that the policy lets in.
    Certificate {
        /// What its handshakes are made with.
        tls: RouteTls,
        /// Whom it lets in.
        policy: Arc<Policy>,
    },
    /// Whoever asks: its backend does TLS itself.
    Passthrough(PassthroughPolicy),
}

/// A route that no handshake could be made for.
#[derive(Debug)]
pub struct InvalidRoute {
    /// Which one.
    pub route: Name,
    /// Why.
    pub error: InvalidTls,
}

impl fmt::Display for InvalidRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route {:?}: {}", self.route.as_str(), self.error)
    }
}

impl std::error::Error for InvalidRoute {}

impl Snapshot {
    /// Builds everything anew from a checked configuration.
    pub fn build(config: &Config) -> Result<Self, InvalidRoute> {
        let mut routes = RouteTable::default();
        for route in &config.routes {
            let access = match &route.mode {
                RouteMode::Passthrough => Access::Passthrough(PassthroughPolicy::configured()),
                RouteMode::Terminate(terminate) => {
                    let policy =
                        Arc::new(Policy { allow: terminate.allow.clone(), deny: terminate.client_auth.deny.clone() });
                    let tls = RouteTls::new(terminate, Arc::clone(&policy))
                        .map_err(|error| InvalidRoute { route: route.name.clone(), error })?;
                    Access::Certificate { tls, policy }
                }
            };
            let built = Arc::new(Route {
                name: route.name.clone(),
                backends: route.backends.clone(),
                send_proxy_protocol: route.send_proxy_protocol,
                access,
            });
            for pattern in &route.server_names {
                routes.insert(pattern.clone(), Arc::clone(&built));
            }
        }
        Ok(Self { routes, timeouts: config.timeouts.clone() })
    }
}
