//! `[certificate]` and `[route.certificate]`: the certificate the gate shows, and its key.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{Error as TlsError, InconsistentKeys};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{date, now};
use crate::config::checked::{Certificate, CertificateSource};
use crate::config::credentials::credential_name;
use crate::config::files::{self, NamedFile, Pem, Wanted};
use crate::config::key_file;
use crate::config::raw::RawCertificate;
use crate::config::report::{At, Place, Problem, Report, Text};
use crate::model::identity::{Identity, key, text};
use crate::model::names::{ServerNamePattern, is_wildcard_too_wide};
use crate::pki::{has_signed, public, temporary};

/// A certificate and what its lints need to know of it.
#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) certificate: Arc<Certificate>,
    /// The host names it is for, lower case.
    pub(super) dns_names: Vec<String>,
}

impl Loaded {
    /// Its names but for those that clients do not go by.
    fn accepted(&self) -> impl Iterator<Item = &String> {
        self.dns_names.iter().filter(|name| !is_wildcard_too_wide(name))
    }

    /// Whether clients that ask for `name` will take the certificate (RFC 6125 section 6.4.3).
    pub(super) fn covers(&self, name: &ServerNamePattern) -> bool {
        match name {
            // No certificate can name every server name that this route answers to.
            ServerNamePattern::Default => true,
            ServerNamePattern::Wildcard(_) => self.accepted().any(|dns| *dns == name.to_string()),
            ServerNamePattern::Exact(exact) => {
                let wildcard = exact.parent().map(|parent| format!("*.{parent}"));
                self.accepted().any(|dns| dns == exact.as_str() || Some(dns) == wildcard.as_ref())
            }
        }
    }
}

/// Reads chain and key, checks that they fit, and warns of what will trouble clients.
pub(super) fn check(At { value: raw, place }: &At<RawCertificate>, report: &mut Report) -> Option<Loaded> {
    for (given, key, example) in [(&raw.chain, "chain", "pki/server.pem"), (&raw.key, "key", "pki/server-key.pem")] {
        if given.is_absent() {
            report.error(
                &place.child(key),
                format!("\"{key}\" is missing: a certificate is only of use together with its private key"),
                format!("add a line: {key} = \"{example}\" (with the path of your file)"),
            );
        }
    }
    // Both are read before either is given up, so that what is wrong with both is told at once.
    let chain = raw.chain.value().and_then(|chain| Some((chain, files::read(chain, report)?)));
    let key = raw.key.value().and_then(|key| Some((key, key_file::read_key(key, report)?)));
    let key_file = key.as_ref().map(|(_, file)| file.path.clone());
    if let (Some((chain_text, chain)), Some((_, key))) = (&chain, &key)
        && are_swapped(chain, key)
    {
        report.error(
            &Place { line: chain_text.place.line, key: place.key.clone() },
            "the two files are swapped: \"chain\" names the private key, and \"key\" names the certificate",
            "exchange the two paths",
        );
        return None;
    }
    let chain = chain.and_then(|(text, file)| read_chain(text, file, report));
    let key = key.and_then(|(text, file)| read_key(text, &file, report));
    let ((chain_text, chain_file, certificates), (key_text, key)) = (chain?, key?);
    let key_file = key_file?;

    let leaf = certificates.first()?;
    let identity = Identity::from_certificate(leaf, false).ok()?;
    warn_of_leaf(leaf, &chain_text.place, report);
    warn_of_order(&certificates, &chain_text.place, report);
    warn_of_intermediates(&certificates, &chain_file.path, &chain_text.place, report);
    let fitting = fit(certificates, key).map_err(|problem| match credential_name(&key_text.value) {
        Some(name) => Problem::new(
            problem.message,
            format!(
                "if the credential {name} is a new one: systemctl restart doorward, since systemd hands credentials over \
                 when a service starts; else {}",
                problem.remedy
            ),
        ),
        None => problem,
    });
    let certified_key = fitting.map_err(|problem| report.problem(&key_text.place, problem)).ok()?;
    Some(Loaded {
        certificate: Arc::new(Certificate {
            chain_file: chain_file.path,
            key_file,
            certified_key: Arc::new(certified_key),
            source: CertificateSource::Files,
        }),
        dns_names: identity.dns_names.iter().map(|name| name.to_ascii_lowercase()).collect(),
    })
}

