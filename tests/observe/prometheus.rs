//! Prometheus with the rules of `deploy/`: what it finds in a live gate, and what its own tool says of the rules.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};

use doorward::telemetry::names;
use serde_json::Value;

use crate::client::{Client, client, connect};
use crate::common::DEADLINE;
use crate::common::backend::Backend;
use crate::common::pki::TestPki;
use crate::common::process::{Daemon, own_loopback, run, tool, wait_until};
use crate::dashboard::{metrics_in, queries};
use crate::deploy;
use crate::home::House;

/// Over which the queries look back: longer than the test takes, so that whatever happened is still seen.
pub(crate) const WINDOW: &str = "10m";

/// A Prometheus with the sample configuration, but for its target and its pace.
pub(crate) struct Prometheus {
    _daemon: Daemon,
    _folder: tempfile::TempDir,
    address: SocketAddrV4,
}

impl Prometheus {
    #[track_caller]
    pub(crate) fn watch(gate: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = std::fs::read_to_string(deploy("prometheus/prometheus.yml")).unwrap();
        assert!(config.contains("\"127.0.0.1:9180\"") && config.contains("15s"));
        let config = config.replace("127.0.0.1:9180", gate).replace("15s", "1s");
        std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let rules = "doorward.rules.yml";
        std::fs::copy(deploy("prometheus").join(rules), folder.path().join(rules)).unwrap();
        let address = SocketAddrV4::new(own_loopback(), 9090);
        let option = |name: &str, value: &str| format!("--{name}={value}");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut command = tool("prometheus", "prometheus");
        command
            .arg(option("config.file", &path("prometheus.yml")))
            .arg(option("storage.tsdb.path", &path("data")))
            .arg(option("web.listen-address", &address.to_string()))
            .arg("--log.level=warn")
            .current_dir(folder.path());
        Self { _daemon: Daemon::start(&mut command, address), _folder: folder, address }
    }

    /// What its HTTP API answers, or nothing while it is not ready.
    #[track_caller]
    fn api(&self, path: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET /api/v1/{path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        if head.starts_with("HTTP/1.0 503") {
            return None;
        }
        let mut body: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
        assert_eq!(body["status"], "success", "{path}: {body}");
        Some(body["data"].take())
    }

    /// The samples that a query brings now; those that are no number (a quantile of nothing) are left out.
    #[track_caller]
    pub(crate) fn query(&self, expression: &str) -> Vec<Value> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let Some(data) = self.api(&format!("query?query={encoded}")) else { return Vec::new() };
        let number = |sample: &Value| sample["value"][1].as_str().is_some_and(|text| text != "NaN");
        match data["result"].as_array() {
            Some(samples) => samples.iter().filter(|sample| number(sample)).cloned().collect(),
            None => panic!("{expression}: {data}"),
        }
    }

    /// Waits until a query brings something.
    #[track_caller]
    pub(crate) fn wait_for(&self, expression: &str) -> Vec<Value> {
        wait_until(&format!("Prometheus has something for {expression}"), || {
            Some(self.query(expression)).filter(|samples| !samples.is_empty())
        })
    }
}

/// Waits until every query of the dashboard has an answer.
#[track_caller]
pub(crate) fn every_panel_has_data(prometheus: &Prometheus) {
    for query in queries(WINDOW) {
        prometheus.wait_for(&query.expression);
    }
}

