//! `[[listener]]` and `[metrics]`: where the gate listens.

use std::net::{Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use super::name;
use crate::config::checked::Listener;
use crate::config::raw::{Raw, RawListener};
use crate::config::report::{At, Given, Place, Report, Text, quoted};
use crate::config::values;

/// Where metrics are served if nothing else is said.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);

/// A listener and where its address stands.
pub(super) type Checked = At<Listener>;

/// Every listener that is right; what is wrong with the others, and among them, is reported.
pub(super) fn check(raw: &Raw, report: &mut Report) -> Vec<Checked> {
    let Some(listeners) = &raw.listeners else { return Vec::new() };
    if listeners.is_empty() {
        report.error(
            &Place { line: None, key: "listener".to_owned() },
            "there is no listener, so no client could connect",
            "add these lines:\n[[listener]]\nname = \"public\"\naddress = \"[::]:8443\"",
        );
    }
    let checked: Vec<Option<Checked>> = listeners.iter().map(|listener| check_one(listener, report)).collect();
    let checked: Vec<Checked> = checked.into_iter().flatten().collect();
    super::report_twins(listeners.iter().map(|listener| &listener.name), "listener", report);
    for (index, at) in checked.iter().enumerate() {
        let earlier = checked.iter().take(index).find(|other| values::overlap(at.value.address, other.value.address));
        if let Some(other) = earlier {
            let dual = at.value.address != other.value.address;
            report.error(
                &at.place,
                format!(
                    "the listener \"{}\" already takes port {}{}",
                    other.value.name,
                    at.value.address.port(),
                    if dual {
                        format!(" (its address {} includes this one)", other.value.address)
                    } else {
                        String::new()
                    },
                ),
                "give one of them another port, or remove one",
            );
        }
    }
    checked
}

fn check_one(raw: &RawListener, report: &mut Report) -> Option<Checked> {
    let name = name(&raw.name, &raw.place, "public", report);
    let address = match &raw.address {
        Given::Value(text) => report
            .taken(&text.place, values::listen_address(&text.value))
            .map(|value| At { value, place: text.place.clone() }),
        Given::Refused => None,
        Given::Absent => {
            report.error(
                &raw.place.child("address"),
                "\"address\" is missing, so it is not known where to listen",
                "add a line: address = \"[::]:8443\" (every address of this machine, port 8443)",
            );
            None
        }
    };
    let proxy_protocol_from = networks(&raw.proxy_protocol_from, report);
    let allow_sources = networks(&raw.allow_sources, report);
    let deny_sources = networks(&raw.deny_sources, report);
    if let Some(list) = raw.allow_sources.value().filter(|list| list.value.is_empty()) {
        report.warn(&list.place, "the list is empty, so every source may connect; to close the listener, remove it");
    }
    if let (Some(list), Some(networks)) = (raw.proxy_protocol_from.value(), &proxy_protocol_from)
        && networks.iter().any(|network| network.prefix_len() == 0)
    {
        report.warn(
            &list.place,
            "every client may claim any source address; name only the proxy in front of the gate, as in \
             \"192.168.1.1\"",
        );
    }
    let At { value: address, place } = address?;
    let listener = Listener {
        name: name?,
        address,
        proxy_protocol_from: proxy_protocol_from?,
        allow_sources: allow_sources?,
        deny_sources: deny_sources?,
    };
    Some(At { value: listener, place })
}

fn networks(given: &Given<Vec<Text>>, report: &mut Report) -> Option<Vec<IpNet>> {
    let list = match given {
        Given::Absent => return Some(Vec::new()),
        Given::Refused => return None,
        Given::Value(list) => list,
    };
    let networks: Vec<Option<IpNet>> = list
        .value
        .iter()
        .map(|text| {
            let network = report.taken(&text.place, values::network(&text.value))?;
            let whole: Option<IpNet> = text.value.parse().ok();
            if whole.is_some_and(|whole| whole.trunc() != whole) {
                report.warn(
                    &text.place,
                    format!(
                        "{} means the whole network {network}; for one machine leave out the slash and the number \
                         after it",
                        quoted(&text.value)
                    ),
                );
            }
            Some(network)
        })
        .collect();
    networks.into_iter().collect()
}

/// `address` of `[metrics]`; `None` in the inner place is off.
pub(super) fn metrics(given: &Given<String>, listeners: &[Checked], report: &mut Report) -> Option<Option<SocketAddr>> {
    let (address, place) = match given {
        Given::Refused => return None,
        Given::Absent => (METRICS, Place { line: None, key: "metrics.address".to_owned() }),
        Given::Value(text) if text.value == "off" => return Some(None),
        Given::Value(text) => {
            let address = values::listen_address(&text.value)
                .map_err(|problem| {
                    report.error(
                        &text.place,
                        problem.message,
                        "write address = \"127.0.0.1:9180\", or \"off\" for no metrics",
                    )
                })
                .ok()?;
            (address, text.place.clone())
        }
    };
    if !address.ip().to_canonical().is_loopback() {
        report.warn(
            &place,
            format!(
                "other machines can read the metrics and the status page at {address}, which show what stands behind \
                 the gate; write \"127.0.0.1:{}\" unless a firewall keeps strangers out",
                address.port()
            ),
        );
    }
    if let Some(other) = listeners.iter().find(|other| values::overlap(address, other.value.address)) {
        report.error(
            &place,
            format!("the listener \"{}\" already takes port {}", other.value.name, address.port()),
            "give one of them another port, as in address = \"127.0.0.1:9181\" under [metrics]",
        );
        return None;
    }
    Some(Some(address))
}