/// Reads a certificate and its key that are in one file.
///
/// # Errors
/// In words, why it cannot be used.
pub(super) fn of_one_file(file: &NamedFile) -> Result<Loaded, String> {
    let pem = Pem::parse(file).map_err(|problem| problem.message)?;
    let chain: Vec<_> = pem.of(SectionKind::Certificate).into_iter().map(CertificateDer::from).collect();
    let key = pem.keys().pop().ok_or("it has no private key")?;
    let key = aws_lc_rs::sign::any_supported_type(&key).map_err(|error| error.to_string())?;
    let leaf = chain.first().ok_or("it has no certificate")?;
    let dns_names = Identity::from_certificate(leaf, false).map_err(|_| "it is damaged")?.dns_names;
    let certified_key = fit(chain, key).map_err(|problem| problem.message)?;
    Ok(loaded(&file.path, certified_key, &dns_names, CertificateSource::Acme))
}

/// A certificate for these names that is signed by itself, in place of the one that is not at `path` yet. It is made once, so that
/// a reload does not change it.
///
/// # Errors
/// It cannot be made.
pub(super) fn temporary(names: &BTreeSet<String>, path: &Path) -> Result<Loaded, String> {
    static MADE: Mutex<Option<(BTreeSet<String>, Loaded)>> = Mutex::new(None);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, loaded)) =
        made.as_ref().filter(|(same, loaded)| same == names && loaded.certificate.chain_file == path)
    {
        return Ok(loaded.clone());
    }
    let names_list: Vec<String> = names.iter().cloned().collect();
    let (certificate, key) = temporary::temporary(names_list.clone()).map_err(|error| error.to_string())?;
    let key = aws_lc_rs::sign::any_supported_type(&key).map_err(|error| error.to_string())?;
    let certified_key = CertifiedKey::new(vec![certificate], key);
    let loaded = loaded(path, certified_key, &names_list, CertificateSource::Temporary);
    *made = Some((names.clone(), loaded.clone()));
    Ok(loaded)
}

fn loaded(path: &Path, certified_key: CertifiedKey, dns_names: &[String], source: CertificateSource) -> Loaded {
    let certified_key = Arc::new(certified_key);
    let certificate = Certificate { chain_file: path.to_owned(), key_file: path.to_owned(), certified_key, source };
    let dns_names = dns_names.iter().map(|name| name.to_ascii_lowercase()).collect();
    Loaded { certificate: Arc::new(certificate), dns_names }
}

/// Reads chain and key of a certificate that the gate shows as a client, and the files they are in.
pub(super) fn of_client(chain: &Text, key: &Text, report: &mut Report) -> Option<(CertifiedKey, [PathBuf; 2])> {
    let chain_file = files::read(chain, report);
    let key_file = key_file::read_key(key, report);
    let key_path = key_file.as_ref().map(|file| file.path.clone());
    let chain_read = chain_file.and_then(|file| read_chain(chain, file, report));
    let key_read = key_file.and_then(|file| read_key(key, &file, report));
    let ((_, chain_file, certificates), (_, signing)) = (chain_read?, key_read?);
    let until = certificates.first().and_then(|leaf| {
        let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
        Some(leaf.validity().not_after.timestamp())
    });
    if let Some(until) = until.filter(|until| *until < now()) {
        report.warn(&chain.place, format!("the certificate expired on {}, so the backend will refuse it", date(until)));
    }
    let key_and_chain = report.taken(&key.place, fit(certificates, signing))?;
    Some((key_and_chain, [chain_file.path, key_path?]))
}

/// Whether each of the files holds only what the other one should hold.
fn are_swapped(chain: &NamedFile, key: &NamedFile) -> bool {
    let holds = |file: &NamedFile, what: &str| files::labels(&file.bytes).iter().any(|label| label.ends_with(what));
    holds(chain, "PRIVATE KEY")
        && !holds(chain, "CERTIFICATE")
        && holds(key, "CERTIFICATE")
        && !holds(key, "PRIVATE KEY")
}

type Chain<'a> = (&'a Text, NamedFile, Vec<CertificateDer<'static>>);

