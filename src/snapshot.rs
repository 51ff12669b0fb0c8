//! One generation of built configuration: what a connection needs to know, all of it from the same moment.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::UnixTime;

use crate::authorize::{PassthroughPolicy, Policy, denied};
use crate::config::checked::{Backend, ClientAuth, Config, ExpiredSession, RouteMode, SendProxyProtocol, Timeouts};
use crate::handshake::config::{InvalidTls, RouteTls};
use crate::handshake::trust::Authorities;
use crate::model::close::CloseReason;
use crate::model::identity::{Chain, Identity};
use crate::model::names::{Name, ServerName, ServerNamePattern};
use crate::model::rejection::{Cause, Reason};
use crate::route::RouteTable;

/// Everything that connections look things up in. Built whole or not at all, and never changed.
#[derive(Debug)]
pub struct Snapshot {
    /// Where server names lead.
    pub routes: RouteTable<Route>,
    /// The routes in the order of the configuration.
    pub in_order: Vec<Arc<Route>>,
    by_name: HashMap<Name, Arc<Route>>,
    /// How long each phase may take.
    pub timeouts: Timeouts,
}

/// A route, ready to be used.
#[derive(Debug)]
pub struct Route {
    /// Its name.
    pub name: Name,
    /// What it answers to.
    pub server_names: Vec<ServerNamePattern>,
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
        /// What becomes of those whose certificate expires while they are in.
        expired_session: ExpiredSession,
    },
    /// Whoever asks: its backend does TLS itself.
    Passthrough(PassthroughPolicy),
}

/// A route that no handshake could be made for.
#[derive(Debug, thiserror::Error)]
#[error("route {:?}: {error}", route.as_str())]
pub struct InvalidRoute {
    /// Which one.
    pub route: Name,
    /// Why.
    pub error: InvalidTls,
}

impl Snapshot {
    /// Builds everything anew from a checked configuration.
    pub fn build(config: &Config) -> Result<Self, InvalidRoute> {
        let mut routes = RouteTable::default();
        let mut in_order = Vec::new();
        // By the place of what they are made from: routes without a table of their own have the default's.
        let mut authorities: HashMap<*const ClientAuth, Arc<Authorities>> = HashMap::new();
        for route in &config.routes {
            let invalid = |error| InvalidRoute { route: route.name.clone(), error };
            let access = match &route.mode {
                RouteMode::Passthrough => Access::Passthrough(PassthroughPolicy::configured()),
                RouteMode::Terminate(terminate) => {
                    let policy =
                        Arc::new(Policy { allow: terminate.allow.clone(), deny: terminate.client_auth.deny.clone() });
                    let authorities = match authorities.entry(Arc::as_ptr(&terminate.client_auth)) {
                        Entry::Occupied(there) => Arc::clone(there.get()),
                        Entry::Vacant(place) => {
                            let new = Authorities::new(&terminate.client_auth).map_err(InvalidTls::Trust);
                            Arc::clone(place.insert(Arc::new(new.map_err(invalid)?)))
                        }
                    };
                    let tls = RouteTls::new(terminate, authorities, Arc::clone(&policy)).map_err(invalid)?;
                    Access::Certificate { tls, policy, expired_session: terminate.client_auth.expired_session }
                }
            };
            let built = Arc::new(Route {
                name: route.name.clone(),
                server_names: route.server_names.clone(),
                backends: route.backends.clone(),
                send_proxy_protocol: route.send_proxy_protocol,
                access,
            });
            for pattern in &route.server_names {
                routes.insert(pattern.clone(), Arc::clone(&built));
            }
            in_order.push(built);
        }
        let by_name = in_order.iter().map(|route| (route.name.clone(), Arc::clone(route))).collect();
        Ok(Self { routes, in_order, by_name, timeouts: config.timeouts.clone() })
    }

    /// The route of this name.
    pub fn route(&self, name: &Name) -> Option<&Arc<Route>> {
        self.by_name.get(name)
    }