/// Waits until what the rules record is there, what alerts compare is there on both sides, and those alerts fire that every
/// reason together must bring about.
#[track_caller]
pub(crate) fn every_rule_has_data(prometheus: &Prometheus) {
    let known: BTreeSet<String> = names::ALL.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let groups = prometheus.api("rules").unwrap();
    let rules: Vec<&Value> =
        groups["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert!(rules.len() > 10, "{groups}");
    for rule in rules {
        let (name, expression) = (rule["name"].as_str().unwrap(), rule["query"].as_str().unwrap());
        assert!(metrics_in(expression).is_subset(&known), "{name}: {expression}");
        if rule["type"] == "recording" {
            prometheus.wait_for(name);
        } else {
            for operand in operands(expression) {
                prometheus.wait_for(&operand);
            }
        }
    }
    wait_until("every rule was worked out", || {
        let groups = prometheus.api("rules").unwrap();
        let mut rules =
            groups["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
        rules.all(|rule| rule["health"] == "ok").then_some(())
    });
    // With the traffic above some of them fire, and it shows on Prometheus' own page.
    for expected in ["DoorwardDeviceRefused", "DoorwardCertificateExpired"] {
        wait_until(&format!("{expected} fires"), || {
            let alerts = prometheus.api("alerts").unwrap();
            let mut alerts = alerts["alerts"].as_array().unwrap().iter();
            alerts.any(|alert| alert["labels"]["alertname"] == expected && alert["state"] == "firing").then_some(())
        });
    }
}

/// What an alert compares: the parts between its comparisons and set operators, outside of all brackets and quotes.
fn operands(expression: &str) -> Vec<String> {
    let (mut parts, mut depth, mut quoted) = (vec![String::new()], 0_usize, false);
    for word in expression.split_inclusive(' ') {
        let operator = matches!(word.trim_end(), "==" | "!=" | ">" | "<" | ">=" | "<=" | "and" | "or" | "unless");
        if depth == 0 && !quoted && operator {
            parts.push(String::new());
            continue;
        }
        for c in word.chars() {
            match c {
                '"' => quoted = !quoted,
                '(' | '[' | '{' if !quoted => depth += 1,
                ')' | ']' | '}' if !quoted => depth -= 1,
                _ => {}
            }
        }
        parts.last_mut().unwrap().push_str(word);
    }
    let parts = parts.into_iter().map(|part| part.trim().to_owned());
    // A number is no operand that could be missing.
    parts.filter(|part| part.contains("doorward") || part.contains("up")).collect()
}

#[test]
fn what_an_alert_compares_is_found() {
    let found = operands("sum by (a) (doorward_x{b=\" > \"}) > 0 and doorward_y - time() < 14 * 86400");
    assert_eq!(found, ["sum by (a) (doorward_x{b=\" > \"})", "doorward_y - time()"]);
}

/// The metric of the autoscaler, as prometheus-adapter asks for it: its template with labels in place of its variables.
#[test]
fn autoscaler_counts_sessions_and_not_unknown_clients() {
    let values = std::fs::read_to_string(deploy("kubernetes/components/autoscaling/prometheus-adapter.values.yaml"));
    let values = values.unwrap();
    let line =
        |key: &str| values.lines().find_map(|line| line.trim().trim_start_matches("- ").strip_prefix(key)).unwrap();
    let series = line("seriesQuery: ").split_once('{').unwrap().0;
    // Here, Prometheus' own labels are in the place of a pod's.
    let query = line("metricsQuery: ")
        .replace("<<.GroupBy>>", "job")
        .replace("<<.Series>>", series)
        .replace("<<.LabelMatchers>>", "job=~\".+\"");
    assert!(!query.contains("<<"), "{query}");

    let (pki, backend) = (TestPki::new(), Backend::echo());
    let gate = House::new(&pki).route("nas", backend.address()).open();
    let prometheus = Prometheus::watch(&gate.metrics_address().to_string());
    let unknown: Vec<_> = (0..5).map(|_| connect(gate.address())).collect();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let sessions: Vec<_> =
        (0..2).map(|_| Client::admitted(gate.address(), &alice, "nas.home.example").unwrap()).collect();
    prometheus.wait_for(&format!("{series}{{route=\"none\"}} == {}", unknown.len()));
    let counted = prometheus.wait_for(&format!("{query} > 0"));
    assert_eq!(counted.len(), 1, "{counted:?}");
    assert_eq!(counted[0]["value"][1], sessions.len().to_string());
    drop((unknown, sessions));
}

fn promtool(arguments: &[&str]) {
    let result = run(tool("promtool", "prometheus").args(arguments).current_dir(deploy("prometheus"))).success();
    assert!(!result.text().contains("FAILED"), "{result}");
}

#[test]
fn promtool_accepts_the_rules_and_the_configuration() {
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["check", "rules", "doorward.rules.yml"]);
}

#[test]
fn every_alert_fires_when_it_should_and_not_otherwise() {
    promtool(&["test", "rules", "doorward.rules.test.yml"]);
    // None is without a history.
    let rules = std::fs::read_to_string(deploy("prometheus/doorward.rules.yml")).unwrap();
    let tests = std::fs::read_to_string(deploy("prometheus/doorward.rules.test.yml")).unwrap();
    let documented = std::fs::read_to_string(deploy("README.md")).unwrap();
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 8, "{alerts:?}");
    for alert in alerts {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "never fires in a test: {alert}");
        assert!(tests.contains(&format!("{{alertname: {alert}, ")), "always fires in its tests: {alert}");
        assert!(documented.contains(&format!("| `{alert}` | ")), "not in deploy/README.md: {alert}");
    }
}
