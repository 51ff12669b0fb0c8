//! `doorward certificate`: which certificate the gate shows, until when, and how the orders for a public one go.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::process::ExitCode;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::acme::store::Store;
use crate::ca::inventory::{self, Kind};
use crate::cli::ca;
use crate::cli::control_args::ControlArgs;
use crate::cli::services::load_as_owner;
use crate::cli::{exit, failed};
use crate::config::checked::{Acme, Config};
use crate::config::server_trust::CertificateKind;
use crate::control::client::{AskError, ask};
use crate::control::{Answer, Certificates, OrderFailure, Orders, Request, ServerCertificate};
use crate::explain::clock::Clock;
use crate::install::Installed;
use crate::model::issuance::{Issuance, Phase};
use crate::model::names::visible;
use crate::model::text::{counted, table};

/// What `--format json` prints.
#[derive(Debug, Serialize)]
struct Told {
    /// Whether a running gate has said it; otherwise it is what one that starts would show.
    running: bool,
    #[serde(flatten)]
    certificates: Certificates,
}

pub(super) fn run(control: &ControlArgs) -> ExitCode {
    let socket = match control.socket() {
        Ok(socket) => socket,
        Err(code) => return code,
    };
    let mut told = match ask(&socket, &Request::Certificates) {
        Ok(Answer::Certificates(certificates)) => Told { running: true, certificates: *certificates },
        Ok(Answer::Error(error)) => {
            let error = visible(&error, 1024);
            return failed(exit::NO_GATE, &format!("the gate at {} refused the request: {error}", socket.display()));
        }
        Ok(_) => return failed(exit::UNEXPECTED, &"the gate sent the answer to another request"),
        Err(error) if control.is_of_configuration() && is_not_running(&error) => match from_files(control) {
            Ok(certificates) => Told { running: false, certificates },
            Err(code) => return code,
        },
        Err(error) => return failed(exit::NO_GATE, &error),
    };
    mark_own(&mut told.certificates, control);
    control.print(&told, |told| {
        let head = if told.running { "" } else { "No gate is running here. One that starts will show this.\n\n" };
        format!("{head}{}", text(&told.certificates, &Clock::system()))
    })
}

/// Says of a certificate that the owner's authority has signed that it is such a one, also where the gate shows it until a public one
/// is issued: the gate does not know the authority.
pub(super) fn mark_own(certificates: &mut Certificates, control: &ControlArgs) {
    let Ok(file) = control.config().path() else { return };
    let installed = Installed::find().filter(|gate| gate.config() == file);
    let folder = installed.map_or_else(|| file.with_file_name(ca::FOLDER), |gate| gate.authority().to_owned());
    let Ok(Some(inventory)) = inventory::Store::read_inventory(&folder) else { return };
    for certificate in &mut certificates.certificates {
        let is_own = inventory
            .certificates
            .iter()
            .any(|entry| entry.kind == Kind::Server && entry.fingerprint.as_ref() == Some(&certificate.fingerprint));
        if is_own {
            certificate.kind = CertificateKind::OwnAuthority.word().to_owned();
        }
    }
}

/// Whether there is no gate, rather than one that does not answer.
pub(super) fn is_not_running(error: &AskError) -> bool {
    matches!(error, AskError::NoGate { error, .. }
        if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused))
}

/// The same from the configuration and its files.
fn from_files(control: &ControlArgs) -> Result<Certificates, ExitCode> {
    let file = control.config().path().map_err(|message| failed(exit::CONFIG, &message))?;
    let config = load_as_owner(&file).map_err(|errors| {
        errln!("{errors}");
        ExitCode::from(exit::CONFIG)
    })?;
    let failed = config.acme.as_deref().and_then(failures);
    Ok(of_files(&config, failed))
}

fn of_files(config: &Config, failures: Option<Issuance>) -> Certificates {
    let mut certificates = Certificates::of(config, failures);
    if let Some(orders) = &mut certificates.orders {
        // No gate does anything about it.
        orders.phase = None;
    }
    certificates
}

