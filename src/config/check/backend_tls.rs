//! `backend_tls`: TLS from the gate to the backends of a route.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::SectionKind;
use rustls::pki_types::{CertificateDer, ServerName};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Mode, access, certificate, trust, word};
use crate::config::checked::{Backend, BackendTls, BackendTrust, HeaderPlace, TrustKind, backend_name};
use crate::config::files::{self, Pem, Wanted};
use crate::config::raw::{RawBackendTls, RawRoute};
use crate::config::report::{Given, Place, Problem, Report, Text, quoted};

const HEADER_PLACES: &[(&str, HeaderPlace)] = &[("before", HeaderPlace::Before), ("inside", HeaderPlace::Inside)];

/// What to do without a fingerprint at hand.
const SHOWN_BY_CHECK: &str =
    "take backend_tls out, and \"doorward check --connect\" shows the whole line with the fingerprint of the backend";

/// Checks `backend_tls` of a route with these backends.
#[expect(clippy::option_option, reason = "none is right, and what is wrong is reported")]
pub(super) fn check(
    raw: &RawRoute,
    mode: Option<Mode>,
    backends: Option<&[Backend]>,
    report: &mut Report,
) -> Option<Option<Arc<BackendTls>>> {
    let at = match &raw.backend_tls {
        Given::Absent => return Some(None),
        Given::Refused => return None,
        Given::Value(at) => at,
    };
    let (given, place) = (&at.value, &at.place);
    if mode == Some(Mode::Passthrough) {
        report.error(
            place,
            "on a passthrough route the devices speak TLS with the backend themselves, and the gate speaks none",
            "remove backend_tls, or write mode = \"terminate\"",
        );
        return None;
    }
    let mut files = Vec::new();
    // All of them are looked at, so that everything wrong is told.
    let trust = check_trust(given, place, &mut files, report);
    let server_names = server_names(given, place, backends, report);
    let certificate = client_certificate(given, place, &mut files, report);
    let header = word(&given.proxy_protocol, HEADER_PLACES, HeaderPlace::Before, report);
    if let Some(text) = given.proxy_protocol.value().filter(|_| raw.send_proxy_protocol.is_absent()) {
        report.error(
            &text.place,
            "this says where the PROXY protocol header goes, and the route sends none",
            "remove \"proxy_protocol\", or add send_proxy_protocol = \"v2\" to the route",
        );
        return None;
    }
    let tls = BackendTls {
        trust: trust?,
        server_names: server_names?,
        certificate: certificate?.map(Arc::new),
        header: header?,
        files,
    };
    Some(Some(Arc::new(tls)))
}

fn check_trust(
    raw: &RawBackendTls,
    place: &Place,
    files: &mut Vec<PathBuf>,
    report: &mut Report,
) -> Option<BackendTrust> {
    let text = match &raw.trust {
        Given::Refused => return None,
        Given::Value(text) => text,
        Given::Absent => {
            report.error(
                &place.child("trust"),
                "\"trust\" is missing, so it is not known which certificate the backend may show",
                format!(
                    "{SHOWN_BY_CHECK}; or add trust = \"nas.pem\" with the file of the backend's certificate or of its \
                     authority, or trust = \"system\" for a certificate that browsers trust"
                ),
            );
            return None;
        }
    };
    if text.value == "system" {
        return Some(BackendTrust::System(of_system(text, files, report)?));
    }
    if let Some(digits) = text.value.strip_prefix("sha256:") {
        let parsed = access::fingerprint("sha256", digits).map_err(|problem| {
            let message = match digits.trim() {
                "" | "…" | "..." => "the fingerprint of the backend's certificate is not filled in".to_owned(),
                _ => problem.message,
            };
            Problem::new(message, SHOWN_BY_CHECK)
        });
        return report.taken(&text.place, parsed).map(BackendTrust::Fingerprint);
    }
    let file = files::read(text, report)?;
    let pem = report.taken(&text.place, Pem::parse(&file))?;
    let own: Vec<CertificateDer<'static>> =
        pem.of(SectionKind::Certificate).into_iter().map(CertificateDer::from).collect();
    if own.is_empty() {
        report.problem(&text.place, files::mistaken(&file, Wanted::Certificates));
        return None;
    }
    let mut authorities = Vec::new();
    for (index, der) in own.iter().enumerate() {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            report.error(
                &text.place,
                format!("certificate {} of {} cannot be read: it is damaged", index + 1, file.path.display()),
                "make or copy the file once more",
            );
            return None;
        };
        // A server's own certificate must not make its key an authority: its holder could vouch for other servers.
        if trust::kind(&certificate) == Some(TrustKind::Authority) {
            authorities.push(der.clone());
        }
    }
    files.push(file.path);
    Some(BackendTrust::Certificates { own, authorities })
}

