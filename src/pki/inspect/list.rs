//! Describes a revocation list.

use time::OffsetDateTime;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::{Item, MAX, SHOWN, date, days, serial};
use crate::model::identity::{Serial, text};
use crate::model::names::printable;

/// The longest number of a list, in bits: 20 bytes (RFC 5280 section 5.2.3).
const MAX_NUMBER_BITS: u64 = 160;

pub(super) fn describe(der: &[u8], now: OffsetDateTime) -> Item {
    let Ok((_, list)) = CertificateRevocationList::from_der(der) else {
        return Item::new("revocation_list", "an unreadable revocation list");
    };
    let count = list.iter_revoked_certificates().count();
    let mut item = Item::new(
        "revocation_list",
        match count {
            0 => "a revocation list without entries".to_owned(),
            1 => "a revocation list with 1 revoked certificate".to_owned(),
            count => format!("a revocation list with {count} revoked certificates"),
        },
    );
    item.fact("issuer", printable(&text::name(list.issuer()), MAX));
    match list.crl_number() {
        // In decimal digits, as OpenSSL prints it. That is slow for very long numbers.
        Some(number) if number.bits() <= MAX_NUMBER_BITS => item.fact("number", number.to_string()),
        Some(_) => item.warn("long_number", "its number is longer than the 20 bytes of RFC 5280 section 5.2.3"),
        None => item.warn("no_number", "it has no number (RFC 5280 section 5.2.3): the gate (rustls) rejects it"),
    }
    item.fact("made", date(list.last_update().timestamp()));
    match list.next_update().map(|at| at.timestamp()) {
        None => item.warn("no_next_update", "it has no nextUpdate: the gate (rustls) rejects it"),
        Some(end) => {
            item.fact("good_until", date(end));
            item.fact("days_left", days(now.unix_timestamp(), end).to_string());
            if end < now.unix_timestamp() {
                item.warn(
                    "expired",
                    "it has expired: a gate with expired_revocation_list = \"deny\" (the default) rejects every device of \
                     this authority. For a new list: doorward ca revoke --lists",
                );
            }
        }
    }
    let revoked: Vec<String> = list
        .iter_revoked_certificates()
        .take(SHOWN)
        .map(|one| {
            let reason = one.reason_code().map(|(_, reason)| format!(", {reason}")).unwrap_or_default();
            format!(
                "{} (since {}{reason})",
                serial(&Serial::from_be_bytes(one.raw_serial())),
                date(one.revocation_date.timestamp())
            )
        })
        .collect();
    if !revoked.is_empty() {
        let more = count.saturating_sub(SHOWN);
        let more = if more == 0 { String::new() } else { format!(", and {more} more") };
        item.fact("revoked", revoked.join(", ") + &more);
    }
    item
}
