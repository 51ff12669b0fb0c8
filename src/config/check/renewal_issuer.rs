//! `issuer` of `[renewal]`: what renews certificates without the owner.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::SectionKind;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{date, now, scalar};
use crate::config::checked::{Config, RenewalIssuer, RouteMode, SandboxMode};
use crate::config::credentials::credential_name;
use crate::config::files::{self, NamedFile, Pem, Wanted};
use crate::config::folders;
use crate::config::raw::{Raw, RawRenewalIssuer};
use crate::config::reader::Scalar;
use crate::config::report::{At, Given, Place, Problem, Report, Text};
use crate::config::values;
use crate::pki::Parts;

/// What makes both files.
const MAKE: &str = "make both: doorward ca renewal";

/// Checks the section, if it is given. What it has to do with the rest of the configuration is checked by [`relations`].
#[expect(clippy::option_option, reason = "none is right, and what is wrong is reported")]
pub(super) fn check(given: &Given<RawRenewalIssuer>, raw: &Raw, report: &mut Report) -> Option<Option<RenewalIssuer>> {
    let At { value: issuer, place } = match given {
        Given::Absent => return Some(None),
        Given::Refused => return None,
        Given::Value(at) => at,
    };
    let certificate = given_path(&issuer.certificate, place, "certificate", "pki/renewals.pem", report)
        .and_then(|text| certificate(text, report));
    let key = given_path(&issuer.key, place, "key", "/var/lib/doorward-issuer/renewals-key.pem", report)
        .and_then(|text| key(text, report));
    let days = scalar(&issuer.days, days, RenewalIssuer::DAYS, report);
    let except = match &issuer.except {
        Given::Absent => Some(Vec::new()),
        Given::Refused => None,
        Given::Value(names) => Some(names.value.iter().map(|name| name.value.clone()).collect()),
    };
    let has_lists = raw.client_auth.value().is_some_and(|auth| match &auth.value.revocation_lists {
        Given::Absent => false,
        Given::Refused => true,
        Given::Value(lists) => !lists.value.is_empty(),
    });
    if !has_lists {
        report.error(
            place,
            "certificates are renewed again and again without you, and without a revocation list nothing would end that",
            "name the list of your authority under [client_auth], as in revocation_lists = [\"pki/clients.crl\"]",
        );
        return None;
    }
    let (file, certificate, (not_before, not_after)) = certificate?;
    Some(Some(RenewalIssuer { file, certificate, not_before, not_after, key: key?, days: days?, except: except? }))
}

/// The text of a key that must be there.
fn given_path<'a>(
    given: &'a Given<String>,
    place: &Place,
    key: &str,
    example: &str,
    report: &mut Report,
) -> Option<&'a Text> {
    match given {
        Given::Value(text) => Some(text),
        Given::Refused => None,
        Given::Absent => {
            report.error(
                &place.child(key),
                format!("{key:?} of the issuer is missing"),
                format!("{MAKE}; and write its path, as in {key} = {example:?}"),
            );
            None
        }
    }
}

