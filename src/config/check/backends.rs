//! The backends of a route: where they are, which of them is used, and what they are sent.

use super::{Checks, Mode, word};
use crate::config::checked::{Backend, SendProxyProtocol, Strategy};
use crate::config::raw::RawRoute;
use crate::config::report::{Given, Place, Report, quoted};
use crate::config::{files, values};

const SEND_PROXY_PROTOCOL: &[(&str, SendProxyProtocol)] = &[
    ("off", SendProxyProtocol::Off),
    ("v1", SendProxyProtocol::V1),
    ("v2", SendProxyProtocol::V2),
    ("v2-tls", SendProxyProtocol::V2Tls { certificate: false }),
];

const STRATEGIES: &[(&str, Strategy)] = &[
    ("first", Strategy::First),
    ("round_robin", Strategy::RoundRobin),
    ("least_connections", Strategy::LeastConnections),
];

/// Which of its backends a route uses.
pub(super) fn strategy(raw: &RawRoute, report: &mut Report) -> Option<Strategy> {
    word(&raw.strategy, STRATEGIES, Strategy::First, report)
}

/// The backends of a route, and where they are named.
pub(super) fn check(raw: &RawRoute, checks: &Checks<'_>, report: &mut Report) -> Option<(Vec<Backend>, Place)> {
    let list = match &raw.backends {
        Given::Refused => return None,
        Given::Value(list) => list,
        Given::Absent => {
            report.error(
                &raw.place.child("backends"),
                "\"backends\" is missing, so it is not known where this route leads",
                "add a line: backends = [\"192.168.1.10:5666\"] with the address and the port of the service",
            );
            return None;
        }
    };
    if list.value.is_empty() {
        report.error(
            &list.place,
            "the list is empty, so this route leads nowhere",
            "name at least one backend, as in [\"192.168.1.10:5666\"]",
        );
        return None;
    }
    let folder = files::folder_of(report.file()).to_owned();
    let mut backends: Vec<Backend> = Vec::new();
    let mut all_right = true;
    for text in &list.value {
        let Some(backend) = report.taken(&text.place, values::backend(&text.value, &folder)) else {
            all_right = false;
            continue;
        };
        let own = checks.listeners.iter().find(|listener| values::reaches(&backend, listener.value.address));
        if let Some(listener) = own {
            report.error(
                &text.place,
                format!(
                    "{} is the listener \"{}\" of this gate itself: every connection would loop for ever",
                    quoted(&text.value),
                    listener.value.name
                ),
                "write the address and the port that the service behind the gate listens on",
            );
            all_right = false;
        }
        if backends.contains(&backend) {
            report.error(&text.place, format!("{} is in the list twice", quoted(&text.value)), "remove one of the two");
            all_right = false;
        }
        backends.push(backend);
    }
    all_right.then(|| (backends, list.place.clone()))
}

/// The PROXY protocol header that they are sent.
pub(super) fn send_proxy_protocol(
    raw: &RawRoute,
    mode: Option<Mode>,
    report: &mut Report,
) -> Option<SendProxyProtocol> {
    let given = match &raw.send_proxy_protocol {
        Given::Absent => return Some(SendProxyProtocol::Off),
        Given::Refused => return None,
        Given::Value(given) => given,
    };
    let text = match &given.value.version {
        Given::Value(text) => text,
        Given::Refused => return None,
        Given::Absent => {
            report.error(
                &given.place.child("version"),
                "\"version\" is missing, so it is not known which header the backend expects",
                "add it: send_proxy_protocol = { version = \"v2-tls\", certificate = true }",
            );
            return None;
        }
    };
    let form = report.taken(&text.place, values::word(&text.value, SEND_PROXY_PROTOCOL))?;
    let is_tls = matches!(form, SendProxyProtocol::V2Tls { .. });
    if is_tls && mode == Some(Mode::Passthrough) {
        report.error(
            &text.place,
            "\"v2-tls\" tells the backend whose certificate was shown, and on a passthrough route the gate sees none",
            "write \"v2\", or mode = \"terminate\"",
        );
        return None;
    }
    match &given.value.certificate {
        Given::Absent => Some(form),
        Given::Refused => None,
        Given::Value(certificate) if !is_tls && certificate.value => {
            report.error(
                &certificate.place,
                format!("a header of version {} has no place for the client's certificate", quoted(&text.value)),
                "write version = \"v2-tls\", or remove \"certificate\"",
            );
            None
        }
        Given::Value(certificate) if is_tls => Some(SendProxyProtocol::V2Tls { certificate: certificate.value }),
        Given::Value(_) => Some(form),
    }
}
