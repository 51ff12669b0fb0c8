//! What is built from one configuration: a connection takes everything it looks up from one snapshot.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};

use crate::authorize::{PassthroughPolicy, Policy, denied};
use crate::backend_tls::BackendTls;
use crate::backends::health::{Check, Checked};
use crate::backends::pool::Backends;
use crate::config::checked::{
    self, Backend, ClientAuth, Config, ExpiredSession, RouteMode, SendProxyProtocol, Timeouts, TrustKind, Wake,
};
use crate::handshake::config::{InvalidTls, RouteTls, TicketSource};
use crate::handshake::suites::Suites;
use crate::handshake::trust::{Authorities, OtherAuthorities};
use crate::impostors::Impostors;
use crate::model::close::CloseReason;
use crate::model::identity::{Chain, Identity};
use crate::model::names::{Name, ServerName, ServerNamePattern};
use crate::model::rejection::{Cause, Health, Reason};
use crate::model::starttls::Starttls;
use crate::renewal::RenewalService;
use crate::route::RouteTable;

/// The routes and timeouts of one configuration. Built whole or not at all, and never changed.
#[derive(Debug)]
pub struct Snapshot {
    /// The routes by server name.
    pub routes: RouteTable<Route>,
    /// The routes in the order of the configuration; the renewal of certificates is none of them.
    pub in_order: Vec<Arc<Route>>,
    by_name: HashMap<Name, Arc<Route>>,
    /// Whether a route has clients that ask for TLS by this protocol.
    starttls: Option<Starttls>,
    /// The server names of canaries.
    canaries: HashMap<ServerName, Name>,
    /// How long each phase may take.
    pub timeouts: Timeouts,
    /// Tells impostors from devices among the clients that are refused.
    pub impostors: Impostors,
}

/// A route, ready to be used.
#[derive(Debug)]
pub struct Route {
    /// Its name.
    pub name: Name,
    /// The server names it serves.
    pub server_names: Vec<ServerNamePattern>,
    /// Its backends, in the order in which they are tried.
    pub backends: Backends,
    /// The PROXY protocol header that its backends are sent.
    pub send_proxy_protocol: SendProxyProtocol,
    /// How the machine of its only backend is woken, if it is.
    pub wake: Option<Wake>,
    /// The protocol by which its clients may ask for TLS.
    pub starttls: Option<Starttls>,
    /// What answers its clients instead of a backend: the renewal of certificates has none.
    pub renewal: Option<Arc<RenewalService>>,
    /// How it decides about clients.
    pub access: RouteAccess,
}

/// How a route decides about clients.
#[derive(Debug)]
pub enum RouteAccess {
    /// By the client's certificate: TLS ends at the gate.
    Terminate {
        /// The configuration of its handshakes.
        tls: RouteTls,
        /// Which clients it admits.
        policy: Arc<Policy>,
        /// What happens to sessions whose certificate expires.
        expired_session: ExpiredSession,
    },
    /// Every client is admitted: the backend does TLS.
    Passthrough(PassthroughPolicy),
}

/// A route whose handshakes cannot be configured.
#[derive(Debug, thiserror::Error)]
#[error("route {:?}: {error}", route.as_str())]
pub struct InvalidRoute {
    /// The route.
    pub route: Name,
    /// What is wrong.
    pub error: InvalidTls,
}

/// The authorities of the owner: those that any route trusts, and those of the inventory.
fn known_authorities(config: &Config) -> impl Iterator<Item = &CertificateDer<'static>> {
    let terminating = config.served().filter_map(|route| match &route.mode {
        RouteMode::Terminate(terminate) => Some(terminate),
        RouteMode::Passthrough => None,
    });
    let trusted = terminating.flat_map(|terminate| &terminate.client_auth.trust);
    let of_inventory = config.metrics.inventory.iter().flat_map(|inventory| &inventory.authorities);
    trusted.filter(|anchor| anchor.kind == TrustKind::Authority).map(|anchor| &anchor.certificate).chain(of_inventory)
}

