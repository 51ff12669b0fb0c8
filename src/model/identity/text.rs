//! Names in certificates as Unicode text.
//!
//! RFC 5280 section 4.1.2.4 allows five encodings of a string. What cannot be decoded is escaped (`\xNN`), never left out: a
//! name that is missing would look like a certificate without one.

use std::fmt::Write as _;

use x509_parser::der_parser::asn1_rs::{Any, Tag};
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// The value of one attribute of a name.
pub fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    string(attribute.attr_value())
}

/// A string of any of ASN.1's types.
pub fn string(value: &Any<'_>) -> String {
    let data = value.data;
    match value.tag() {
        // ISO 8859-1, as OpenSSL and GnuTLS read it. The standard's own T.61 was never in use.
        Tag::T61String => data.iter().copied().map(char::from).collect(),
        Tag::BmpString => utf16(data).unwrap_or_else(|| escaped(data)),
        Tag::UniversalString => utf32(data).unwrap_or_else(|| escaped(data)),
        Tag::Utf8String
        | Tag::PrintableString
        | Tag::Ia5String
        | Tag::NumericString
        | Tag::VisibleString
        | Tag::GeneralString
        | Tag::GraphicString
        | Tag::ObjectDescriptor
        | Tag::VideotexString => bytes(data),
        // Not a string: its bytes, as RFC 4514 section 2.4 writes them.
        _ => data.iter().fold("#".to_owned(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }),
    }
}

/// UTF-8 as it is, anything else escaped.
pub fn bytes(data: &[u8]) -> String {
    str::from_utf8(data).map_or_else(|_| escaped(data), str::to_owned)
}

/// A whole name, such as `CN=alice, O=Home`; values of one set are joined by ` + `.
pub fn name(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    for set in name.iter() {
        if !text.is_empty() {
            text.push_str(", ");
        }
        for (index, value) in set.iter().enumerate() {
            if index > 0 {
                text.push_str(" + ");
            }
            match oid2abbrev(value.attr_type(), oid_registry()) {
                Ok(kind) => text.push_str(kind),
                Err(_) => text.push_str(&value.attr_type().to_id_string()),
            }
            text.push('=');
            text.push_str(&attribute(value));
        }
    }
    text
}

fn utf16(data: &[u8]) -> Option<String> {
    let (units, []) = data.as_chunks::<2>() else { return None };
    char::decode_utf16(units.iter().map(|unit| u16::from_be_bytes(*unit))).collect::<Result<_, _>>().ok()
}

fn utf32(data: &[u8]) -> Option<String> {
    let (units, []) = data.as_chunks::<4>() else { return None };
    units.iter().map(|unit| char::from_u32(u32::from_be_bytes(*unit))).collect()
}

fn escaped(data: &[u8]) -> String {
    let mut text = String::new();
    for &byte in data {
        match byte {
            // Escaped too, so that an escape in the text is always one of ours.
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_types_are_decoded_and_other_bytes_escaped() {
        for (tag, data, text) in [
            (Tag::Utf8String, "Björn".as_bytes(), "Björn"),
            (Tag::PrintableString, b"alice", "alice"),
            (Tag::T61String, b"Bj\xf6rn", "Björn"),
            (Tag::BmpString, b"\0B\0j\0\xf6\0r\0n", "Björn"),
            (Tag::BmpString, b"\xd8\x3d\xde\x00", "\u{1f600}"),
            (Tag::UniversalString, b"\0\0\0B\0\x01\xf6\0", "B\u{1f600}"),
            (Tag::Utf8String, b"Bj\xf6rn\\", r"Bj\xf6rn\\"),
            (Tag::BmpString, b"\0B\0", r"\x00B\x00"),
            (Tag::BmpString, b"\xd8\x00\0B", r"\xd8\x00\x00B"),
            (Tag::UniversalString, b"\0\x11\0\0", r"\x00\x11\x00\x00"),
            (Tag::OctetString, b"\x01\xff", "#01ff"),
        ] {
            assert_eq!(string(&Any::from_tag_and_data(tag, data)), text, "{tag}");
        }
    }
}
