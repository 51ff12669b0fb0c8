//! Every reason for a rejection, provoked on one gate and looked for on every surface that reports it.

use std::collections::{BTreeMap, BTreeSet};

use doorward::model::rejection::Reason;
use doorward::telemetry::names::CONNECTIONS_REJECTED;
use serde_json::Value;
use tokio::time::Instant;

use crate::common::DEADLINE;
use crate::common::gate::Gate;
use crate::common::text::escaped;
use crate::dashboard::queries;
use crate::prometheus::{Prometheus, WINDOW, every_panel_has_data, every_rule_has_data};
use crate::scene::Scene;

/// The panel of the dashboard that tells the reasons apart.
const PANEL: &str = "Why are connections refused?";

/// Where a refusal is to be found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// `/metrics`.
    Metrics,
    /// The line about that connection.
    Log,
    /// `doorward why ADDRESS`: that connection, and what to do.
    Why,
    /// `doorward why ADDRESS --format json`: that connection.
    WhyJson,
    /// The status page's latest refusals: that address, and what to do. Refusals of devices and of services that do not answer are
    /// among its findings instead.
    Page,
    /// A Prometheus that scrapes the gate.
    Prometheus,
    /// The query of [`PANEL`].
    Dashboard,
}

impl Place {
    const ALL: [Self; 7] =
        [Self::Metrics, Self::Log, Self::Why, Self::WhyJson, Self::Page, Self::Prometheus, Self::Dashboard];
}

/// What was found where, as `stage/reason`.
#[derive(Debug, Default)]
struct Found(BTreeMap<Place, BTreeSet<String>>);

impl Found {
    fn add(&mut self, place: Place, found: impl IntoIterator<Item = String>) {
        self.0.entry(place).or_default().extend(found);
    }

    /// What must be looked for at once: the latest refusals are a bounded number.
    fn look_at_once(&mut self, gate: &Gate, reason: Reason, line: &Value) {
        let (key, id) = (reason.to_string(), line["id"].as_u64().unwrap());
        self.add(Place::Log, [format!("{}/{}", line["stage"].as_str().unwrap(), line["reason"].as_str().unwrap())]);

        let (status, page) = gate.get("/");
        assert_eq!(status, 200, "{page}");
        let source = line["source"].as_str().unwrap();
        let ask = |more: &[&str]| gate.ask(&[&["why", source, "--count", "100"], more].concat()).success().text();
        let told: Value = serde_json::from_str(&ask(&["--format", "json"])).unwrap();
        let told = told["refusals"].as_array().unwrap().iter().find(|refusal| refusal["id"] == id);
        // What to do is known from here, and looked for in the other two places.
        let Some(told) = told else { return };
        let word = |name: &str| told[name].as_str().unwrap();
        self.add(Place::WhyJson, [format!("{}/{}", word("stage"), word("reason"))]);
        if is_told(&ask(&[]), &key, id, word("advice")) {
            self.add(Place::Why, [key.clone()]);
        }
        let address = source.rsplit_once(':').unwrap().0;
        let (who, what) = (format!("<td><code>{address}</code></td>"), escaped(word("advice")));
        let why = format!("<code class=\"quiet\">{key}</code>");
        let is_listed = page.split("<tr>").any(|row| row.contains(&who) && row.contains(&what) && row.contains(&why));
        if is_listed || is_a_finding(gate, line) {
            self.add(Place::Page, [key]);
        }
    }

    /// What counts, and so can be looked for when all is over.
    fn look_at_last(&mut self, gate: &Gate) {
        let metrics = gate.metrics();
        let counted = Reason::ALL.iter().filter(|reason| {
            let labels = [("stage", reason.stage().label()), ("reason", reason.label())];
            metrics.sum(CONNECTIONS_REJECTED, &labels) > 0.0
        });
        self.add(Place::Metrics, counted.map(ToString::to_string));
    }

    /// What comes with the next scrape, or with the one after it.
    fn look_from_afar(&mut self, prometheus: &Prometheus) {
        let increase = format!("sum by (stage, reason) (increase({CONNECTIONS_REJECTED}[{WINDOW}])) > 0");
        self.add(Place::Prometheus, told_apart(&prometheus.query(&increase)));
        for query in queries(WINDOW).iter().filter(|query| query.panel == PANEL) {
            self.add(Place::Dashboard, told_apart(&prometheus.query(&query.expression)));
        }
    }

