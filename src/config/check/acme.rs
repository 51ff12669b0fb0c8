//! `[certificate.acme]`: a public certificate, and the file that it is in.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use hyper::Uri;
use rustls::pki_types::pem::SectionKind;

use super::certificate::{self, Loaded};
use super::{acme_dns, is_passthrough, own_folder, route, word};
use crate::config::checked::{Acme, AcmeDirectory, Challenge, Eab, Secret, StateFolder};
use crate::config::raw::{Raw, RawAcme, RawCertificate, RawEab};
use crate::config::report::{At, Given, Place, Problem, Report, Text, quoted};
use crate::config::{files, key_file};
use crate::model::names::ServerNamePattern;

/// Directories that have a name.
const DIRECTORIES: &[(&str, &str)] = &[
    ("letsencrypt", "https://acme-v02.api.letsencrypt.org/directory"),
    ("letsencrypt-staging", "https://acme-staging-v02.api.letsencrypt.org/directory"),
];

const CHALLENGES: &[(&str, Kind)] = &[("tls-alpn-01", Kind::TlsAlpn01), ("dns-01", Kind::Dns01)];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    TlsAlpn01,
    Dns01,
}

/// The longest URL, in bytes.
const URL_MAX: usize = 2048;

/// Checks `[certificate.acme]` of `default`, which has one.
pub(super) fn check(default: &At<RawCertificate>, raw: &Raw, report: &mut Report) -> Option<Acme> {
    for given in [&default.value.chain, &default.value.key] {
        if let Some(text) = given.value() {
            report.error(
                &text.place,
                "[certificate.acme] has the gate order a certificate, and this names the file of another one",
                "remove \"chain\" and \"key\", or the section [certificate.acme]",
            );
            return None;
        }
    }
    let At { value: acme, place } = default.value.acme.value()?;
    let mut files = Vec::new();
    // All of them are looked at, so that everything wrong is told.
    let contact = contact(&acme.contact, report);
    let directory = directory(&acme.directory, report);
    let trial = directory_if_given(&acme.trial, report);
    let trust = trust(&acme.trust, &mut files, report);
    let challenge = challenge(acme, place, &mut files, report);
    let state = state(&acme.state, report);
    let profile = profile(&acme.profile, report);
    let eab = eab(&acme.eab, &mut files, report);
    // An ACME server issues wildcards to those alone who may change the zone (RFC 8555 section 7.1.3).
    let kind = acme.challenge.value().map(|text| text.value.as_str());
    let names = names(raw, kind == Some("dns-01"));
    if names.is_empty() {
        report.error(
            place,
            "no route has a server name for which a certificate could be ordered",
            "give a route an exact server name, as in \"nas.home.example\", and no [route.certificate] of its own",
        );
        return None;
    }
    let (directory, trial) = (directory?, trial?);
    if trial.as_ref().is_some_and(|trial| trial.url == directory.url) {
        let at = acme.trial.value().map_or(place, |text| &text.place);
        report.error(
            at,
            "this is the server of \"directory\" as well",
            "remove \"trial\", or write another directory there",
        );
        return None;
    }
    Some(Acme {
        contact: contact?,
        directory,
        trial,
        trust: trust?,
        challenge: challenge?,
        state: state?,
        profile: profile?,
        eab: eab?,
        names,
        files,
    })
}

/// The names of routes that have no certificate of their own, and that of the renewal of device certificates.
fn names(raw: &Raw, with_wildcards: bool) -> BTreeSet<String> {
    let routes = raw.routes.iter().flatten();
    let ordering = routes.filter(|one| !route::is_canary(one) && !is_passthrough(one) && one.certificate.is_absent());
    let patterns = ordering.flat_map(route::silent_names).map(|name| name.value);
    let renewal = raw.renewal.value().and_then(|section| section.value.server_name.value());
    let renewal = renewal.and_then(|text| ServerNamePattern::parse(&text.value).ok());
    let all: BTreeSet<String> = patterns
        .chain(renewal)
        .filter_map(|pattern| match &pattern {
            ServerNamePattern::Exact(name) => Some(name.as_str().to_owned()),
            ServerNamePattern::Wildcard(_) if with_wildcards => Some(pattern.to_string()),
            ServerNamePattern::Wildcard(_) | ServerNamePattern::Default => None,
        })
        .collect();
    // Let's Encrypt refuses an order that has a name and the wildcard that covers it.
    let is_covered = |name: &String| name.split_once('.').is_some_and(|(_, rest)| all.contains(&format!("*.{rest}")));
    all.iter().filter(|name| name.starts_with("*.") || !is_covered(name)).cloned().collect()
}

