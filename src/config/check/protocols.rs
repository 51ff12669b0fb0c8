//! What clients of a route speak: how they may ask for TLS, and the application protocols (ALPN).

use crate::config::raw::RawRoute;
use crate::config::report::{Given, Problem, Report, quoted};
use crate::config::values;
use crate::model::starttls::Starttls;

/// The protocol by which clients may ask for TLS.
pub(super) fn starttls(raw: &RawRoute, report: &mut Report) -> Option<Option<Starttls>> {
    match &raw.starttls {
        Given::Absent => Some(None),
        Given::Refused => None,
        Given::Value(text) => {
            let word = values::word(&text.value, &Starttls::WORDS).map_err(|problem| Problem {
                remedy: "write \"postgres\"; mail programs have other ports, where TLS comes first (IMAPS, SMTPS)"
                    .to_owned(),
                ..problem
            });
            report.taken(&text.place, word).map(Some)
        }
    }
}

/// Protocol names of 1 to 255 bytes (RFC 7301 section 3.1).
pub(super) fn application_protocols(
    raw: &RawRoute,
    starttls: Option<Starttls>,
    report: &mut Report,
) -> Option<Vec<Vec<u8>>> {
    let own = starttls.map(|starttls| starttls.application_protocol().as_bytes().to_vec());
    let list = match &raw.application_protocols {
        // Clients that offer none are admitted. Those of PostgreSQL 17 that begin with TLS at once require it.
        Given::Absent => return Some(own.into_iter().collect()),
        Given::Refused => return None,
        Given::Value(list) => list,
    };
    let mut protocols: Vec<Vec<u8>> = Vec::new();
    let mut all_right = true;
    for text in &list.value {
        let protocol = text.value.as_bytes().to_vec();
        if protocol.is_empty() || protocol.len() > 255 {
            report.error(
                &text.place,
                format!("the name of an application protocol has 1 to 255 bytes, and this one has {}", protocol.len()),
                "write a registered name, as in \"http/1.1\" or \"h2\"",
            );
            all_right = false;
        } else if protocols.contains(&protocol) {
            report.error(&text.place, format!("{} is in the list twice", quoted(&text.value)), "remove one of the two");
            all_right = false;
        }
        protocols.push(protocol);
    }
    if let Some(starttls) = starttls.filter(|_| own.is_some_and(|own| !protocols.contains(&own))) {
        let name = starttls.application_protocol();
        report.error(
            &list.place,
            format!("clients of a route with \"starttls\" may offer the protocol \"{name}\", and would be refused"),
            format!("remove \"application_protocols\", or add \"{name}\" to it"),
        );
        return None;
    }
    all_right.then_some(protocols)
}
