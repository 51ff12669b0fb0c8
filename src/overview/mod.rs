//! What a running gate knows of itself, gathered: the facts from which all that tells the owner something makes its findings.

mod gathered;

use std::sync::Arc;

use time::OffsetDateTime;
use tokio::sync::watch;

use crate::backends::resolver::Resolver;
use crate::config::public_side::PublicSide;
use crate::explain::clock::Clock;
use crate::explain::finding::told::Report;
use crate::explain::finding::{Facts, Finding, LogFault, PublicState, ReceiverFault, Verdict, findings};
use crate::explain::recent::{Refusal, Refusals};
use crate::history::{self, History};
use crate::model::issuance::Issuance;
use crate::notify::{Notices, ReceiverState};
use crate::sessions::registry::{Session, Sessions};
use crate::telemetry::log::Log;
use crate::telemetry::metrics::Metrics;

/// The parts of a running gate that know something.
#[derive(Debug)]
pub(crate) struct Overview {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) refusals: Arc<Refusals>,
    /// What happened in each hour, across restarts.
    pub(crate) history: Arc<History>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) log: Arc<Log>,
    /// Whether the receivers of messages take them.
    pub(crate) notices: Arc<Notices>,
    /// How the orders for the public certificate go.
    pub(crate) issuance: watch::Receiver<Option<Issuance>>,
    /// The host names of backends.
    pub(crate) resolver: Resolver,
    /// The parts of the sandbox that are not in force, and why.
    pub(crate) sandbox: Vec<String>,
    /// When the gate was started.
    pub(crate) started: OffsetDateTime,
}

/// All that is known at one moment.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) clock: Clock,
    pub(crate) facts: Facts,
    /// The most important first.
    pub(crate) findings: Vec<Finding>,
    pub(crate) verdict: Verdict,
    pub(crate) history: history::Overview,
    /// Those that are remembered, the latest first.
    pub(crate) refusals: Vec<Arc<Refusal>>,
    /// Those of this process, the newest first.
    pub(crate) sessions: Vec<Arc<Session>>,
    /// Sessions of processes that upgrades have left.
    pub(crate) sessions_elsewhere: u64,
    pub(crate) public_side: Arc<PublicSide>,
    pub(crate) started: OffsetDateTime,
}

impl Overview {
    /// The verdict and the findings.
    pub(crate) fn report(&self, clock: &Clock) -> Report {
        Report::new(&self.view(clock.clone()).facts, clock)
    }

    /// All that is known.
    pub(crate) fn view(&self, clock: Clock) -> View {
        let now = clock.now();
        let refusals = self.refusals.latest(usize::MAX);
        let (sessions, _) = self.sessions.newest(usize::MAX);
        let history = self.history.overview(now);
        let public_side = self.metrics.public_side();
        let facts = self.facts(&refusals, &history, &public_side, now);
        let findings = findings(&facts, now);
        let verdict = Verdict::of(&findings, facts.has_met_a_device, now);
        View {
            clock,
            facts,
            findings,
            verdict,
            history,
            refusals,
            sessions,
            sessions_elsewhere: self.metrics.active_in_earlier(),
            public_side,
            started: self.started,
        }
    }

    fn facts(
        &self,
        refusals: &[Arc<Refusal>],
        history: &history::Overview,
        public_side: &PublicSide,
        now: OffsetDateTime,
    ) -> Facts {
        let connected = gathered::connected(&self.sessions);
        let seen = history.devices.iter().any(|device| device.last_seen.is_some());
        Facts {
            refused_configuration: self.metrics.refused_configuration().map(|refused| (*refused).clone()),
            not_in_force: self.metrics.revocations_not_in_force().to_vec(),
            impostors: gathered::impostors(refusals, &history.impostors),
            devices: gathered::devices(&self.metrics.devices(), refusals, &history.devices, &connected, now),
            host_names: self.resolver.names(),
            services: gathered::services(self.metrics.services(), &history.backends),
            public_certificate: self
                .metrics
                .public_certificate()
                .map(|certificate| PublicState::new(&certificate, self.issuance.borrow().clone())),
            expiries: self.metrics.expiries().to_vec(),
            receivers: self.notices.receivers().into_iter().filter_map(fault).collect(),
            log: self.log.error().map(|error| LogFault { since: error.since, error: error.what }),
            history: history.trouble.clone().map(|trouble| LogFault { since: trouble.since, error: trouble.error }),
            descriptors: self.metrics.too_few_descriptors().map(|warning| (*warning).clone()),
            sandbox: self.sandbox.clone(),
            has_met_a_device: seen || !connected.is_empty() || !public_side.verifies,
            remembers_since: history.since.unwrap_or(self.started),
        }
    }
}

fn fault(ReceiverState { name, error, waiting }: ReceiverState) -> Option<ReceiverFault> {
    error.map(|(error, since)| ReceiverFault { receiver: name, since, error, waiting })
}
