//! What the owner has to know, the most important first: the one ranking that the status page, `doorward status`, `doorward why`
//! and the notices share.

mod facts;
mod public;
pub mod told;
mod words;

use std::collections::HashSet;
use std::net::IpAddr;

use time::{Duration, OffsetDateTime};

pub use self::facts::{
    Attempts, Backend, BackendState, DeviceFacts, DeviceRefusal, Facts, LogFault, NotInForce, ReceiverFault,
    RefusedConfiguration, Service, Shown,
};
pub use self::public::{PublicState, ToldCertificate, ToldFailure};
pub use self::words::{seen, seen_of, verdict_sentence};
use super::recent::Refusal;
use crate::explain::is_guest;
use crate::model::expiry::{self, Expiry};
use crate::model::impostor::Claim;
use crate::model::rejection::{CheckFailure, Reason, Stage};

/// How long an impostor's last attempt leads.
pub const IMPOSTOR: Duration = Duration::hours(24);
/// How long the refusal of a device whose certificate does not work is trouble, if it does not get in meanwhile.
const TROUBLE: Duration = Duration::days(7);
/// How long the refusal of a device that is shut out on purpose is.
const SHUT_OUT: Duration = Duration::hours(24);
/// How long a backend that did not answer counts as down, if it is not dialled again.
const DOWN: Duration = Duration::hours(24);
/// How long before its end an expiry is one.
pub const SOON: Duration = Duration::seconds(expiry::SOON);

/// Something that the owner has to know. It has data; the words are made of them when they are told.
#[derive(Clone, Debug)]
pub enum Finding {
    /// A certificate that was revoked still works.
    RevocationNotInForce(NotInForce),
    /// A change of the configuration is not in force.
    ConfigurationRefused(RefusedConfiguration),
    /// Somebody tried to be taken for a device.
    Impostor(Impostor),
    /// A device cannot connect.
    Device(Trouble),
    /// A service does not answer.
    ServiceDown(ServiceDown),
    /// Devices do not trust the gate yet: its public certificate was not issued, or not for all names.
    NotIssued(PublicState),
    /// The public certificate could not be renewed.
    RenewalFailed(PublicState),
    /// Something expires soon, or has expired.
    Expiry(Expiry),
    /// A receiver does not take messages to the owner.
    Receiver(ReceiverFault),
    /// The log cannot be written.
    Log(LogFault),
    /// The history cannot be written.
    History(LogFault),
    /// The limit of open files is lower than what is configured.
    Descriptors(String),
    /// A part of the sandbox is not in force.
    Sandbox(String),
}

/// Attempts to be taken for one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impostor {
    /// The device; of [`Claim::CanaryRoute`], the route.
    pub name: String,
    /// What gave the client away last: see [`Attempts::claim`].
    pub claim: Option<Claim>,
    /// The address of the last attempt.
    pub source: IpAddr,
    /// How many other addresses there were.
    pub others: usize,
    /// When it was tried last.
    pub last: OffsetDateTime,
    /// How often.
    pub times: u64,
    /// What was shown last.
    pub shown: Option<Shown>,
}

/// A device that is refused.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// The device.
    pub device: String,
    /// Its latest refusals.
    pub refusal: DeviceRefusal,
}

/// A service that does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceDown {
    /// The name of the route.
    pub route: String,
    /// The backend that was dialled last.
    pub backend: String,
    /// Since when.
    pub since: OffsetDateTime,
    /// When it was dialled last.
    pub tried: OffsetDateTime,
    /// What was seen, as it is counted; `None` if the gate was restarted since.
    pub seen: Option<Reason>,
    /// How often it was dialled in vain since then.
    pub failed: u64,
    /// Why its health checks fail, if they do.
    pub check: Option<CheckFailure>,
    /// A service on the same machine that answers.
    pub neighbour: Option<String>,
}

/// How much a finding matters for the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tone {
    /// It is as it is; the verdict does not change.
    Note,
    /// It needs the owner soon.
    Warn,
    /// It needs the owner now.
    Bad,
}

