//! Puts the revocations and denials of a configuration in force that cannot be loaded. A part that cannot be applied does not
//! hold up the others.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::outcome::{INTERNAL_ERROR, Refused, describe_list};
use super::policy_report;
use super::reloader::{Inner, caught};

use crate::config::checked::{Config, NewerList, RouteMode};
use crate::config::revocation_lists::Tightening;

impl Inner {
    /// Puts `tightening` in force, and adds to `refused` what of it is new and what cannot be applied.
    pub(super) fn salvage(&self, tightening: &Tightening, refused: &mut Refused, requested: Instant) {
        let before = Arc::clone(&self.current.borrow().config);
        // In one step if possible: each step builds all routes and reviews all sessions.
        let step = || {
            let added = self.add(tightening, |_| Ok(())).map_err(|error| vec![error])?;
            Ok(added.then(|| self.review(requested, None)))
        };
        match caught(step) {
            Ok(reviewed) => refused.cut = reviewed.map_or(0, |reviewed| reviewed.cut),
            Err(_) => self.salvage_parts(tightening, refused, requested),
        }
        let after = Arc::clone(&self.current.borrow().config);
        let new = tightening.lists.iter().filter(|list| has(&after, list) && !has(&before, list));
        refused.in_force.extend(new.map(|list| in_words(list)));
        refused.in_force.extend(policy_report::newly_denied(&before, &after));
        let keys = before.tickets.keys.iter().filter(|key| !after.tickets.keys.contains(key));
        refused.in_force.extend(
            keys.map(|key| {
                format!("session tickets are no longer taken under the former key of {}", key.file.display())
            }),
        );
    }

    fn salvage_parts(&self, tightening: &Tightening, refused: &mut Refused, requested: Instant) {
        for part in parts(tightening) {
            if let Err(errors) = caught(|| self.add(&part, |_| Ok(())).map_err(|error| vec![error])) {
                let what = part.lists.first().map_or_else(
                    || if part.withdrawn_keys.is_empty() { "entries of deny" } else { "keys of [tickets]" }.to_owned(),
                    |list| in_words(list),
                );
                let error = format!("not in force: {what}: {}", errors.join("; "));
                refused.not_in_force.push(error.clone());
                refused.errors.push(error);
            }
        }
        // Also if nothing was added: the step that failed may have been the review.
        match caught(|| Ok(self.review(requested, None))) {
            Ok(reviewed) => refused.cut = reviewed.cut,
            Err(_) => {
                let error = format!("open sessions were not all reviewed: {INTERNAL_ERROR}");
                refused.not_in_force.push(error.clone());
                refused.errors.push(error);
            }
        }
    }
}

/// The `deny` entries of the default, the keys of tickets, the `deny` entries of each route, and each list. Lists come last, because they need a parser.
fn parts(tightening: &Tightening) -> Vec<Tightening> {
    let Tightening { lists, deny, deny_on, withdrawn_keys } = tightening;
    let mut parts = vec![
        Tightening { deny: deny.clone(), ..Tightening::default() },
        Tightening { withdrawn_keys: withdrawn_keys.clone(), ..Tightening::default() },
    ];
    parts.extend(deny_on.iter().map(|(route, deny)| {
        let deny_on = HashMap::from([(route.clone(), deny.clone())]);
        Tightening { deny_on, ..Tightening::default() }
    }));
    parts.extend(lists.iter().map(|list| Tightening { lists: vec![Arc::clone(list)], ..Tightening::default() }));
    parts
}

/// Whether a route has the list.
fn has(config: &Config, list: &NewerList) -> bool {
    config.served().any(|route| match &route.mode {
        RouteMode::Terminate(terminate) => {
            terminate.client_auth.all_lists().any(|other| other.sha256 == list.list.sha256)
        }
        RouteMode::Passthrough => false,
    })
}