    /// A line for each reason and place where it is not as it should be.
    fn mistakes(&self) -> Vec<String> {
        let expected: BTreeSet<String> =
            Reason::ALL.iter().filter(|reason| Scene::can_be_provoked(**reason)).map(ToString::to_string).collect();
        let nothing = BTreeSet::new();
        let mut mistakes = Vec::new();
        for place in Place::ALL {
            let found = self.0.get(&place).unwrap_or(&nothing);
            mistakes.extend(expected.difference(found).map(|reason| format!("{reason} is not in {place:?}")));
            let unexpected = found.difference(&expected);
            mistakes.extend(unexpected.map(|reason| format!("{reason} is in {place:?}, and was not provoked")));
        }
        mistakes
    }
}

/// Whether the text of `doorward why` has this connection, with this reason and what to do.
fn is_told(text: &str, key: &str, id: u64, advice: &str) -> bool {
    let parts: Vec<&str> = text.split("\n\n").collect();
    parts.windows(2).any(|part| {
        let [said, facts] = [part[0], part[1]];
        let fact =
            |name: &str| facts.lines().find_map(|line| line.trim_start().strip_prefix(name)).map(str::trim_start);
        let is_it = fact("log ") == Some(&format!("id {id}"));
        is_it && said.ends_with(advice) && fact("reason ").is_some_and(|fact| fact.starts_with(&format!("{key}: ")))
    })
}

/// Whether the page's findings have the device or the service that this line is about.
fn is_a_finding(gate: &Gate, line: &Value) -> bool {
    let (kind, subject) = match line["stage"].as_str() {
        Some("backend") => ("service_down", &line["route"]),
        Some("certificate" | "policy") => ("device", &line["certificate"]["name"]),
        _ => return false,
    };
    let (status, body) = gate.get("/status.json");
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    body["findings"].as_array().unwrap().iter().any(|finding| finding["kind"] == kind && finding["subject"] == *subject)
}

/// The reasons that these samples are labelled with.
fn told_apart(samples: &[Value]) -> Vec<String> {
    let label = |sample: &Value, name: &str| sample["metric"][name].as_str().unwrap_or("?").to_owned();
    samples.iter().map(|sample| format!("{}/{}", label(sample, "stage"), label(sample, "reason"))).collect()
}

/// The one test that a new reason cannot pass by: `Scene::provoke` matches all of them, and what is provoked must be in
/// every place.
#[test]
fn every_reason_is_found_again_wherever_somebody_might_look() {
    let mut scene = Scene::open();
    let prometheus = Prometheus::watch(&scene.gate.metrics_address().to_string());
    // An increase is seen between two scrapes, so one comes before anything happens.
    prometheus.wait_for("doorward_build_info");
    scene.admit();

    let mut found = Found::default();
    scene.provoke_every_reason(|reason, line| found.look_at_once(&scene.gate, reason, line));
    let (held, line) = scene.drain();
    found.look_at_once(&scene.gate, Reason::Draining, &line);
    found.look_at_last(&scene.gate);
    let scraped = Instant::now() + DEADLINE;
    found.look_from_afar(&prometheus);
    while !found.mistakes().is_empty() && Instant::now() < scraped {
        found.look_from_afar(&prometheus);
    }
    let mistakes = found.mistakes();
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));

    // What cannot be provoked exists at 0, so that alerts on it have data.
    for reason in Reason::ALL.iter().filter(|reason| !Scene::can_be_provoked(**reason)) {
        let labels = format!("stage=\"{}\",reason=\"{}\"", reason.stage().label(), reason.label());
        prometheus.wait_for(&format!("sum(increase({CONNECTIONS_REJECTED}{{{labels}}}[{WINDOW}])) == 0"));
    }

    every_panel_has_data(&prometheus);
    every_rule_has_data(&prometheus);
    drop(held);
    assert!(scene.gate.wait_for_end().success());
}

#[test]
fn text_of_why_is_read_as_people_read_it() {
    let text = "A client.\nDo this.\n\n  when          now\n  reason        a/b: c\n  log           id 7\n\nOther.\nNothing.\n\n  \
                reason        a/c: d\n  log           id 71\n";
    assert!(is_told(text, "a/b", 7, "Do this.") && is_told(text, "a/c", 71, "Nothing."));
    for (key, id, advice) in
        [("a/c", 7, "Do this."), ("a/b", 71, "Nothing."), ("a/b", 7, "Nothing."), ("a/b", 8, "Do this.")]
    {
        assert!(!is_told(text, key, id, advice), "{key} {id} {advice}");
    }
}
