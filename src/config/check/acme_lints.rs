//! What is odd about `[certificate.acme]` and what it is for, so that an order would fail or clients would not trust its certificate.

use super::{date, now};
use crate::config::checked::{Acme, CertificateSource, Challenge, Config, Route, RouteMode};
use crate::config::files;
use crate::config::public_certificate::public_certificate;
use crate::config::report::{Place, Report, quoted};
use crate::model::names::ServerNamePattern;
use crate::model::public_name::not_public;
use crate::model::service::PUBLIC_PORT;

/// The name of Let's Encrypt's directory for trials.
const STAGING: &str = "letsencrypt-staging";

/// The most names in a warning.
const NAMES_MAX: usize = 8;

/// Warns of all of it. `place` is that of the section.
pub(super) fn warn(config: &Config, place: &Place, report: &mut Report) {
    let Some(acme) = &config.acme else { return };
    warn_of_names(acme, place, report);
    warn_of_patterns(config, acme, place, report);
    if acme.directory.name == STAGING {
        report.warn(
            &place.child("directory"),
            format!(
                "{} issues certificates for trials, which no device trusts; write directory = \"letsencrypt\", and trial = {} to \
                 have an order succeed there first",
                quoted(STAGING),
                quoted(STAGING)
            ),
        );
    }
    if acme.challenge == Challenge::TlsAlpn01 {
        warn_of_the_port(config, place, report);
    }
    warn_of_certificate(config, place, report);
}

/// Names that no public authority issues a certificate for. A private ACME server may.
fn warn_of_names(acme: &Acme, place: &Place, report: &mut Report) {
    if acme.trust.is_some() {
        return;
    }
    for (name, why) in acme.names.iter().filter_map(|name| not_public(name).map(|why| (name, why))).take(NAMES_MAX) {
        report.warn(
            place,
            format!(
                "{} cannot have a public certificate: {why}; the whole order fails because of it, so give its route a name of a \
                 domain of yours, or a [route.certificate]",
                quoted(name)
            ),
        );
    }
}

/// Server names that are not ordered: `*`, and with tls-alpn-01 a wildcard.
fn warn_of_patterns(config: &Config, acme: &Acme, place: &Place, report: &mut Report) {
    let routes = config.routes.iter().filter(|route| shows_public(route));
    let left_out = |route: &Route| -> Vec<String> {
        let has_exact = route.server_names.iter().any(|name| matches!(name, ServerNamePattern::Exact(_)));
        let is_left_out = |name: &&ServerNamePattern| match name {
            ServerNamePattern::Exact(_) => false,
            ServerNamePattern::Wildcard(_) => !acme.names.contains(&name.to_string()),
            // It is for clients that ask for another name; where it stands alone, all of them do.
            ServerNamePattern::Default => !has_exact,
        };
        route.server_names.iter().filter(is_left_out).map(|name| quoted(&name.to_string())).collect()
    };
    let names: Vec<String> = routes.flat_map(left_out).take(NAMES_MAX).collect();
    if !names.is_empty() {
        let (challenge, orderable, instead) = match acme.challenge {
            Challenge::TlsAlpn01 => {
                ("tls-alpn-01", "single names only", "each name, or challenge = \"dns-01\" for wildcards")
            }
            Challenge::Dns01(_) => {
                ("dns-01", "names and their wildcards", "each name, or a wildcard such as \"*.home.example\"")
            }
        };
        report.warn(
            place,
            format!(
                "no certificate is ordered for {}: {} is for {}; clients that ask for such a name refuse the gate, so write {}",
                names.join(", "),
                challenge,
                orderable,
                instead
            ),
        );
    }
}

/// Where the ACME server connects to.
fn warn_of_the_port(config: &Config, place: &Place, report: &mut Report) {
    let challenge = place.child("challenge");
    let listens = config.listeners.iter().any(|listener| listener.address.port() == PUBLIC_PORT);
    if config.public_port != PUBLIC_PORT && !listens {
        report.warn(
            &challenge,
            format!(
                "tls-alpn-01 comes to port 443 of the names, and public_port is {}: forward port 443 of the router to a listener \
                 as well, or use challenge = \"dns-01\"",
                config.public_port
            ),
        );
    }
    if config.listeners.iter().all(|listener| !listener.allow_sources.is_empty()) {
        report.warn(
            &challenge,
            "every listener has allow_sources, and the ACME server comes from addresses that it does not tell; add a listener \
             without it for port 443, or use challenge = \"dns-01\"",
        );
    }
}

/// What is in the state folder.
fn warn_of_certificate(config: &Config, place: &Place, report: &mut Report) {
    let state = place.child("state");
    let Some(public) = public_certificate(config) else { return };
    let Some(issued) = public.issued else { return };
    let file = &public.file;
    if issued.not_after < now() {
        report.warn(
            &state,
            format!(
                "the certificate in {file} expired on {}, so clients refuse the gate; to see why it was not renewed: doorward status",
                date(issued.not_after)
            ),
        );
    }
    if !issued.lacks.is_empty() {
        let lacks: Vec<String> = issued.lacks.iter().take(NAMES_MAX).map(|name| quoted(name)).collect();
        report.warn(
            &state,
            format!(
                "the certificate in {file} is not for {}: another one is ordered, and until it is issued clients refuse the gate \
                 there",
                lacks.join(", ")
            ),
        );
    }
    let shown = config.routes.iter().find_map(|route| match &route.mode {
        RouteMode::Terminate(terminate) if terminate.certificate.source == CertificateSource::Acme => {
            Some(&terminate.certificate.key_file)
        }
        _ => None,
    });
    if let Some(path) = shown
        && files::read_named(path).is_ok_and(|file| file.is_world_readable())
    {
        report.warn(
            &state,
            format!(
                "every user of this machine may read {file}, which has the certificate's key; run: chmod 600 {file}"
            ),
        );
    }
}

/// Whether the public certificate is that of the route.
fn shows_public(route: &Route) -> bool {
    match &route.mode {
        RouteMode::Terminate(terminate) => terminate.certificate.source != CertificateSource::Files,
        RouteMode::Passthrough => false,
    }
}