/// The orders that have failed in a row, as far as this user may read them.
fn failures(acme: &Acme) -> Option<Issuance> {
    let failures = Store::new(&acme.folder()).failures().ok()??;
    let mut directories = acme.trial.iter().chain([&acme.directory]);
    let concerned =
        failures.ordered.names == acme.names && directories.any(|one| one.url == failures.ordered.directory);
    concerned.then(|| Issuance {
        directory: acme.directory.name.clone(),
        names: acme.names.clone(),
        next_at: Some(failures.not_before),
        failure: Some(failures.last),
        ..Issuance::default()
    })
}

/// Everything, for people.
pub(super) fn text(certificates: &Certificates, clock: &Clock) -> String {
    let mut out = String::new();
    for certificate in &certificates.certificates {
        out.push_str(&certificate_text(certificate, certificates.orders.as_ref(), clock));
        out.push('\n');
    }
    if let Some(orders) = &certificates.orders {
        out.push_str(&orders_text(orders, clock));
    }
    let trimmed = out.trim_end().len();
    out.truncate(trimmed);
    out.push('\n');
    out
}

fn certificate_text(certificate: &ServerCertificate, orders: Option<&Orders>, clock: &Clock) -> String {
    let ServerCertificate { kind, names, issuer, not_before, not_after, file, routes, .. } = certificate;
    let kind = CertificateKind::WORDS.iter().find(|(word, _)| word == kind).map(|(_, kind)| *kind);
    let heading = match kind {
        Some(CertificateKind::Public) => "A public certificate, which devices trust already:".to_owned(),
        Some(CertificateKind::Temporary) => {
            let server = orders.map_or("the ACME server", |orders| &orders.directory);
            format!("A temporary certificate, which no device trusts, until {server} has issued one:")
        }
        Some(CertificateKind::PublicFiles) => {
            "A certificate of a public authority, which devices trust already; another program renews its files:"
                .to_owned()
        }
        Some(CertificateKind::OwnAuthority) | None => {
            let until = orders
                .map_or_else(String::new, |orders| format!(", until {} has issued a public one", orders.directory));
            format!("A certificate of an authority of your own, which each device must trust{until}:")
        }
    };
    let (begin, end) = (at(not_before, clock), at(not_after, clock));
    let is_over = OffsetDateTime::parse(not_after, &Rfc3339).is_ok_and(|end| end < clock.now());
    let over = if is_over { " (expired)" } else { "" };
    let rows = [
        ["  names".to_owned(), names.join(", ")],
        ["  issued by".to_owned(), issuer.clone()],
        ["  valid".to_owned(), format!("from {begin} until {end}{over}")],
        ["  file".to_owned(), file.clone()],
        ["  routes".to_owned(), routes.join(", ")],
    ];
    format!("{heading}\n{}", table(&rows))
}

fn orders_text(orders: &Orders, clock: &Clock) -> String {
    let Orders { directory, phase, next, failure, .. } = orders;
    let next_at = next.as_ref().map(|next| at(next, clock));
    let doing = match phase {
        Some(Phase::Starting) => Some("the process that orders certificates is starting".to_owned()),
        Some(Phase::Trial) => Some("an order is under way, on trial".to_owned()),
        Some(Phase::Ordering) => Some("an order is under way".to_owned()),
        Some(Phase::Stopped) => Some("the process that orders certificates does not run; see the log".to_owned()),
        Some(Phase::Valid | Phase::Failing) | None => None,
    };
    let what = if failure.is_some() { "next order" } else { "renewal" };
    let mut rows: Vec<[String; 2]> = Vec::new();
    rows.extend(doing.map(|doing| ["  now".to_owned(), doing]));
    rows.extend(next_at.map(|next| [format!("  {what}"), next]));
    let mut out = format!("Ordered from {directory}:\n{}", table(&rows));
    if let Some(failure) = failure {
        out.push_str(&failure_text(failure, clock));
    } else if rows.is_empty() {
        out.push_str("  Orders are placed while the gate runs.\n");
    }
    out
}