impl Snapshot {
    /// Builds everything from a checked configuration.
    pub fn build(config: &Config) -> Result<Self, InvalidRoute> {
        Self::succeeding(None, config)
    }

    /// As [`build`](Self::build). Session tickets of `former`, which is in force, stay valid on routes that keep their name
    /// and their settings.
    pub fn build_after(former: &Self, config: &Config) -> Result<Self, InvalidRoute> {
        Self::succeeding(Some(former), config)
    }

    fn succeeding(former: Option<&Self>, config: &Config) -> Result<Self, InvalidRoute> {
        let mut routes = RouteTable::default();
        let mut in_order = Vec::new();
        let suites = Suites::new(config.strength);
        // By the address of the `client_auth` they are built from: routes without their own share the default one.
        let others = Arc::new(OtherAuthorities::new(known_authorities(config)));
        let mut authorities: HashMap<*const ClientAuth, Arc<Authorities>> = HashMap::new();
        let renewed = config.renewal_trust().map(Arc::new);
        // What is known of backends that are checked as before stays known.
        let mut checks: Vec<Arc<Checked>> = former.map(Self::checks).unwrap_or_default();
        let renewal = config.renewal.as_ref().map(|renewal| &renewal.route);
        let mut by_name = HashMap::new();
        for route in config.served() {
            let renews = renewal.is_some_and(|renewal| std::ptr::eq(renewal, route));
            let invalid = |error| InvalidRoute { route: route.name.clone(), error };
            let access = match &route.mode {
                RouteMode::Passthrough => RouteAccess::Passthrough(PassthroughPolicy::configured()),
                RouteMode::Terminate(terminate) => {
                    let policy = Arc::new(Policy::of(&route.name, terminate).denying(config.canary_certificates()));
                    let authorities = match authorities.entry(Arc::as_ptr(&terminate.client_auth)) {
                        Entry::Occupied(there) => Arc::clone(there.get()),
                        Entry::Vacant(place) => {
                            let new = Authorities::new(&terminate.client_auth);
                            let new = new.and_then(|new| new.beside(Arc::clone(&others)).renewing(renewed.clone()));
                            Arc::clone(place.insert(Arc::new(new.map_err(InvalidTls::Trust).map_err(invalid)?)))
                        }
                    };
                    let former = former.and_then(|former| former.route(&route.name)?.tls());
                    let tickets = TicketSource { route: &route.name, shared: &config.tickets.keys, former };
                    let tls = RouteTls::new(terminate, &suites, authorities, Arc::clone(&policy), tickets);
                    let tls = tls.map_err(invalid)?;
                    RouteAccess::Terminate { tls, policy, expired_session: terminate.client_auth.expired_session }
                }
            };
            let backend_tls = route.backend_tls.as_ref().map(|tls| BackendTls::new(tls, suites.provider()));
            let backend_tls = backend_tls.transpose().map_err(|error| invalid(InvalidTls::Rustls(error)))?;
            let built = Arc::new(Route {
                name: route.name.clone(),
                server_names: route.server_names.clone(),
                backends: Backends::new(route.backends.clone(), route.strategy)
                    .checked(shared(Check::of(route, backend_tls.as_ref()), &mut checks))
                    .limited(route.connections_per_backend)
                    .with_tls(backend_tls),
                send_proxy_protocol: route.send_proxy_protocol,
                wake: route.wake.clone(),
                starttls: route.starttls(),
                renewal: if renews { RenewalService::of(config) } else { None },
                access,
            });
            for pattern in &route.server_names {
                routes.insert(pattern.clone(), Arc::clone(&built));
            }
            by_name.insert(route.name.clone(), Arc::clone(&built));
            if !renews {
                in_order.push(built);
            }
        }
        let canaries = config.canaries.iter().flat_map(|canary| {
            canary.server_names.iter().map(|server_name| (server_name.clone(), canary.name.clone()))
        });
        Ok(Self {
            routes,
            in_order,
            by_name,
            starttls: config.routes.iter().find_map(checked::Route::starttls),
            canaries: canaries.collect(),
            timeouts: config.timeouts.clone(),
            impostors: Impostors::of(config),
        })
    }

