//! What a configuration that cannot be loaded still says about rights that are taken away.

use std::collections::{BTreeSet, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::deny::{self, Denied};
use super::{anchors, revocation_lists, tickets};
use crate::config::checked::{ClientAuth, Config, DenyList, NewerList, RevocationList, RouteMode};
use crate::config::raw::{Raw, RawClientAuth};
use crate::config::report::{self, Given, Problem};
use crate::config::revocation_lists::{Salvaged, Tightening};
use crate::config::{ConfigError, MayRead, files};
use crate::model::identity::Sha256;
use crate::model::names::Name;

/// The lists that `in_force` and `raw` name, as far as they can be read, are not in force yet, and are of an authority that is
/// in force; and every `deny` entry of `raw` that is right.
pub(in crate::config) fn salvage(raw: Option<&Raw>, file: &Path, in_force: &Config, may_read: &MayRead) -> Salvaged {
    salvage_with(revocation_lists::whole_lists, raw, file, in_force, may_read)
}

/// `read` gives the lists of a file.
fn salvage_with(
    read: impl Fn(&Path) -> Vec<RevocationList>,
    raw: Option<&Raw>,
    file: &Path,
    in_force: &Config,
    may_read: &MayRead,
) -> Salvaged {
    let wrong_with = |path: &Path| {
        // As the load that failed has said of it: owner and mode are not the cause.
        if may_read(path) { revocation_lists::wrong_with_lists(path) } else { Some(report::outside(path)) }
    };
    let mut tightening = Tightening::default();
    let auths: Vec<&ClientAuth> = in_force.served().filter_map(client_auth_of).collect();
    let own: BTreeSet<&Path> = auths.iter().flat_map(|auth| &auth.revocation_lists).map(|list| &*list.file).collect();
    let mut from_text = BTreeSet::new();
    if let Some(raw) = raw {
        let default = raw.client_auth.value().map(|default| &default.value);
        let routes = raw.routes.as_deref().unwrap_or_default();
        let tables =
            default.into_iter().chain(routes.iter().filter_map(|route| route.client_auth.value().map(|at| &at.value)));
        let lists = tables.filter_map(|table| table.revocation_lists.value()).flat_map(|list| &list.value);
        from_text
            .extend(lists.filter(|text| !text.value.is_empty()).map(|text| files::folder_of(file).join(&text.value)));
        tightening.deny = default.map(denied).unwrap_or_default();
        for route in routes {
            let Some(name) = route.name.value().and_then(|name| Name::parse(&name.value).ok()) else { continue };
            let Some(own) = route.client_auth.value() else { continue };
            tightening.deny_on.entry(name).or_default().extend(denied(&own.value));
        }
    }
    let (mut errors, mut faults) = (Vec::new(), Vec::new());
    let named: BTreeSet<&Path> = from_text.iter().map(PathBuf::as_path).chain(own.iter().copied()).collect();
    for path in named {
        let mut take = |list: RevocationList| {
            let mut anchors = auths.iter().flat_map(|auth| &auth.trust).map(|anchor| &anchor.certificate);
            let authority = anchors.find(|anchor| list.is_of(anchor)).cloned();
            let has_anchor_of_that_name = || {
                auths
                    .iter()
                    .flat_map(|auth| &auth.trust)
                    .any(|anchor| anchors::is_named(&anchor.certificate, &list.issuer))
            };
            // Of an intermediate authority only clients show the certificate; a reload takes its list as the file has it.
            if authority.is_some() || (own.contains(path) && !has_anchor_of_that_name()) {
                let newer = NewerList::new(list, authority);
                // Not an older one, as a backup that was put back has it.
                if auths.iter().any(|auth| auth.lacks(&newer)) {
                    tightening.lists.push(Arc::new(newer));
                }
            }
        };
        // A list that makes a parser panic holds up no other.
        if catch_unwind(AssertUnwindSafe(|| read(path).into_iter().for_each(&mut take))).is_err() {
            faults.push(path.to_owned());
        } else if (from_text.is_empty() || from_text.contains(path))
            && let Some(Problem { message, remedy }) = wrong_with(path)
        {
            let key = "client_auth.revocation_lists".to_owned();
            errors.push(ConfigError { file: file.to_owned(), line: None, key, message, remedy });
        }
    }
    tightening.withdrawn_keys = withdrawn_keys(raw, file, in_force);
    Salvaged { tightening, errors, faults }
}

/// The keys of session tickets in force that are in no file which the configuration names; or, if that cannot be told, in none
/// that the configuration in force names. A file that is not right has no key.
fn withdrawn_keys(raw: Option<&Raw>, file: &Path, in_force: &Config) -> HashSet<Sha256> {
    let named = raw.and_then(|raw| raw.tickets.value()).and_then(|tickets| tickets.value.keys.value());
    let named: Vec<PathBuf> = match named {
        Some(named) => named.value.iter().map(|text| files::folder_of(file).join(&text.value)).collect(),
        None => in_force.tickets.keys.iter().map(|key| key.file.clone()).collect(),
    };
    let there = named.iter().filter_map(|path| tickets::secret(&files::read_named(path).ok()?).ok());
    let there: HashSet<Sha256> = there.map(|key| key.id).collect();
    in_force.tickets.keys.iter().map(|key| key.id).filter(|id| !there.contains(id)).collect()
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

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
        SerialNumber,
    };
    use tempfile::TempDir;
    use time::{Duration, OffsetDateTime};

    use super::*;
    use crate::config::{self, everything};

    /// Three routes, and a newer list for each: their folder, and the configuration in force.
    fn newer_lists() -> (TempDir, PathBuf, Config) {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, contents: String| std::fs::write(folder.path().join(name), contents).expect("a file");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["*.home.example".to_owned()]).expect("a name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        write("it.pem", params.self_signed(&key).expect("a certificate").pem());
        write("key.pem", key.serialize_pem());
        let issuer = Issuer::new(params, key);
        let list = |number: u64| {
            let now = OffsetDateTime::now_utc();
            let list = CertificateRevocationListParams {
                this_update: now,
                next_update: now + Duration::DAY,
                crl_number: SerialNumber::from(number),
                issuing_distribution_point: None,
                revoked_certs: Vec::new(),
                key_identifier_method: KeyIdMethod::Sha256,
            };
            list.signed_by(&issuer).expect("a list").pem().expect("text")
        };
        ["a.crl", "b.crl", "c.crl"].iter().for_each(|name| write(name, list(1)));
        let route = |name: &str| {
            format!(
                "[[route]]\nname = \"{name}\"\nserver_names = [\"{name}.home.example\"]\nbackends = [\"127.0.0.1:1\"]\n\
                 allow = [\"any\"]\n[route.client_auth]\nrevocation_lists = [\"{name}.crl\"]\n"
            )
        };
        let text = "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n[certificate]\nchain = \"it.pem\"\n\
                    key = \"key.pem\"\n[client_auth]\ntrust = [\"it.pem\"]\n";
        let text = [text.to_owned(), route("a"), route("b"), route("c")].concat();
        let file = folder.path().join("doorward.toml");
        let in_force = config::parse(&text, &file).expect("a configuration");
        for (name, number) in [("a.crl", 4), ("b.crl", 5), ("c.crl", 6)] {
            write(name, list(number));
        }
        (folder, file, in_force)
    }

    #[test]
    fn file_that_makes_a_parser_panic_holds_up_no_other() {
        let (folder, file, in_force) = newer_lists();
        let read = |path: &Path| {
            assert!(!path.ends_with("b.crl"), "a parser stumbles");
            revocation_lists::whole_lists(path)
        };
        let Salvaged { tightening, errors, faults } = salvage_with(read, None, &file, &in_force, &everything());
        let numbers: Vec<_> = tightening.lists.iter().filter_map(|list| list.list.number_in_words()).collect();
        assert_eq!(numbers, ["4", "6"]);
        assert_eq!((faults, errors), (vec![folder.path().join("b.crl")], Vec::new()));
    }
    /// As the kernel refuses it: a name and an owner that are right are not to be corrected.
    #[test]
    fn list_outside_the_sandbox_is_reported_as_that() {
        let (_folder, file, in_force) = newer_lists();
        let may_read: MayRead = Rc::new(|path| !path.ends_with("b.crl"));
        let read = |path: &Path| if may_read(path) { revocation_lists::whole_lists(path) } else { Vec::new() };
        let Salvaged { tightening, errors, faults } = salvage_with(read, None, &file, &in_force, &may_read);
        let numbers: Vec<_> = tightening.lists.iter().filter_map(|list| list.list.number_in_words()).collect();
        assert_eq!((numbers, faults), (vec!["4".to_owned(), "6".to_owned()], Vec::new()));
        let [error] = errors.as_slice() else { panic!("one error: {errors:?}") };
        assert!(error.message.starts_with("the sandbox of the running gate does not allow it to read"), "{error}");
        assert!(error.remedy.contains("doorward upgrade"), "{error}");
    }
}
