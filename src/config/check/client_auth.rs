//! `[client_auth]` and `[route.client_auth]`: how client certificates are judged.
//!
//! A route's own table takes each key it does not give from the default table.

use std::sync::Arc;

use super::{anchors, deny, revocation_lists, trust, word};
use crate::config::checked::{ClientAuth, ClientAuthMode, ExpiredRevocationList, ExpiredSession, RevocationCheck};
use crate::config::raw::RawClientAuth;
use crate::config::report::{Given, Place, Report, Text};

/// The words of `mode`.
const MODES: &[(&str, ClientAuthMode)] = &[
    ("request", ClientAuthMode::Request),
    ("require", ClientAuthMode::Require),
    ("verify_if_given", ClientAuthMode::VerifyIfGiven),
    ("require_and_verify", ClientAuthMode::RequireAndVerify),
];

const EXPIRED_WORDS: &[(&str, ExpiredRevocationList)] =
    &[("deny", ExpiredRevocationList::Deny), ("warn", ExpiredRevocationList::Warn)];

const CHECK_WORDS: &[(&str, RevocationCheck)] = &[("chain", RevocationCheck::Chain), ("leaf", RevocationCheck::Leaf)];

const SESSION_WORDS: &[(&str, ExpiredSession)] = &[("cut", ExpiredSession::Cut), ("keep", ExpiredSession::Keep)];

const ANNOUNCE_WORDS: &[(&str, bool)] = &[("on", true), ("off", false)];

/// Puts a table together from what it gives and what the default table gives, and checks all of it.
///
/// `place` is what to name if something is missing; `in_use` says whether any route relies on this very table, without
/// which a default table may leave `trust` to the routes.
pub(super) fn check(
    own: Option<&RawClientAuth>,
    default: Option<&RawClientAuth>,
    place: &Place,
    in_use: bool,
    report: &mut Report,
) -> Option<Arc<ClientAuth>> {
    let text = |key: fn(&RawClientAuth) -> &Given<String>| own.map_or(&Given::Absent, key).or(default.map(key));
    let list = |key: fn(&RawClientAuth) -> &Given<Vec<Text>>| own.map_or(&Given::Absent, key).or(default.map(key));
    let (trust, lists) = (list(|raw| &raw.trust), list(|raw| &raw.revocation_lists));

    let mode = word(text(|raw| &raw.mode), MODES, ClientAuthMode::RequireAndVerify, report);
    let expired = word(text(|raw| &raw.expired_revocation_list), EXPIRED_WORDS, ExpiredRevocationList::Deny, report);
    let depth = word(text(|raw| &raw.revocation_check), CHECK_WORDS, RevocationCheck::Chain, report);
    let sessions = word(text(|raw| &raw.expired_session), SESSION_WORDS, ExpiredSession::Cut, report);
    let announce = word(text(|raw| &raw.announce_trust), ANNOUNCE_WORDS, true, report);
    let anchors = anchors::check(trust, report);
    let lists_in_files = revocation_lists::check(lists, report);
    // Entries of the default count on every route: a lost phone is lost everywhere.
    let [own_deny, default_deny] =
        [own, default].map(|table| deny::check(table.map_or(&Given::Absent, |raw| &raw.deny), report));

    // Each part has been looked at by now, so that everything wrong with any of them has been told.
    let (mode, expired, sessions, announce) = (mode?, expired?, sessions?, announce?);
    let (anchors, mut lists_read) = (anchors?, lists_in_files?);
    trust::attribute(&mut lists_read, &anchors);
    let mut deny = own_deny?;
    deny.extend(default_deny?);
    if mode.verifies() && in_use && anchors.is_empty() {
        report.error(
            &trust.value().map_or_else(|| place.child("trust"), |trust| trust.place.clone()),
            format!("no authority is trusted, so in the mode \"{}\" every certificate would be rejected", mode.word()),
            "name the file with the certificate of the authority that signs your devices' certificates: trust = \
             [\"pki/clients.pem\"]; with mkcert that is the file rootCA.pem in the folder that \"mkcert -CAROOT\" \
             prints",
        );
        return None;
    }
    if let Some(lists) = lists.value().filter(|lists| !mode.verifies() && !lists.value.is_empty()) {
        report.warn(
            &lists.place,
            format!(
                "revocation lists have no effect in the mode \"{}\", which verifies no certificate; write mode = \
                 \"require_and_verify\"",
                mode.word()
            ),
        );
    }
    let depth = depth?;
    revocation_lists::lint(&lists_read, &anchors, expired, depth, mode, report);
    Some(Arc::new(ClientAuth {
        mode,
        trust: anchors.into_iter().map(|anchor| anchor.value).collect(),
        revocation_lists: lists_read.into_iter().map(|list| list.value).collect(),
        newer_lists: Vec::new(),
        deny,
        loaded_deny: None,
        expired_revocation_list: expired,
        revocation_check: depth,
        expired_session: sessions,
        announce_trust: announce,
    }))
}
