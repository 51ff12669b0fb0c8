//! The sentences.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;

use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, CertificateError};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::Facts;
use crate::connector::fault::{Failure, Fault, Unreached};
use crate::model::names::{printable, visible};
use crate::model::rejection::Alert;
use crate::model::text::{day_near, in_words};

/// The most names of a foreign certificate that are shown.
const NAMES_MAX: usize = 3;

/// The most characters of each.
const NAME_MAX: usize = 80;

impl Facts {
    /// What happened, and in a second line what to do about it.
    pub fn sentence(&self, failure: &Failure, now: OffsetDateTime) -> String {
        match failure {
            Failure::Unreached(unreached) => self.unreached(unreached),
            Failure::Gate { address, fault } => self.fault(*address, fault, now),
            Failure::Token(error) => error.to_string(),
        }
    }

    /// The same, for what has answered at this address.
    pub fn fault(&self, address: SocketAddr, fault: &Fault, now: OffsetDateTime) -> String {
        let Self { home, route, .. } = self;
        match fault {
            Fault::Alert(alert) => self.alert(*alert, now),
            Fault::GateCertificate(fault, certificate) => {
                self.gate_certificate(address, fault, certificate.as_ref(), now)
            }
            Fault::NotTls => format!(
                "{address} does not speak TLS: it is not the gate of {home}\n  check the address, the port and the router's \
                 port forwarding"
            ),
            Fault::Protocol(text) => format!(
                "no encrypted connection with {address} came about ({text})\n  update doorward on this device and at the gate"
            ),
            Fault::Closed => format!(
                "{address} closed the connection to {route} without a reason\n  the gate may be at its limits, or have banned this \
                 network for a while; its owner sees why: doorward why"
            ),
            Fault::Unanswered => format!(
                "the connection to {route} was closed before anything came from it\n  the service may have closed it, or it has \
                 reached a time limit of the gate: the gate's log says which; or the network has changed"
            ),
            Fault::Silent => format!(
                "{address} accepts connections and does not answer\n  try again; if it stays so, the gate of {home} needs its owner"
            ),
            Fault::Token(error) => error.to_string(),
            Fault::Io(kind) => format!("the connection with {address} failed: {kind}"),
        }
    }

    /// A connection that was cut.
    pub fn cut(&self, address: SocketAddr, fault: &Fault, now: OffsetDateTime) -> String {
        let Self { home, device, route, .. } = self;
        match fault {
            Fault::Closed => {
                format!(
                    "the connection to {route} was cut: the network has changed, or the gate or its service has ended, or it has \
                     reached a time limit of the gate"
                )
            }
            Fault::Silent => format!("the connection to {route} was cut: {address} does not answer any more"),
            Fault::Alert(AlertDescription::AccessDenied) => format!(
                "the connection to {route} was cut: the owner of {home} has ended it, or the gate does not admit {device} to {route} \
                 any more\n  connect again: a device that is not admitted is told so"
            ),
            Fault::Alert(AlertDescription::InternalError) => format!(
                "the connection to {route} was cut: the gate of {home} failed\n  its owner sees why: doorward why {device}"
            ),
            other => format!("the connection to {route} was cut: {}", self.fault(address, other, now)),
        }
    }

    fn unreached(&self, unreached: &Unreached) -> String {
        let Self { home, dialled, .. } = self;
        match unreached {
            Unreached::Name(text) => format!(
                "the address of {dialled} was not found: {text}\n  is this device online? If it is, the name is missing in the \
                 DNS, or the dynamic DNS of {home} is out of date"
            ),
            Unreached::Timeout(addresses) => format!(
                "no answer from {dialled} ({})\n  is this device online, and the gate running? A wrong public address, or a \
                 router without the port forwarding, looks the same",
                listed(addresses.iter())
            ),
            Unreached::Addresses(failures) => {
                let refused = failures.iter().all(|(_, kind)| *kind == io::ErrorKind::ConnectionRefused);
                let addresses = listed(failures.iter().map(|(address, _)| address));
                if refused {
                    return format!(
                        "connection refused by {addresses}\n  no gate runs there, or the router does not forward the port to it"
                    );
                }
                let mut text = format!("cannot connect to {dialled}:");
                for (index, (address, kind)) in failures.iter().enumerate() {
                    let _ = write!(text, "{} {address}: {kind}", if index == 0 { "" } else { ";" });
                }
                text + "\n  is this device online?"
            }
        }
    }

    fn alert(&self, alert: AlertDescription, now: OffsetDateTime) -> String {
        let Self { home, device, route, server_name, .. } = self;
        let ask = format!("ask the owner of {home} for a new file for {device}");
        match alert {
            AlertDescription::CertificateExpired => self.expired(now),
            AlertDescription::CertificateRevoked => {
                format!(
                    "this device ({device}) was revoked at the gate of {home}\n  ask its owner; a new file makes it valid again"
                )
            }
            AlertDescription::CertificateRequired => {
                format!("the gate of {home} received no certificate of this device\n  {ask}, and join with it")
            }
            AlertDescription::UnknownCA => format!(
                "the gate of {home} does not trust the certificate of {device}: its authority is not the gate's, or the gate's \
                 revocation list is out of date\n  its owner sees which: doorward why {device}; then {ask}"
            ),
            AlertDescription::AccessDenied => format!(
                "the gate of {home} does not admit {device} to {route}\n  its owner decides that: \"allow\" of the route, or the \
                 deny list"
            ),
            AlertDescription::UnrecognisedName => format!(
                "the gate of {home} has no route for {server_name}\n  the route {route} was renamed or removed: {ask}"
            ),
            AlertDescription::UnsupportedCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::DecryptError => {
                format!("the gate of {home} cannot use the certificate of {device} ({})\n  {ask}", alert_name(alert))
            }
            AlertDescription::InternalError => format!(
                "the gate of {home} admitted {device}, but its service {route} does not answer\n  is the machine of {route} on? The \
                 owner sees more: doorward status"
            ),
            AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure => format!(
                "the gate of {home} has no version of TLS, or no encryption, in common with this device\n  update doorward on both"
            ),
            other => format!(
                "the gate of {home} refused the connection to {route} ({})\n  its owner sees why: doorward why {device}",
                alert_name(other)
            ),
        }
    }

