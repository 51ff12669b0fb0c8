//! What a configuration that cannot be loaded still says about rights that are taken away.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::deny::{self, Denied};
use super::{anchors, revocation_lists};
use crate::config::checked::{ClientAuth, Config, DenyList, NewerList, RouteMode};
use crate::config::files;
use crate::config::lists::Tightening;
use crate::config::raw::{Raw, RawClientAuth};
use crate::config::report::Given;
use crate::model::names::Name;

/// The lists that `in_force` and `raw` name, as far as they can be read, are not in force yet, and are of an authority that is
/// in force; and every `deny` entry of `raw` that is right.
pub(in crate::config) fn salvage(raw: Option<&Raw>, file: &Path, in_force: &Config) -> Tightening {
    let mut tightening = Tightening::default();
    let auths: Vec<&ClientAuth> = in_force.routes.iter().filter_map(client_auth_of).collect();
    let own: BTreeSet<&Path> = auths.iter().flat_map(|auth| &auth.revocation_lists).map(|list| &*list.file).collect();
    let mut named: BTreeSet<PathBuf> = own.iter().map(|file| (*file).to_owned()).collect();
    if let Some(raw) = raw {
        let default = raw.client_auth.value().map(|default| &default.value);
        let routes = raw.routes.as_deref().unwrap_or_default();
        let tables =
            default.into_iter().chain(routes.iter().filter_map(|route| route.client_auth.value().map(|at| &at.value)));
        let lists = tables.filter_map(|table| table.revocation_lists.value()).flat_map(|list| &list.value);
        named.extend(lists.filter(|text| !text.value.is_empty()).map(|text| files::folder_of(file).join(&text.value)));
        tightening.deny = default.map(denied).unwrap_or_default();
        for route in routes {
            let Some(name) = route.name.value().and_then(|name| Name::parse(&name.value).ok()) else { continue };
            let Some(own) = route.client_auth.value() else { continue };
            tightening.deny_on.entry(name).or_default().extend(denied(&own.value));
        }
    }
    for path in &named {
        for list in revocation_lists::whole_lists(path) {
            let mut anchors = auths.iter().flat_map(|auth| &auth.trust).map(|anchor| &anchor.certificate);
            let authority = anchors.find(|anchor| list.is_of(anchor)).cloned();
            let has_anchor_of_that_name = || {
                auths
                    .iter()
                    .flat_map(|auth| &auth.trust)
                    .any(|anchor| anchors::is_named(&anchor.certificate, &list.issuer))
            };
            // Of an intermediate authority only clients show the certificate; a reload takes its list as the file has it.
            if authority.is_some() || (own.contains(&**path) && !has_anchor_of_that_name()) {
                let newer = NewerList::new(list, authority);
                // Not an older one, as a backup that was put back has it.
                if auths.iter().any(|auth| auth.lacks(&newer)) {
                    tightening.lists.push(Arc::new(newer));
                }
            }
        }
    }
    tightening
}

fn client_auth_of(route: &crate::config::checked::Route) -> Option<&ClientAuth> {
    match &route.mode {
        RouteMode::Terminate(terminate) => Some(&terminate.client_auth),
        RouteMode::Passthrough => None,
    }
}

fn denied(table: &RawClientAuth) -> DenyList {
    let mut deny = DenyList::default();
    let Given::Value(list) = &table.deny else { return deny };
    for text in &list.value {
        match deny::denied(&text.value) {
            Ok(Denied::Fingerprint(digest)) => drop(deny.fingerprints.insert(digest)),
            Ok(Denied::Serial(serial)) => drop(deny.serials.insert(serial)),
            Err(_) => {}
        }
    }
    deny
}