    /// The backends that are checked, each once for each way in which it is.
    pub fn checks(&self) -> Vec<Arc<Checked>> {
        let mut checks: Vec<Arc<Checked>> = Vec::new();
        for checked in self.in_order.iter().flat_map(|route| route.backends.checks()) {
            if !checks.iter().any(|other| Arc::ptr_eq(other, checked)) {
                checks.push(Arc::clone(checked));
            }
        }
        checks
    }

    /// The route for a client's server name, or why there is none.
    pub fn find(&self, server_name: Option<&ServerName>) -> Result<&Arc<Route>, Cause> {
        if let Some(route) = server_name.and_then(|name| self.canaries.get(name)) {
            return Err(Cause::CanaryRoute { route: route.clone() });
        }
        self.routes.find(server_name).map_err(|_| match server_name {
            None => Cause::ServerNameMissing,
            Some(name) => Cause::ServerNameUnknown { name: name.clone() },
        })
    }

    /// The protocol by which clients may ask for TLS: the answer is due before their route is known.
    pub const fn starttls(&self) -> Option<Starttls> {
        self.starttls
    }

    /// As [`find`](Self::find), for a client that has perhaps asked for TLS.
    pub fn find_asked(&self, server_name: Option<&ServerName>, asked: Option<Starttls>) -> Result<&Arc<Route>, Cause> {
        let route = self.find(server_name)?;
        if asked.is_some() && asked != route.starttls {
            return Err(Cause::NoStarttls { route: route.name.clone() });
        }
        Ok(route)
    }

    /// The route of this name.
    pub fn route(&self, name: &Name) -> Option<&Arc<Route>> {
        self.by_name.get(name)
    }

    /// Whether a session of `route` ends when its certificate expires: yes if the route is gone, no if the route does not
    /// verify certificates.
    pub fn cuts_expired(&self, route: &Name) -> bool {
        match self.route(route).map(|route| &route.access) {
            Some(RouteAccess::Terminate { tls, expired_session, .. }) => {
                tls.authorities().verifies() && *expired_session == ExpiredSession::Cut
            }
            Some(RouteAccess::Passthrough(_)) => false,
            None => true,
        }
    }

    /// Whether a connection that `route` has admitted, perhaps in an earlier snapshot, may still reach its backends. Asked
    /// until a backend is reached; from then on, [`keeps_session`](Self::keeps_session) decides.
    pub fn still_admits(
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
            found.admits(chain, now)?;
        }
        if !same && !found.has_backends_of(route) {
            return Err(Cause::RouteChanged);
        }
        Ok(())
    }

    /// Whether any route admits a device with this chain `now`, by its certificate.
    pub fn admits_anywhere(&self, chain: &Chain, now: UnixTime) -> bool {
        self.in_order.iter().any(|route| match &route.access {
            RouteAccess::Terminate { tls, expired_session, .. } => {
                let in_date = now.as_secs() <= chain.good_until || *expired_session == ExpiredSession::Keep;
                in_date && tls.authorities().verifies() && route.admits(Some(chain), now).is_ok()
            }
            RouteAccess::Passthrough(_) => false,
        })
    }

    /// Whether a revocation list or `deny` names the certificate of a session on the route of this name. Look-ups only,
    /// whose cost no client controls: a review asks this about all sessions first.
    pub fn withdrawn(
        &self,
        route: &Name,
        identity: Option<&Identity>,
        chain: Option<&Chain>,
    ) -> Option<(CloseReason, Cause)> {
        let RouteAccess::Terminate { tls, policy, .. } = &self.route(route)?.access else { return None };
        if chain.is_some_and(|chain| tls.authorities().revoke(chain)) {
            return Some((CloseReason::Revoked, Cause::Revoked));
        }
        denied(identity?, policy).map(|entry| (CloseReason::Denied, Cause::Denied(entry)))
    }

    /// Whether the route of this name would admit the session's client `now`; if not, why the session ends. Other backends
    /// of the route end no session.
    pub fn keeps_session(
        &self,
        route: &Name,
        chain: Option<&Chain>,
        now: UnixTime,
    ) -> Result<(), (CloseReason, Cause)> {
        let Some(route) = self.route(route) else {
            return Err((CloseReason::RouteRemoved, Cause::RouteRemoved { route: route.clone() }));
        };
        route.admits(chain, now).map_err(|cause| (close_reason(cause.reason()), cause))
    }
}

