//! `[[route]]`: what server names lead to, and for which clients.

use super::access::{self, Groups};
use super::certificate::{self, Loaded};
use super::client_auth;
use super::{Checks, Mode, backend_tls, backends, health, name, protocols, wake};
use crate::config::checked::{AllowEntry, CanaryRoute, CertificateSource, Route, RouteMode, Terminate};
use crate::config::raw::RawRoute;
use crate::config::report::{At, Given, Place, Report, Text, quoted};
use crate::config::{services, values};
use crate::model::names::{InvalidServerName, ServerNamePattern};
use crate::model::service::ServiceKind;

/// A route that is right, and what is needed to compare it with others.
pub(super) struct Checked {
    pub(super) route: Route,
    pub(super) place: Place,
    /// Where its backends are named.
    pub(super) backends_place: Place,
    /// The certificate it shows, if it shows one.
    pub(super) loaded: Option<Loaded>,
}

/// The part of a route that its mode decides about.
struct CheckedMode {
    mode: RouteMode,
    loaded: Option<Loaded>,
    allow_entries: Vec<AllowEntry>,
}

/// A route's server names, right ones only, and where each stands. They are compared even if the rest of the route is
/// wrong.
pub(super) type ServerNames = Vec<At<ServerNamePattern>>;

/// Checks one route against the defaults and the listeners.
pub(super) fn check(
    raw: &RawRoute,
    checks: &Checks<'_>,
    groups: &mut Groups,
    report: &mut Report,
) -> (ServerNames, Option<Checked>) {
    let name = route_name(raw, report);
    let mode = match &raw.mode {
        Given::Absent => Some(Mode::Terminate),
        Given::Refused => None,
        Given::Value(text) => report.taken(
            &text.place,
            values::word(&text.value, &[("terminate", Mode::Terminate), ("passthrough", Mode::Passthrough)]),
        ),
    };
    let (names, names_right) = server_names(raw, report);
    let backends = backends::check(raw, checks, report);
    let strategy = backends::strategy(raw, report);
    let health = health::check(raw, mode, report);
    let connections_per_backend = health::connections_per_backend(raw, report);
    let send_proxy_protocol = backends::send_proxy_protocol(raw, mode, report);
    let backend_tls = backend_tls::check(raw, mode, backends.as_ref().map(|(list, _)| list.as_slice()), report);
    let wake = wake::check(raw, mode, backends.as_ref(), report);
    let kind = kind(raw, report);
    let checked_mode = match mode {
        Some(Mode::Terminate) => terminate(raw, &names, checks, groups, report),
        Some(Mode::Passthrough) => passthrough(raw, report),
        None => None,
    };
    let wakes = checked_mode.as_ref().is_none_or(|checked| wake::is_for_devices_only(raw, &checked.mode, report));
    let build = || {
        let (backends, backends_place) = backends?;
        let CheckedMode { mode, loaded, allow_entries } = checked_mode?;
        (names_right && wakes).then_some(())?;
        let name = name?;
        let kind = kind?.unwrap_or_else(|| services::default_kind(name.as_str(), &backends, &mode));
        let route = Route {
            name,
            server_names: names.iter().map(|name| name.value.clone()).collect(),
            backends,
            strategy: strategy?,
            health: health?,
            connections_per_backend: connections_per_backend?,
            backend_tls: backend_tls?,
            send_proxy_protocol: send_proxy_protocol?,
            wake: wake?,
            mode,
            kind,
            allow_entries,
        };
        Some(Checked { route, place: raw.place.clone(), backends_place, loaded })
    };
    let checked = build();
    (names, checked)
}

/// Whether it is a route that leads nowhere.
pub(super) fn is_canary(raw: &RawRoute) -> bool {
    raw.canary.value().is_some_and(|canary| canary.value)
}

/// The names of a canary that are right. [`canary`] reports the others.
pub(super) fn silent_names(raw: &RawRoute) -> ServerNames {
    let list = raw.server_names.value().map(|list| list.value.as_slice()).unwrap_or_default();
    let names = list.iter().filter_map(|text| Some((ServerNamePattern::parse(&text.value).ok()?, &text.place)));
    names.map(|(value, place)| At { value, place: place.clone() }).collect()
}