type Issuer = (PathBuf, CertificateDer<'static>, (i64, i64));

/// The only certificate in the file: that of an authority.
fn certificate(text: &Text, report: &mut Report) -> Option<Issuer> {
    let file: NamedFile = files::read(text, report)?;
    let pem = report.taken(&text.place, Pem::parse(&file))?;
    let mut certificates = pem.of(SectionKind::Certificate);
    let shown = file.path.display();
    let (Some(der), true) = (certificates.pop(), certificates.is_empty()) else {
        if certificates.is_empty() {
            report.problem(&text.place, files::mistaken(&file, Wanted::Certificates));
        } else {
            report.error(
                &text.place,
                format!("{shown} holds several certificates"),
                "leave that of the renewal authority alone",
            );
        }
        return None;
    };
    let der = CertificateDer::from(der);
    let usable = RootCertStore::empty().add(der.clone()).is_ok();
    let parsed = X509Certificate::from_der(&der).ok().filter(|(rest, one)| rest.is_empty() && one.is_ca() && usable);
    let Some((_, parsed)) = parsed else {
        report.error(
            &text.place,
            format!("{shown} is not the certificate of an authority"),
            format!("{MAKE}; and name the file of the certificate"),
        );
        return None;
    };
    let (not_before, not_after) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    if not_after < now() {
        report.warn(
            &text.place,
            format!(
                "the renewal authority in {shown} expired on {}, so nothing is renewed without you, and what it has issued is \
                 refused; {MAKE}",
                date(not_after)
            ),
        );
    }
    Some((file.path, der, (not_before, not_after)))
}

/// The file of the key, which is not read here: the gate must not be able to.
fn key(text: &Text, report: &mut Report) -> Option<PathBuf> {
    if credential_name(&text.value).is_some() {
        report.error(
            &text.place,
            "the gate can read every credential of its service, and it must not be able to read this key",
            "write the path of the key, in a folder of its own that only the gate's user can open",
        );
        return None;
    }
    let path = files::folder_of(report.file()).join(&text.value);
    let path = std::path::absolute(&path).unwrap_or(path);
    if let Some(Problem { message, remedy }) = unsafe_file(&path) {
        report.error(&text.place, message, remedy);
        return None;
    }
    if matches!(fs::metadata(&path), Err(error) if error.kind() == io::ErrorKind::NotFound) {
        report.warn(
            &text.place,
            format!(
                "{} does not exist, so no certificate is renewed without you; {MAKE}, and put the key there: doorward install",
                path.display()
            ),
        );
    }
    Some(path)
}

/// What is wrong with the file of a key, as far as that can be told from outside.
fn unsafe_file(path: &Path) -> Option<Problem> {
    let file = match fs::metadata(path) {
        Ok(file) => file,
        // Another user than the gate's may not see it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
        // The gate works without it, and "doorward install" puts it there.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            return Some(Problem::new(format!("{} cannot be used: {error}", path.display()), MAKE));
        }
    };
    if !file.is_file() {
        return Some(Problem::new(format!("{} is no file", path.display()), MAKE));
    }
    let mode = file.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| {
        Problem::new(
            format!("other users may read {}, which can renew every device (its mode is {mode:03o})", path.display()),
            format!("chmod 600 {}", path.display()),
        )
    })
}

fn days(given: &Scalar) -> Result<u16, Problem> {
    let most = RenewalIssuer::DAYS_MAX;
    let remedy = format!("write a number of days from 1 to {most}, as in days = {}", RenewalIssuer::DAYS);
    let count = values::count(given).map_err(|problem| Problem::new(problem.message, remedy.clone()))?;
    let days = u16::try_from(count).ok().filter(|days| *days <= most);
    days.ok_or_else(|| {
        Problem::new(format!("{count} days are too many for a certificate that is issued without you"), remedy)
    })
}

/// What the issuer has to do with the rest: it must not be trusted as an authority of devices, nor its key be where the gate reads.
pub(super) fn relations(config: &Config, raw: &Raw, report: &mut Report) {
    let Some(section) = raw.renewal.value().and_then(|renewal| renewal.value.issuer.value()) else { return };
    let Some(issuer) = config.renewal.as_ref().and_then(|renewal| renewal.issuer.as_ref()) else { return };
    let place = &section.place;
    let own = Parts::read(&issuer.certificate).map(|parts| parts.key.to_vec());
    let trusted = config.served().any(|route| match &route.mode {
        RouteMode::Passthrough => false,
        RouteMode::Terminate(terminate) => terminate
            .client_auth
            .trust
            .iter()
            .any(|anchor| Parts::read(&anchor.certificate).map(|parts| parts.key.to_vec()) == own),
    });
    if trusted {
        report.error(
            place,
            "the renewal authority is in \"trust\" as well, so it could make devices of its own",
            "remove its certificate from \"trust\": the gate takes what it renews without that",
        );
    }
    let readable = config
        .files()
        .iter()
        .flat_map(|file| folders::to_read(file))
        .find(|folder| folders::is_above(folder, &issuer.key));
    if let Some(folder) = readable {
        report.error(
            &place.child("key"),
            format!(
                "the gate reads files in {}, so it could read this key, which a process beside it has that no client can reach",
                folder.display()
            ),
            "move the key to a folder of its own, as in key = \"/var/lib/doorward-issuer/renewals-key.pem\"",
        );
    }
    if config.sandbox == SandboxMode::Off {
        report.warn(
            &place.child("key"),
            "with mode = \"off\" under [sandbox], nothing keeps the gate, which speaks to strangers, from this key; write \
             mode = \"auto\", or \"require\"",
        );
    }
    if let Some(inventory) = &config.metrics.inventory
        && !inventory.is_read
    {
        report.error(
            place,
            format!(
                "the gate takes no renewed certificate that descends from none in the inventory, and {} cannot be read",
                inventory.file.display()
            ),
            "correct \"inventory\" under [metrics], or remove \"issuer\"",
        );
    }
}
