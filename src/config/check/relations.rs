//! What is right in each route and wrong among them.

use std::collections::{BTreeMap, HashSet};

use super::route::{Checked, ServerNames};
use crate::config::checked::{Backend, ClientAuth, RouteMode, Terminate};
use crate::config::raw::RawRoute;
use crate::config::report::{Place, Report};
use crate::config::services::raw_protocols_of;
use crate::model::names::ServerNamePattern;

/// A name or pattern may lead to one route only.
pub(super) fn report_shared_names(routes: &[(&RawRoute, ServerNames)], report: &mut Report) {
    let mut owners: BTreeMap<&ServerNamePattern, (usize, &Place)> = BTreeMap::new();
    for (index, (raw, names)) in routes.iter().enumerate() {
        for name in names {
            match owners.get(&name.value) {
                Some((owner, _)) if *owner == index => {}
                Some((_, place)) => {
                    let line = place.line.map(|line| format!(" (line {line})")).unwrap_or_default();
                    report.error(
                        &name.place,
                        format!(
                            "\"{}\" already leads to {}{line}, and a name can lead to one place \
                             only",
                            name.value, place.key
                        ),
                        format!(
                            "remove it from one of the two routes, or put everything about it into one of them \
                             ({} or {})",
                            place.key, raw.place.key
                        ),
                    );
                }
                None => {
                    owners.insert(&name.value, (index, &raw.place));
                }
            }
        }
    }
}

/// The gate cannot see which host a request inside the connection is for, so a client of one route to a backend can
/// reach through it what another route to the same backend would refuse.
pub(super) fn warn_of_shared_backends(routes: &[Checked], report: &mut Report) {
    let mut first: BTreeMap<String, &Checked> = BTreeMap::new();
    for checked in routes {
        for backend in &checked.route.backends {
            let other = *first.entry(key_of(backend)).or_insert(checked);
            if !std::ptr::eq(other, checked) && !same_policy(&other.route.mode, &checked.route.mode) {
                report.warn(
                    &checked.backends_place,
                    format!(
                        "{backend} is also behind {}, which admits other clients: a client of one of the two routes \
                         can ask that service for what the other one protects; give both the same \"allow\" and \
                         \"client_auth\"",
                        other.place.key
                    ),
                );
            }
        }
    }
}

fn key_of(backend: &Backend) -> String {
    match backend {
        Backend::Address(address) if address.ip().is_loopback() => format!("localhost:{}", address.port()),
        other => other.to_string(),
    }
}

fn same_policy(a: &RouteMode, b: &RouteMode) -> bool {
    match (a, b) {
        (RouteMode::Passthrough, RouteMode::Passthrough) => true,
        (RouteMode::Terminate(a), RouteMode::Terminate(b)) => {
            same_allow(a, b) && same_auth(&a.client_auth, &b.client_auth)
        }
        _ => false,
    }
}

fn same_allow(a: &Terminate, b: &Terminate) -> bool {
    let (a, b) = (&a.allow, &b.allow);
    let within = |a: &[_], b: &[_]| a.iter().all(|selector| b.contains(selector));
    a.any == b.any
        && a.unverified == b.unverified
        && within(&a.selectors, &b.selectors)
        && within(&b.selectors, &a.selectors)
}

fn same_auth(a: &ClientAuth, b: &ClientAuth) -> bool {
    let trust = |auth: &ClientAuth| auth.trust.iter().map(|anchor| anchor.certificate.to_vec()).collect::<HashSet<_>>();
    let lists = |auth: &ClientAuth| auth.revocation_lists.iter().map(|list| list.list.to_vec()).collect::<HashSet<_>>();
    a.mode == b.mode
        && trust(a) == trust(b)
        && lists(a) == lists(b)
        && a.deny.fingerprints == b.deny.fingerprints
        && a.deny.serials == b.deny.serials
        && a.expired_revocation_list == b.expired_revocation_list
        && a.revocation_check == b.revocation_check
}

/// A web page can make a browser of the owner's send bytes to a service that takes them for commands.
pub(super) fn warn_of_browsers(routes: &[Checked], report: &mut Report) {
    for checked in routes {
        let RouteMode::Terminate(terminate) = &checked.route.mode else { continue };
        let Some(protocols) = raw_protocols_of(&checked.route) else { continue };
        if terminate.application_protocols.is_empty() {
            report.warn(
                &checked.place,
                format!(
                    "this looks like a service that is not HTTP, and browsers get in: a web page can make the browser of a \
                     device send it a request; write application_protocols = {protocols:?}, which keeps browsers out and lets \
                     clients without ALPN in"
                ),
            );
        }
    }
}

/// Browsers send requests for another host down a connection that is open already, if HTTP/2 is spoken on it and its
/// certificate is for that host, too (RFC 9113 section 9.1.1). They would then reach the wrong route's backend.
pub(super) fn warn_of_coalescing(routes: &[Checked], report: &mut Report) {
    let speaks_h2 = |checked: &Checked| match &checked.route.mode {
        RouteMode::Terminate(terminate) => terminate.application_protocols.iter().any(|protocol| protocol == b"h2"),
        RouteMode::Passthrough => false,
    };
    for checked in routes.iter().filter(|checked| speaks_h2(checked)) {
        let Some(loaded) = &checked.loaded else { continue };
        let others = routes.iter().filter(|other| !std::ptr::eq(*other, checked) && other.loaded.is_some());
        let other = others
            .filter(|other| other.route.backends != checked.route.backends)
            .flat_map(|other| other.route.server_names.iter().map(move |name| (other, name)))
            .find(|(_, name)| **name != ServerNamePattern::Default && loaded.covers(name));
        if let Some((other, name)) = other {
            report.warn(
                &checked.place.child("application_protocols"),
                format!(
                    "the certificate of this route is for \"{name}\" of {}, too, and over \"h2\" browsers may send \
                     requests for that name down a connection of this route, to the wrong backend; write \
                     application_protocols = [\"http/1.1\"]",
                    other.place.key
                ),
            );
        }
    }
}