/// Checks a route that is a canary: it has a name and the server names that are its bait, and nothing else.
pub(super) fn canary(raw: &RawRoute, report: &mut Report) -> Option<CanaryRoute> {
    let name = route_name(raw, report);
    let (names, mut all_right) = server_names(raw, report);
    let mut exact = Vec::new();
    for At { value, place } in names {
        match value {
            ServerNamePattern::Exact(name) => exact.push(name),
            ServerNamePattern::Wildcard(_) | ServerNamePattern::Default => {
                report.error(
                    &place,
                    "a canary is one name that no device is told, and a wildcard answers to names that devices mistype",
                    "write the whole name, as in \"backup-admin.home.example\"",
                );
                all_right = false;
            }
        }
    }
    let keys = [
        ("mode", !raw.mode.is_absent()),
        ("kind", !raw.kind.is_absent()),
        ("backends", !raw.backends.is_absent()),
        ("strategy", !raw.strategy.is_absent()),
        ("health", !raw.health.is_absent()),
        ("connections_per_backend", !raw.connections_per_backend.is_absent()),
        ("allow", !raw.allow.is_absent()),
        ("application_protocols", !raw.application_protocols.is_absent()),
        ("backend_tls", !raw.backend_tls.is_absent()),
        ("starttls", !raw.starttls.is_absent()),
        ("send_proxy_protocol", !raw.send_proxy_protocol.is_absent()),
        ("wake", !raw.wake.is_absent()),
        ("certificate", !raw.certificate.is_absent()),
        ("client_auth", !raw.client_auth.is_absent()),
    ];
    for (key, _) in keys.into_iter().filter(|(_, given)| *given) {
        report.error(
            &raw.place.child(key),
            "a canary leads nowhere: a client that asks for its name is refused and banned",
            format!("remove \"{key}\", or remove canary = true"),
        );
        all_right = false;
    }
    all_right.then_some(())?;
    Some(CanaryRoute { name: name?, server_names: exact })
}

fn route_name(raw: &RawRoute, report: &mut Report) -> Option<crate::model::names::Name> {
    let name = name(&raw.name, &raw.place, "nas", report)?;
    if name.as_str() == "none" {
        report.error(
            &raw.place.child("name"),
            "\"none\" is what the metrics call connections that reached no route, so no route can be called that",
            "give the route another name",
        );
        return None;
    }
    Some(name)
}

/// The names, and whether all of them are right.
fn server_names(raw: &RawRoute, report: &mut Report) -> (ServerNames, bool) {
    let list = match &raw.server_names {
        Given::Refused => return (Vec::new(), false),
        Given::Value(list) => list,
        Given::Absent => {
            report.error(
                &raw.place.child("server_names"),
                "\"server_names\" is missing, so it is not known which names lead here",
                "add a line: server_names = [\"nas.home.example\"] with the name that people will type, or [\"*\"] \
                 for every name that no other route has",
            );
            return (Vec::new(), false);
        }
    };
    if list.value.is_empty() {
        report.error(
            &list.place,
            "the list is empty, so nothing would ever lead here",
            "name at least one server name, as in [\"nas.home.example\"]",
        );
        return (Vec::new(), false);
    }
    let mut names: ServerNames = Vec::new();
    let mut all_right = true;
    for text in &list.value {
        let pattern = match ServerNamePattern::parse(&text.value) {
            Ok(pattern) => pattern,
            Err(error) => {
                report_server_name(text, error, report);
                all_right = false;
                continue;
            }
        };
        if names.iter().any(|other| other.value == pattern) {
            report.error(
                &text.place,
                format!("{} is in the list twice (upper and lower case are the same)", quoted(&text.value)),
                "remove one of the two",
            );
            all_right = false;
            continue;
        }
        names.push(At { value: pattern, place: text.place.clone() });
    }
    (names, all_right)
}

fn report_server_name(text: &Text, error: InvalidServerName, report: &mut Report) {
    let shown = quoted(&text.value);
    match error {
        InvalidServerName::IpAddress => report.error(
            &text.place,
            format!("{shown} is an IP address, and clients send no name when they are given an address"),
            "write the host name that people will type; to serve those who type the address, write \"*\" in the route \
             that should get them",
        ),
        InvalidServerName::Syntax => {
            let bare = text.value.split("://").last().unwrap_or_default();
            let bare = bare.split(['/', ':']).next().unwrap_or_default();
            let hint = match ServerNamePattern::parse(bare) {
                Ok(pattern) if bare != text.value => format!("write {}, the name alone", quoted(&pattern.to_string())),
                _ => "write a name as in \"nas.home.example\", \"*.home.example\" (every name with one more part \
                      before it), or \"*\" (every name that no other route has)"
                    .to_owned(),
            };
            report.error(&text.place, format!("{shown} is not a host name"), hint);
        }
    }
}

