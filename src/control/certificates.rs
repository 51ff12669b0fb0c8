//! The certificates that a gate shows, and how the orders for a public one go.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::answers::rfc3339;
use super::{Answer, Request};
use crate::config::checked::Config;
use crate::config::server_trust::{Shown, shown};
use crate::gate::Gate;
use crate::model::issuance::{Issuance, Phase};

/// The certificates that a gate shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificates {
    /// Each with the routes that show it.
    pub certificates: Vec<ServerCertificate>,
    /// The orders for the public one, if the configuration wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orders: Option<Orders>,
}

/// A certificate that a gate shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerCertificate {
    /// Why devices trust it: see [`CertificateKind::WORDS`](crate::config::server_trust::CertificateKind::WORDS).
    pub kind: String,
    /// The names that it is for.
    pub names: Vec<String>,
    /// Who has issued it.
    pub issuer: String,
    /// Its first moment (RFC 3339).
    pub not_before: String,
    /// Its last moment (RFC 3339).
    pub not_after: String,
    /// SHA-256 of it in hexadecimal digits.
    pub fingerprint: String,
    /// The file that it is in, or will be.
    pub file: String,
    /// The routes that show it.
    pub routes: Vec<String>,
}

/// The orders for a public certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// The directory of the ACME server, as the configuration names it.
    pub directory: String,
    /// The names that are ordered.
    pub names: Vec<String>,
    /// What is being done; `None` if no gate says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// When the next order begins (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// How often a certificate was issued since the gate runs.
    #[serde(default)]
    pub renewed: u64,
    /// How often an order has failed since the gate runs.
    #[serde(default)]
    pub failed: u64,
    /// The last attempt, if it has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<OrderFailure>,
}

/// An order that has failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderFailure {
    /// When (RFC 3339).
    pub at: String,
    /// How many have failed in a row.
    pub in_a_row: u32,
    /// The directory where it was placed.
    pub directory: String,
    /// What the server said, or why it could not be asked.
    pub error: String,
    /// What can be done about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remedies: Vec<String>,
}

impl Certificates {
    /// Those of a configuration, with what is known of the orders.
    pub fn of(config: &Config, issuance: Option<Issuance>) -> Self {
        let orders = config.acme.as_ref().map(|acme| match issuance {
            Some(issuance) => Orders::from(issuance),
            None => Orders {
                directory: acme.directory.name.clone(),
                names: acme.names.iter().cloned().collect(),
                phase: None,
                next: None,
                renewed: 0,
                failed: 0,
                failure: None,
            },
        });
        Self { certificates: shown(config).iter().map(ServerCertificate::from).collect(), orders }
    }
}

impl From<&Shown<'_>> for ServerCertificate {
    fn from(Shown { kind, file, identity, routes }: &Shown<'_>) -> Self {
        let mut names = identity.dns_names.clone();
        names.extend(identity.ips.iter().map(ToString::to_string));
        Self {
            kind: kind.word().to_owned(),
            names,
            issuer: identity.issuer.clone(),
            not_before: moment(identity.not_before),
            not_after: moment(identity.not_after),
            fingerprint: identity.fingerprint.to_string(),
            file: std::path::absolute(file).as_deref().unwrap_or(file).display().to_string(),
            routes: routes.iter().map(|&route| route.to_owned()).collect(),
        }
    }
}

impl From<Issuance> for Orders {
    fn from(issuance: Issuance) -> Self {
        Self {
            directory: issuance.directory,
            names: issuance.names.into_iter().collect(),
            phase: Some(issuance.phase),
            next: issuance.next_at.map(moment),
            renewed: issuance.renewed,
            failed: issuance.failed,
            failure: issuance.failure.map(|failure| OrderFailure {
                at: moment(failure.at),
                in_a_row: failure.in_a_row,
                directory: failure.directory,
                error: failure.error,
                remedies: failure.remedies,
            }),
        }
    }
}

fn moment(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds).map(rfc3339).unwrap_or_default()
}

/// Answers a request about the certificates of this gate.
pub(super) fn answer(gate: &Gate, config: &Config, request: &Request) -> Answer {
    let issuance = issuance(gate).filter(|_| config.acme.is_some());
    match (request, &issuance) {
        (Request::RenewCertificate, None) if config.acme.is_none() => {
            Answer::Error("its configuration has no [certificate.acme], so it orders no certificate".to_owned())
        }
        (Request::RenewCertificate, None | Some(Issuance { phase: Phase::Stopped, .. })) => {
            Answer::Error("the process that orders certificates does not run; see the log".to_owned())
        }
        (Request::RenewCertificate, Some(_)) => {
            gate.renewal_wanted.notify_one();
            Answer::Certificates(Box::new(Certificates::of(config, issuance)))
        }
        _ => Answer::Certificates(Box::new(Certificates::of(config, issuance))),
    }
}

fn issuance(gate: &Gate) -> Option<Issuance> {
    gate.issuance.borrow().clone()
}
