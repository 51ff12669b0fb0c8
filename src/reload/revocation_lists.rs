//! Revocation lists from the control socket, and which lists and certificates are in force.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::outcome::{INTERNAL_ERROR, describe_list, issuer};
use super::reloader::{Inner, Reloader};
use crate::config;
use crate::config::checked::{ClientAuth, Config, NewerList, RevocationList, RouteMode};
use crate::config::revocation_lists::Tightening;
use crate::model::identity::Sha256;
use crate::sessions::review::Reviewed;
use crate::telemetry::log::Event;

/// The most authorities whose lists are kept.
const AUTHORITIES_MAX: usize = 64;

/// Why a list is refused.
type Refusal = String;

impl Reloader {
    /// Puts a revocation list in force on every route that trusts `authority`, the certificate that signed it. Both are DER.
    /// It stays in force across reloads until a file has the same list or a newer one.
    ///
    /// # Errors
    /// Why the list is refused, as a message.
    pub(crate) async fn take_list(&self, list: Vec<u8>, authority: Vec<u8>) -> Result<Reviewed, Refusal> {
        let (inner, requested) = (Arc::clone(&self.0), Instant::now());
        let taken = self.0.lists.run(move || inner.take_list(list, CertificateDer::from(authority), requested)).await;
        taken.unwrap_or_else(|| Err(INTERNAL_ERROR.to_owned()))
    }

    /// The lists and certificates in force on each route. [`RouteInForce::trusts`] is about `authority`.
    pub(crate) fn in_force(&self, authority: Option<&CertificateDer<'_>>) -> Vec<RouteInForce> {
        let config = Arc::clone(&self.0.current.borrow().config);
        in_force(&config, authority)
    }
}

/// The lists and certificates in force on a route that terminates TLS.
#[derive(Clone, Debug)]
pub(crate) struct RouteInForce {
    /// The route's name.
    pub(crate) name: String,
    /// Whether it verifies client certificates.
    pub(crate) verifies: bool,
    /// Whether a list of the given authority affects its clients.
    pub(crate) trusts: bool,
    /// The file of its server certificate.
    pub(crate) certificate_file: PathBuf,
    /// The fingerprints of that certificate and its chain.
    pub(crate) certificates: Vec<Sha256>,
    /// Its revocation lists.
    pub(crate) lists: Vec<ListFacts>,
}

/// What identifies a revocation list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListFacts {
    /// The authority.
    pub(crate) issuer: String,
    /// The CRL number.
    pub(crate) number: Option<String>,
    /// Its thisUpdate, in seconds since 1970.
    pub(crate) this_update: i64,
    /// SHA-256 of its DER.
    pub(crate) sha256: Sha256,
    /// Its file; `None` if it came over the control socket.
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
    let routes = config.served().filter_map(|route| match &route.mode {
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

impl Inner {
    fn take_list(
        &self,
        der: Vec<u8>,
        authority: CertificateDer<'static>,
        requested: Instant,
    ) -> Result<Reviewed, Refusal> {
        let new =
            RevocationList::read(der, Path::new("")).ok_or_else(|| "the data is not a revocation list".to_owned())?;
        acceptable(&new, &authority)?;
        let list = Arc::new(NewerList::new(new, Some(authority.clone())));
        let tightening = Tightening { lists: vec![Arc::clone(&list)], ..Tightening::default() };
        loop {
            if self.add(&tightening, |received| keep(received, Arc::clone(&list)))? {
                let reviewed = self.review(requested, Some(&list.list.sha256));
                if !self.retired.load(Ordering::SeqCst) {
                    self.gate.log.event(&Event::RevocationList {
                        issuer: issuer(&list.list),
                        number: list.list.number_in_words(),
                        sha256: list.list.sha256.to_string(),
                        sessions_cut: reviewed.cut,
                    });
                }
                return Ok(reviewed);
            }
            let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
            let config = Arc::clone(&self.current.borrow().config);
            // Another reload may have changed the configuration meanwhile.
            if config.tightened(&tightening).is_none() {
                is_in_force(&config, &list.list, &authority)?;
                // Kept, because the next reload may find an older list in the files.
                let sha256 = list.list.sha256;
                keep(&mut received, list)?;
                drop(received);
                // The other reload may not have cut the sessions yet.
                return Ok(self.review(requested, Some(&sha256)));
            }
        }
    }
}

/// Whether a received list may be put in force on the routes that trust `authority`.
fn acceptable(new: &RevocationList, authority: &CertificateDer<'_>) -> Result<(), Refusal> {
    let words = describe_list(new);
    config::usable(new).map_err(|why| format!("{words} cannot be used: {why}"))?;
    if !new.whole {
        return Err(format!("{words} covers only a part of the certificates; add its file to revocation_lists"));
    }
    if !new.is_of(authority) {
        return Err(format!("{words} is not signed by the authority that was sent with it"));
    }
    if new.next_update.is_some_and(|next| next <= OffsetDateTime::now_utc().unix_timestamp()) {
        return Err(format!("{words} has expired; issue a new one: doorward ca revoke --lists"));
    }
    Ok(())
}

/// Whether a received list that adds nothing to the configuration is in force already. If not, why it is refused.
fn is_in_force(config: &Config, new: &RevocationList, authority: &CertificateDer<'_>) -> Result<(), Refusal> {
    let words = describe_list(new);
    let auths: Vec<&ClientAuth> = config
        .served()
        .filter_map(|route| match &route.mode {
            RouteMode::Terminate(terminate) => Some(&*terminate.client_auth),
            RouteMode::Passthrough => None,
        })
        .filter(|auth| auth.trusts(authority))
        .collect();
    if auths.is_empty() {
        return Err(format!(
            "{words} is signed by an authority that no route trusts; add its certificate to trust under [client_auth]"
        ));
    }
    let lists = || auths.iter().flat_map(|auth| auth.all_lists());
    if lists().any(|list| list.sha256 == new.sha256) {
        return Ok(());
    }
    let newer =
        lists().filter(|list| list.whole && list.is_of(authority)).last().map(describe_list).unwrap_or_default();
    Err(format!("{words} is not newer than the one in force: {newer}"))
}

/// Keeps the newest list of each authority.
fn keep(received: &mut Vec<Arc<NewerList>>, new: Arc<NewerList>) -> Result<(), String> {
    let same = |other: &Arc<NewerList>| {
        other.list.issuer == new.list.issuer
            && new.authority.as_ref().is_some_and(|authority| other.list.is_of(authority))
    };
    if received.iter().any(|other| same(other) && other.list.is_newer_than(&new.list)) {
        return Ok(());
    }
    received.retain(|other| !same(other));
    if received.len() >= AUTHORITIES_MAX {
        return Err(format!("lists of {AUTHORITIES_MAX} authorities have been received already; restart the gate"));
    }
    received.push(new);
    Ok(())
}
