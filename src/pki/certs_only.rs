//! Certificates as a message of CMS without content and signatures (RFC 5652, "certs-only" in RFC 5272): what EST sends.

use pkcs8::ObjectIdentifier;
use pkcs8::der::{Decode as _, Error, ErrorKind, Header, Reader as _, SliceReader, Tag, TagNumber};
use rustls::pki_types::CertificateDer;
use yasna::models::ObjectIdentifier as WrittenIdentifier;

/// `id-signedData` and `id-data` (RFC 5652 sections 5.1 and 4).
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const WRITTEN_SIGNED_DATA: &[u64] = &[1, 2, 840, 113_549, 1, 7, 2];
const WRITTEN_DATA: &[u64] = &[1, 2, 840, 113_549, 1, 7, 1];

/// `[0]` and `[1]`.
const FIELD_0: Tag = Tag::ContextSpecific { constructed: true, number: TagNumber(0) };
const REVOCATION_LISTS: Tag = Tag::ContextSpecific { constructed: true, number: TagNumber(1) };

/// The most certificates that are read.
const MOST: usize = 16;

/// The message with these certificates.
pub fn encode(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_oid(&WrittenIdentifier::from_slice(WRITTEN_SIGNED_DATA));
            writer.next().write_tagged(yasna::Tag::context(0), |writer| {
                writer.write_sequence(|writer| {
                    writer.next().write_u8(1);
                    // No digest algorithms.
                    writer.next().write_set(|_| {});
                    writer.next().write_sequence(|writer| {
                        writer.next().write_oid(&WrittenIdentifier::from_slice(WRITTEN_DATA));
                    });
                    writer.next().write_tagged_implicit(yasna::Tag::context(0), |writer| {
                        writer.write_set_of(|writer| {
                            for certificate in certificates {
                                writer.next().write_der(certificate);
                            }
                        });
                    });
                    // No signatures.
                    writer.next().write_set(|_| {});
                });
            });
        });
    })
}

/// The certificates in a message (DER); `None` if it is not one.
///
/// `yasna` writes messages, and does not read them: a length near the end of `usize` overflows in its `read_der`.
pub fn decode(message: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let mut reader = SliceReader::new(message).ok()?;
    let certificates = reader.sequence(content_info).ok()?;
    reader.finish().ok()?;
    Some(certificates)
}

/// The fields of ContentInfo (RFC 5652 section 3).
fn content_info(reader: &mut SliceReader<'_>) -> Result<Vec<CertificateDer<'static>>, Error> {
    if reader.decode::<ObjectIdentifier>()? != SIGNED_DATA {
        return Err(reader.error(ErrorKind::OidUnknown { oid: SIGNED_DATA }));
    }
    within(reader, FIELD_0, |reader| reader.sequence(signed_data))
}

/// The fields of SignedData (RFC 5652 section 5.1).
fn signed_data(reader: &mut SliceReader<'_>) -> Result<Vec<CertificateDer<'static>>, Error> {
    let _version: u8 = reader.decode()?;
    // The digest algorithms, and the content.
    within(reader, Tag::Set, skip)?;
    reader.sequence(skip)?;
    let certificates = within(reader, FIELD_0, |reader| {
        let mut found = Vec::new();
        while !reader.is_finished() {
            if found.len() >= MOST {
                return Err(reader.error(ErrorKind::Overlength));
            }
            found.push(CertificateDer::from(reader.tlv_bytes()?.to_vec()));
        }
        Ok(found)
    })?;
    if Tag::peek(reader)? == REVOCATION_LISTS {
        within(reader, REVOCATION_LISTS, skip)?;
    }
    // The signatures.
    within(reader, Tag::Set, skip)?;
    Ok(certificates)
}

/// Reads the contents of the next value, which has this tag.
fn within<'a, T>(
    reader: &mut SliceReader<'a>,
    tag: Tag,
    read: impl FnOnce(&mut SliceReader<'a>) -> Result<T, Error>,
) -> Result<T, Error> {
    let header = Header::decode(reader)?;
    header.tag().assert_eq(tag)?;
    reader.read_nested(header.length(), read)
}

/// Reads whatever values there are.
fn skip(reader: &mut SliceReader<'_>) -> Result<(), Error> {
    while !reader.is_finished() {
        reader.tlv_bytes()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Authority, keys::KeyType};

    #[test]
    fn certificates_are_read_back() {
        let made: Vec<CertificateDer<'static>> = (0..2)
            .map(|_| {
                Authority::self_signed(KeyType::P256.generate().expect("a key"), "test", 2, |_| ())
                    .expect("an authority")
            })
            .map(|authority| authority.certificate().clone())
            .collect();
        for count in 0..=2 {
            let message = encode(&made[..count]);
            let mut read = decode(&message).expect("certificates");
            // DER sorts a set.
            read.sort_by(|one, other| one.as_ref().cmp(other.as_ref()));
            let mut expected = made[..count].to_vec();
            expected.sort_by(|one, other| one.as_ref().cmp(other.as_ref()));
            assert_eq!(read, expected);
            for cut in 0..message.len() {
                assert_eq!(decode(&message[..cut]), None, "cut at {cut}");
            }
        }
        assert_eq!(decode(&made[0]), None, "a certificate is no message");
    }

    /// What the fuzz target `renewal_answer` found: the answer of a gate that was taken over ended `doorward renew`.
    #[test]
    fn lengths_that_do_not_fit_are_no_message_wherever_they_are() {
        let made = Authority::self_signed(KeyType::P256.generate().expect("a key"), "test", 2, |_| ());
        let message = encode(&[made.expect("an authority").certificate().clone()]);
        for at in 1..message.len() {
            for digits in 1..=8 {
                for digit in [0, 0x7f, 0xff] {
                    let length = [&[0x80 | digits][..], &vec![digit; digits.into()]].concat();
                    let mut changed = message.clone();
                    changed.splice(at..=at, length);
                    // Mostly it is none; never a panic.
                    let _ = decode(&changed);
                }
            }
        }
        // Behind the object identifier of SignedData, all lengths are right but the one of a digest algorithm.
        let longest = [&[0x30, 0x88][..], &[0xff; 8]].concat();
        let with_algorithm = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_oid(&WrittenIdentifier::from_slice(WRITTEN_SIGNED_DATA));
                writer.next().write_tagged(yasna::Tag::context(0), |writer| {
                    writer.write_sequence(|writer| {
                        writer.next().write_u8(1);
                        writer.next().write_set(|writer| writer.next().write_der(&longest));
                    });
                });
            });
        });
        assert_eq!(decode(&with_algorithm), None);
    }
}