fn read_chain<'a>(text: &'a Text, file: NamedFile, report: &mut Report) -> Option<Chain<'a>> {
    let pem = report.taken(&text.place, Pem::parse(&file))?;
    let certificates = pem.of(SectionKind::Certificate);
    if certificates.is_empty() {
        report.problem(&text.place, files::mistaken(&file, Wanted::Certificates));
        return None;
    }
    for (index, der) in certificates.iter().enumerate() {
        if Identity::from_certificate(der, false).is_err() {
            report.error(
                &text.place,
                format!("certificate {} of {} cannot be read: it is damaged", index + 1, file.path.display()),
                "make or copy the file once more",
            );
            return None;
        }
    }
    Some((text, file, certificates.into_iter().map(CertificateDer::from).collect()))
}

fn read_key<'a>(text: &'a Text, file: &NamedFile, report: &mut Report) -> Option<(&'a Text, Arc<dyn SigningKey>)> {
    let shown = file.path.display();
    if files::is_encrypted_key(&file.bytes) {
        report.error(
            &text.place,
            format!("the key in {shown} is encrypted with a password, which the gate cannot ask for"),
            format!(
                "take the password off: openssl pkey -in {shown} -out {shown}.plain, chmod 600 {shown}.plain, and \
                 name that file here"
            ),
        );
        return None;
    }
    let pem = report.taken(&text.place, Pem::parse(file))?;
    let mut keys = pem.keys();
    let Some(key) = keys.pop() else {
        report.problem(&text.place, files::mistaken(file, Wanted::Key));
        return None;
    };
    if !keys.is_empty() {
        report.error(
            &text.place,
            format!("{shown} holds {} private keys, and it is not known which one is meant", keys.len() + 1),
            "leave only the key of this certificate in the file",
        );
        return None;
    }
    if file.is_world_readable() {
        report.warn(
            &text.place,
            format!(
                "every user of this machine may read the private key in {shown}, and with it stand in for your \
                 gate; run: chmod 600 {shown}"
            ),
        );
    }
    match aws_lc_rs::sign::any_supported_type(&key) {
        Ok(key) => Some((text, key)),
        Err(_) => {
            report.error(
                &text.place,
                format!("the private key in {shown} cannot be used: it is damaged or of a kind that is not supported"),
                "use an ECDSA key (P-256 or P-384), an Ed25519 key, or an RSA key of 2048 to 8192 bits",
            );
            None
        }
    }
}

/// Puts chain and key together if they fit.
fn fit(certificates: Vec<CertificateDer<'static>>, key: Arc<dyn SigningKey>) -> Result<CertifiedKey, Problem> {
    let certified_key = CertifiedKey::new(certificates, key.clone());
    let error = match certified_key.keys_match() {
        // Some keys cannot tell which public key is theirs; none of aws-lc-rs does, and rustls takes those, too.
        Ok(()) | Err(TlsError::InconsistentKeys(InconsistentKeys::Unknown)) => return Ok(certified_key),
        Err(error) => error,
    };
    let fits =
        |other: &CertificateDer<'static>| CertifiedKey::new(vec![other.clone()], key.clone()).keys_match().is_ok();
    Err(match error {
        TlsError::InconsistentKeys(_) => match certified_key.cert.iter().position(fits) {
            Some(index) => Problem::new(
                format!("the key fits certificate {} of the chain file, and it has to fit the first one", index + 1),
                "put the certificates in order: first your server's, then the one that signed it, and so on",
            ),
            None => Problem::new(
                "the key does not fit the certificate: they were not made together",
                "name the key file that was made together with this certificate, or make both anew: doorward ca server",
            ),
        },
        other => Problem::new(
            format!("the certificate is in a form that TLS does not use any more ({other})"),
            "make a new one: doorward ca server",
        ),
    })
}

fn warn_of_leaf(der: &[u8], place: &Place, report: &mut Report) {
    let Ok((_, leaf)) = X509Certificate::from_der(der) else { return };
    let (from, until) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
    if until < now() {
        report.warn(
            place,
            format!(
                "the certificate expired on {}, so clients will refuse it; make a new one: doorward ca server",
                date(until)
            ),
        );
    }
    if from > now() {
        report.warn(
            place,
            format!(
                "the certificate is valid only from {} on; if that day is past, set the clock of this machine",
                date(from)
            ),
        );
    }
    if leaf.is_ca() {
        report.warn(
            place,
            "this is the certificate of an authority, which signs others, and browsers refuse it for a server; name \
             the certificate of your server",
        );
    }
    let purposes = leaf.extended_key_usage().ok().flatten();
    if purposes.is_some_and(|purposes| !purposes.value.server_auth && !purposes.value.any) {
        report.warn(
            place,
            "this certificate is not made for a server (it lacks the purpose serverAuth), so clients will refuse it; \
             make one that is: doorward ca server",
        );
    }
}

