//! What is known about a gate, from which the findings are made.

use std::net::IpAddr;
use std::sync::Arc;

use time::OffsetDateTime;

use super::public::PublicState;
use crate::explain::recent::Refusal;
use crate::model::expiry::Expiry;
use crate::model::impostor::Claim;
use crate::model::look_up::HostName;
use crate::model::rejection::{CheckFailure, Health, Reason};

/// What is known about a gate.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The configuration that the latest reload refused.
    pub refused_configuration: Option<RefusedConfiguration>,
    /// Revocations of the inventory that have no effect.
    pub not_in_force: Vec<NotInForce>,
    /// Attempts to be taken for a device.
    pub impostors: Vec<Attempts>,
    /// Devices of the inventory, and others that were refused.
    pub devices: Vec<DeviceFacts>,
    /// What the routes lead to.
    pub services: Vec<Service>,
    /// The host names of backends.
    pub host_names: Vec<HostName>,
    /// The public certificate, if the configuration wants one.
    pub public_certificate: Option<PublicState>,
    /// All that expires, the next first.
    pub expiries: Vec<Expiry>,
    /// The receivers of messages that do not take them.
    pub receivers: Vec<ReceiverFault>,
    /// Why the log cannot be written.
    pub log: Option<LogFault>,
    /// Why the history cannot be written.
    pub history: Option<LogFault>,
    /// The warning about the limit of open files.
    pub descriptors: Option<String>,
    /// The parts of the sandbox that are not in force, and why.
    pub sandbox: Vec<String>,
    /// Whether a device has ever connected.
    pub has_met_a_device: bool,
    /// Since when impostors are remembered.
    pub remembers_since: OffsetDateTime,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            refused_configuration: None,
            not_in_force: Vec::new(),
            impostors: Vec::new(),
            devices: Vec::new(),
            services: Vec::new(),
            host_names: Vec::new(),
            public_certificate: None,
            expiries: Vec::new(),
            receivers: Vec::new(),
            log: None,
            history: None,
            descriptors: None,
            sandbox: Vec::new(),
            has_met_a_device: false,
            remembers_since: OffsetDateTime::UNIX_EPOCH,
        }
    }
}

/// A configuration that was refused by a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedConfiguration {
    /// When.
    pub at: OffsetDateTime,
    /// What is wrong with it, or the first few errors.
    pub errors: Vec<String>,
}

/// A certificate that the inventory calls revoked, and that a route still accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotInForce {
    /// The device.
    pub device: String,
    /// The serial number of the certificate.
    pub serial: String,
    /// When it was revoked, in seconds since 1970.
    pub revoked_at: i64,
    /// When it expires, in seconds since 1970.
    pub not_after: i64,
    /// The routes that accept it.
    pub routes: Vec<String>,
}

/// Attempts from one address to be taken for one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempts {
    /// The device; of [`Claim::CanaryRoute`], the route.
    pub name: String,
    /// What gave the client away. `None`: it showed the device's own certificate, and could not prove that it has the key.
    pub claim: Option<Claim>,
    /// Who.
    pub source: IpAddr,
    /// When it tried first.
    pub first: OffsetDateTime,
    /// When it tried last.
    pub last: OffsetDateTime,
    /// How often.
    pub times: u64,
    /// Where to.
    pub route: Option<String>,
    /// What it showed last.
    pub shown: Option<Shown>,
}

/// The certificate of an impostor. What it chose is escaped and cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The issuer that it names.
    pub issuer: String,
    /// When it claims to have been made, in seconds since 1970.
    pub not_before: i64,
}

/// What is known of a device.
#[derive(Clone, Debug, Default)]
pub struct DeviceFacts {
    /// Its name.
    pub name: String,
    /// When a connection of it was admitted last; now, if it is connected.
    pub last_seen: Option<OffsetDateTime>,
    /// The refusals of its own certificates, by reason.
    pub refusals: Vec<DeviceRefusal>,
    /// It is connected.
    pub is_connected: bool,
    /// It is in the inventory.
    pub is_enrolled: bool,
    /// Its certificate lasts for hours or days, and is not renewed.
    pub is_guest: bool,
    /// It is bait, which no device uses.
    pub is_canary: bool,
    /// When its certificate expires, in seconds since 1970, if that is known.
    pub expires: Option<i64>,
}

/// Refusals of a device's own certificate for one reason.
#[derive(Clone, Debug)]
pub struct DeviceRefusal {
    /// Why.
    pub reason: Reason,
    /// The route, if it was known by then.
    pub route: Option<String>,
    /// The address of the last one.
    pub source: IpAddr,
    /// When the last one was.
    pub at: OffsetDateTime,
    /// How many there were.
    pub times: u64,
    /// The last one, unless the gate was restarted since.
    pub latest: Option<Arc<Refusal>>,
}

impl From<&Arc<Refusal>> for DeviceRefusal {
    fn from(refusal: &Arc<Refusal>) -> Self {
        Self {
            reason: refusal.reason(),
            route: refusal.route.as_ref().map(ToString::to_string),
            source: refusal.source.ip().to_canonical(),
            at: refusal.at,
            times: refusal.times,
            latest: Some(Arc::clone(refusal)),
        }
    }
}

