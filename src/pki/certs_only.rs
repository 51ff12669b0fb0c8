//! Certificates as a message of CMS without content and signatures (RFC 5652, "certs-only" in RFC 5272): what EST sends.

use rustls::pki_types::CertificateDer;
use yasna::models::ObjectIdentifier;
use yasna::{ASN1Error, ASN1ErrorKind, BERReader, Tag};

/// `id-signedData` and `id-data` (RFC 5652 sections 5.1 and 4).
const SIGNED_DATA: &[u64] = &[1, 2, 840, 113_549, 1, 7, 2];
const DATA: &[u64] = &[1, 2, 840, 113_549, 1, 7, 1];

/// The most certificates that are read.
const MOST: usize = 16;

/// The message with these certificates.
pub fn encode(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_oid(&ObjectIdentifier::from_slice(SIGNED_DATA));
            writer.next().write_tagged(Tag::context(0), |writer| {
                writer.write_sequence(|writer| {
                    writer.next().write_u8(1);
                    // No digest algorithms.
                    writer.next().write_set(|_| {});
                    writer.next().write_sequence(|writer| {
                        writer.next().write_oid(&ObjectIdentifier::from_slice(DATA));
                    });
                    writer.next().write_tagged_implicit(Tag::context(0), |writer| {
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

/// The certificates in a message; `None` if it is not one.
pub fn decode(message: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    yasna::parse_ber(message, read).ok()
}

fn read(reader: BERReader<'_, '_>) -> Result<Vec<CertificateDer<'static>>, ASN1Error> {
    let invalid = || ASN1Error::new(ASN1ErrorKind::Invalid);
    reader.read_sequence(|reader| {
        if reader.next().read_oid()? != ObjectIdentifier::from_slice(SIGNED_DATA) {
            return Err(invalid());
        }
        reader.next().read_tagged(Tag::context(0), |reader| {
            reader.read_sequence(|reader| {
                reader.next().read_u8()?;
                reader.next().read_set_of(|reader| reader.read_der().map(drop))?;
                reader.next().read_sequence(|reader| {
                    reader.next().read_oid()?;
                    reader.read_optional(|reader| reader.read_tagged_der().map(drop)).map(drop)
                })?;
                let mut found = Vec::new();
                reader.next().read_tagged_implicit(Tag::context(0), |reader| {
                    reader.read_set_of(|reader| {
                        if found.len() >= MOST {
                            return Err(invalid());
                        }
                        found.push(CertificateDer::from(reader.read_der()?));
                        Ok(())
                    })
                })?;
                // Revocation lists.
                reader.read_optional(|reader| {
                    reader.read_tagged_implicit(Tag::context(1), |reader| {
                        reader.read_set_of(|reader| reader.read_der().map(drop))
                    })
                })?;
                reader.next().read_set_of(|reader| reader.read_der().map(drop))?;
                Ok(found)
            })
        })
    })
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
}
