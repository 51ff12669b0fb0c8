//! `[client_auth]` and `[route.client_auth]`: how client certificates are judged.
//!
//! A route's own table takes each key it does not give from the default table.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::SectionKind;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::WebPkiClientVerifier;
use x509_parser::oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate, X509Version};

use super::{date, now, trust, word};
use crate::config::checked::{
    ClientAuth, ClientAuthMode, DenyList, ExpiredRevocationList, ExpiredSession, RevocationCheck, RevocationList,
    TrustAnchor, TrustKind,
};
use crate::config::files::{self, NamedFile, Pem, Wanted};
use crate::config::raw::RawClientAuth;
use crate::config::report::{At, Given, Place, Problem, Report, Text, quoted};
use crate::model::identity::{Identity, Serial, Sha256, key, text};
use crate::model::names::printable;
use crate::pki::public;

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

/// What mkcert calls itself in every root it makes.
const MKCERT: &str = "mkcert development CA";

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
    let anchors = check_trust(trust, report);
    let revocation_lists = check_lists(lists, report);
    // Whom the default turns away, no route lets in: a lost phone is lost everywhere.
    let deny = [own, default].map(|table| check_deny(table.map_or(&Given::Absent, |raw| &raw.deny), report));

    // Each part has been looked at by now, so that everything wrong with any of them has been told.
    let (mode, expired, sessions, announce) = (mode?, expired?, sessions?, announce?);
    let (anchors, mut lists_read) = (anchors?, revocation_lists?);
    trust::attribute(&mut lists_read, &anchors);
    let [own_deny, default_deny] = deny;
    let deny = both(own_deny?, default_deny?);
    if mode.verifies() && in_use && anchors.is_empty() {
        report.error(
            &trust.value().map_or_else(|| place.child("trust"), |trust| trust.place.clone()),
            format!(
                "nobody is trusted to vouch for devices, so in the mode \"{}\" no certificate would ever be \
                 valid",
                mode.word()
            ),
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
                "revocation lists have no effect in the mode \"{}\", which verifies nobody; write mode = \
                 \"require_and_verify\"",
                mode.word()
            ),
        );
    }
    let depth = depth?;
    lint_lists(&lists_read, &anchors, expired, depth, mode, report);
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

fn both(mut one: DenyList, other: DenyList) -> DenyList {
    one.extend(other);
    one
}

/// Reads every file of a list, or `None` if one of them is wrong. A file that is named has to be right in every mode:
/// falling back to something else instead is how CVE-2026-27586 came about.
fn each<T>(
    given: &Given<Vec<Text>>,
    report: &mut Report,
    mut read: impl FnMut(&Text, &mut Report) -> Option<Vec<T>>,
) -> Option<Vec<At<T>>> {
    let list = match given {
        Given::Absent => return Some(Vec::new()),
        Given::Refused => return None,
        Given::Value(list) => list,
    };
    let mut all = Some(Vec::new());
    for text in &list.value {
        match (read(text, report), &mut all) {
            (Some(read), Some(all)) => {
                all.extend(read.into_iter().map(|value| At { value, place: text.place.clone() }));
            }
            _ => all = None,
        }
    }
    all
}

fn check_trust(given: &Given<Vec<Text>>, report: &mut Report) -> Option<Vec<At<TrustAnchor>>> {
    let mut seen = HashSet::new();
    each(given, report, |text, report| {
        let file = files::read(text, report)?;
        let anchors = read_anchors(text, &file, report)?;
        Some(anchors.into_iter().filter(|anchor| seen.insert(anchor.certificate.clone())).collect())
    })
}

fn read_anchors(text: &Text, file: &NamedFile, report: &mut Report) -> Option<Vec<TrustAnchor>> {
    let shown = file.path.display();
    let pem = report.taken(&text.place, Pem::parse(file))?;
    let certificates = pem.of(SectionKind::Certificate);
    if certificates.is_empty() {
        report.problem(&text.place, files::mistaken(file, Wanted::Certificates));
        return None;
    }
    let labels = files::labels(&file.bytes);
    if let Some(other) = labels.iter().find(|label| *label != "CERTIFICATE" && !label.ends_with("PRIVATE KEY")) {
        report.error(
            &text.place,
            format!("besides certificates, {shown} holds {}, which would be ignored", quoted(other)),
            "leave only certificates in the file; a revocation list belongs in a file of its own, under \
             revocation_lists",
        );
        return None;
    }
    if labels.iter().any(|label| label.ends_with("PRIVATE KEY")) {
        report.warn(
            &text.place,
            format!(
                "{shown} holds a private key besides its certificates; the gate does not need it, and whoever \
                 gets it can make certificates for himself: move it to a safe place"
            ),
        );
    }
    let mut anchors = Vec::with_capacity(certificates.len());
    for (index, der) in certificates.into_iter().enumerate() {
        let certificate = CertificateDer::from(der);
        let parsed = X509Certificate::from_der(&certificate).ok().filter(|(rest, _)| rest.is_empty());
        let usable = RootCertStore::empty().add(certificate.clone()).is_ok();
        if let Some((_, parsed)) = parsed.filter(|_| usable) {
            let Some(kind) = trust::kind(&parsed) else {
                report.error(
                    &text.place,
                    format!(
                        "certificate {} in {shown} is of version 1 and does not say whether it is that of an authority",
                        index + 1
                    ),
                    "name the certificate of the authority that signed it",
                );
                return None;
            };
            lint_anchor(&parsed, kind, file, &text.place, report);
            anchors.push(TrustAnchor { file: file.path.clone(), certificate: certificate.clone(), kind });
        } else {
            report.error(
                &text.place,
                format!("certificate {} in {shown} cannot be used: it is damaged or in an outdated form", index + 1),
                "copy the file once more from where it came, or leave this certificate out",
            );
            return None;
        }
    }
    Some(anchors)
}