impl Tone {
    /// The word in JSON and as a class of the page.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// Whether all is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing needs the owner.
    Ok,
    /// Something needs the owner soon.
    Warn,
    /// Something needs the owner now.
    Bad,
    /// No device has connected yet.
    New,
}

impl Verdict {
    /// The word in JSON and as a class of the page.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::New => "new",
        }
    }

    /// Of these findings, at a gate that has met a device or not.
    pub fn of(findings: &[Finding], has_met_a_device: bool, now: OffsetDateTime) -> Self {
        match findings.iter().map(|finding| finding.tone(now)).max() {
            Some(Tone::Bad) => Self::Bad,
            _ if !has_met_a_device => Self::New,
            Some(Tone::Warn) => Self::Warn,
            Some(Tone::Note) | None => Self::Ok,
        }
    }
}

impl Finding {
    /// What matters more has the smaller rank: a right that should be gone and is not, a forged identity, a device in trouble,
    /// a service that is down, an expiry, the gate's own trouble. A renewal that failed comes before what expires if the certificate
    /// runs out, and after it if there is time.
    fn rank(&self, now: OffsetDateTime) -> u8 {
        match self {
            Self::RevocationNotInForce(_) => 0,
            Self::ConfigurationRefused(_) => 1,
            Self::Impostor(_) => 2,
            Self::Device(_) => 3,
            Self::ServiceDown(_) => 4,
            Self::NotIssued(_) => 5,
            Self::RenewalFailed(found) if found.is_pressing(now) => 6,
            Self::Expiry(_) => 7,
            Self::RenewalFailed(_) => 8,
            Self::Receiver(_) => 9,
            Self::Log(_) => 10,
            Self::History(_) => 11,
            Self::Descriptors(_) => 12,
            Self::Sandbox(_) => 13,
        }
    }

    /// The word in JSON.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::RevocationNotInForce(_) => "revocation_not_in_force",
            Self::ConfigurationRefused(_) => "configuration_refused",
            Self::Impostor(_) => "impostor",
            Self::Device(_) => "device",
            Self::ServiceDown(_) => "service_down",
            Self::NotIssued(_) => "certificate_not_issued",
            Self::RenewalFailed(_) => "renewal_failed",
            Self::Expiry(_) => "expiry",
            Self::Receiver(_) => "receiver",
            Self::Log(_) => "log",
            Self::History(_) => "history",
            Self::Descriptors(_) => "descriptors",
            Self::Sandbox(_) => "sandbox",
        }
    }

    /// How much it matters for the verdict.
    pub fn tone(&self, now: OffsetDateTime) -> Tone {
        match self {
            Self::RevocationNotInForce(_)
            | Self::ConfigurationRefused(_)
            | Self::Impostor(_)
            | Self::Device(_)
            | Self::ServiceDown(_) => Tone::Bad,
            // A device that does not connect may have been put away.
            Self::Expiry(expiry) if !expiry.kind.is_device() && expiry.at < now.unix_timestamp() => Tone::Bad,
            Self::RenewalFailed(found) if found.is_pressing(now) => Tone::Bad,
            // In the first minutes of a new gate that is as it should be.
            Self::NotIssued(found) if found.is_failing() => Tone::Bad,
            Self::NotIssued(_) | Self::RenewalFailed(_) => Tone::Warn,
            Self::Expiry(_) | Self::Receiver(_) | Self::Log(_) | Self::History(_) | Self::Descriptors(_) => Tone::Warn,
            Self::Sandbox(_) => Tone::Note,
        }
    }

    /// What it is about: the name of a device, of a route, of a file or of a receiver.
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::RevocationNotInForce(found) => Some(&found.device),
            Self::Impostor(found) => Some(&found.name),
            Self::Device(found) => Some(&found.device),
            Self::ServiceDown(found) => Some(&found.route),
            Self::NotIssued(found) | Self::RenewalFailed(found) => Some(&found.certificate.file),
            Self::Expiry(found) => Some(&found.name),
            Self::Receiver(found) => Some(&found.receiver),
            Self::ConfigurationRefused(_)
            | Self::Log(_)
            | Self::History(_)
            | Self::Descriptors(_)
            | Self::Sandbox(_) => None,
        }
    }

    /// Of those of one rank, what matters more comes first: what happened last, and what expires first.
    fn recency(&self) -> i128 {
        match self {
            Self::RevocationNotInForce(found) => -i128::from(found.revoked_at),
            Self::Impostor(found) => -found.last.unix_timestamp_nanos(),
            Self::Device(found) => -found.refusal.at.unix_timestamp_nanos(),
            Self::ServiceDown(found) => -found.since.unix_timestamp_nanos(),
            Self::Expiry(found) => i128::from(found.at),
            Self::Receiver(found) => -found.since.unix_timestamp_nanos(),
            Self::ConfigurationRefused(_)
            | Self::NotIssued(_)
            | Self::RenewalFailed(_)
            | Self::Log(_)
            | Self::History(_)
            | Self::Descriptors(_)
            | Self::Sandbox(_) => 0,
        }
    }
}

