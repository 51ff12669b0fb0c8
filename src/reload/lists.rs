//! Revocation lists that come over the control socket, and what of lists and certificates is in force.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{FAULT, Inner, Reloader};
use crate::config;
use crate::config::checked::{ClientAuth, Config, NewerList, RevocationList, RouteMode};
use crate::config::lists::Tightening;
use crate::explain::moment;
use crate::gate::Reviewed;
use crate::model::identity::Sha256;
use crate::model::names::printable;
use crate::snapshot::Snapshot;
use crate::telemetry::log::Event;

/// Authorities of which lists are kept that were handed over.
const AUTHORITIES_MAX: usize = 64;
/// The longest name of an authority in a message, in characters.
const NAME_MAX: usize = 200;

/// Why a list that was handed over is not taken.
type Refusal = String;

impl Reloader {
    /// Takes a revocation list and the certificate of the authority that signed it, both in binary form. It counts at once on
    /// every route that trusts this authority, and goes on counting after reloads, unless the files then have the same list
    /// or a newer one.
    ///
    /// # Errors
    /// In words, why the list is not in force.
    pub(crate) async fn take_list(&self, list: Vec<u8>, authority: Vec<u8>) -> Result<Reviewed, Refusal> {
        let (inner, asked) = (Arc::clone(&self.0), Instant::now());
        let taken = self.0.lists.run(move || inner.take_list(list, CertificateDer::from(authority), asked)).await;
        taken.unwrap_or_else(|| Err(FAULT.to_owned()))
    }

    /// What is in force on each route; `authority` is the one that [`RouteInForce::trusts`] asks about.
    pub(crate) fn in_force(&self, authority: Option<&CertificateDer<'_>>) -> Vec<RouteInForce> {
        let config = Arc::clone(&self.0.current.borrow().config);
        in_force(&config, authority)
    }
}

/// What is in force on a route that terminates TLS.
#[derive(Clone, Debug)]
pub(crate) struct RouteInForce {
    /// Its name.
    pub(crate) name: String,
    /// Whether it verifies certificates.
    pub(crate) verifies: bool,
    /// Whether lists of the authority that was asked about concern clients there.
    pub(crate) trusts: bool,
    /// The file of the certificate that it shows.
    pub(crate) certificate_file: PathBuf,
    /// The fingerprints of that certificate and of those behind it.
    pub(crate) certificates: Vec<Sha256>,
    /// The revocation lists.
    pub(crate) lists: Vec<ListFacts>,
}

/// What tells one revocation list from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListFacts {
    /// The authority.
    pub(crate) issuer: String,
    /// The CRL number.
    pub(crate) number: Option<String>,
    /// When it was made, in seconds since 1970.
    pub(crate) this_update: i64,
    /// SHA-256 of the list in binary form.
    pub(crate) sha256: Sha256,
    /// The file it was read from; `None` if it was handed over.
    pub(crate) file: Option<PathBuf>,
}

impl From<&RevocationList> for ListFacts {
    fn from(list: &RevocationList) -> Self {
        Self {
            issuer: issuer(list),
            number: list.number_in_words(),
            this_update: list.this_update,
            sha256: list.sha256,
            file: Some(list.file.clone()).filter(|file| !file.as_os_str().is_empty()),
        }
    }
}

fn in_force(config: &Config, authority: Option<&CertificateDer<'_>>) -> Vec<RouteInForce> {
    let routes = config.routes.iter().filter_map(|route| match &route.mode {
        RouteMode::Terminate(terminate) => Some((route, terminate)),
        RouteMode::Passthrough => None,
    });
    routes
        .map(|(route, terminate)| {
            let auth = &terminate.client_auth;
            RouteInForce {
                name: route.name.to_string(),
                verifies: auth.mode.verifies(),
                trusts: authority.is_some_and(|authority| auth.trusts(authority)),
                certificate_file: terminate.certificate.chain_file.clone(),
                certificates: terminate.certificate.certified_key.cert.iter().map(|der| Sha256::of(der)).collect(),
                lists: auth.all_lists().map(ListFacts::from).collect(),
            }
        })
        .collect()
}

pub(super) fn issuer(list: &RevocationList) -> String {
    printable(&list.issuer_in_words(), NAME_MAX)
}

/// A list in a message.
pub(super) fn in_words(list: &RevocationList) -> String {
    let number = list.number_in_words().map(|number| format!(" number {number}")).unwrap_or_default();
    format!("the revocation list{number} of {} ({})", issuer(list), moment(list.this_update))
}