fn warn_of_order(certificates: &[CertificateDer<'static>], place: &Place, report: &mut Report) {
    for (index, pair) in certificates.windows(2).enumerate() {
        let [below, above] = pair else { continue };
        let Ok((_, below)) = X509Certificate::from_der(below) else { continue };
        // Of a signature that cannot be checked the names have to do.
        let named = X509Certificate::from_der(above).is_ok_and(|(_, above)| below.issuer() == above.subject());
        if !(has_signed(above, &below) || named && key::unsupported_signature(&below).is_some()) {
            report.warn(
                place,
                format!(
                    "certificate {} of the chain file did not sign certificate {}, so some clients will not find \
                     their way up; put them in order, each followed by the one that signed it, and leave out the \
                     others",
                    index + 2,
                    index + 1,
                ),
            );
        }
    }
}

/// Where tools put the certificate of the authority that signed a server's, or the whole chain.
const BESIDE: [&str; 6] =
    ["fullchain.pem", "chain.pem", "fullchain.cer", "ca.cer", "ca_bundle.crt", "intermediate_ca.crt"];

/// Warns if clients that know the root only cannot find their way to it.
fn warn_of_intermediates(certificates: &[CertificateDer<'_>], chain: &Path, place: &Place, report: &mut Report) {
    for (index, der) in certificates.iter().enumerate().skip(1) {
        let Ok((_, above)) = X509Certificate::from_der(der) else { continue };
        let until = above.validity().not_after.timestamp();
        if until < now() {
            report.warn(
                place,
                format!(
                    "certificate {} of the chain file expired on {}, so clients will refuse the chain; get the current one \
                     from where the certificate came",
                    index + 1,
                    date(until)
                ),
            );
        }
    }
    let [leaf_der] = certificates else { return };
    let Ok((_, leaf)) = X509Certificate::from_der(leaf_der) else { return };
    if leaf.is_ca() || leaf.subject().as_raw() == leaf.issuer().as_raw() {
        return;
    }
    let beside = BESIDE.iter().filter_map(|name| std::fs::read(chain.with_file_name(name)).ok());
    let intermediate =
        beside.flat_map(|pem| CertificateDer::pem_slice_iter(&pem).flatten().collect::<Vec<_>>()).any(|der| {
            let own =
                X509Certificate::from_der(&der).is_ok_and(|(_, one)| one.subject().as_raw() == one.issuer().as_raw());
            !own && has_signed(&der, &leaf)
        });
    if intermediate || public::needs_intermediate(&leaf) {
        report.warn(
            place,
            format!(
                "the chain file holds the server's certificate alone, and {}, which signed it, is an intermediate authority: \
                 clients that know only the root will refuse it; append the certificate of the intermediate (with certbot, name \
                 fullchain.pem instead of cert.pem)",
                crate::config::report::quoted(&text::name(leaf.issuer()))
            ),
        );
    }
}

/// Warns of the names of a route that its certificate is not for.
pub(super) fn warn_of_names(loaded: &Loaded, names: &[ServerNamePattern], route: &Place, report: &mut Report) {
    let missing: Vec<String> =
        names.iter().filter(|name| !loaded.covers(name)).map(|name| format!("\"{name}\"")).collect();
    if missing.is_empty() {
        return;
    }
    let has = if loaded.dns_names.is_empty() {
        "it has no host names (clients ignore the common name)".to_owned()
    } else {
        let shown: Vec<String> =
            loaded.dns_names.iter().take(8).map(|name| crate::config::report::quoted(name)).collect();
        format!("it is for {}{}", shown.join(", "), if loaded.dns_names.len() > shown.len() { ", ..." } else { "" })
    };
    let wide = if loaded.dns_names.iter().any(|name| is_wildcard_too_wide(name)) {
        " (OpenSSL and browsers take no wildcard directly below a top-level name)"
    } else {
        ""
    };
    report.warn(
        &route.child("server_names"),
        format!(
            "the certificate in {} is not for {}, so clients will refuse it there: {has}{wide}; make one for every name of \
             this route: doorward ca server",
            loaded.certificate.chain_file.display(),
            missing.join(", "),
        ),
    );
}
