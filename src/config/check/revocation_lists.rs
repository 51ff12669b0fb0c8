//! `revocation_lists`: what the files hold, and whether the lists fit the authorities in `trust`.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::SectionKind;
use rustls::server::WebPkiClientVerifier;
use x509_parser::oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::anchors::{is_mkcert, named};
use super::{date, each_file, now, trust};
use crate::config::checked::{
    ClientAuthMode, ExpiredRevocationList, RevocationCheck, RevocationList, TrustAnchor, TrustKind,
};
use crate::config::files::{self, NamedFile, Pem, Wanted};
use crate::config::report::{At, Given, Problem, Report, Text, quoted};
use crate::model::identity::text;

pub(super) fn check(given: &Given<Vec<Text>>, report: &mut Report) -> Option<Vec<At<RevocationList>>> {
    each_file(given, report, |text, report| {
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
                "make it anew: doorward ca revoke --lists; with OpenSSL: openssl ca -gencrl, with crl_extensions that give it \
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

/// Warns of lists that expired, and of those that speak for no authority in `trust`; two of one authority are a mistake.
pub(super) fn lint(
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
                    "the revocation list in {shown} expired on {}; {consequence}; make a new one: doorward ca revoke --lists",
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
                "make it anew with the key of that authority: doorward ca revoke --lists",
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
