//! DER by hand (X.690), for certificates that no library makes.

use std::iter;

use rustls::pki_types::CertificateDer;

/// An INTEGER.
pub(crate) const INTEGER: u8 = 0x02;
/// A BIT STRING.
pub(crate) const BIT_STRING: u8 = 0x03;
/// An OCTET STRING.
pub(crate) const OCTET_STRING: u8 = 0x04;
/// A SEQUENCE.
pub(crate) const SEQUENCE: u8 = 0x30;

/// A value with its tag and length.
pub(crate) fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = match content.len() {
        short @ 0..0x80 => vec![u8::try_from(short).unwrap()],
        long => {
            let bytes: Vec<u8> = long.to_be_bytes().into_iter().skip_while(|&byte| byte == 0).collect();
            [&[0x80 | u8::try_from(bytes.len()).unwrap()], &bytes[..]].concat()
        }
    };
    [&[tag], &length[..], content].concat()
}

/// The first value in `bytes`, whole, its content, and what stands behind it.
fn first(bytes: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let (length, header) = match bytes[1] {
        short @ 0..0x80 => (usize::from(short), 2),
        long => {
            let header = 2 + usize::from(long & 0x7f);
            (bytes[2..header].iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), header)
        }
    };
    let (whole, behind) = bytes.split_at(header + length);
    (whole, &whole[header..], behind)
}

/// What stands inside a value.
pub(crate) fn content(value: &[u8]) -> &[u8] {
    first(value).1
}

/// The values inside a SEQUENCE, each with its tag and length.
pub(crate) fn parts(sequence: &[u8]) -> Vec<&[u8]> {
    let mut rest = content(sequence);
    iter::from_fn(|| {
        let (whole, _, behind) = (!rest.is_empty()).then(|| first(rest))?;
        rest = behind;
        Some(whole)
    })
    .collect()
}

/// A certificate of these parts (RFC 5280 section 4.1): what is signed, the algorithm, and the signature.
pub(crate) fn certificate(signed: &[u8], algorithm: &[u8], signature: &[u8]) -> CertificateDer<'static> {
    let signature = value(BIT_STRING, &[&[0], signature].concat());
    CertificateDer::from(value(SEQUENCE, &[signed, algorithm, &signature].concat()))
}