/// All findings, the most important first.
pub fn findings(facts: &Facts, now: OffsetDateTime) -> Vec<Finding> {
    let seconds = now.unix_timestamp();
    let mut found: Vec<Finding> = Vec::new();
    let in_effect = facts.not_in_force.iter().filter(|one| one.not_after >= seconds);
    found.extend(in_effect.cloned().map(Finding::RevocationNotInForce));
    found.extend(facts.refused_configuration.clone().map(Finding::ConfigurationRefused));
    found.extend(impostors(&facts.impostors, now).into_iter().map(Finding::Impostor));
    let troubles: Vec<Trouble> = facts.devices.iter().filter_map(|device| trouble(device, now)).collect();
    let told: HashSet<&str> =
        troubles.iter().filter(|trouble| trouble.is_expiry()).map(|trouble| trouble.device.as_str()).collect();
    // A guest's is not renewed, and a canary is used by no device.
    let lapsing: HashSet<&str> = facts
        .devices
        .iter()
        .filter(|device| device.is_guest || device.is_canary)
        .map(|device| device.name.as_str())
        .collect();
    let expiries: Vec<&Expiry> = facts
        .expiries
        .iter()
        .filter(|expiry| {
            let old = expiry.at.saturating_add(SOON.whole_seconds()) < seconds;
            expiry.is_soon(seconds)
                && !(expiry.renewed_since.is_some()
                    && facts.public_certificate.as_ref().is_some_and(PublicState::is_failing))
                && !(expiry.kind.is_device()
                    && (old || told.contains(&*expiry.name) || lapsing.contains(&*expiry.name)))
        })
        .collect();
    found.extend(expiries.into_iter().cloned().map(Finding::Expiry));
    if let Some(public) = &facts.public_certificate {
        found.extend(public.lacks_names().then(|| Finding::NotIssued(public.clone())));
        found.extend(public.is_failing().then(|| Finding::RenewalFailed(public.clone())));
    }
    found.extend(troubles.into_iter().map(Finding::Device));
    found.extend(facts.services.iter().filter_map(|one| down(one, &facts.services, now)).map(Finding::ServiceDown));
    found.extend(facts.receivers.iter().cloned().map(Finding::Receiver));
    found.extend(facts.log.clone().map(Finding::Log));
    found.extend(facts.history.clone().map(Finding::History));
    found.extend(facts.descriptors.clone().map(Finding::Descriptors));
    found.extend(facts.sandbox.iter().cloned().map(Finding::Sandbox));
    found.sort_by_key(|finding| (finding.rank(now), finding.recency()));
    found
}