/// The kind of service, if it is given.
fn kind(raw: &RawRoute, report: &mut Report) -> Option<Option<ServiceKind>> {
    match &raw.kind {
        Given::Absent => Some(None),
        Given::Refused => None,
        Given::Value(text) => report.taken(&text.place, values::word(&text.value, &ServiceKind::WORDS)).map(Some),
    }
}

fn passthrough(raw: &RawRoute, report: &mut Report) -> Option<CheckedMode> {
    let mut all_right = true;
    let lists = [("allow", &raw.allow), ("application_protocols", &raw.application_protocols)];
    let lists = lists
        .into_iter()
        .filter(|(_, given)| !given.is_absent())
        .map(|(key, given)| (key, given.value().map_or_else(|| raw.place.child(key), |list| list.place.clone())));
    let tables = [
        ("certificate", raw.certificate.value().map(|table| &table.place)),
        ("client_auth", raw.client_auth.value().map(|table| &table.place)),
    ];
    let tables = tables.into_iter().filter_map(|(key, place)| Some((key, place?.clone())));
    let starttls = raw.starttls.value().map(|text| ("starttls", text.place.clone()));
    for (key, place) in lists.chain(tables).chain(starttls) {
        let why = match key {
            "allow" => {
                "on a passthrough route the gate asks for no certificate, so it cannot tell which device connects"
            }
            "application_protocols" => {
                "on a passthrough route the backend chooses the application protocol, not the gate"
            }
            "certificate" => {
                "on a passthrough route the backend shows its own certificate, and this one would never be used"
            }
            "starttls" => {
                "on a passthrough route the backend does TLS, and the gate cannot answer for it before it knows the route"
            }
            _ => "on a passthrough route the gate sees no client certificate, so there is nothing to verify",
        };
        report.error(
            &place,
            why,
            format!("remove \"{key}\", or write mode = \"terminate\" to have the gate ask for certificates"),
        );
        all_right = false;
    }
    all_right.then(|| CheckedMode { mode: RouteMode::Passthrough, loaded: None, allow_entries: Vec::new() })
}

fn terminate(
    raw: &RawRoute,
    names: &ServerNames,
    checks: &Checks<'_>,
    groups: &mut Groups,
    report: &mut Report,
) -> Option<CheckedMode> {
    let loaded = match (&raw.certificate, &checks.raw.certificate) {
        (Given::Value(own), _) => certificate::check(own, report),
        (Given::Absent, Given::Value(_)) => checks.certificate.clone(),
        (Given::Refused, _) | (_, Given::Refused) => None,
        (Given::Absent, Given::Absent) => {
            report.error(
                &raw.place.child("certificate"),
                "there is no certificate for this route, and clients expect one to know that they have reached the \
                 right place",
                "add these lines before the first [[route]] (with the paths of your files):\n[certificate]\nchain = \
                 \"pki/server.pem\"\nkey = \"pki/server-key.pem\"",
            );
            None
        }
    };
    if let Some(loaded) = loaded.as_ref().filter(|loaded| loaded.certificate.source == CertificateSource::Files) {
        let names: Vec<ServerNamePattern> = names.iter().map(|name| name.value.clone()).collect();
        certificate::warn_of_names(loaded, &names, &raw.place, report);
    }
    let default = checks.raw.client_auth.value().map(|default| &default.value);
    let client_auth = match (&raw.client_auth, &checks.raw.client_auth) {
        (Given::Value(own), _) => client_auth::check(Some(&own.value), default, &own.place, true, report),
        (Given::Absent, Given::Value(_)) => checks.client_auth.clone(),
        (Given::Refused, _) | (_, Given::Refused) => None,
        (Given::Absent, Given::Absent) => {
            report.error(
                &raw.place.child("client_auth"),
                "no authority is trusted to issue device certificates, so no client could ever use this route",
                "add these lines before the first [[route]] (with the path of your file):\n[client_auth]\ntrust = \
                 [\"pki/clients.pem\"]",
            );
            None
        }
    };
    let mode = client_auth.as_ref().map(|client_auth| client_auth.mode);
    let allow = access::allow(raw, mode, groups, report);
    let starttls = protocols::starttls(raw, report);
    let application_protocols = protocols::application_protocols(raw, starttls.flatten(), report);
    let (allow, allow_entries) = allow?;
    let terminate = Terminate {
        certificate: loaded.as_ref()?.certificate.clone(),
        client_auth: client_auth?,
        allow,
        application_protocols: application_protocols?,
        starttls: starttls?,
    };
    Some(CheckedMode { mode: RouteMode::Terminate(Box::new(terminate)), loaded, allow_entries })
}
