//! The gate of a house: a configuration in a few words, and what must hold when a client is refused or admitted.

use std::fmt::{Display, Write as _};

use doorward::model::close::CloseReason;
use doorward::model::rejection::{Alert, Reason};
use serde_json::Value;

use crate::client::{Client, End};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::metrics::Metrics;
use crate::common::pki::TestPki;
use crate::common::process::wait_until;

const REJECTED: &str = "doorward_connections_rejected_total";
const CLOSED: &str = "doorward_connections_closed_total";

/// A configuration in the making. Sources may connect as often as they like and never have to wait, unless a test says
/// otherwise: nearly all tests come from one address, and many only to be refused.
pub(crate) struct House<'a> {
    pki: &'a TestPki,
    listener: String,
    limits: String,
    timeouts: String,
    client_auth: String,
    routes: String,
}

impl<'a> House<'a> {
    /// One listener, no routes yet.
    pub(crate) fn new(pki: &'a TestPki) -> Self {
        let limits = "connection_rate_per_source = \"off\"".to_owned();
        Self {
            pki,
            listener: String::new(),
            limits,
            timeouts: String::new(),
            client_auth: String::new(),
            routes: String::new(),
        }
    }

    /// Further keys of the listener.
    pub(crate) fn listener(mut self, keys: &str) -> Self {
        self.listener = keys.to_owned();
        self
    }

    /// The keys of `[limits]`.
    pub(crate) fn limits(mut self, keys: &str) -> Self {
        self.limits = keys.to_owned();
        self
    }

    /// The keys of `[timeouts]`.
    pub(crate) fn timeouts(mut self, keys: &str) -> Self {
        self.timeouts = keys.to_owned();
        self
    }

    /// Further keys of `[client_auth]`.
    pub(crate) fn client_auth(mut self, keys: &str) -> Self {
        self.client_auth = keys.to_owned();
        self
    }

    /// A route for the server name `NAME.home.example`, for every verified certificate.
    pub(crate) fn route(self, name: &str, backend: impl Display) -> Self {
        self.route_with(name, &[&backend.to_string()], "allow = [\"any\"]")
    }

    /// A route for the server name `NAME.home.example`, with these keys and tables.
    pub(crate) fn route_with(mut self, name: &str, backends: &[&str], keys: &str) -> Self {
        write!(
            self.routes,
            "\n[[route]]\nname = \"{name}\"\nserver_names = [\"{name}.home.example\"]\nbackends = {backends:?}\n{keys}\n"
        )
        .unwrap();
        self
    }

    /// A route that leaves TLS to its backend.
    pub(crate) fn passthrough(self, name: &str, backend: impl Display) -> Self {
        self.route_with(name, &[&backend.to_string()], "mode = \"passthrough\"")
    }

    /// The configuration.
    pub(crate) fn config(&self) -> String {
        let Self { pki, listener, limits, timeouts, client_auth, routes } = self;
        let pki = pki.config();
        let penalties = if limits.contains("penalties") { "" } else { "penalties = \"off\"" };
        format!(
            "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n{listener}\n\n\
             [metrics]\naddress = \"127.0.0.1:0\"\n\n[log]\nformat = \"json\"\nsampling = \"off\"\n\n\
             [limits]\n{limits}\n{penalties}\n\n[timeouts]\n{timeouts}\n\n{pki}{client_auth}\n{routes}"
        )
    }

    /// Opens the house.
    #[track_caller]
    pub(crate) fn open(&self) -> Gate {
        Gate::start(&self.config())
    }
}

/// How it was before, to be held against how it is afterwards.
pub(crate) struct Watch<'a> {
    gate: &'a Gate,
    verdicts: usize,
    metrics: Metrics,
}

impl<'a> Watch<'a> {
    /// Looks at the gate.
    #[track_caller]
    pub(crate) fn begin(gate: &'a Gate) -> Self {
        let metrics = gate.metrics();
        let counted = ["rejected", "closed"]
            .map(|event| metrics.sum(&format!("doorward_connections_{event}_total"), &[]))
            .iter()
            .sum::<f64>();
        // The log may write lines a little later, which are not those of what comes next. A sampled one leaves some out.
        let config = std::fs::read_to_string(gate.folder().join("doorward.toml")).unwrap();
        let sampled = !config.contains("sampling = \"off\"");
        wait_until("the log has what was counted", || {
            (sampled || verdicts(gate).len() as f64 >= counted).then_some(())
        });
        Self { gate, verdicts: verdicts(gate).len(), metrics }
    }