/// The latest attempts, by device.
fn impostors(attempts: &[Attempts], now: OffsetDateTime) -> Vec<Impostor> {
    let mut latest: Vec<&Attempts> = attempts.iter().filter(|attempt| now - attempt.last < IMPOSTOR).collect();
    latest.sort_by_key(|attempt| std::cmp::Reverse(attempt.last));
    let mut found: Vec<Impostor> = Vec::new();
    for attempt in latest {
        if let Some(known) = found.iter_mut().find(|known| known.name == attempt.name) {
            known.others += usize::from(known.source != attempt.source);
            known.times = known.times.saturating_add(attempt.times);
            continue;
        }
        found.push(Impostor {
            name: attempt.name.clone(),
            claim: attempt.claim,
            source: attempt.source,
            others: 0,
            last: attempt.last,
            times: attempt.times,
            shown: attempt.shown.clone(),
        });
    }
    found
}

/// Whether the refusal of a device's own certificate is trouble of the device: it was the certificate, or what it may do. That a
/// guest pass has ended, or is for other routes, is as its owner wants it.
pub fn is_trouble(refusal: &Refusal) -> bool {
    is_of_certificate(refusal.reason()) && refusal.is_of_device() && !is_guest(refusal)
}

const fn is_of_certificate(reason: Reason) -> bool {
    matches!(reason.stage(), Stage::Certificate | Stage::Policy) && !matches!(reason, Reason::BadSignature)
}

/// What keeps a device out, if something does.
fn trouble(device: &DeviceFacts, now: OffsetDateTime) -> Option<Trouble> {
    let current = device.refusals.iter().filter(|refusal| {
        let age = now - refusal.at;
        match refusal.reason {
            _ if !is_of_certificate(refusal.reason) => false,
            // What else it may do does not matter.
            Reason::IdentityNotAllowed => age < SHUT_OUT,
            Reason::Revoked | Reason::Denied => age < SHUT_OUT && device.last_seen.is_none_or(|seen| seen < refusal.at),
            _ => age < TROUBLE && device.last_seen.is_none_or(|seen| seen < refusal.at),
        }
    });
    let refusal = current.max_by_key(|refusal| refusal.at)?;
    Some(Trouble { device: device.name.clone(), refusal: refusal.clone() })
}

impl Trouble {
    /// Whether its certificate has expired.
    pub fn is_expiry(&self) -> bool {
        self.refusal.reason == Reason::Expired
    }
}

fn down(service: &Service, all: &[Service], now: OffsetDateTime) -> Option<ServiceDown> {
    let BackendState::Down { since, tried, seen, failed } = service.state() else { return None };
    let last = service.dialled_last()?;
    let (backend, check) = (last.address.clone(), last.failed_check().cloned());
    let host = |address: &str| address.rsplit_once(':').map(|(host, _)| host.to_owned());
    let neighbour = all.iter().find(|other| {
        let answers = |other: &&Backend| matches!(other.state, BackendState::Up { .. });
        other.route != service.route
            && other.backends.iter().filter(answers).any(|one| host(&one.address) == host(&backend))
    });
    let neighbour = neighbour.map(|other| other.route.clone());
    let route = service.route.clone();
    (now - tried < DOWN).then_some(ServiceDown { route, backend, since, tried, seen, failed, check, neighbour })
}

/// The name that a refused client tried to be taken for, and how: see [`Attempts::claim`].
pub fn pretended(refusal: &Refusal) -> Option<(&str, Option<Claim>)> {
    if let Some(impostor) = &refusal.impostor {
        return Some((&impostor.name, Some(impostor.claim)));
    }
    let shown = refusal.certificate.as_ref().filter(|shown| shown.anchored)?;
    (refusal.reason() == Reason::BadSignature).then(|| (shown.name(), None))
}

/// The order of refusals, as the findings have it: what an impostor tried in the last day, then what keeps devices out, then
/// services that do not answer, then the rest. What is older has the last rank.
pub fn rank_of_refusal(refusal: &Refusal, now: OffsetDateTime) -> u8 {
    if now - refusal.at >= IMPOSTOR {
        3
    } else if pretended(refusal).is_some() {
        0
    } else if is_trouble(refusal) {
        1
    } else if refusal.reason().stage() == Stage::Backend {
        2
    } else {
        3
    }
}

#[cfg(test)]
mod tests;