/// What a route leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The name of the route.
    pub route: String,
    /// Its backends, in the order of the configuration.
    pub backends: Vec<Backend>,
}

/// A backend, and whether it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its address, as in the configuration.
    pub address: String,
    /// Whether it answers.
    pub state: BackendState,
    /// What its health checks say, if it is checked.
    pub health: Option<Health>,
}

impl Backend {
    /// Whether it answers, by its health checks and by the devices that connected.
    #[must_use]
    pub fn judged(self) -> Self {
        let state = match (&self.health, self.state) {
            (Some(Health::Unhealthy { since, checked, .. }), dialled) => {
                let (since, failed) = match dialled {
                    BackendState::Down { since: earlier, failed, .. } => (earlier.min(*since), failed),
                    _ => (*since, 0),
                };
                BackendState::Down { since, tried: *checked, seen: Some(Reason::BackendUnhealthy), failed }
            }
            (Some(Health::Healthy { since }), BackendState::Untried) => BackendState::Up { since: *since },
            (_, state) => state,
        };
        Self { state, ..self }
    }

    /// Why its health checks fail, if they do.
    pub const fn failed_check(&self) -> Option<&CheckFailure> {
        match &self.health {
            Some(Health::Unhealthy { failure, .. }) => Some(failure),
            _ => None,
        }
    }
}

/// Whether a backend answers. Without health checks it is dialled when a device connects, and not otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendState {
    /// It has not been dialled since the gate was started.
    Untried,
    /// It answered the last time.
    Up {
        /// Since when.
        since: OffsetDateTime,
    },
    /// It did not answer the last time.
    Down {
        /// Since when.
        since: OffsetDateTime,
        /// When it was dialled last.
        tried: OffsetDateTime,
        /// What was seen, as it is counted; `None` if the gate was restarted since.
        seen: Option<Reason>,
        /// How often it was dialled in vain since then.
        failed: u64,
    },
    /// It did not answer the last time, and its machine sleeps at times: the next device wakes it.
    Asleep {
        /// Since when, as far as is known.
        since: OffsetDateTime,
    },
    /// Its machine is being woken.
    Waking {
        /// Since when.
        since: OffsetDateTime,
    },
}

/// A receiver of messages to the owner that does not take them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverFault {
    /// The scheme and host of its URL, or the path of its program.
    pub receiver: String,
    /// Since when.
    pub since: OffsetDateTime,
    /// Why, without a full stop.
    pub error: String,
    /// How many messages wait for it.
    pub waiting: usize,
}

/// Why the log, or the history, cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFault {
    /// Since when.
    pub since: OffsetDateTime,
    /// The error, and what to do.
    pub error: String,
}

impl BackendState {
    /// The word in `doorward status`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Untried => "unused",
            Self::Up { .. } => "up",
            Self::Down { .. } => "down",
            Self::Asleep { .. } => "asleep",
            Self::Waking { .. } => "waking",
        }
    }

    /// The state after the backend was dialled `now`, and answered or did not.
    #[must_use]
    pub const fn after(self, answered: Result<(), Reason>, now: OffsetDateTime) -> Self {
        match (answered, self) {
            (Ok(()), Self::Up { since }) => Self::Up { since },
            (Ok(()), _) => Self::Up { since: now },
            (Err(seen), Self::Down { since, failed, .. }) => {
                Self::Down { since, tried: now, seen: Some(seen), failed: failed.saturating_add(1) }
            }
            (Err(seen), _) => Self::Down { since: now, tried: now, seen: Some(seen), failed: 1 },
        }
    }
}

impl Service {
    /// The state of the service: up if one of its backends is.
    pub fn state(&self) -> BackendState {
        let states = || self.backends.iter().map(|backend| backend.state);
        let up = states().filter_map(|state| if let BackendState::Up { since } = state { Some(since) } else { None });
        if let Some(since) = up.min() {
            return BackendState::Up { since };
        }
        let sleeps = |state: &BackendState| matches!(state, BackendState::Asleep { .. } | BackendState::Waking { .. });
        if let Some(state) = states().find(sleeps) {
            return state;
        }
        if states().any(|state| state == BackendState::Untried) {
            return BackendState::Untried;
        }
        // Down since the last of them went down; what is told is the last word of the one that was dialled last.
        let down = || states().filter(|state| matches!(state, BackendState::Down { .. }));
        let key = |state: &BackendState, of_since: bool| match *state {
            BackendState::Down { since, tried, .. } => {
                if of_since {
                    since
                } else {
                    tried
                }
            }
            _ => OffsetDateTime::UNIX_EPOCH,
        };
        let latest = down().max_by_key(|state| key(state, false));
        match (latest, down().map(|state| key(&state, true)).max()) {
            (Some(BackendState::Down { tried, seen, failed, .. }), Some(since)) => {
                BackendState::Down { since, tried, seen, failed }
            }
            _ => BackendState::Untried,
        }
    }

    /// The backend that was dialled last.
    pub fn dialled_last(&self) -> Option<&Backend> {
        self.backends.iter().max_by_key(|backend| match backend.state {
            BackendState::Untried => OffsetDateTime::UNIX_EPOCH,
            BackendState::Up { since } | BackendState::Asleep { since } | BackendState::Waking { since } => since,
            BackendState::Down { tried, .. } => tried,
        })
    }
}
