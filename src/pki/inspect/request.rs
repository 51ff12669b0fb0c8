//! Describes a certificate request.

use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::{Item, MAX};
use crate::model::identity::text;
use crate::model::names::printable;
use crate::pki::keys;

pub(super) fn describe(der: &[u8]) -> Item {
    let Ok((_, request)) = X509CertificationRequest::from_der(der) else {
        return Item::new("certificate_request", "an unreadable certificate request");
    };
    let mut item = Item::new("certificate_request", "a certificate request: not signed by an authority yet");
    item.fact("subject", printable(&text::name(&request.certification_request_info.subject), MAX));
    item.fact("key", keys::describe(request.certification_request_info.subject_pki.raw));
    item
}
