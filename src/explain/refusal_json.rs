//! A refusal as it is told: the control socket's answers and `--format json`.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::certificate::Certificate;
use super::{advice, detail, recent, sentence};
use crate::model::impostor;

/// A rejected connection. The names are those of the log's fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What happened, in a sentence.
    pub explanation: String,
    /// What to do about it.
    pub advice: String,
    /// When (RFC 3339).
    pub time: String,
    /// How long ago.
    pub seconds: u64,
    /// Its number, as in the log.
    pub id: u64,
    /// Where it arrived.
    pub listener: String,
    /// Who connected: address and port.
    pub source: String,
    /// The server name that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// The route, once it was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Where in the journey it was rejected.
    pub stage: String,
    /// Why.
    pub reason: String,
    /// Which side caused it.
    pub side: String,
    /// More about it.
    pub detail: String,
    /// The TLS alert that the client was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert: Option<String>,
    /// The certificate that was shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// What the client pretended to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impostor: Option<Impostor>,
    /// How many refusals this stands for: of a certificate that an authority in `trust` signed, only the latest for each
    /// reason is kept; of an impostor, only the latest for each source.
    #[serde(default = "once")]
    pub times: u64,
}

/// An impostor as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impostor {
    /// The device, or the route that is a canary.
    pub name: String,
    /// What gave it away: `name`, `serial`, `key`, `canary` or `canary_route`.
    pub claim: String,
}

impl From<&impostor::Impostor> for Impostor {
    fn from(impostor: &impostor::Impostor) -> Self {
        Self { name: impostor.name.to_string(), claim: impostor.claim.label().to_owned() }
    }
}

const fn once() -> u64 {
    1
}

impl Refusal {
    /// What is told of a refusal at `now`.
    pub fn new(refusal: &recent::Refusal, now: OffsetDateTime) -> Self {
        let reason = refusal.reason();
        Self {
            explanation: sentence(refusal, now),
            advice: advice(refusal),
            time: refusal.at.format(&Rfc3339).unwrap_or_default(),
            // A clock that was set back counts as no time.
            seconds: u64::try_from((now - refusal.at).whole_seconds()).unwrap_or(0),
            id: refusal.id,
            listener: refusal.listener.to_string(),
            source: refusal.source.to_string(),
            server_name: refusal.server_name.as_deref().map(str::to_owned),
            route: refusal.route.as_ref().map(ToString::to_string),
            stage: reason.stage().label().to_owned(),
            reason: reason.label().to_owned(),
            side: reason.side().label().to_owned(),
            detail: detail(&refusal.cause),
            alert: refusal.alert.map(|alert| alert.to_string()),
            certificate: refusal.certificate.clone(),
            impostor: refusal.impostor.as_ref().map(Impostor::from),
            times: refusal.times,
        }
    }
}
