//! What the gate answers, from its own state.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{
    Answer, BackendHealth, Certificate, EXPIRIES_MAX, Expiring, InForce, ListInForce, Listening, LogError,
    REFUSALS_MAX, Refusal, Reloaded, RouteInForce, RouteStatus, SESSIONS_MAX, SandboxStatus, Session, Sessions, Status,
    ToldName, Why,
};
use crate::config::checked::Config;
use crate::config::expiries::Expiry;
use crate::explain::clock::{Clock, Zone};
use crate::explain::finding::rank_of_refusal;
use crate::explain::moment;
use crate::explain::recent::{self, Wanted};
use crate::gate::Gate;
use crate::history::Trouble;
use crate::model::rejection::Reason;
use crate::model::renewal::UnattendedState;
use crate::notify::ReceiverState;
use crate::overview::Overview;
use crate::reload::policy_report::Difference;
use crate::reload::{self, Current};
use crate::sandbox::{Restrictions, Sandbox};
use crate::sessions::registry;
use crate::sessions::selector::SessionSelector;

/// The most errors in an answer.
const ERRORS_MAX: usize = 1000;

/// A receiver of messages to the owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeReceiver {
    /// Scheme and host of a URL, or the path of a program.
    pub receiver: String,
    /// Why it does not take messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Since when (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<String>,
    /// Messages that wait for it.
    pub waiting: usize,
}

/// What a status answer says and does not change while the gate runs.
#[derive(Debug)]
pub(crate) struct StaticFacts {
    config: PathBuf,
    pub(crate) since: OffsetDateTime,
    metrics: Option<String>,
    pub(crate) sandbox: Arc<Sandbox>,
}

impl StaticFacts {
    /// Of a gate that starts now with this configuration.
    pub(crate) fn of(config: &Config, metrics: Option<SocketAddr>, sandbox: Arc<Sandbox>) -> Self {
        Self {
            sandbox,
            // Absolute: the client may have another working directory.
            config: std::path::absolute(&config.file).unwrap_or_else(|_| config.file.clone()),
            since: OffsetDateTime::now_utc(),
            metrics: metrics.map(|address| address.to_string()),
        }
    }
}

pub(super) fn reloaded(result: Result<reload::Reloaded, reload::Refused>) -> Answer {
    match result {
        Ok(reload::Reloaded { warnings, after_restart, opened, closed, difference, kept, cut, .. }) => {
            let Difference { gained, lost } = difference;
            Answer::Reloaded(Reloaded {
                warnings,
                after_restart,
                opened: opened.iter().map(listening).collect(),
                closed: closed.iter().map(listening).collect(),
                gained,
                lost,
                sessions_kept: kept,
                sessions_cut: cut,
            })
        }
        Err(reload::Refused { errors, in_force, cut, .. }) => {
            Answer::NotReloaded { errors: limited(&errors), in_force: limited(&in_force), sessions_cut: cut }
        }
    }
}

pub(super) fn sessions(gate: &Gate, count: usize, now: OffsetDateTime) -> Answer {
    let (sessions, open) = gate.sessions.newest(count.min(SESSIONS_MAX));
    Answer::Sessions(Sessions { open, sessions: sessions.iter().map(|one| session(one, now)).collect() })
}

pub(super) fn why(
    gate: &Gate,
    overview: &Overview,
    client: &str,
    count: usize,
    ranked: bool,
    now: OffsetDateTime,
) -> Answer {
    match Wanted::parse(client) {
        Err(error) => Answer::Error(error.to_string()),
        Ok(wanted) => {
            let rank = |refusal: &recent::Refusal| if ranked { rank_of_refusal(refusal, now) } else { 0 };
            let (refusals, known) = gate.refusals.find(&wanted, count.min(REFUSALS_MAX), rank);
            let mut findings = Vec::new();
            let refuses_the_gate = |one: &recent::Refusal| one.reason() == Reason::PeerAlert;
            let is_refused = || gate.public_certificate().is_some_and(|public| public.is_refused(now));
            if refusals.iter().any(|one| refuses_the_gate(one)) && is_refused() {
                findings = overview.report(&Clock::new(now, Zone::system())).findings;
                findings.retain(|finding| matches!(&*finding.kind, "certificate_not_issued" | "renewal_failed"));
            } else if refusals.is_empty() {
                findings = overview.report(&Clock::new(now, Zone::system())).findings;
                findings.retain(|finding| {
                    let subject = finding.subject.as_deref().unwrap_or_default();
                    matches!(&*finding.kind, "impostor" | "device") && (ranked || subject.eq_ignore_ascii_case(client))
                });
            }
            Answer::Why(Why {
                findings,
                known,
                rejected: gate.refusals.total(),
                refusals: refusals.iter().map(|one| Refusal::new(one, now)).collect(),
            })
        }
    }
}

pub(super) fn everything_in_force(routes: Vec<reload::RouteInForce>) -> Answer {
    Answer::InForce(InForce { routes: routes.into_iter().map(in_force).collect() })
}

fn in_force(route: reload::RouteInForce) -> RouteInForce {
    let list = |list: reload::ListFacts| ListInForce {
        issuer: list.issuer,
        number: list.number,
        this_update: moment(list.this_update),
        sha256: list.sha256.to_string(),
        file: list.file.as_deref().map(absolute),
    };
    RouteInForce {
        name: route.name,
        verifies: route.verifies,
        trusts: route.trusts,
        certificate_file: absolute(&route.certificate_file),
        certificates: route.certificates.iter().map(ToString::to_string).collect(),
        revocation_lists: route.lists.into_iter().map(list).collect(),
    }
}