fn lint_anchor(anchor: &X509Certificate<'_>, kind: TrustKind, file: &NamedFile, place: &Place, report: &mut Report) {
    let (shown, who) = (file.path.display(), named(anchor));
    let until = anchor.validity().not_after.timestamp();
    match kind {
        TrustKind::Authority if until < now() && !public::is_public(anchor) => report.warn(
            place,
            format!(
                "the authority {who} in {shown} expired on {}; the gate still trusts it, other programs will not: \
                 replace it",
                date(until)
            ),
        ),
        TrustKind::Pinned if until < now() => report.warn(
            place,
            format!("the certificate {who} in {shown} expired on {}, and is turned away: replace it", date(until)),
        ),
        _ => {}
    }
    if let Some(what) = key::unsupported(anchor.public_key().raw) {
        let consequence = match kind {
            TrustKind::Authority => format!(
                "the key of the authority {who} in {shown} is {what}, and the gate cannot check what it signs, so every device \
                 of it is turned away (unsupported_key): make a new authority"
            ),
            TrustKind::Pinned => format!(
                "the key of {who} in {shown} is {what}, which the gate cannot check, so it is turned away (unsupported_key): \
                 issue a certificate"
            ),
        };
        report.warn(place, format!("{consequence} whose key is one of these: {}", key::SUPPORTED));
    }
    if kind == TrustKind::Pinned {
        report.warn(
            place,
            format!(
                "{who} in {shown} is not the certificate of an authority but of one device or server: exactly that \
                 certificate is accepted, and none that its key signed; to accept all devices of an authority, name \
                 the authority's certificate, often called rootCA.pem or ca.pem"
            ),
        );
    } else if anchor.version() != X509Version::V3 {
        report.warn(
            place,
            format!(
                "{who} in {shown} is a certificate of version 1, which does not say whether it is that of an authority: \
                 its key is trusted to make certificates for every device"
            ),
        );
    }
}

/// How a certificate's subject is called in a message.
pub(super) fn named(certificate: &X509Certificate<'_>) -> String {
    let subject = certificate.subject();
    let name = subject.iter_common_name().chain(subject.iter_organization()).next().map(text::attribute);
    let other = || Identity::from_certificate(certificate.as_raw(), false).map(|identity| identity.display_name());
    name.as_deref().map(quoted).or_else(|| other().ok().map(|name| quoted(&name))).unwrap_or_default()
}

fn check_lists(given: &Given<Vec<Text>>, report: &mut Report) -> Option<Vec<At<RevocationList>>> {
    each(given, report, |text, report| {
        let file = files::read(text, report)?;
        let result = read_lists(&file);
        report.taken(&text.place, result)
    })
}

/// The lists in a file that can be used, whatever else is in it: what follows may not be written yet.
pub(super) fn whole_lists(path: &Path) -> Vec<RevocationList> {
    let Ok(file) = files::read_named(path) else { return Vec::new() };
    lists_in(&file, |file| Ok(files::whole_blocks(file, SectionKind::Crl)))
        .unwrap_or_default()
        .into_iter()
        .filter_map(|der| RevocationList::read(der, path))
        .filter(|list| accepted(list.list.clone()).is_ok())
        .collect()
}

/// Why a load would not take a file of lists.
pub(super) fn wrong_with_lists(path: &Path) -> Option<Problem> {
    files::read_named(path).map_err(|error| files::unreadable(path, &error)).and_then(|file| read_lists(&file)).err()
}

/// The lists in a file, in binary form; those of a file in text form as `parse` finds them.
fn lists_in(
    file: &NamedFile,
    parse: impl FnOnce(&NamedFile) -> Result<Vec<Vec<u8>>, Problem>,
) -> Result<Vec<Vec<u8>>, Problem> {
    if CertificateRevocationList::from_der(&file.bytes).is_ok() { Ok(vec![file.bytes.clone()]) } else { parse(file) }
}

