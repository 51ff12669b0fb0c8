//! The tables of reasons, metrics and keys, and what is quoted from them.

use std::collections::{BTreeMap, BTreeSet};

use doorward::model::close::{CloseReason, Ending};
use doorward::model::rejection::Reason;
use doorward::telemetry::names::{self, Kind};

use crate::common::backend::Backend;
use crate::common::gate::{Gate, LOCAL};
use crate::common::pki::{TestPki, days_from_now};
use crate::{TEXT, blocks, table, word};

#[test]
fn every_reason_stands_in_its_table_as_it_is() {
    let rows: Vec<[String; 4]> =
        table("stage").iter().map(|row| [0, 1, 2, 3].map(|column| word(&row[column]).to_owned())).collect();
    let reasons: Vec<[String; 4]> = Reason::ALL
        .iter()
        .map(|reason| {
            let alert = reason.alert().map_or_else(|| "–".to_owned(), |alert| alert.to_string());
            [reason.stage().label().to_owned(), reason.label().to_owned(), reason.side().label().to_owned(), alert]
        })
        .collect();
    assert_eq!(rows, reasons);
}

#[test]
fn every_reason_for_a_close_stands_in_its_table() {
    let rows = table("reason");
    let rows: Vec<[&str; 2]> = rows.iter().map(|row| [word(&row[0]), word(&row[1])]).collect();
    let endings: Vec<String> = CloseReason::ALL
        .iter()
        .map(|reason| match reason.ending() {
            Ending::Complete => "close_notify".to_owned(),
            Ending::Truncated => "–".to_owned(),
            Ending::Alert(alert) => alert.to_string(),
            Ending::AlertOfTheError => "the alert of the error".to_owned(),
        })
        .collect();
    let reasons: Vec<[&str; 2]> =
        CloseReason::ALL.iter().zip(&endings).map(|(reason, ending)| [reason.label(), ending]).collect();
    assert_eq!(rows, reasons);
}

#[test]
fn every_metric_stands_in_its_table_with_its_type_and_labels() {
    let pki = TestPki::new();
    let list = pki.clients.revocation_list(&[], days_from_now(-1), days_from_now(1));
    let list = pki.write("clients.crl", list);
    let client_auth = format!("{}revocation_lists = [{list:?}]\n", pki.config());
    let backend = Backend::echo();
    let gate = Gate::start(&format!(
        "{LOCAL}{client_auth}\n[[route]]\nname = \"nas\"\nserver_names = [\"home.example\"]\n\
         backends = [\"{}\", \"localhost:9\"]\nallow = [\"any\"]\nhealth = {{}}\n\n\
         [[route]]\nname = \"sleeper\"\nserver_names = [\"sleeper.home.example\"]\n\
         backends = [\"192.0.2.1:22\"]\nallow = [\"any\"]\nwake = {{ mac = \"3e:ec:ef:12:34:56\" }}\n",
        backend.address()
    ));
    let (_, scrape) = gate.get("/metrics");

    let mut live: BTreeMap<&str, (&str, BTreeSet<&str>)> = BTreeMap::new();
    for line in scrape.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            live.insert(name, (kind, BTreeSet::new()));
        } else if let Some((series, rest)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| {
                let name = series.strip_suffix(end)?;
                live.contains_key(name).then_some(name)
            });
            let (_, labels) = live.get_mut(name.unwrap_or(series)).unwrap_or_else(|| panic!("no type: {line}"));
            let named = rest.split_once('}').unwrap().0.split("\",").map(|label| label.split_once('=').unwrap().0);
            labels.extend(named.filter(|label| *label != "le"));
        }
    }
    let known: BTreeMap<&str, &str> = names::ALL
        .iter()
        .map(|(name, kind, _)| {
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            (*name, kind)
        })
        .collect();
    assert_eq!(live.iter().map(|(name, (kind, _))| (*name, *kind)).collect::<BTreeMap<_, _>>(), known);

    let rows = table("metric");
    let documented: BTreeMap<&str, (&str, BTreeSet<&str>)> =
        rows.iter().map(|row| (word(&row[0]), (row[1].as_str(), labels(&row[2])))).collect();
    assert_eq!(rows.len(), documented.len(), "a metric stands twice");
    assert_eq!(documented, live);
}

/// The labels in a cell: – is none.
fn labels(cell: &str) -> BTreeSet<&str> {
    cell.split(", ").map(word).filter(|label| *label != "–").collect()
}