/// An absolute path, for clients with another working directory.
fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// As many errors as fit into an answer.
fn limited(errors: &[String]) -> Vec<String> {
    let more = errors.len().saturating_sub(ERRORS_MAX);
    let rest = (more > 0).then(|| format!("and {more} more: \"doorward check\" shows them all"));
    errors.iter().take(ERRORS_MAX).cloned().chain(rest).collect()
}

pub(super) fn cut(gate: &Gate, selector: &SessionSelector, now: OffsetDateTime) -> Answer {
    let cut = gate.cut(selector);
    let shown = cut.iter().take(SESSIONS_MAX).map(|one| session(one, now)).collect();
    Answer::Cut(Sessions { open: cut.len(), sessions: shown })
}

pub(super) fn status(
    gate: &Gate,
    overview: &Overview,
    facts: &StaticFacts,
    current: &Current,
    now: OffsetDateTime,
) -> Status {
    let clock = Clock::new(now, Zone::system());
    let report = overview.report(&clock);
    let (sessions, open) = gate.sessions.newest(usize::MAX);
    let snapshot = gate.snapshot.load();
    let services = gate.metrics.services();
    let routes = snapshot.in_order.iter().map(|route| RouteStatus {
        machine: services
            .iter()
            .find(|service| route.wake.is_some() && service.route == route.name.as_str())
            .map(|service| service.state().label().to_owned()),
        name: route.name.to_string(),
        server_names: route.server_names.iter().map(ToString::to_string).collect(),
        backends: route.backends.iter().map(ToString::to_string).collect(),
        health: route.health().map(|(backend, health)| BackendHealth::new(backend, &health, rfc3339)).collect(),
        sessions: sessions.iter().filter(|session| session.route == route.name).count(),
    });
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        since: rfc3339(facts.since),
        seconds: seconds(facts.since, now),
        draining: gate.draining.is_cancelled(),
        verdict: Some(report.verdict),
        findings: report.findings,
        config: facts.config.display().to_string(),
        config_since: rfc3339(current.since),
        config_errors: limited(&current.errors),
        log_error: gate.log.error().map(|error| LogError { since: rfc3339(error.since), error: error.what }),
        history_error: gate.history.trouble().map(|Trouble { since, error }| LogError { since: rfc3339(since), error }),
        sandbox: sandbox(facts.sandbox.in_force()),
        listeners: current.listeners.iter().map(|listener| listening(&listener.into())).collect(),
        metrics: facts.metrics.clone(),
        routes: routes.collect(),
        host_names: gate.directory.resolver.names().iter().map(|host| ToldName::new(host, now)).collect(),
        public_certificate: gate.public_certificate().map(|public| Box::new(public.told(&clock))),
        unattended_renewal: gate.renewer.borrow().clone().map(|state| UnattendedState { error: state.err() }),
        expiries: gate.metrics.expiries().iter().take(EXPIRIES_MAX).map(|one| expiring(one, now)).collect(),
        accepted: gate.accepted(),
        rejected: gate.refusals.total(),
        sessions: open,
        notices: gate.notices.receivers().into_iter().map(notice_receiver).collect(),
        earlier: Vec::new(),
        upgrade_error: None,
    }
}

fn notice_receiver(ReceiverState { name, error, waiting }: ReceiverState) -> NoticeReceiver {
    let (error, failing_since) = error.map(|(error, since)| (error, rfc3339(since))).unzip();
    NoticeReceiver { receiver: name, error, failing_since, waiting }
}

fn sandbox(Restrictions { mode, parts, capabilities, landlock, lacks }: &Restrictions) -> Option<Box<SandboxStatus>> {
    let owned = |words: &[&'static str]| words.iter().map(|word| (*word).to_owned()).collect();
    mode.map(|mode| {
        Box::new(SandboxStatus {
            mode: mode.to_owned(),
            in_force: owned(parts),
            capabilities: owned(capabilities),
            landlock: *landlock,
            missing: lacks.clone(),
        })
    })
}

fn listening(reload::Listening { name, address }: &reload::Listening) -> Listening {
    Listening { name: name.to_string(), address: address.to_string() }
}

fn expiring(expiry: &Expiry, now: OffsetDateTime) -> Expiring {
    const DAY: i64 = 24 * 60 * 60;
    Expiring {
        kind: expiry.kind.label().to_owned(),
        what: expiry.kind.words().to_owned(),
        name: expiry.name.clone(),
        at: moment(expiry.at),
        days_left: expiry.at.saturating_sub(now.unix_timestamp()).div_euclid(DAY),
    }
}

fn session(session: &registry::Session, now: OffsetDateTime) -> Session {
    let moved = session.relay.moved();
    Session {
        id: session.id,
        since: rfc3339(session.since),
        seconds: seconds(session.since, now),
        source: session.source.to_string(),
        listener: session.listener.to_string(),
        route: session.route.to_string(),
        certificate: session.identity.as_deref().map(Certificate::from),
        backend: session.backend.get().map(ToString::to_string),
        path: session.path.label().to_owned(),
        bytes_to_backend: moved.to_backend,
        bytes_to_client: moved.to_client,
        process: None,
    }
}

pub(crate) fn rfc3339(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

/// How long ago, in seconds; 0 if the clock was set back.
fn seconds(since: OffsetDateTime, now: OffsetDateTime) -> u64 {
    u64::try_from((now - since).whole_seconds()).unwrap_or(0)
}