/// Whether a certificate is of this name, as it is encoded.
pub(super) fn is_named(certificate: &CertificateDer<'_>, name: &[u8]) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, certificate)| certificate.subject().as_raw() == name)
}

fn read_lists(file: &NamedFile) -> Result<Vec<RevocationList>, Problem> {
    let shown = file.path.display();
    let lists = lists_in(file, |file| Ok(Pem::parse(file)?.of(SectionKind::Crl)))?;
    if lists.is_empty() {
        return Err(files::mistaken(file, Wanted::RevocationLists));
    }
    let read = |der: Vec<u8>| {
        let damaged = |why: &str| {
            Problem::new(
                format!("the revocation list in {shown} cannot be used: {why}"),
                "make it anew: doorward ca revoke; with OpenSSL: openssl ca -gencrl, with crl_extensions that give it \
                 a crlNumber",
            )
        };
        let read = RevocationList::read(der, &file.path).ok_or_else(|| damaged("it is damaged"))?;
        accepted(read.list.clone()).map_err(|why| damaged(&why))?;
        if !read.has_readable_scope() {
            return Err(damaged(
                "its issuing distribution point cannot be read, so it is not known for which devices it speaks",
            ));
        }
        Ok(read)
    };
    lists.into_iter().map(read).collect()
}

/// Whether rustls takes a list. It will be asked once more when the route is built, and must not say no then.
pub(in crate::config) fn accepted(list: CertificateRevocationListDer<'static>) -> Result<(), String> {
    // A verifier needs an anchor before it looks at a list; which one makes no difference.
    let mut roots = RootCertStore::empty();
    roots.roots.push(rustls::pki_types::TrustAnchor {
        subject: rustls::pki_types::Der::from_slice(&[]),
        subject_public_key_info: rustls::pki_types::Der::from_slice(&[]),
        name_constraints: None,
    });
    let provider = Arc::new(aws_lc_rs::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).with_crls([list]).build().map(drop).map_err(
        |error| match error {
            rustls::server::VerifierBuilderError::InvalidCrl(why) => {
                format!("it is damaged or of a kind that is not supported ({why:?})")
            }
            other => other.to_string(),
        },
    )
}

