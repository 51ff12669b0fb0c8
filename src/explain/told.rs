//! A refusal and a certificate as they are told: the shapes of the control socket's answers and of `--format json`.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::refusals::{self, Shown};
use super::{advice, detail, moment, sentence};

/// A connection that was turned away. The names are those of the log's fields.
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
    /// Where in the journey it was turned away.
    pub stage: String,
    /// Why.
    pub reason: String,
    /// Who brought it about.
    pub side: String,
    /// More about it.
    pub detail: String,
    /// The TLS alert that the client was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert: Option<String>,
    /// The certificate that was shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// How many refusals this stands for: of a certificate that an authority in `trust` signed, only the latest for each
    /// reason is kept.
    #[serde(default = "once")]
    pub times: u64,
}

const fn once() -> u64 {
    1
}

impl Refusal {
    /// What is told of a refusal at `now`.
    pub fn new(refusal: &refusals::Refusal, now: OffsetDateTime) -> Self {
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
            certificate: refusal.certificate.as_ref().map(Certificate::from),
            times: refusal.times,
        }
    }
}

/// A certificate that was shown. What a stranger chose is escaped and bounded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// What its holder is called.
    pub name: String,
    /// All names in it, or the first few.
    pub names: Vec<String>,
    /// SHA-256 of the certificate.
    pub fingerprint: String,
    /// Its serial number.
    pub serial: String,
    /// Who issued it, or so it says.
    pub issuer: String,
    /// Before this it is not valid (RFC 3339).
    pub not_before: String,
    /// After this it is not valid (RFC 3339).
    pub not_after: String,
    /// Whether a trust anchor vouches for it.
    pub verified: bool,
    /// Whether an authority in `trust` signed it. If it is not verified as well, the client has not proved to have its key.
    #[serde(default)]
    pub anchored: bool,
}

impl From<&Shown> for Certificate {
    fn from(shown: &Shown) -> Self {
        Self {
            name: shown.name().to_owned(),
            names: shown.names.iter().map(ToString::to_string).collect(),
            fingerprint: shown.fingerprint.to_string(),
            serial: shown.serial.to_string(),
            issuer: shown.issuer.to_string(),
            not_before: moment(shown.not_before),
            not_after: moment(shown.not_after),
            verified: shown.verified,
            anchored: shown.anchored,
        }
    }
}
