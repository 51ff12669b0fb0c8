//! Distinguished names, read and written.

use rcgen::string::{BmpString, Ia5String, PrintableString, TeletexString, UniversalString};
use rcgen::{DistinguishedName, DnType, DnValue};
use x509_parser::der_parser::asn1_rs::Tag;
use x509_parser::x509::X509Name;

/// The longest common name (`ub-common-name`, RFC 5280 appendix A.1), in characters.
const MAX_COMMON_NAME: usize = 64;

/// A parsed name in the form that rcgen writes. `None` if rcgen cannot write one of its attributes.
pub(crate) fn distinguished_name(name: &X509Name<'_>) -> Option<DistinguishedName> {
    let mut out = DistinguishedName::new();
    for attribute in name.iter_attributes() {
        let oid: Vec<u64> = attribute.attr_type().iter()?.collect();
        let data = attribute.attr_value().data;
        let text = || str::from_utf8(data).ok();
        let value = match attribute.attr_value().header.tag() {
            Tag::Utf8String => DnValue::Utf8String(text()?.to_owned()),
            Tag::PrintableString => DnValue::PrintableString(PrintableString::try_from(text()?).ok()?),
            Tag::Ia5String => DnValue::Ia5String(Ia5String::try_from(text()?).ok()?),
            Tag::T61String => DnValue::TeletexString(TeletexString::try_from(text()?).ok()?),
            Tag::BmpString => DnValue::BmpString(BmpString::from_utf16be(data.to_vec()).ok()?),
            Tag::UniversalString => DnValue::UniversalString(UniversalString::from_utf32be(data.to_vec()).ok()?),
            _ => return None,
        };
        out.push(DnType::from_oid(&oid), value);
    }
    Some(out)
}

/// A subject with this common name; the empty subject if it is too long for one. rcgen then marks the alternative names
/// critical (RFC 5280 section 4.2.1.6).
pub(crate) fn subject(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if fits_common_name(common_name) {
        name.push(DnType::CommonName, common_name);
    }
    name
}

/// Whether this text is short enough for a common name.
pub(crate) fn fits_common_name(common_name: &str) -> bool {
    common_name.chars().count() <= MAX_COMMON_NAME
}