    /// Waits for the next verdict. It must be this rejection; one counter, this one, went up by one; and the log tells of
    /// the alert that the client has received, if it received one. Returns the line.
    #[track_caller]
    pub(crate) fn rejected(&self, reason: Reason, client_saw: &End) -> Value {
        let line = self.verdict();
        assert_eq!(line["event"], "rejected", "{line}");
        assert_eq!(line["stage"], reason.stage().label(), "{line}");
        assert_eq!(line["reason"], reason.label(), "{line}");
        assert_eq!(line["side"], reason.side().label(), "{line}");
        let told = match client_saw {
            End::Alert(alert) => Value::String(alert.to_string()),
            _ => Value::Null,
        };
        // Of the alerts that rustls chooses for misbehaviour and sends encrypted, the gate does not know which it was.
        if reason != Reason::Misbehaved || line["alert"].is_string() {
            assert_eq!(line["alert"], told, "the client saw {client_saw:?}: {line}");
        }
        let route = line["route"].as_str().unwrap_or("none");
        let listener = line["listener"].as_str().unwrap();
        let labels =
            [("listener", listener), ("route", route), ("stage", reason.stage().label()), ("reason", reason.label())];
        self.counted(REJECTED, &labels);
        line
    }

    /// Waits for the next verdict. It must be this end, and one counter, this one, went up by one. Returns the line.
    #[track_caller]
    pub(crate) fn closed(&self, reason: CloseReason) -> Value {
        self.closed_as(&[reason])
    }

    /// As [`Watch::closed`], where only the gate can know which of these it was.
    #[track_caller]
    pub(crate) fn closed_as(&self, reasons: &[CloseReason]) -> Value {
        let line = self.verdict();
        assert_eq!(line["event"], "closed", "{line}");
        let (route, reason) = (line["route"].as_str().unwrap(), line["reason"].as_str().unwrap());
        assert!(reasons.iter().any(|expected| expected.label() == reason), "{line}");
        self.counted(CLOSED, &[("route", route), ("reason", reason)]);
        line
    }

    /// Waits for the next verdict, a rejection at this stage for whatever reason. Returns the line.
    #[track_caller]
    pub(crate) fn rejected_at(&self, stage: &str) -> Value {
        let line = self.verdict();
        assert_eq!((&line["event"], &line["stage"]), (&"rejected".into(), &stage.into()), "{line}");
        line
    }

    #[track_caller]
    fn verdict(&self) -> Value {
        self.gate.wait_for_lines("the next verdict", self.verdicts + 1, is_verdict).swap_remove(self.verdicts)
    }

    /// One more here than before, and no more anywhere else.
    #[track_caller]
    fn counted(&self, name: &str, labels: &[(&str, &str)]) {
        self.gate.wait_metric(name, labels, self.metrics.sum(name, labels) + 1.0);
        let now = self.gate.metrics();
        let (expected, other) = if name == REJECTED { (REJECTED, CLOSED) } else { (CLOSED, REJECTED) };
        assert_eq!(now.sum(expected, &[]), self.metrics.sum(expected, &[]) + 1.0, "counted elsewhere, too");
        assert_eq!(now.sum(other, &[]), self.metrics.sum(other, &[]), "counted elsewhere, too");
    }
}

fn is_verdict(line: &Value) -> bool {
    line["event"] == "rejected" || line["event"] == "closed"
}

/// The verdicts so far.
pub(crate) fn verdicts(gate: &Gate) -> Vec<Value> {
    gate.lines().into_iter().filter(is_verdict).collect()
}

/// Lets `attempt` get in, go, and be counted. Returns the line.
#[track_caller]
pub(crate) fn assert_admitted(gate: &Gate, attempt: impl FnOnce() -> Result<Client, End>) -> Value {
    let watch = Watch::begin(gate);
    let client = attempt().expect("it should have been let in");
    client.close_notify();
    assert_eq!(client.end(), End::Orderly);
    watch.closed(CloseReason::ClientClosed)
}

/// Lets `attempt` try to get in. It must be refused for this reason, be told by this alert, and must not have reached the
/// backend by as much as a connection.
#[track_caller]
pub(crate) fn assert_refused(
    gate: &Gate,
    backend: &Backend,
    reason: Reason,
    alert: Alert,
    attempt: impl FnOnce() -> Result<Client, End>,
) -> Value {
    let watch = Watch::begin(gate);
    let before = (backend.accepted(), backend.received());
    let end = attempt().map(|_| ()).expect_err("it should have been refused");
    let line = watch.rejected(reason, &end);
    assert_eq!(end, End::Alert(alert), "{line}");
    assert_eq!((backend.accepted(), backend.received()), before, "it reached the backend: {line}");
    line
}
