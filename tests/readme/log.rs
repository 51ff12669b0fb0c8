//! The fields of log lines.

use std::collections::BTreeSet;
use std::sync::Arc;

use doorward::model::close::CloseReason;
use doorward::model::identity::Identity;
use doorward::model::rejection::Reason;
use doorward::telemetry::log::{Durations, Event, LeftOutCause, LoggedImpostor, Tls, Verdict};

use crate::common::pki::{Authority, Certified};
use crate::{Block, blocks, table, word};

#[test]
fn fields_of_the_log_are_those_of_its_lines() {
    let device = Authority::new("House").issue(Certified::for_clients("alice-phone"));
    let full = Verdict {
        server_name: Some(""),
        ja4: Some(String::new()),
        route: Some(""),
        stage: Some(""),
        side: Some(""),
        detail: Some(String::new()),
        alert: Some(String::new()),
        certificate: Some(Arc::new(Identity::from_certificate(&device.chain()[0], true).unwrap())),
        impostor: Some(LoggedImpostor { name: "", claim: "" }),
        tls: Some(Tls { version: "", cipher_suite: "", resumed: false }),
        backend: Some(String::new()),
        path: Some(""),
        bytes_to_backend: Some(0),
        bytes_to_client: Some(0),
        durations: Durations {
            admission: Some(0.0),
            hello: Some(0.0),
            handshake: Some(0.0),
            dial: Some(0.0),
            relay: Some(0.0),
        },
        ..Verdict::default()
    };
    let mut fields = fields_of(&serde_json::to_value(full).unwrap());
    fields.insert("time".to_owned());
    let rows = table("field");
    let documented: BTreeSet<String> = rows.iter().map(|row| word(&row[0]).to_owned()).collect();
    assert_eq!(rows.len(), documented.len(), "a field stands twice");
    assert_eq!(documented, fields);

    let left_out = Event::LeftOut {
        lines: 1,
        cause: LeftOutCause::Sampling,
        source: Some(String::new()),
        fingerprint: Some(String::new()),
        stage: Some(""),
        reason: Some(""),
    };
    let rows = table("field of `left_out`");
    let documented: BTreeSet<String> =
        rows.iter().flat_map(|row| row[0].split(", ").map(|name| word(name).to_owned())).collect();
    let mut named = fields_of(&serde_json::to_value(left_out).unwrap());
    assert!(named.remove("event"));
    assert_eq!(documented, named);

    let told = || vec![String::new()];
    let done = Event::Reloaded {
        cause: "",
        sessions_kept: 0,
        sessions_cut: 0,
        warnings: told(),
        after_restart: told(),
        gained: told(),
        lost: told(),
    };
    let failed = Event::ReloadFailed { cause: "", errors: told(), in_force: told(), sessions_cut: Some(0) };
    let rows = table("field of a reload");
    let documented: BTreeSet<String> =
        rows.iter().flat_map(|row| row[0].split(", ").map(|name| word(name).to_owned())).collect();
    let mut named = fields_of(&serde_json::to_value(done).unwrap());
    named.extend(fields_of(&serde_json::to_value(failed).unwrap()));
    assert!(named.remove("event"));
    assert_eq!(documented, named);

    let [version, until, error] = [(); 3].map(|()| String::new());
    let mut named =
        fields_of(&serde_json::to_value(Event::Upgraded { pid: 1, version, sessions_kept: 0, until }).unwrap());
    named.extend(fields_of(&serde_json::to_value(Event::UpgradeFailed { error }).unwrap()));
    assert!(named.remove("event"));
    let rows = table("field of an upgrade");
    assert_eq!(rows.iter().map(|row| word(&row[0]).to_owned()).collect::<BTreeSet<_>>(), named);

    let (issuer, number, sha256) = (String::new(), Some(String::new()), String::new());
    let list = Event::RevocationList { issuer, number, sha256, sessions_cut: 0 };
    let documented: BTreeSet<String> =
        table("field of a list").iter().flat_map(|row| row[0].split(", ").map(|name| word(name).to_owned())).collect();
    let mut named = fields_of(&serde_json::to_value(list).unwrap());
    assert!(named.remove("event"));
    assert_eq!(documented, named);

    let (directory, error) = (String::new(), String::new());
    let failed = Event::CertificateRenewalFailed {
        directory,
        error,
        remedies: vec![String::new()],
        in_a_row: 1,
        next: Some(String::new()),
    };
    let rows = table("field of a failed renewal");
    let mut named = fields_of(&serde_json::to_value(failed).unwrap());
    assert!(named.remove("event"));
    assert_eq!(rows.iter().map(|row| word(&row[0]).to_owned()).collect::<BTreeSet<_>>(), named);

    let samples: Vec<Block> = blocks().into_iter().filter(|block| block.language == "json").collect();
    let lines: Vec<&str> = samples.iter().flat_map(|block| block.text.lines()).collect();
    assert!(!lines.is_empty());
    for line in lines {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(fields_of(&line).is_subset(&fields), "{line}");
        let labels = [&line["stage"], &line["reason"]].map(|label| label.as_str().unwrap_or_default());
        let rejection = Reason::ALL.iter().any(|reason| [reason.stage().label(), reason.label()] == labels);
        let close = CloseReason::ALL.iter().any(|reason| ["", reason.label()] == labels);
        assert!(if line["event"] == "rejected" { rejection } else { close }, "{line}");
    }
}

/// The names of an object's fields, `outer.inner` for those of objects in it.
fn fields_of(value: &serde_json::Value) -> BTreeSet<String> {
    let object = value.as_object().unwrap();
    let names = object.iter().flat_map(|(name, value)| match value {
        serde_json::Value::Object(_) => fields_of(value).into_iter().map(|inner| format!("{name}.{inner}")).collect(),
        _ => vec![name.clone()],
    });
    names.collect()
}
