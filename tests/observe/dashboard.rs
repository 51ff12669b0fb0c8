//! The dashboard as a file: what it asks, and whether Grafana would take it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use doorward::telemetry::names;
use serde_json::Value;

use crate::common::folders::copy_folder;
use crate::common::process::{Finished, run, tool};
use crate::deploy;

/// One query of a panel, as Grafana would send it: with a value for every variable.
pub(crate) struct Query {
    pub(crate) panel: String,
    pub(crate) expression: String,
}

fn read() -> Value {
    serde_json::from_slice(&std::fs::read(deploy("grafana/dashboards/doorward.json")).unwrap()).unwrap()
}

fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row")
}

/// Every query of every panel, over `window`.
pub(crate) fn queries(window: &str) -> Vec<Query> {
    let dashboard = read();
    let mut queries = Vec::new();
    for panel in panels(&dashboard) {
        for target in panel["targets"].as_array().unwrap() {
            let mut expression = target["expr"].as_str().unwrap().to_owned();
            // What "All" is replaced by is the variable's allValue.
            for variable in dashboard["templating"]["list"].as_array().unwrap() {
                if let Some(all) = variable["allValue"].as_str() {
                    expression = expression.replace(&format!("${}", variable["name"].as_str().unwrap()), all);
                }
            }
            expression = expression.replace("$__rate_interval", window).replace("$__range", window);
            assert!(!expression.contains('$'), "a variable without a value: {expression}");
            queries.push(Query { panel: panel["title"].as_str().unwrap().to_owned(), expression });
        }
    }
    queries
}

/// The gate's metrics that this text names. What rules record has a colon before it, and is not one of them.
pub(crate) fn metrics_in(text: &str) -> BTreeSet<String> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':');
    let words = text.split(word).filter(|word| word.starts_with("doorward_"));
    words.map(|word| word.trim_end_matches("_bucket").to_owned()).collect()
}

#[test]
fn no_panel_asks_for_a_metric_that_does_not_exist() {
    let known: BTreeSet<String> = names::ALL.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let mut asked = BTreeSet::new();
    for Query { panel, expression } in queries("5m") {
        let metrics = metrics_in(&expression);
        assert!(metrics.is_subset(&known), "{panel}: {expression}");
        asked.extend(metrics);
    }
    for variable in read()["templating"]["list"].as_array().unwrap() {
        asked.extend(metrics_in(&variable["query"].to_string()));
    }
    assert!(asked.is_subset(&known), "{asked:?}");
    assert!(asked.len() > 10, "the test has found but {asked:?}");
}

#[test]
fn every_panel_has_a_place_of_its_own_and_says_what_it_answers() {
    let dashboard = read();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "twice: {}", panel["id"]);
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        assert!(x + w <= 24, "{}", panel["title"]);
        for cell in (y..y + h).flat_map(|y| (x..x + w).map(move |x| (x, y))) {
            assert!(taken.insert(cell), "{} lies on another panel", panel["title"]);
        }
    }
    for panel in panels(&dashboard) {
        assert!(panel["title"].as_str().unwrap().ends_with('?'), "a question: {}", panel["title"]);
        assert!(panel["description"].as_str().is_some_and(|text| text.len() > 20), "{}", panel["title"]);
    }
}

/// The verdict for these series, by promtool: nine days after their beginning, which is 1970.
#[track_caller]
fn verdict(series: &[(&str, &str)], expected: u8) {
    let mut found = queries("5m").into_iter().filter(|query| query.panel == "Does anything need you?");
    let expression = found.next().unwrap().expression;
    let series: Vec<Value> =
        series.iter().map(|(series, values)| serde_json::json!({"series": series, "values": values})).collect();
    let test = serde_json::json!({"evaluation_interval": "1h", "tests": [{
        "interval": "1h",
        "input_series": series,
        "promql_expr_test": [
            {"expr": expression, "eval_time": "216h", "exp_samples": [{"labels": "{}", "value": expected}]}
        ],
    }]});
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.yml");
    std::fs::write(&file, test.to_string()).unwrap();
    run(tool("promtool", "prometheus").args(["test", "rules"]).arg(file)).success();
}