/// The authorities that this machine trusts: one file on every system that has such a list.
fn of_system(text: &Text, files: &mut Vec<PathBuf>, report: &mut Report) -> Option<Vec<CertificateDer<'static>>> {
    let Some(path) = openssl_probe::probe().cert_file else {
        report.error(
            &text.place,
            "this machine has no list of authorities that it trusts",
            "install it (on Debian: apt install ca-certificates), or write the file of the backend's authority",
        );
        return None;
    };
    let file = files::read_at(path, text, report)?;
    // One of a hundred that cannot be read is no reason to trust none.
    let found = files::whole_blocks(&file, SectionKind::Certificate);
    if found.is_empty() {
        report.problem(&text.place, files::mistaken(&file, Wanted::Certificates));
        return None;
    }
    files.push(file.path);
    Some(found.into_iter().map(CertificateDer::from).collect())
}

/// The name of each backend: that of `server_name`, or its own host.
fn server_names(
    raw: &RawBackendTls,
    place: &Place,
    backends: Option<&[Backend]>,
    report: &mut Report,
) -> Option<Vec<ServerName<'static>>> {
    let backends = backends?;
    let text = match &raw.server_name {
        Given::Refused => return None,
        Given::Absent => {
            let own = backends.iter().map(|backend| match backend {
                Backend::Address(address) => Some(ServerName::from(address.ip())),
                Backend::Host(host, _) => backend_name(host),
                Backend::Unix(_) => None,
            });
            let own: Option<Vec<_>> = own.collect();
            if own.is_none() {
                report.error(
                    &place.child("server_name"),
                    "\"server_name\" is missing, and not every backend has a host name or an address that its certificate \
                     could name",
                    "add server_name = \"nas.local\" with a name that is in the certificate of the backend",
                );
            }
            return own;
        }
        Given::Value(text) => text,
    };
    let Some(name) = backend_name(&text.value) else {
        report.error(
            &text.place,
            format!("{} is neither a host name nor an IP address", quoted(&text.value)),
            "write a name that is in the certificate of the backend, as in \"nas.local\": no port, and no https://",
        );
        return None;
    };
    Some(vec![name; backends.len()])
}

#[expect(clippy::option_option, reason = "none is right, and what is wrong is reported")]
fn client_certificate(
    raw: &RawBackendTls,
    place: &Place,
    files: &mut Vec<PathBuf>,
    report: &mut Report,
) -> Option<Option<rustls::sign::CertifiedKey>> {
    let (chain, key) = match (&raw.certificate, &raw.key) {
        (Given::Absent, Given::Absent) => return Some(None),
        (Given::Value(chain), Given::Value(key)) => (chain, key),
        (Given::Absent, _) | (_, Given::Absent) => {
            let missing = if raw.key.is_absent() { "key" } else { "certificate" };
            report.error(
                &place.child(missing),
                format!("\"{missing}\" is missing: a certificate and its private key are only of use together"),
                "name both, or neither if the backend asks for no certificate",
            );
            return None;
        }
        (Given::Refused, _) | (_, Given::Refused) => return None,
    };
    let (certified, read) = certificate::of_client(chain, key, report)?;
    files.extend(read);
    Some(Some(certified))
}