/// The certificate in the folder of `acme`, or a temporary one as long as there is none that can be used.
pub(super) fn load(acme: &Acme, place: &Place, report: &mut Report) -> Option<Loaded> {
    let path = acme.certificate_file();
    if let Err(problem) = report.look_at(&path) {
        report.problem(place, problem);
        return None;
    }
    let why = match files::read_named(&path) {
        Ok(file) => match certificate::of_one_file(&file) {
            Ok(loaded) => return Some(loaded),
            Err(why) => format!("the certificate in {} cannot be used: {why}", path.display()),
        },
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            format!("{} has not issued a certificate yet", acme.directory.name)
        }
        Err(error) => format!("{} cannot be read: {error}", path.display()),
    };
    match certificate::temporary(&acme.names, &path) {
        Ok(loaded) => {
            report.warn(place, format!("{why}{}", Acme::UNTIL_ISSUED));
            Some(loaded)
        }
        Err(error) => {
            report.error(place, format!("{why}, and no temporary one can be made: {error}"), "please report it");
            None
        }
    }
}

fn directory(given: &Given<String>, report: &mut Report) -> Option<AcmeDirectory> {
    match directory_if_given(given, report)? {
        Some(directory) => Some(directory),
        None => DIRECTORIES.first().map(|(name, url)| named(name, url)),
    }
}

fn named(name: &str, url: &str) -> AcmeDirectory {
    AcmeDirectory { name: name.to_owned(), url: url.to_owned() }
}

#[expect(clippy::option_option, reason = "none is right, and what is wrong is reported")]
fn directory_if_given(given: &Given<String>, report: &mut Report) -> Option<Option<AcmeDirectory>> {
    let text = match given {
        Given::Refused => return None,
        Given::Absent => return Some(None),
        Given::Value(text) => text,
    };
    if let Some((name, url)) = DIRECTORIES.iter().find(|(name, _)| *name == text.value) {
        return Some(Some(named(name, url)));
    }
    let url = text.value.parse::<Uri>().ok().filter(|_| text.value.len() <= URL_MAX);
    let url = url.filter(|url| url.host().is_some_and(|host| !host.is_empty()));
    match url.as_ref().and_then(Uri::scheme_str) {
        Some("https") => Some(Some(named(&text.value, &text.value))),
        Some("http") => {
            report.error(&text.place, "an ACME server is reached by https only", "write https:// instead of http://");
            None
        }
        _ => {
            let words: Vec<String> = DIRECTORIES.iter().map(|(name, _)| quoted(name)).collect();
            report.error(
                &text.place,
                format!("{} is not the directory of an ACME server", quoted(&text.value)),
                format!("write {}, or the URL of a directory: https://…", words.join(" or ")),
            );
            None
        }
    }
}

#[expect(clippy::option_option, reason = "none is right, and what is wrong is reported")]
fn contact(given: &Given<String>, report: &mut Report) -> Option<Option<String>> {
    let text = match given {
        Given::Refused => return None,
        Given::Absent => return Some(None),
        Given::Value(text) => text,
    };
    let address = text.value.strip_prefix("mailto:");
    let is_right = address.is_some_and(|address| {
        address.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host.contains('.'))
            && address.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b',' | b'?' | b'<' | b'>'))
    });
    if is_right {
        return Some(Some(text.value.clone()));
    }
    let remedy = if text.value.contains('@') && address.is_none() {
        format!("write {}", quoted(&format!("mailto:{}", text.value)))
    } else {
        "write one address, as in \"mailto:me@home.example\"".to_owned()
    };
    report.error(&text.place, format!("{} is not an e-mail address as a URL", quoted(&text.value)), remedy);
    None
}