    /// Whether a session ends when its certificate expires. Where there is no such route, there is nobody to say no; where
    /// nobody looks at certificates, there is nobody to say yes.
    pub fn ends_expired(&self, route: &Name) -> bool {
        match self.route(route).map(|route| &route.access) {
            Some(Access::Certificate { tls, expired_session, .. }) => {
                tls.authorities().verifies() && *expired_session == ExpiredSession::Cut
            }
            Some(Access::Passthrough(_)) => false,
            None => true,
        }
    }

    /// Whether a connection may go on `now` to the backends of `route`, where it was let in, perhaps by a former snapshot; and if
    /// not, why. To be asked until a backend is reached: from then on, [`keeps`](Self::keeps) is what counts.
    pub fn still_leads(
        &self,
        server_name: Option<&ServerName>,
        route: &Arc<Route>,
        chain: Option<&Chain>,
        now: UnixTime,
    ) -> Result<(), Cause> {
        let found = self.routes.find(server_name).map_err(|_| {
            let route = route.name.clone();
            match server_name {
                Some(_) => Cause::RouteRemoved { route },
                None => Cause::DefaultRouteRemoved { route },
            }
        })?;
        if found.name != route.name {
            return Err(Cause::ServerNameMoved { route: found.name.clone() });
        }
        let same = Arc::ptr_eq(found, route);
        if !same || chain.is_some_and(|chain| chain.good_until < now.as_secs()) {
            found.lets_in(chain, now)?;
        }
        if !same && !found.leads_like(route) {
            return Err(Cause::RouteChanged);
        }
        Ok(())
    }

    /// Whether a device that has shown `chain` is let in `now` on any route, by its certificate.
    pub fn knows(&self, chain: &Chain, now: UnixTime) -> bool {
        self.in_order.iter().any(|route| match &route.access {
            Access::Certificate { tls, expired_session, .. } => {
                let counts = now.as_secs() <= chain.good_until || *expired_session == ExpiredSession::Keep;
                counts && tls.authorities().verifies() && route.lets_in(Some(chain), now).is_ok()
            }
            Access::Passthrough(_) => false,
        })
    }

    /// Why a session that is in has lost its right by a revocation list or by `deny`, over the route of the same name. Look-ups
    /// only: what a client has sent does not make it dear, so this is asked about all sessions before anything else is.
    pub fn withdraws(
        &self,
        route: &Name,
        identity: Option<&Identity>,
        chain: Option<&Chain>,
    ) -> Option<(CloseReason, Cause)> {
        let Access::Certificate { tls, policy, .. } = &self.route(route)?.access else { return None };
        if chain.is_some_and(|chain| tls.authorities().revoke(chain)) {
            return Some((CloseReason::Revoked, Cause::Revoked));
        }
        denied(identity?, policy).map(|entry| (CloseReason::Denied, Cause::Denied(entry)))
    }

    /// Whether a session that is in would be let in `now`, over the route of the same name; and if not, why it has to end.
    /// Where the route leads by now does not matter.
    pub fn keeps(&self, route: &Name, chain: Option<&Chain>, now: UnixTime) -> Result<(), (CloseReason, Cause)> {
        let Some(route) = self.route(route) else {
            return Err((CloseReason::RouteRemoved, Cause::RouteRemoved { route: route.clone() }));
        };
        route.lets_in(chain, now).map_err(|cause| (close_reason(cause.reason()), cause))
    }
}

impl Route {
    /// Whether it leads to the same backends as `other`, in the same way.
    fn leads_like(&self, other: &Self) -> bool {
        self.backends == other.backends
            && self.send_proxy_protocol == other.send_proxy_protocol
            && self.terminates() == other.terminates()
    }

    /// Whether TLS ends at the gate, which asks for a certificate.
    pub const fn terminates(&self) -> bool {
        matches!(self.access, Access::Certificate { .. })
    }

    /// Whether somebody who has shown `chain` is let in `now`; and if not, why.
    pub fn lets_in(&self, chain: Option<&Chain>, now: UnixTime) -> Result<(), Cause> {
        let Access::Certificate { tls, expired_session, .. } = &self.access else { return Ok(()) };
        let certificates = chain.map(|chain| chain.certificates.as_slice()).unwrap_or_default();
        let at = match (expired_session, chain) {
            // As long as it was good: what else there is against it must not hide behind the dates.
            (ExpiredSession::Keep, Some(chain)) if now.as_secs() > chain.good_until => {
                UnixTime::since_unix_epoch(Duration::from_secs(chain.good_until))
            }
            _ => now,
        };
        tls.judge(certificates, at).1
    }
}

