//! A certificate as it is told: what is remembered of it, the control socket's answers and `--format json`.

use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::fragments::{STRANGER_MAX, cut, moment};
use crate::model::identity::{Identity, Sha256};
use crate::model::names::printable;

/// The most names of one certificate.
const NAMES_MAX: usize = 4;

/// A certificate that was shown. What a stranger chose is escaped and bounded.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Certificate {
    /// The names in it, or the first few; the first is the one to use, and there always is one.
    pub names: Vec<Box<str>>,
    /// SHA-256 of the certificate.
    #[serde(deserialize_with = "fingerprint")]
    pub fingerprint: Sha256,
    /// Its serial number.
    pub serial: Box<str>,
    /// The issuer that it names.
    pub issuer: Box<str>,
    /// Seconds since 1970 before which it is not valid. RFC 3339 in JSON.
    #[serde(deserialize_with = "seconds")]
    pub not_before: i64,
    /// Seconds since 1970 after which it is not valid. RFC 3339 in JSON.
    #[serde(deserialize_with = "seconds")]
    pub not_after: i64,
    /// An authority in `trust` vouches for it, and the client has proved to hold its key. Otherwise all of this is only what
    /// was shown.
    pub verified: bool,
    /// An authority in `trust` signed it, whether or not the client has its key: see [`Identity::anchored`].
    #[serde(default)]
    pub anchored: bool,
    /// Another authority of the owner signed it: see [`Identity::of_other_authority`].
    #[serde(default)]
    pub of_other_authority: bool,
    /// It is a guest pass: see [`Identity::guest_pass`].
    #[serde(default)]
    pub guest: bool,
    /// It was renewed without the owner: the serial number of the owner's certificate that it descends from.
    #[serde(default)]
    pub descends_from: Option<Box<str>>,
}

impl Certificate {
    /// The name of its holder.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", |name| name)
    }
}

/// The name of its holder, as [`Certificate::name`] gives it.
pub fn holder(identity: &Identity) -> Box<str> {
    bounded(&identity.display_name())
}

fn bounded(text: &str) -> Box<str> {
    cut(printable(text, STRANGER_MAX), STRANGER_MAX)
}

impl From<&Identity> for Certificate {
    fn from(identity: &Identity) -> Self {
        let first = identity.display_name();
        let others = [&identity.emails, &identity.uris, &identity.dns_names].into_iter().flatten();
        let mut names: Vec<Box<str>> = vec![bounded(&first)];
        for name in others.chain(&identity.common_name) {
            if names.len() < NAMES_MAX && *name != first {
                names.push(bounded(name));
            }
        }
        Self {
            names,
            fingerprint: identity.fingerprint,
            serial: bounded(&identity.serial.to_string()),
            issuer: bounded(&identity.issuer),
            not_before: identity.not_before,
            not_after: identity.not_after,
            verified: identity.verified,
            anchored: identity.anchored,
            of_other_authority: identity.of_other_authority,
            guest: identity.guest_pass.is_some(),
            descends_from: identity.origin.as_ref().map(|origin| bounded(&origin.serial.to_string())),
        }
    }
}

impl Serialize for Certificate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Certificate", 12)?;
        fields.serialize_field("name", self.name())?;
        fields.serialize_field("names", &self.names)?;
        fields.serialize_field("fingerprint", &self.fingerprint.to_string())?;
        fields.serialize_field("serial", &self.serial)?;
        fields.serialize_field("issuer", &self.issuer)?;
        fields.serialize_field("not_before", &moment(self.not_before))?;
        fields.serialize_field("not_after", &moment(self.not_after))?;
        fields.serialize_field("verified", &self.verified)?;
        fields.serialize_field("anchored", &self.anchored)?;
        fields.serialize_field("of_other_authority", &self.of_other_authority)?;
        if self.guest {
            fields.serialize_field("guest", &true)?;
        } else {
            fields.skip_field("guest")?;
        }
        match &self.descends_from {
            Some(serial) => fields.serialize_field("descends_from", serial)?,
            None => fields.skip_field("descends_from")?,
        }
        fields.end()
    }
}

fn fingerprint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Sha256, D::Error> {
    let text = String::deserialize(deserializer)?;
    Sha256::parse(&text).ok_or_else(|| serde::de::Error::custom("not a SHA-256 fingerprint"))
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = String::deserialize(deserializer)?;
    // A date beyond the calendar is written as its seconds.
    let date = OffsetDateTime::parse(&text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp);
    date.or_else(|| text.parse().ok()).ok_or_else(|| serde::de::Error::custom("not a date as in RFC 3339"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_survives_json_and_has_its_name_there() {
        for (not_before, not_after) in [(0, 1_800_000_000), (-5, i64::MAX)] {
            let certificate = Certificate {
                names: vec!["alice-phone".into(), "alice@home.example".into()],
                fingerprint: Sha256([7; 32]),
                serial: "4a01".into(),
                issuer: "CN=House".into(),
                not_before,
                not_after,
                verified: false,
                anchored: true,
                of_other_authority: false,
                guest: true,
                descends_from: Some("0a1b".into()),
            };
            let json = serde_json::to_value(&certificate).expect("JSON");
            assert_eq!(json["name"], "alice-phone");
            assert_eq!(json["not_before"], moment(not_before));
            assert_eq!(json["fingerprint"], "07".repeat(32));
            assert_eq!(serde_json::from_value::<Certificate>(json).expect("a certificate"), certificate);
        }
    }
}
