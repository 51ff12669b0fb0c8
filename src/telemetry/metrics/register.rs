//! Registers series: each exists at 0 from the start.

use std::collections::HashMap;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::PrometheusRecorder;

use crate::model::names::Name;
use crate::model::rejection::Reason;
use crate::telemetry::names::{self, Kind};

const METADATA: Metadata<'static> = Metadata::new("doorward", Level::INFO, None);

/// Registers series with one recorder.
pub(super) struct Register<'a>(pub(super) &'a PrometheusRecorder);

impl Register<'_> {
    fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
        let labels: Vec<Label> = labels.iter().map(|(key, value)| Label::new(*key, (*value).to_owned())).collect();
        Key::from_parts(name, labels)
    }

    pub(super) fn counter(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        let counter = self.0.register_counter(&Self::key(name, labels), &METADATA);
        counter.increment(0);
        counter
    }

    pub(super) fn gauge(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        let gauge = self.0.register_gauge(&Self::key(name, labels), &METADATA);
        // One that is there already keeps what it shows.
        gauge.increment(0);
        gauge
    }

    pub(super) fn histogram(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Histogram {
        self.0.register_histogram(&Self::key(name, labels), &METADATA)
    }

    pub(super) fn rejected(&self, listener: &Name, route: &str, can_occur: impl Fn(Reason) -> bool) -> Rejected {
        let reasons = Reason::ALL.iter().copied().filter(|reason| can_occur(*reason));
        Rejected(
            reasons
                .map(|reason| {
                    let labels = [
                        ("listener", listener.as_str()),
                        ("route", route),
                        ("stage", reason.stage().label()),
                        ("reason", reason.label()),
                    ];
                    (reason, self.counter(names::CONNECTIONS_REJECTED, &labels))
                })
                .collect(),
        )
    }
}

/// A counter for each reason that can occur at one listener and route.
pub(super) struct Rejected(HashMap<Reason, Counter>);

impl Rejected {
    /// Whether there is a counter for this reason.
    pub(super) fn has(&self, reason: Reason) -> bool {
        self.0.contains_key(&reason)
    }

    pub(super) fn count(&self, reason: Reason) {
        // A test provokes each reason where it can occur. One that was missed is still counted, as a fault of the gate.
        if let Some(counter) = self.0.get(&reason).or_else(|| self.0.get(&Reason::Internal)) {
            counter.increment(1);
        }
    }
}

/// Gives every series its help text.
pub(super) fn describe(recorder: &PrometheusRecorder) {
    for (name, kind, help) in names::ALL {
        match kind {
            Kind::Counter => recorder.describe_counter((*name).into(), None, (*help).into()),
            Kind::Gauge => recorder.describe_gauge((*name).into(), None, (*help).into()),
            Kind::Histogram => recorder.describe_histogram((*name).into(), None, (*help).into()),
        }
    }
}
