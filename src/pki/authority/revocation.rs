//! Revoked certificates, as a revocation list names them.

use std::fmt;

use rcgen::{RevokedCertParams, SerialNumber};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// Why a certificate was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum RevocationReason {
    /// The device was lost, stolen or broken into: its key may be in other hands (`keyCompromise`)
    Lost,
    /// It has another certificate (`superseded`)
    Replaced,
    /// It is no longer used (`cessationOfOperation`)
    Retired,
    /// None of these (`unspecified`)
    Unspecified,
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Replaced => "replaced",
            Self::Retired => "retired",
            Self::Unspecified => "unspecified",
        })
    }
}

/// A revoked certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Its serial number, most significant byte first.
    pub serial: Vec<u8>,
    /// When it was revoked.
    pub at: OffsetDateTime,
    /// Why.
    pub reason: RevocationReason,
}

impl Revocation {
    pub(super) fn params(&self) -> RevokedCertParams {
        RevokedCertParams {
            serial_number: SerialNumber::from_slice(&self.serial),
            revocation_time: self.at,
            reason_code: match self.reason {
                RevocationReason::Lost => Some(rcgen::RevocationReason::KeyCompromise),
                RevocationReason::Replaced => Some(rcgen::RevocationReason::Superseded),
                RevocationReason::Retired => Some(rcgen::RevocationReason::CessationOfOperation),
                // RFC 5280 section 5.3.1: the extension should be absent instead of saying "unspecified".
                RevocationReason::Unspecified => None,
            },
            invalidity_date: None,
        }
    }
}