#[expect(clippy::option_option, reason = "none is right, and what is wrong is reported")]
fn trust(
    given: &Given<String>,
    read: &mut Vec<PathBuf>,
    report: &mut Report,
) -> Option<Option<Vec<rustls::pki_types::CertificateDer<'static>>>> {
    let text = match given {
        Given::Refused => return None,
        Given::Absent => return Some(None),
        Given::Value(text) => text,
    };
    let file = files::read(text, report)?;
    let found = files::whole_blocks(&file, SectionKind::Certificate);
    if found.is_empty() {
        report.problem(&text.place, files::mistaken(&file, files::Wanted::Certificates));
        return None;
    }
    read.push(file.path);
    Some(Some(found.into_iter().map(Into::into).collect()))
}

fn challenge(raw: &RawAcme, place: &Place, files: &mut Vec<PathBuf>, report: &mut Report) -> Option<Challenge> {
    let kind = word(&raw.challenge, CHALLENGES, Kind::TlsAlpn01, report);
    let dns = acme_dns::check(&raw.dns, files, report);
    match kind? {
        Kind::TlsAlpn01 => {
            let Given::Absent = raw.dns else {
                let at = raw.dns.value().map_or(place, |dns| &dns.place);
                report.error(
                    at,
                    "this is for the challenge dns-01",
                    "add a line: challenge = \"dns-01\"; or remove \"dns\"",
                );
                return None;
            };
            Some(Challenge::TlsAlpn01)
        }
        Kind::Dns01 => {
            if raw.dns.is_absent() {
                report.error(
                    &place.child("dns"),
                    "\"dns\" is missing: dns-01 has a record published in the zone of the names",
                    format!("add a line that says how: {}", acme_dns::EXAMPLE),
                );
            }
            Some(Challenge::Dns01(dns?))
        }
    }
}

fn state(given: &Given<String>, report: &mut Report) -> Option<StateFolder> {
    let remedy = "write state = \"auto\", or the path of a folder for it alone";
    own_folder::folder(given, Acme::FOLDER, "the certificate has a folder of its own", remedy, report)
}

#[expect(clippy::option_option, reason = "none is right, and what is wrong is reported")]
fn profile(given: &Given<String>, report: &mut Report) -> Option<Option<String>> {
    match given {
        Given::Refused => None,
        Given::Absent => Some(None),
        Given::Value(text) if is_word(&text.value) => Some(Some(text.value.clone())),
        Given::Value(text) => {
            let remedy = "write the name of one that the ACME server offers, as in \"shortlived\"";
            report.error(&text.place, format!("{} is not the name of a profile", quoted(&text.value)), remedy);
            None
        }
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[expect(clippy::option_option, reason = "none is right, and what is wrong is reported")]
fn eab(given: &Given<RawEab>, files: &mut Vec<PathBuf>, report: &mut Report) -> Option<Option<Eab>> {
    let At { value: raw, place } = match given {
        Given::Refused => return None,
        Given::Absent => return Some(None),
        Given::Value(eab) => eab,
    };
    for (given, key) in [(&raw.key_id, "key_id"), (&raw.key_file, "key_file")] {
        if given.is_absent() {
            report.error(
                &place.child(key),
                format!("\"{key}\" is missing: an ACME server that asks for an external account gives two things, an id and a key"),
                "write both: eab = { key_id = \"…\", key_file = \"eab.key\" }",
            );
        }
    }
    let (id, file) = (raw.key_id.value()?, raw.key_file.value()?);
    let key = eab_key(file, files, report)?;
    let key = report.taken(&file.place, key)?;
    if !is_word(&id.value) {
        report.error(&id.place, "this is not the id of a key", "write the one that the ACME server's owner gave you");
        return None;
    }
    Some(Some(Eab { key_id: id.value.clone(), key }))
}

fn eab_key(text: &Text, files: &mut Vec<PathBuf>, report: &mut Report) -> Option<Result<Secret, Problem>> {
    let line = key_file::read_line(text, files, report)?;
    let line = line.trim_end_matches('=');
    let is_right = line.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    Some(if is_right {
        Ok(Secret::new(line.to_owned()))
    } else {
        Err(Problem::new(
            "the file does not hold the key of an external account: base64url, as in abc_DEF-123",
            "put the key that the ACME server's owner gave you into it, and nothing else",
        ))
    })
}

/// What the process that orders certificates needs to know, and nothing else: it reads no key of the gate.
pub(in crate::config) fn check_alone(raw: &Raw, report: &mut Report) -> Option<Arc<Acme>> {
    let default = raw.certificate.value().filter(|default| !default.value.acme.is_absent())?;
    check(default, raw, report).map(Arc::new)
}
