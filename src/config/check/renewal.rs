//! `[renewal]`: devices ask for their next certificate through the gate.

use super::{Checks, Place, RawRoute, certificate, own_folder, renewal_issuer, route};
use crate::config::checked::{
    Allow, CertificateSource, ClientAuthMode, Renewal, Route, RouteMode, SendProxyProtocol, StateFolder, Strategy,
    Terminate,
};
use crate::config::raw::{Raw, RawRenewal};
use crate::config::report::{At, Given, Report, Text, quoted};
use crate::model::names::{Name, ServerName, ServerNamePattern};
use crate::model::service::ServiceKind;

/// The only application protocol.
const PROTOCOL: &[u8] = b"http/1.1";

/// Checks the section, if it is given.
#[expect(clippy::option_option, reason = "none is right, and what is wrong is reported")]
pub(super) fn check(checks: &Checks<'_>, report: &mut Report) -> Option<Option<Renewal>> {
    let raw = checks.raw;
    let At { value: section, place } = match &raw.renewal {
        Given::Absent => return Some(None),
        Given::Refused => return None,
        Given::Value(section) => section,
    };
    let server_name = server_name(section, place, raw, report);
    let folder = folder(&section.folder, report);
    let issuer = renewal_issuer::check(&section.issuer, raw, report);
    let mut complete = true;
    let mut missing = |is: bool, message: &str, remedy: &str, report: &mut Report| {
        if !is {
            report.error(place, message, remedy);
            complete = false;
        }
    };
    missing(
        !raw.certificate.is_absent(),
        "there is no [certificate], which the gate shows to devices that ask for a renewal",
        "add the section [certificate], or remove [renewal]",
        report,
    );
    missing(
        !raw.client_auth.is_absent(),
        "there is no [client_auth], which says which devices may ask for a renewal",
        "add the section [client_auth], or remove [renewal]",
        report,
    );
    missing(
        !raw.metrics.inventory.is_absent(),
        "the gate is not told which certificates were issued, and renews no others",
        "write inventory = \"pki/inventory.toml\" under [metrics], or remove [renewal]",
        report,
    );
    if let Some(mode) = checks.client_auth.as_ref().map(|auth| auth.mode) {
        missing(
            mode == ClientAuthMode::RequireAndVerify,
            "a certificate is renewed for a device that has shown and proved a valid one, and [client_auth] does not require that",
            "write mode = \"require_and_verify\" under [client_auth], and other modes in the routes that need them; or remove \
             [renewal]",
            report,
        );
    }
    let (server_name, folder, issuer) = (server_name?, folder?, issuer?);
    let loaded = checks.certificate.as_ref()?;
    let patterns = vec![ServerNamePattern::Exact(server_name.clone())];
    if loaded.certificate.source == CertificateSource::Files {
        certificate::warn_of_names(loaded, &patterns, &place.child("server_name"), report);
    }
    complete.then_some(())?;
    let terminate = Terminate {
        certificate: loaded.certificate.clone(),
        client_auth: checks.client_auth.clone()?,
        allow: Allow { any: true, ..Allow::default() },
        application_protocols: vec![PROTOCOL.to_vec()],
        starttls: None,
    };
    let route = Route {
        name: Name::parse(Renewal::NAME).ok()?,
        server_names: patterns,
        backends: Vec::new(),
        strategy: Strategy::First,
        health: None,
        connections_per_backend: None,
        backend_tls: None,
        send_proxy_protocol: SendProxyProtocol::Off,
        wake: None,
        mode: RouteMode::Terminate(Box::new(terminate)),
        kind: ServiceKind::Http,
        allow_entries: Vec::new(),
    };
    Some(Some(Renewal { server_name, route, folder, issuer }))
}

/// The name that devices ask for, if it is one that no route has.
fn server_name(section: &RawRenewal, place: &Place, raw: &Raw, report: &mut Report) -> Option<ServerName> {
    let text = match &section.server_name {
        Given::Refused => return None,
        Given::Value(text) => text,
        Given::Absent => {
            report.error(
                &place.child("server_name"),
                "\"server_name\" is missing: it is what devices ask for to have their certificate renewed",
                "add a line: server_name = \"renew.home.example\", with a name that the gate's certificate is for",
            );
            return None;
        }
    };
    let Ok(ServerNamePattern::Exact(name)) = ServerNamePattern::parse(&text.value) else {
        report.error(
            &text.place,
            format!("{} is not a whole host name", quoted(&text.value)),
            "write one name, as in \"renew.home.example\"",
        );
        return None;
    };
    let routes = raw.routes.as_deref().unwrap_or_default();
    is_free(&name, text, routes, report).then_some(name)
}

/// Whether no route has the name, and none is called as the renewal is.
fn is_free(name: &ServerName, text: &Text, routes: &[RawRoute], report: &mut Report) -> bool {
    let mut is_free = true;
    let pattern = ServerNamePattern::Exact(name.clone());
    if let Some(route) = routes.iter().find(|one| route::silent_names(one).iter().any(|at| at.value == pattern)) {
        report.error(
            &text.place,
            format!("\"{name}\" already leads to {}, and a name can lead to one place only", route.place.key),
            "write a name that no route has",
        );
        is_free = false;
    }
    let called = routes.iter().filter_map(|route| route.name.value()).find(|name| name.value == Renewal::NAME);
    if let Some(called) = called {
        report.error(
            &called.place,
            "\"renewal\" is what the log and the metrics call the gate's own renewal service, so no route can be called that",
            "give the route another name, or remove the section [renewal]",
        );
        is_free = false;
    }
    is_free
}

/// Checks the folder alone; `None` without the section.
#[expect(clippy::option_option, reason = "none is right, and what is wrong is reported")]
pub(in crate::config) fn folder_alone(raw: &Given<RawRenewal>, report: &mut Report) -> Option<Option<StateFolder>> {
    match raw {
        Given::Absent => Some(None),
        Given::Refused => None,
        Given::Value(section) => folder(&section.value.folder, report).map(Some),
    }
}

fn folder(given: &Given<String>, report: &mut Report) -> Option<StateFolder> {
    let remedy = "write folder = \"auto\", or the path of a folder for requests alone";
    own_folder::folder(given, Renewal::FOLDER, "requests have a folder of their own", remedy, report)
}
