//! `deny`: certificates that are rejected without a revocation list.

use crate::config::checked::DenyList;
use crate::config::report::{Given, Problem, Report, Text, quoted};
use crate::model::identity::{Serial, Sha256};
use crate::model::names::printable;

pub(super) fn check(given: &Given<Vec<Text>>, report: &mut Report) -> Option<DenyList> {
    let mut deny = DenyList::default();
    let list = match given {
        Given::Absent => return Some(deny),
        Given::Refused => return None,
        Given::Value(list) => list,
    };
    let mut all_right = true;
    for text in &list.value {
        match report.taken(&text.place, denied(&text.value)) {
            Some(Denied::Fingerprint(digest)) => {
                deny.fingerprints.insert(digest);
            }
            Some(Denied::Serial(serial)) => {
                deny.serials.insert(serial);
            }
            None => all_right = false,
        }
    }
    all_right.then_some(deny)
}

/// An entry of `deny`.
#[derive(Debug, PartialEq)]
pub(super) enum Denied {
    Fingerprint(Sha256),
    Serial(Serial),
}

/// `sha256:` and 64 hexadecimal digits, or `serial:` and the serial number in hexadecimal.
pub(super) fn denied(text: &str) -> Result<Denied, Problem> {
    let remedy = "write \"sha256:\" and the 64 digits that \"openssl x509 -in FILE -noout -fingerprint -sha256\" \
                  prints, or \"serial:\" and what \"openssl x509 -in FILE -noout -serial\" prints after the equals \
                  sign";
    let wrong = |why: String| Problem::new(why, remedy);
    match text.split_once(':') {
        Some(("sha256", digits)) => super::access::fingerprint("sha256", digits).map(Denied::Fingerprint),
        Some(("serial", digits)) => Serial::parse(digits.trim()).map(Denied::Serial).ok_or_else(|| {
            wrong(format!("{} is not a serial number: that is hexadecimal digits only", quoted(digits)))
        }),
        _ => Err(wrong(format!(
            "\"{}\" does not say which certificate is denied: that takes its fingerprint or its serial number",
            printable(text, 100)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deny_takes_fingerprints_and_serial_numbers() {
        let digest = Sha256::of(b"x");
        assert_eq!(denied(&format!("sha256:{digest}")), Ok(Denied::Fingerprint(digest)));
        let serial = Serial::from_be_bytes(&[0x4a, 0x6f]);
        assert_eq!(denied("serial:4A:6F"), Ok(Denied::Serial(serial.clone())));
        assert_eq!(denied("serial:004a6f"), Ok(Denied::Serial(serial)));
        for wrong in ["", "alice", "cn:alice", "serial:", "serial:xyz", "sha256:abcd", "sha1:00", "serial"] {
            assert!(denied(wrong).is_err(), "{wrong}");
        }
    }
}
