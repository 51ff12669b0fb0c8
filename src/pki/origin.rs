//! The extension by which a certificate of the renewal authority says which certificate of the owner's authority it descends from.
//!
//! It is not critical: other programs need not know it. The gate knows it, and takes no certificate of the renewal authority without
//! it; in any other certificate it means nothing.

use rcgen::CustomExtension;
use yasna::{ASN1Error, ASN1ErrorKind};

use super::Parts;
use crate::model::identity::{Origin, Serial, Sha256};

/// Its object identifier, made of a UUID below the arc that Microsoft has for that (46f8ed6c-2d96-4428-ba98-786185a96e55). Those below
/// 2.25 have the whole UUID in one number of 128 bits: Go's parser refuses a certificate with such a number, and `yasna` cannot write it.
pub const ORIGIN_OID: &[u64] =
    &[1, 2, 840, 113_556, 1, 8000, 2554, 18168, 60780, 11670, 17448, 47768, 7_889_285, 11_103_829];

/// The same as the contents of its DER value.
const ORIGIN_ID: &[u8] = &[
    0x2a, 0x86, 0x48, 0x86, 0xf7, 0x14, 0x01, 0xbe, 0x40, 0x93, 0x7a, 0x81, 0x8d, 0x78, 0x83, 0xda, 0x6c, 0xdb, 0x16,
    0x81, 0x88, 0x28, 0x82, 0xf5, 0x18, 0x83, 0xe1, 0xc3, 0x05, 0x85, 0xa5, 0xdc, 0x55,
];

/// The longest serial number, in bytes, without its sign (RFC 5280 section 4.1.2.2).
const SERIAL_MAX: usize = 20;

/// Why a certificate does not say where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoOrigin {
    /// It has no such extension.
    Missing,
    /// It has two, or one that is not as this program writes it.
    Invalid,
}

/// The extension.
pub fn extension(origin: &Origin) -> CustomExtension {
    CustomExtension::from_oid_content(ORIGIN_OID, encode(origin))
}

fn encode(origin: &Origin) -> Vec<u8> {
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_bytes(&origin.authority.0);
            writer.next().write_bigint_bytes(origin.serial.as_bytes(), true);
            writer.next().write_bytes(&origin.fingerprint.0);
        });
    })
}

/// What a certificate says. The caller knows whether its signature counts.
///
/// # Errors
/// If it says nothing, or nothing that can be relied on.
pub fn of(certificate: &Parts<'_>) -> Result<Origin, NoOrigin> {
    let mut all = certificate.extensions_with(ORIGIN_ID);
    let value = all.next().ok_or(NoOrigin::Missing)?;
    if all.next().is_some() {
        return Err(NoOrigin::Invalid);
    }
    let origin = decode(value).map_err(|_| NoOrigin::Invalid)?;
    // There is one form of it.
    if encode(&origin) == value { Ok(origin) } else { Err(NoOrigin::Invalid) }
}

fn decode(value: &[u8]) -> Result<Origin, ASN1Error> {
    let invalid = || ASN1Error::new(ASN1ErrorKind::Invalid);
    let digest = |bytes: Vec<u8>| <[u8; 32]>::try_from(bytes).map(Sha256).map_err(|_| invalid());
    yasna::parse_der(value, |reader| {
        reader.read_sequence(|reader| {
            let authority = digest(reader.next().read_bytes()?)?;
            let (serial, positive) = reader.next().read_bigint_bytes()?;
            let serial = Serial::from_be_bytes(&serial);
            if !positive || serial.as_bytes().len() > SERIAL_MAX {
                return Err(invalid());
            }
            let fingerprint = digest(reader.next().read_bytes()?)?;
            Ok(Origin { authority, serial, fingerprint })
        })
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn origin() -> Origin {
        Origin {
            authority: Sha256::of(b"authority"),
            serial: Serial::from_be_bytes(&[0xfe, 1, 2]),
            fingerprint: Sha256::of(b"certificate"),
        }
    }

    /// What a certificate with these extensions says.
    fn read(extensions: Vec<CustomExtension>) -> Result<Origin, NoOrigin> {
        let mut params = CertificateParams::default();
        params.custom_extensions = extensions;
        let key = KeyPair::generate().expect("a key");
        of(&Parts::read(params.self_signed(&key).expect("a certificate").der()).expect("a certificate"))
    }

    #[test]
    fn origin_is_read_as_it_was_written() {
        for serial in [&[0xfe, 1, 2][..], &[1], &[0x7f; 20], &[0xff; 20]] {
            let origin = Origin { serial: Serial::from_be_bytes(serial), ..origin() };
            assert_eq!(read(vec![extension(&origin)]), Ok(origin));
        }
        assert_eq!(read(Vec::new()), Err(NoOrigin::Missing));
    }

    #[test]
    fn two_origins_or_another_form_are_none() {
        assert_eq!(read(vec![extension(&origin()), extension(&origin())]), Err(NoOrigin::Invalid));
        let other = Origin { fingerprint: Sha256::of(b"other"), ..origin() };
        assert_eq!(read(vec![extension(&origin()), extension(&other)]), Err(NoOrigin::Invalid));
        let right = encode(&origin());
        let with = |content: Vec<u8>| read(vec![CustomExtension::from_oid_content(ORIGIN_OID, content)]);
        for length in 0..right.len() {
            assert_eq!(with(right[..length].to_vec()), Err(NoOrigin::Invalid), "{length} bytes");
        }
        assert_eq!(with([&right[..], &[0]].concat()), Err(NoOrigin::Invalid));
        let mut empty = right;
        // Its digests are 32 bytes long.
        empty[3] = 31;
        assert_eq!(with(empty), Err(NoOrigin::Invalid));
        let long = Origin { serial: Serial::from_be_bytes(&[1; 21]), ..origin() };
        assert_eq!(with(encode(&long)), Err(NoOrigin::Invalid));
    }

    #[test]
    fn identifier_is_the_one_that_is_looked_for() {
        let der = yasna::construct_der(|writer| {
            writer.write_oid(&yasna::models::ObjectIdentifier::from_slice(ORIGIN_OID));
        });
        assert_eq!(&der[2..], ORIGIN_ID);
    }
}