fn lint_lists(
    lists: &[At<RevocationList>],
    anchors: &[At<TrustAnchor>],
    expired: ExpiredRevocationList,
    depth: RevocationCheck,
    mode: ClientAuthMode,
    report: &mut Report,
) {
    let parsed_anchors: Vec<(&Path, X509Certificate<'_>)> = anchors
        .iter()
        .filter(|anchor| anchor.value.kind == TrustKind::Authority)
        .filter_map(|anchor| {
            let (_, certificate) = X509Certificate::from_der(&anchor.value.certificate).ok()?;
            Some((anchor.value.file.as_path(), certificate))
        })
        .collect();
    let unlisted =
        if mode.verifies() && !lists.is_empty() { trust::unlisted(lists, anchors, depth) } else { Vec::new() };
    let mut whole: Vec<&RevocationList> = Vec::new();
    for At { value: list, place } in lists {
        let shown = list.file.display();
        let Ok((_, parsed)) = CertificateRevocationList::from_der(&list.list) else { continue };
        if let Some(next_update) = list.next_update.filter(|next_update| *next_update <= now()) {
            let consequence = match expired {
                ExpiredRevocationList::Deny => {
                    "every device it would speak for is turned away until a newer list is here"
                }
                ExpiredRevocationList::Warn => {
                    "it is used all the same, and a device that was revoked since then still gets in"
                }
            };
            report.warn(
                place,
                format!(
                    "the revocation list in {shown} expired on {}; {consequence}; make a new one: doorward ca revoke",
                    date(next_update)
                ),
            );
        }
        let issuer = parsed.issuer().as_raw();
        // A list with an issuing distribution point speaks for a part only, and several of those belong together.
        let is_whole = parsed.extensions().iter().all(|ext| ext.oid != OID_X509_EXT_ISSUER_DISTRIBUTION_POINT);
        let same = |other: &&&RevocationList| {
            list.signer.is_some() && (&other.issuer, other.signer) == (&list.issuer, list.signer)
        };
        if let Some(first) = whole.iter().find(same).filter(|_| is_whole) {
            report.error(
                place,
                format!(
                    "{} and {shown} are lists of the same authority, and it cannot be told which of them counts",
                    first.file.display()
                ),
                "keep the newer one and leave the other out",
            );
        }
        if is_whole {
            whole.push(list);
        }
        if !mode.verifies() || parsed_anchors.is_empty() {
            continue;
        }
        let issuers: Vec<_> = parsed_anchors.iter().filter(|(_, anchor)| anchor.subject().as_raw() == issuer).collect();
        if issuers.is_empty() {
            // An intermediate's. Where the authorities in trust have lists of their own, it does what it should.
            if depth == RevocationCheck::Chain && !unlisted.is_empty() {
                report.warn(
                    place,
                    format!(
                        "the list in {shown} is from {}, which is not in trust: it counts only for devices that this authority \
                         issued and that send its certificate, signed by one in trust, along with theirs",
                        quoted(&text::name(parsed.issuer()))
                    ),
                );
            }
        } else if list.signer.is_none() {
            report.error(
                place,
                format!(
                    "the revocation list in {shown} was not signed by the authority whose name it bears (or in a way \
                     that is not accepted any more), so every device would be turned away"
                ),
                "make it anew with the key of that authority: doorward ca revoke",
            );
        } else if issuers.iter().any(|(_, anchor)| is_mkcert(anchor)) {
            report.warn(
                place,
                format!(
                    "the list in {shown} is from a mkcert authority: the gate can use it, but OpenSSL (and so \
                     nginx, HAProxy, stunnel) would refuse it, because mkcert's certificates do not permit the \
                     signing of lists (cRLSign)"
                ),
            );
        }
    }
    warn_of_unlisted(&unlisted, depth, report);
}

fn warn_of_unlisted(unlisted: &[&At<TrustAnchor>], depth: RevocationCheck, report: &mut Report) {
    for At { value: anchor, place } in unlisted {
        let Ok((_, certificate)) = X509Certificate::from_der(&anchor.certificate) else { continue };
        let remedy = match depth {
            RevocationCheck::Chain => {
                "add its list to revocation_lists; if it signs only intermediate authorities and has none, write \
                 revocation_check = \"leaf\""
            }
            RevocationCheck::Leaf => "add its list to revocation_lists",
        };
        report.warn(
            place,
            format!(
                "there is no revocation list of the authority {} in {}, and as there are lists of others, every device {} is \
                 turned away (revocation_unknown): {remedy}",
                named(&certificate),
                anchor.file.display(),
                if depth == RevocationCheck::Chain { "below it" } else { "it signed" },
            ),
        );
    }
}

fn is_mkcert(anchor: &X509Certificate<'_>) -> bool {
    anchor.subject().iter_organization().any(|name| name.as_str() == Ok(MKCERT))
}

fn check_deny(given: &Given<Vec<Text>>, report: &mut Report) -> Option<DenyList> {
    let mut deny = DenyList::default();
    let list = match given {
        Given::Absent => return Some(deny),
        Given::Refused => return None,
        Given::Value(list) => list,
    };
    let mut all_right = true;
    for text in &list.value {
        match report.taken(&text.place, denied(&text.value)) {
            Some(Denied::Fingerprint(digest)) => {
                deny.fingerprints.insert(digest);
            }
            Some(Denied::Serial(serial)) => {
                deny.serials.insert(serial);
            }
            None => all_right = false,
        }
    }
    all_right.then_some(deny)
}

#[derive(Debug, PartialEq)]
pub(super) enum Denied {
    Fingerprint(Sha256),
    Serial(Serial),
}

/// `sha256:` and 64 hexadecimal digits, or `serial:` and the serial number in hexadecimal.
pub(super) fn denied(text: &str) -> Result<Denied, Problem> {
    let remedy = "write \"sha256:\" and the 64 digits that \"openssl x509 -in FILE -noout -fingerprint -sha256\" \
                  prints, or \"serial:\" and what \"openssl x509 -in FILE -noout -serial\" prints after the equals \
                  sign";
    let wrong = |why: String| Problem::new(why, remedy);
    match text.split_once(':') {
        Some(("sha256", digits)) => super::access::fingerprint("sha256", digits).map(Denied::Fingerprint),
        Some(("serial", digits)) => Serial::parse(digits.trim()).map(Denied::Serial).ok_or_else(|| {
            wrong(format!("{} is not a serial number: that is hexadecimal digits only", quoted(digits)))
        }),
        _ => Err(wrong(format!(
            "\"{}\" does not say which certificate is denied: that takes its fingerprint or its serial number",
            printable(text, 100)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_denied() {
        let digest = Sha256::of(b"x");
        assert_eq!(denied(&format!("sha256:{digest}")), Ok(Denied::Fingerprint(digest)));
        let serial = Serial::from_be_bytes(&[0x4a, 0x6f]);
        assert_eq!(denied("serial:4A:6F"), Ok(Denied::Serial(serial.clone())));
        assert_eq!(denied("serial:004a6f"), Ok(Denied::Serial(serial)));
        for wrong in ["", "alice", "cn:alice", "serial:", "serial:xyz", "sha256:abcd", "sha1:00", "serial"] {
            assert!(denied(wrong).is_err(), "{wrong}");
        }
    }
}