    fn expired(&self, now: OffsetDateTime) -> String {
        let Self { home, device, .. } = self;
        match self.validity {
            Some((_, not_after)) if not_after < now => format!(
                "the certificate of {device} expired on {} ({} ago)\n  it is too late for doorward renew: ask the owner of {home} for a \
                 new file (doorward ca renew {device})",
                day_near(not_after, now),
                in_words((now - not_after).whole_seconds())
            ),
            Some((not_before, _)) if now < not_before => format!(
                "the certificate of {device} is not valid before {}, and it is {} here\n  set the clock of this device",
                day_near(not_before, now),
                day_near(now, not_before)
            ),
            Some((_, not_after)) => format!(
                "the gate of {home} says that the certificate of {device}, or of the authority above it, has expired; by the clock of \
                 this device it is valid until {}\n  compare the clocks of both (it is {} here), then ask the owner",
                day_near(not_after, now),
                day_near(now, not_after)
            ),
            None => format!("the certificate of {device} has expired\n  ask the owner of {home} for a new file"),
        }
    }

    fn gate_certificate(
        &self,
        address: SocketAddr,
        fault: &CertificateError,
        certificate: Option<&CertificateDer<'_>>,
        now: OffsetDateTime,
    ) -> String {
        let Self { home, server_name, own_authority, .. } = self;
        let parsed = certificate.and_then(|der| X509Certificate::from_der(der).ok()).map(|(_, parsed)| parsed);
        match fault {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                let when = parsed.map(|parsed| parsed.validity().not_after.to_datetime());
                let clock = day_near(now, when.unwrap_or(now));
                let when = when.map(|when| {
                    format!(" on {} ({} ago)", day_near(when, now), in_words((now - when).whole_seconds()))
                });
                format!(
                    "the certificate of the gate of {home} expired{}\n  its owner renews it: doorward ca server; if the date is wrong \
                     here ({clock}), set the clock",
                    when.unwrap_or_default()
                )
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                let when = parsed.map(|parsed| parsed.validity().not_before.to_datetime());
                let clock = day_near(now, when.unwrap_or(now));
                let when = when.map(|when| format!(" before {}", day_near(when, now)));
                format!(
                    "the certificate of the gate of {home} is not valid{}\n  set the clock of this device: it is {clock} here",
                    when.unwrap_or_else(|| " yet".to_owned())
                )
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                let names = parsed.as_ref().map(names).filter(|names| !names.is_empty());
                let names = names.unwrap_or_else(|| "no name at all".to_owned());
                format!(
                    "{address} shows a certificate for {names}, not for {server_name}\n  it is another gate than that of {home}, or the \
                     owner has changed its names: a new file from the owner has them"
                )
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                let who = parsed.map(|parsed| {
                    let issuer = common_name(parsed.issuer()).unwrap_or_else(|| "an unnamed authority".to_owned());
                    let names = Some(names(&parsed)).filter(|names| !names.is_empty());
                    format!(" for {}, issued by {issuer}", names.unwrap_or_else(|| "no name at all".to_owned()))
                });
                let authority =
                    if *own_authority { "the authority of this home" } else { "an authority that this system trusts" };
                format!(
                    "{address} is not the gate of {home}: it shows a certificate{}, which {authority} has not signed\n  a router, a \
                     hotel's network or an interception may be in between; or the gate has a new authority: then ask its owner for a \
                     new file",
                    who.unwrap_or_default()
                )
            }
            other => format!(
                "the certificate of {address} is not one of the gate of {home}: {other}\n  ask the owner of the gate to look at it: \
                 doorward check"
            ),
        }
    }
}

/// The names in a certificate of a server, which may be anyone's: cut short, without control characters.
fn names(certificate: &X509Certificate<'_>) -> String {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.iter().flat_map(|extension| &extension.value.general_names);
    let mut names: Vec<String> = names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(visible(name, NAME_MAX)),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        names.extend(common_name(certificate.subject()));
    }
    let more = names.len().saturating_sub(NAMES_MAX);
    names.truncate(NAMES_MAX);
    let shown = names.join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

fn common_name(name: &x509_parser::x509::X509Name<'_>) -> Option<String> {
    let name = name.iter_common_name().next()?.as_str().ok()?;
    Some(format!("\"{}\"", printable(name, NAME_MAX)))
}

/// The name of an alert, as registered.
fn alert_name(alert: AlertDescription) -> String {
    Alert(alert.into()).to_string()
}

fn listed<'a>(addresses: impl Iterator<Item = &'a SocketAddr>) -> String {
    addresses.map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}