/// The order that has failed, and what to do.
pub(super) fn failure_text(failure: &OrderFailure, clock: &Clock) -> String {
    let OrderFailure { at: when, in_a_row, directory, error, remedies } = failure;
    let count = match in_a_row {
        0 | 1 => String::new(),
        count => format!(", the last of {} in a row", counted(u64::from(*count), "order")),
    };
    let mut out = format!("  failed at {directory}, {}{count}:\n    {error}\n", at(when, clock));
    for remedy in remedies {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "    - {remedy}");
    }
    out
}

/// A moment that a gate has told, for people.
fn at(text: &str, clock: &Clock) -> String {
    OffsetDateTime::parse(text, &Rfc3339).map_or_else(|_| text.to_owned(), |at| clock.moment(at))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::explain::clock::Zone;

    fn certificate(kind: &str) -> ServerCertificate {
        ServerCertificate {
            kind: kind.to_owned(),
            names: vec!["nas.home.example".to_owned(), "ssh.home.example".to_owned()],
            issuer: "CN=R11,O=Let's Encrypt".to_owned(),
            not_before: "2026-10-01T00:00:00Z".to_owned(),
            not_after: "2026-12-30T00:00:00Z".to_owned(),
            fingerprint: "00".repeat(32),
            file: "/var/lib/doorward/acme/live/certificate.pem".to_owned(),
            routes: vec!["nas".to_owned(), "ssh".to_owned()],
        }
    }

    fn orders() -> Orders {
        Orders {
            directory: "letsencrypt".to_owned(),
            names: vec!["nas.home.example".to_owned()],
            phase: Some(Phase::Valid),
            next: Some("2026-11-30T04:05:06Z".to_owned()),
            renewed: 1,
            failed: 0,
            failure: None,
        }
    }

    fn shown(kind: &str, orders: Option<Orders>) -> String {
        let clock = Clock::new(datetime!(2026-11-28 12:00 UTC), Zone::utc());
        text(&Certificates { certificates: vec![certificate(kind)], orders }, &clock)
    }

    #[test]
    fn public_certificate_is_told_with_its_renewal() {
        assert_eq!(
            shown("public", Some(orders())),
            "A public certificate, which devices trust already:
  names      nas.home.example, ssh.home.example
  issued by  CN=R11,O=Let's Encrypt
  valid      from 2026-10-01 00:00 until 2026-12-30 00:00
  file       /var/lib/doorward/acme/live/certificate.pem
  routes     nas, ssh

Ordered from letsencrypt:
  renewal  2026-11-30 04:05
"
        );
    }

    #[test]
    fn failed_order_is_told_with_its_remedies() {
        let failure = OrderFailure {
            at: "2026-11-28T11:00:00Z".to_owned(),
            in_a_row: 3,
            directory: "letsencrypt-staging".to_owned(),
            error: "Timeout during connect".to_owned(),
            remedies: vec!["forward port 443 of your router".to_owned()],
        };
        let failing = Orders { phase: Some(Phase::Failing), failure: Some(failure), ..orders() };
        let text = shown("temporary", Some(failing.clone()));
        for needed in [
            "which no device trusts, until letsencrypt has issued one:",
            "  next order  2026-11-30 04:05\n",
            "  failed at letsencrypt-staging, today 11:00:00, the last of 3 orders in a row:\n    Timeout during connect\n",
            "    - forward port 443 of your router\n",
        ] {
            assert!(text.contains(needed), "{needed} is missing in\n{text}");
        }
        // The files say no more than that.
        let stopped = Orders { phase: None, next: None, failure: None, ..failing };
        assert!(shown("temporary", Some(stopped)).contains("Orders are placed while the gate runs."));
    }

    #[test]
    fn other_certificates_are_told_with_who_must_trust_what() {
        assert!(
            shown("own", None)
                .starts_with("A certificate of an authority of your own, which each device must trust:\n")
        );
        assert!(shown("files", None).contains("another program renews its files"));
        let clock = Clock::new(datetime!(2027-01-01 12:00 UTC), Zone::utc());
        let text = text(&Certificates { certificates: vec![certificate("own")], orders: None }, &clock);
        assert!(text.contains("until 2026-12-30 00:00 (expired)"), "{text}");
    }
}