/// Why a session ends whose certificate would be turned away for this reason.
const fn close_reason(reason: Reason) -> CloseReason {
    match reason {
        Reason::Revoked => CloseReason::Revoked,
        Reason::Denied => CloseReason::Denied,
        Reason::Expired | Reason::NotYetValid => CloseReason::Expired,
        Reason::IdentityNotAllowed | Reason::CertificateRequired => CloseReason::NotAllowed,
        // An authority that is gone, or a revocation list that is missing or has expired.
        _ => CloseReason::NotTrusted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn routes_with_the_same_client_auth_have_the_same_authorities_and_no_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec!["*.home.example".to_owned()]).expect("a name");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        std::fs::write(folder.path().join("it.pem"), certificate.pem()).expect("a file");
        std::fs::write(folder.path().join("key.pem"), key.serialize_pem()).expect("a file");
        let route = |name: &str, own: &str| {
            format!(
                "[[route]]\nname = \"{name}\"\nserver_names = [\"{name}.home.example\"]\nbackends = [\"127.0.0.1:1\"]\n\
                 allow = [\"any\"]\n{own}\n"
            )
        };
        let text = format!(
            "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n[certificate]\nchain = \"it.pem\"\n\
             key = \"key.pem\"\n[client_auth]\ntrust = [\"it.pem\"]\n{}{}{}",
            route("nas", ""),
            route("ssh", ""),
            route("own", "[route.client_auth]\nannounce_trust = \"off\""),
        );
        let config = config::parse(&text, &folder.path().join("doorward.toml")).expect("a configuration");
        let snapshot = Snapshot::build(&config).expect("a snapshot");
        let authorities = |name: &str| match &snapshot.route(&Name::parse(name).expect("a name")).expect(name).access {
            Access::Certificate { tls, .. } => Arc::clone(tls.authorities()),
            Access::Passthrough(_) => panic!("{name} asks for certificates"),
        };
        assert!(Arc::ptr_eq(&authorities("nas"), &authorities("ssh")));
        assert!(!Arc::ptr_eq(&authorities("nas"), &authorities("own")));
    }

    /// A connection that was let in by a former snapshot may come into the registry behind the review.
    #[test]
    fn a_device_that_lost_its_right_is_led_to_no_backend() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("a file");
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec!["*.home.example".to_owned()]).expect("a name");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        write("it.pem", params.self_signed(&key).expect("a certificate").pem());
        write("key.pem", key.serialize_pem());
        let issuer = rcgen::Issuer::new(params, key);
        let mut device = rcgen::CertificateParams::default();
        device.serial_number = Some(77_u64.into());
        let device = device.signed_by(&rcgen::KeyPair::generate().expect("a key"), &issuer).expect("a certificate");
        let build = |deny: &str| {
            let text = format!(
                "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n[certificate]\nchain = \"it.pem\"\n\
                 key = \"key.pem\"\n[client_auth]\ntrust = [\"it.pem\"]\ndeny = [{deny}]\n[[route]]\nname = \"nas\"\n\
                 server_names = [\"nas.home.example\"]\nbackends = [\"127.0.0.1:1\"]\nallow = [\"any\"]\n"
            );
            let config = config::parse(&text, &folder.path().join("doorward.toml")).expect("a configuration");
            Snapshot::build(&config).expect("a snapshot")
        };
        let (before, same, after) = (build(""), build(""), build("\"serial:4d\""));
        let route = before.route(&Name::parse("nas").expect("a name")).expect("the route");
        let name = ServerName::from_client_hello("nas.home.example");
        let chain = Chain::new(vec![device.der().clone()], Vec::new(), u64::MAX);
        let verdict = |snapshot: &Snapshot| {
            let verdict = snapshot.still_leads(Some(&name), route, Some(&chain), UnixTime::now());
            verdict.err().map(|cause| cause.reason())
        };
        assert_eq!([&before, &same, &after].map(verdict), [None, None, Some(Reason::Denied)]);
    }
}
