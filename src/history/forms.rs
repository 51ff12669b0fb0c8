//! How values are written in the files of the history.

use serde::{Deserialize as _, Deserializer, Serializer};

/// Whether a number is left out.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(super) const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A name of the configuration.
pub(super) mod name {
    use serde::de::Error as _;

    use super::*;
    use crate::model::names::Name;

    pub(crate) fn serialize<S: Serializer>(name: &Name, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(name.as_str())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        Name::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// The same, if there is one.
pub(super) mod name_if_any {
    use serde::de::Error as _;

    use super::*;
    use crate::model::names::Name;

    pub(crate) fn serialize<S: Serializer>(name: &Option<Name>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(name.as_ref().map_or("", Name::as_str))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Name>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() { Ok(None) } else { Name::parse(&text).map(Some).map_err(D::Error::custom) }
    }
}

/// A reason by its labels: `certificate/expired`.
pub(super) mod reason {
    use serde::de::Error as _;

    use super::*;
    use crate::model::rejection::Reason;

    pub(crate) fn label(reason: Reason) -> String {
        format!("{}/{}", reason.stage().label(), reason.label())
    }

    pub(crate) fn find(label: &str) -> Option<Reason> {
        let (stage, label) = label.split_once('/')?;
        Reason::ALL.iter().copied().find(|reason| reason.label() == label && reason.stage().label() == stage)
    }

    pub(crate) fn serialize<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&label(*reason))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Reason, D::Error> {
        find(&String::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("an unknown reason"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rejection::Reason;

    #[test]
    fn each_reason_is_found_by_its_label() {
        for reason in Reason::ALL {
            assert_eq!(reason::find(&reason::label(*reason)), Some(*reason));
        }
        assert_eq!(reason::find("certificate"), None);
        assert_eq!(reason::find("certificate/not_tls"), None);
    }
}