impl Inner {
    fn take_list(&self, der: Vec<u8>, authority: CertificateDer<'static>, asked: Instant) -> Result<Reviewed, Refusal> {
        let new =
            RevocationList::read(der, Path::new("")).ok_or_else(|| "what was sent is no revocation list".to_owned())?;
        acceptable(&new, &authority)?;
        let list = Arc::new(NewerList::new(new, Some(authority.clone())));
        let tightening = Tightening { lists: vec![Arc::clone(&list)], ..Tightening::default() };
        loop {
            if let Some(reviewed) = self.tighten(&tightening, asked, |handed| keep(handed, Arc::clone(&list)))? {
                self.gate.log.event(&Event::RevocationList {
                    issuer: issuer(&list.list),
                    number: list.list.number_in_words(),
                    sha256: list.list.sha256.to_string(),
                    sessions_cut: reviewed.cut,
                });
                return Ok(reviewed);
            }
            let mut handed = self.handed.lock().unwrap_or_else(PoisonError::into_inner);
            let config = Arc::clone(&self.current.borrow().config);
            // Another configuration may have come meanwhile.
            if config.tightened(&tightening).is_none() {
                is_in_force(&config, &list.list, &authority)?;
                // The next reload may find an older one in the files.
                keep(&mut handed, list)?;
                return Ok(Reviewed::default());
            }
        }
    }

    /// Adds to the configuration in force, and reviews the sessions. `keep` notes what has to outlast the next reload, or
    /// says why it cannot. Nothing is reviewed if nothing is new.
    pub(super) fn tighten(
        &self,
        tightening: &Tightening,
        asked: Instant,
        keep: impl Fn(&mut Vec<Arc<NewerList>>) -> Result<(), String>,
    ) -> Result<Option<Reviewed>, String> {
        Ok(self.add(tightening, keep)?.then(|| self.gate.review(asked)))
    }

    /// The same without the review; gives whether anything is new.
    pub(super) fn add(
        &self,
        tightening: &Tightening,
        keep: impl Fn(&mut Vec<Arc<NewerList>>) -> Result<(), String>,
    ) -> Result<bool, String> {
        loop {
            let config = Arc::clone(&self.current.borrow().config);
            let Some(new) = config.tightened(tightening) else { return Ok(false) };
            // Lists may be long. This is done before anything else waits for it.
            let snapshot = Snapshot::build(&new).map_err(|error| error.to_string())?;
            let mut handed = self.handed.lock().unwrap_or_else(PoisonError::into_inner);
            if !Arc::ptr_eq(&config, &self.current.borrow().config) {
                continue;
            }
            keep(&mut handed)?;
            self.gate.snapshot.store(Arc::new(snapshot));
            self.current.send_modify(|current| current.config = Arc::new(new));
            drop(handed);
            return Ok(true);
        }
    }
}

/// Whether a list that was handed over may be put in force, if an authority that signed it counts.
fn acceptable(new: &RevocationList, authority: &CertificateDer<'_>) -> Result<(), Refusal> {
    let words = in_words(new);
    config::usable(new).map_err(|why| format!("{words} cannot be used: {why}"))?;
    if !new.whole {
        return Err(format!("{words} speaks for a part of the certificates only; name its file in revocation_lists"));
    }
    if !new.is_of(authority) {
        return Err(format!("{words} was not signed by the authority that was sent with it"));
    }
    if new.next_update.is_some_and(|next| next <= OffsetDateTime::now_utc().unix_timestamp()) {
        return Err(format!("{words} has expired; make a new one: doorward ca revoke"));
    }
    Ok(())
}

/// Whether a list that was handed over, and that adds nothing to the configuration, is in force by it on a route; if not, why it
/// is not taken.
fn is_in_force(config: &Config, new: &RevocationList, authority: &CertificateDer<'_>) -> Result<(), Refusal> {
    let words = in_words(new);
    let auths: Vec<&ClientAuth> = config
        .routes
        .iter()
        .filter_map(|route| match &route.mode {
            RouteMode::Terminate(terminate) => Some(&*terminate.client_auth),
            RouteMode::Passthrough => None,
        })
        .filter(|auth| auth.trusts(authority))
        .collect();
    if auths.is_empty() {
        return Err(format!(
            "{words} is of an authority that no route trusts; name its certificate in trust, under [client_auth]"
        ));
    }
    let lists = || auths.iter().flat_map(|auth| auth.all_lists());
    if lists().any(|list| list.sha256 == new.sha256) {
        return Ok(());
    }
    let newer = lists().filter(|list| list.whole && list.is_of(authority)).last().map(in_words).unwrap_or_default();
    Err(format!("{words} is not newer than the one in force: {newer}"))
}

/// One list of each authority, the newest.
fn keep(handed: &mut Vec<Arc<NewerList>>, new: Arc<NewerList>) -> Result<(), String> {
    let same = |other: &Arc<NewerList>| {
        other.list.issuer == new.list.issuer
            && new.authority.as_ref().is_some_and(|authority| other.list.is_of(authority))
    };
    if handed.iter().any(|other| same(other) && other.list.is_newer_than(&new.list)) {
        return Ok(());
    }
    handed.retain(|other| !same(other));
    if handed.len() >= AUTHORITIES_MAX {
        return Err(format!("lists of {AUTHORITIES_MAX} authorities were handed over already; restart the gate"));
    }
    handed.push(new);
    Ok(())
}