impl Route {
    /// Whether it has the backends of `other` and reaches them in the same way.
    fn has_backends_of(&self, other: &Self) -> bool {
        *self.backends == *other.backends
            && self.backends.has_tls_of(&other.backends)
            && self.send_proxy_protocol == other.send_proxy_protocol
            && self.wake == other.wake
            && self.terminates() == other.terminates()
    }

    /// What the health checks of its backends say; none if they are not checked.
    pub fn health(&self) -> impl Iterator<Item = (&Backend, Health)> {
        self.backends.checks().iter().map(|checked| (&checked.check().backend, checked.health()))
    }

    /// The configuration of its handshakes, if TLS ends at the gate.
    const fn tls(&self) -> Option<&RouteTls> {
        match &self.access {
            RouteAccess::Terminate { tls, .. } => Some(tls),
            RouteAccess::Passthrough(_) => None,
        }
    }

    /// Whether TLS ends at the gate.
    pub const fn terminates(&self) -> bool {
        matches!(self.access, RouteAccess::Terminate { .. })
    }

    /// Whether a client with this chain is admitted `now`; if not, why.
    pub fn admits(&self, chain: Option<&Chain>, now: UnixTime) -> Result<(), Cause> {
        let RouteAccess::Terminate { tls, expired_session, .. } = &self.access else { return Ok(()) };
        let certificates = chain.map(|chain| chain.certificates.as_slice()).unwrap_or_default();
        let at = match (expired_session, chain) {
            // Judged in its last valid second, so that its expiry hides no other reason to refuse it.
            (ExpiredSession::Keep, Some(chain)) if now.as_secs() > chain.good_until => {
                UnixTime::since_unix_epoch(Duration::from_secs(chain.good_until))
            }
            _ => now,
        };
        tls.judge(certificates, at).1
    }
}

/// The backends among `known` that are checked in these ways; new ones are added.
fn shared(checks: Vec<Check>, known: &mut Vec<Arc<Checked>>) -> Vec<Arc<Checked>> {
    let one = |check: Check| {
        if let Some(checked) = known.iter().find(|checked| *checked.check() == check) {
            return Arc::clone(checked);
        }
        let checked = Arc::new(Checked::new(check));
        known.push(Arc::clone(&checked));
        checked
    };
    checks.into_iter().map(one).collect()
}

/// Why a session ends whose certificate would be refused for this reason.
const fn close_reason(reason: Reason) -> CloseReason {
    match reason {
        Reason::Revoked => CloseReason::Revoked,
        Reason::Denied => CloseReason::Denied,
        Reason::Expired | Reason::NotYetValid => CloseReason::Expired,
        Reason::IdentityNotAllowed | Reason::CertificateRequired => CloseReason::NotAllowed,
        // The authority was removed, or a revocation list is missing or has expired.
        _ => CloseReason::NotTrusted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn routes_share_authorities_only_with_the_same_client_auth() {
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
            RouteAccess::Terminate { tls, .. } => Arc::clone(tls.authorities()),
            RouteAccess::Passthrough(_) => panic!("{name} asks for certificates"),
        };
        assert!(Arc::ptr_eq(&authorities("nas"), &authorities("ssh")));
        assert!(!Arc::ptr_eq(&authorities("nas"), &authorities("own")));
    }

    /// A connection that an earlier snapshot admitted may be registered after the review.
    #[test]
    fn device_denied_after_its_handshake_reaches_no_backend() {
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
            let verdict = snapshot.still_admits(Some(&name), route, Some(&chain), UnixTime::now());
            verdict.err().map(|cause| cause.reason())
        };
        assert_eq!([&before, &same, &after].map(verdict), [None, None, Some(Reason::Denied)]);
    }
}