/// The keys that `config/raw.rs` and its parts read, as in `listener.name`.
fn keys() -> BTreeSet<String> {
    const RAW: &str = concat!(
        include_str!("../../src/config/raw.rs"),
        "\n",
        include_str!("../../src/config/raw/acme.rs"),
        "\n",
        include_str!("../../src/config/raw/acme_dns.rs"),
        "\n",
        include_str!("../../src/config/raw/backend_tls.rs"),
        "\n",
        include_str!("../../src/config/raw/health.rs"),
        "\n",
        include_str!("../../src/config/raw/renewal.rs"),
        "\n",
        include_str!("../../src/config/raw/route.rs"),
    );
    let section = |title: &str| {
        Some(match title {
            "Raw" => "",
            "RawListener" => "listener.",
            "RawCertificate" => "certificate.",
            "RawAcme" => "certificate.acme.",
            "RawEab" => "certificate.acme.eab.",
            "RawDns" => "certificate.acme.dns.",
            "RawClientAuth" => "client_auth.",
            "RawBackendTls" => "route.backend_tls.",
            "RawRoute" => "route.",
            "RawHealth" => "route.health.",
            "RawSendProxyProtocol" => "route.send_proxy_protocol.",
            "RawWake" => "route.wake.",
            "RawExpectation" => "expect.",
            "RawTickets" => "tickets.",
            "RawTimeouts" => "timeouts.",
            "RawLimits" => "limits.",
            "RawControl" => "control.",
            "RawMetrics" => "metrics.",
            "RawLog" => "log.",
            "RawNotify" => "notify.",
            "RawHistory" => "history.",
            "RawRenewal" => "renewal.",
            "RawRenewalIssuer" => "renewal.issuer.",
            "RawSandbox" => "sandbox.",
            _ => return None,
        })
    };
    let mut keys = BTreeSet::new();
    for (index, part) in RAW.split("\nimpl ").enumerate().skip(1) {
        let title = part.split_once(' ').unwrap().0;
        let section = section(title).unwrap_or_else(|| panic!("raw.rs has a part {index} that is new: {title}"));
        for call in [
            "table.text(\"",
            "table.text_or_table(\n                \"",
            "table.texts(\"",
            "table.scalar(\"",
            "table.boolean(\"",
            "root.text(\"",
            "root.scalar(\"",
            "duration(\"",
        ] {
            keys.extend(part.split(call).skip(1).map(|rest| format!("{section}{}", rest.split_once('"').unwrap().0)));
        }
    }
    let own: Vec<String> = keys
        .iter()
        .filter(|key| key.starts_with("certificate.") || key.starts_with("client_auth."))
        // Of the default certificate only.
        .filter(|key| !key.starts_with("certificate.acme."))
        .map(|key| format!("route.{key}"))
        .collect();
    keys.extend(own);
    assert!(keys.len() > 40, "raw.rs is not written any more as this test reads it: {keys:?}");
    keys
}

#[test]
fn every_key_stands_in_its_table() {
    let rows = table("key");
    let documented: Vec<&str> = rows.iter().map(|row| word(&row[0])).filter(|key| !key.starts_with('[')).collect();
    let unique: BTreeSet<String> = documented.iter().map(|key| (*key).to_owned()).collect();
    assert_eq!(documented.len(), unique.len(), "a key stands twice");
    assert_eq!(unique, keys());
}

#[test]
fn what_counters_and_log_lines_are_shown_as_exists() {
    for block in blocks() {
        for line in block.text.lines() {
            let line = line.trim_start().trim_start_matches("gate | ");
            if line.starts_with("doorward_") {
                let name = line.split(['{', ' ']).next().unwrap();
                assert!(names::ALL.iter().any(|(known, ..)| *known == name), "{line}");
            }
            let Some((_, verdict)) = line.split_once(" rejected ") else { continue };
            let shown = verdict.split(' ').find(|word| word.contains('/')).unwrap();
            assert!(Reason::ALL.iter().any(|reason| reason.to_string() == shown), "{line}");
        }
    }
    // And in the text: `stage/reason`.
    let stages: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.stage().label()).collect();
    for quoted in TEXT.split('`').skip(1).step_by(2) {
        if quoted.split_once('/').is_some_and(|(stage, _)| stages.contains(stage)) {
            assert!(Reason::ALL.iter().any(|reason| reason.to_string() == quoted), "{quoted}");
        }
    }
}