/// The list in a message, even if parsing it panics.
fn in_words(list: &NewerList) -> String {
    caught(|| Ok(describe_list(&list.list))).unwrap_or_else(|_| "a revocation list".to_owned())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
        CrlIssuingDistributionPoint, IsCa, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
    };
    use time::{Duration, OffsetDateTime};

    use super::*;
    use crate::admission::Admission;
    use crate::config;
    use crate::config::checked::{DenyList, LogFormat, RevocationList};
    use crate::gate::Gate;
    use crate::model::identity::Serial;
    use crate::model::names::Name;
    use crate::relay::Support;
    use crate::reload::Reloader;
    use crate::snapshot::Snapshot;
    use crate::telemetry::log::Log;
    use crate::telemetry::metrics::Metrics;

    #[tokio::test]
    async fn list_that_cannot_be_applied_does_not_hold_up_the_rest() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("a file");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["*.home.example".to_owned()]).expect("a name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).expect("a certificate");
        write("it.pem", authority.pem());
        write("key.pem", key.serialize_pem());
        let issuer = Issuer::new(params, key);
        let text = "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n[certificate]\nchain = \"it.pem\"\n\
                    key = \"key.pem\"\n[client_auth]\ntrust = [\"it.pem\"]\n[[route]]\nname = \"nas\"\n\
                    server_names = [\"nas.home.example\"]\nbackends = [\"127.0.0.1:1\"]\nallow = [\"any\"]\n";
        let config = config::parse(text, &folder.path().join("doorward.toml")).expect("a configuration");
        let gate = Arc::new(Gate::new(
            Snapshot::build(&config).expect("a snapshot"),
            Admission::new(config.limits.clone()),
            Support::none(),
            Arc::new(Metrics::new(&config).expect("metrics")),
            Arc::new(Log::new(LogFormat::Json, io::sink()).expect("a log")),
        ));
        let inner = Arc::clone(&Reloader::new(gate, config, Vec::new(), Arc::default()).expect("threads").0);

        let list = |number: u64, point: Option<&str>| {
            let now = OffsetDateTime::now_utc();
            let revoked = RevokedCertParams {
                serial_number: SerialNumber::from(number),
                revocation_time: now,
                reason_code: None,
                invalidity_date: None,
            };
            let list = CertificateRevocationListParams {
                this_update: now,
                next_update: now + Duration::DAY,
                crl_number: SerialNumber::from(number),
                issuing_distribution_point: point.map(|uri| CrlIssuingDistributionPoint {
                    distribution_point: CrlDistributionPoint { uris: vec![uri.to_owned()] },
                    scope: None,
                }),
                revoked_certs: vec![revoked],
                key_identifier_method: KeyIdMethod::Sha256,
            };
            list.signed_by(&issuer).expect("a list").der().to_vec()
        };
        // Its issuing distribution point (2.5.29.28) becomes a critical extension that no parser knows.
        let mut odd = list(7, Some("http://one.example/"));
        let id = odd.windows(3).position(|bytes| bytes == [0x55, 0x1d, 28]).expect("the extension");
        odd[id + 2] = 99;
        let newer = |der: Vec<u8>| {
            let list = RevocationList::read(der, Path::new("")).expect("a list");
            Arc::new(NewerList::new(list, Some(authority.der().clone())))
        };
        let denied =
            |serial: u8| DenyList { serials: [Serial::from_be_bytes(&[serial])].into(), ..DenyList::default() };
        let tightening = Tightening {
            lists: vec![newer(odd), newer(list(6, None))],
            deny: denied(8),
            deny_on: HashMap::from([(Name::parse("nas").expect("a name"), denied(9))]),
            ..Tightening::default()
        };
        let mut refused = Refused::default();
        inner.salvage(&tightening, &mut refused, Instant::now());
        let [error] = &refused.errors[..] else { panic!("{refused:?}") };
        assert!(error.starts_with("not in force: revocation list number 7 of "), "{error}");
        let [list, deny @ ..] = &refused.in_force[..] else { panic!("{refused:?}") };
        assert!(list.starts_with("revocation list number 6 of "), "{list}");
        assert_eq!(deny, ["deny = \"serial:08\"", "deny = \"serial:09\""]);

        let config = Arc::clone(&inner.current.borrow().config);
        let RouteMode::Terminate(nas) = &config.routes[0].mode else { panic!("it asks for certificates") };
        let numbers: Vec<_> = nas.client_auth.all_lists().filter_map(RevocationList::number_in_words).collect();
        assert_eq!(numbers, ["6"]);
        assert!([8, 9].iter().all(|serial| nas.client_auth.deny.serials.contains(&Serial::from_be_bytes(&[*serial]))));
        // The same once more is no news, but for what cannot be applied.
        let mut again = Refused::default();
        inner.salvage(&tightening, &mut again, Instant::now());
        assert_eq!((&again.errors, again.in_force.len()), (&refused.errors, 0));
    }
}