#[test]
fn verdict_is_what_matters_most() {
    const DAY: u64 = 86_400;
    let (later, soon, over) = (60 * DAY, 20 * DAY, 8 * DAY);
    let expires = |kind: &str| format!("doorward_certificate_expiry_timestamp_seconds{{kind=\"{kind}\",name=\"x\"}}");
    let constant = |value: u64| format!("{value}x220");
    let (server, device) = (expires("server"), expires("device"));
    let (impostors, reloaded) = ("doorward_impostors_total{route=\"nas\"}", "doorward_config_last_reload_successful");
    let (first, second) =
        ("doorward_backend_up{route=\"nas\",backend=\"a\"}", "doorward_backend_up{route=\"nas\",backend=\"b\"}");
    let (short, warned) = (
        "doorward_certificate_expiry_timestamp_seconds{kind=\"server\",name=\"short\"}",
        "doorward_certificate_expiry_warning_timestamp_seconds{kind=\"server\",name=\"short\"}",
    );
    let (failed, renewed) =
        ("doorward_acme_renewals_total{outcome=\"failed\"}", "doorward_acme_renewals_total{outcome=\"renewed\"}");
    let checked = "doorward_backend_healthy{route=\"nas\",backend=\"a\"}";
    let well: Vec<(&str, String)> = vec![
        ("up{job=\"doorward\"}", constant(1)),
        (&server, constant(later)),
        (&device, constant(later)),
        (impostors, constant(3)),
        (reloaded, constant(1)),
        (short, constant(later)),
        (warned, constant(soon)),
        (failed, constant(3)),
        (renewed, constant(1)),
        (first, constant(1)),
        (second, constant(1)),
        (checked, constant(1)),
    ];
    for (changed, value, expected) in [
        ("", String::new(), 0),
        // One of two backends of a route.
        (second, constant(0), 0),
        (checked, constant(0), 0),
        (&device, constant(soon), 1),
        (&device, constant(over), 1),
        (&server, constant(soon), 1),
        (&server, constant(over), 2),
        // It lasts for six days: it expires in eleven days, and the gate does not warn yet.
        (short, constant(soon), 0),
        (failed, "3x210 4x10".to_owned(), 1),
        // Over a day ago.
        (failed, "3x180 4x40".to_owned(), 0),
        (impostors, "0x210 1x10".to_owned(), 2),
        // Over a day ago.
        (impostors, "0x180 1x40".to_owned(), 0),
        (reloaded, constant(0), 2),
        ("up{job=\"doorward\"}", constant(0), 2),
    ] {
        let series: Vec<(&str, &str)> = well
            .iter()
            .map(|(series, values)| (*series, if *series == changed { value.as_str() } else { values.as_str() }))
            .collect();
        verdict(&series, expected);
    }
    verdict(&[("up{job=\"doorward\"}", "0x220"), (impostors, "_x220")], 2);
    let both_down: Vec<(&str, &str)> = well
        .iter()
        .map(|(series, values)| (*series, if series.contains("backend") { "0x220" } else { values.as_str() }))
        .collect();
    verdict(&both_down, 2);
    // One that fails its health checks, beside one that did not answer.
    let none_left: Vec<(&str, &str)> = well
        .iter()
        .map(|(series, values)| (*series, if [second, checked].contains(series) { "0x220" } else { values.as_str() }))
        .collect();
    verdict(&none_left, 2);
}

/// Grafana's published types and what checks with them, in a folder below `target/` that later runs find again.
fn checker() -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grafana");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("grafana");
    let lock = std::fs::read(sources.join("package-lock.json")).unwrap();
    let installed = folder.join("installed");
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["package.json", "package-lock.json", "types.ts", "check.mjs", "../common/typed.mjs"].map(Path::new) {
        std::fs::copy(sources.join(file), folder.join(file.file_name().unwrap())).unwrap();
    }
    if std::fs::read(&installed).ok().as_ref() != Some(&lock) {
        // Exactly what the lock file names, by its hash, and none of it is run while it is installed.
        let mut npm = tool("npm", "npm");
        run(npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&folder)).success();
        std::fs::write(installed, lock).unwrap();
    }
    folder
}

#[track_caller]
fn check(checker: &Path, deploy: &Path) -> Finished {
    run(tool("node", "nodejs").arg(checker.join("check.mjs")).arg(deploy))
}

#[test]
fn grafana_and_compose_accept_the_files_and_reject_faults() {
    let checker = checker();
    check(&checker, &deploy("")).success();

    let mistakes = [
        // A field that Grafana does not know, in the dashboard, in a panel's options, in a query; a word of an enum.
        ("grafana/dashboards/doorward.json", "\"editable\"", "\"editible\"", "'\"editible\"' does not exist"),
        ("grafana/dashboards/doorward.json", "\"justifyMode\"", "\"justified\"", "'\"justified\"' does not exist"),
        ("grafana/dashboards/doorward.json", "\"legendFormat\"", "\"legend\"", "'\"legend\"' does not exist"),
        (
            "grafana/dashboards/doorward.json",
            "\"displayMode\": \"table\"",
            "\"displayMode\": \"tables\"",
            "'\"tables\"'",
        ),
        ("grafana/dashboards/doorward.json", "\"lineWidth\": 1", "\"lineWidth\": \"1\"", "'string' is not assignable"),
        ("grafana/dashboards/doorward.json", "doorward-prometheus", "another", "the dashboard starts with another"),
        ("grafana/provisioning/dashboards/doorward.yaml", "path: /", "path: /elsewhere/", "nothing at /elsewhere/"),
        ("compose.yaml", "restart:", "restarts:", "must NOT have additional properties"),
        ("compose.yaml", "./grafana/dashboards", "./grafana/boards", "./grafana/boards is not there"),
        ("compose.yaml", "prom/prometheus:v3.5.0", "prom/prometheus:latest", "no version"),
    ];
    let spoilt = tempfile::tempdir().unwrap();
    copy_folder(&deploy(""), spoilt.path());
    for (file, right, wrong, _) in mistakes {
        let path = spoilt.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(right), "{file}: {right}");
        std::fs::write(&path, text.replacen(right, wrong, 1)).unwrap();
    }
    let refused = check(&checker, spoilt.path()).failure();
    for (_, _, wrong, complaint) in mistakes {
        assert!(refused.text().contains(complaint), "{wrong}: {refused}");
    }
}
