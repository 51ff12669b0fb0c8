//! The fields of a certificate that identify its issuer, read without parsing the rest.
//!
//! A certificate of an unknown client may have thousands of extensions or names. Reading these fields allocates nothing, and
//! its cost does not grow with them.

/// The most extensions that a certificate may have. Real ones have about ten.
pub(super) const EXTENSIONS_MAX: usize = 64;

/// `keyUsage`, `subjectKeyIdentifier`, `basicConstraints`, `nameConstraints` and `authorityKeyIdentifier` (RFC 5280 section
/// 4.2.1), below `id-ce`.
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 14];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 30];
const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 35];

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// The `cRLSign` bit of a key usage (RFC 5280 section 4.2.1.3), in its first byte.
const CRL_SIGN: u8 = 0x02;

/// Parts of a certificate. Names and keys are whole DER values, to be compared byte by byte.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// All of it.
    pub der: &'a [u8],
    /// The issuer's signature.
    pub signature: Signed<'a>,
    /// The contents of the serial number.
    pub serial: &'a [u8],
    /// The issuer's distinguished name.
    pub issuer: &'a [u8],
    /// `notBefore` and `notAfter`.
    pub validity: &'a [u8],
    /// The subject's distinguished name.
    pub subject: &'a [u8],
    /// The SubjectPublicKeyInfo.
    pub key: &'a [u8],
    extensions: &'a [u8],
}

/// A signed structure: a certificate or a revocation list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed<'a> {
    /// What was signed.
    pub message: &'a [u8],
    /// The contents of the AlgorithmIdentifier.
    pub algorithm: &'a [u8],
    /// The signature itself.
    pub value: &'a [u8],
}

impl<'a> Signed<'a> {
    /// Splits a certificate or list (DER).
    pub fn read(der: &'a [u8]) -> Option<Self> {
        let mut input = der;
        let mut whole = take(&mut input, SEQUENCE).filter(|_| input.is_empty())?.contents;
        let message = take(&mut whole, SEQUENCE)?.whole;
        let algorithm = take(&mut whole, SEQUENCE)?.contents;
        let value = bits(take(&mut whole, BIT_STRING)?.contents)?;
        whole.is_empty().then_some(Self { message, algorithm, value })
    }
}

impl<'a> Parts<'a> {
    /// Splits a certificate (DER). `None` if its structure is wrong; the fields are not validated.
    pub fn read(der: &'a [u8]) -> Option<Self> {
        const VERSION: u8 = 0xa0;
        const EXTENSIONS: u8 = 0xa3;
        let signature = Signed::read(der)?;
        let mut message = signature.message;
        let mut fields = take(&mut message, SEQUENCE)?.contents;
        // Absent in version 1.
        let _ = take(&mut fields, VERSION);
        let serial = take(&mut fields, INTEGER)?.contents;
        let _algorithm = take(&mut fields, SEQUENCE)?;
        let issuer = take(&mut fields, SEQUENCE)?.whole;
        let validity = take(&mut fields, SEQUENCE)?.whole;
        let subject = take(&mut fields, SEQUENCE)?.whole;
        let key = take(&mut fields, SEQUENCE)?.whole;
        let mut extensions = take(&mut fields, EXTENSIONS).map(|tagged| tagged.contents).unwrap_or_default();
        let extensions = take(&mut extensions, SEQUENCE).map(|all| all.contents).unwrap_or_default();
        Some(Self { der, signature, serial, issuer, validity, subject, key, extensions })
    }

    /// Whether its names and extensions have more DER values than `most`. The cost of parsing them grows with that number.
    pub fn has_more_values_than(&self, most: usize) -> bool {
        let mut count = values(self.subject, most) + values(self.issuer, most);
        let mut extensions = self.extensions;
        while count <= most
            && let Some(extension) = take(&mut extensions, SEQUENCE)
        {
            // Its value is the last field. If it is no SEQUENCE, it is a single value.
            let mut fields = extension.contents;
            let _ = take(&mut fields, OBJECT_IDENTIFIER);
            let _ = take(&mut fields, BOOLEAN);
            let value = take(&mut fields, OCTET_STRING).map(|value| value.contents).unwrap_or_default();
            count += 1 + if value.first() == Some(&SEQUENCE) { values(value, most) } else { 0 };
        }
        count > most
    }

    /// Whether it has more extensions than [`EXTENSIONS_MAX`]. No extension is found behind those.
    pub fn has_too_many_extensions(&self) -> bool {
        let mut rest = self.extensions;
        (0..EXTENSIONS_MAX).all(|_| take(&mut rest, SEQUENCE).is_some()) && !rest.is_empty()
    }

    /// The contents of each extension with this identifier.
    pub(super) fn extensions_with(&self, id: &'static [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.extensions;
        let all = std::iter::from_fn(move || take(&mut rest, SEQUENCE)).take(EXTENSIONS_MAX);
        all.filter_map(move |extension| {
            let mut fields = extension.contents;
            take(&mut fields, OBJECT_IDENTIFIER).filter(|own| own.contents == id)?;
            let _critical = take(&mut fields, BOOLEAN);
            // One that has no value is there all the same.
            Some(take(&mut fields, OCTET_STRING).map(|value| value.contents).unwrap_or_default())
        })
    }

    /// The contents of an extension.
    fn extension(&self, id: &[u8]) -> Option<&'a [u8]> {
        let mut rest = self.extensions;
        for _ in 0..EXTENSIONS_MAX {
            let mut extension = take(&mut rest, SEQUENCE)?.contents;
            if take(&mut extension, OBJECT_IDENTIFIER)?.contents == id {
                let _critical = take(&mut extension, BOOLEAN);
                return Some(take(&mut extension, OCTET_STRING)?.contents);
            }
        }
        None
    }

    /// The identifier of its key.
    pub fn key_id(&self) -> Option<&'a [u8]> {
        let mut value = self.extension(SUBJECT_KEY_ID)?;
        Some(take(&mut value, OCTET_STRING)?.contents)
    }

    /// The identifier of its issuer's key.
    pub fn authority_key_id(&self) -> Option<&'a [u8]> {
        const KEY_IDENTIFIER: u8 = 0x80;
        let mut value = self.extension(AUTHORITY_KEY_ID)?;
        let mut fields = take(&mut value, SEQUENCE)?.contents;
        Some(take(&mut fields, KEY_IDENTIFIER)?.contents)
    }

    /// Whether it has name constraints.
    pub fn constrains_names(&self) -> bool {
        self.extension(NAME_CONSTRAINTS).is_some()
    }

    /// Whether it is the certificate of an authority (`cA`).
    pub fn is_authority(&self) -> bool {
        let Some(mut value) = self.extension(BASIC_CONSTRAINTS) else { return false };
        let constraints = take(&mut value, SEQUENCE).map(|constraints| constraints.contents).unwrap_or_default();
        take(&mut { constraints }, BOOLEAN).is_some_and(|authority| authority.contents == [0xff])
    }

    /// Whether its key may sign revocation lists. Without a key usage, it may.
    pub fn signs_lists(&self) -> bool {
        let Some(mut value) = self.extension(KEY_USAGE) else { return true };
        // The first byte is the number of unused bits.
        take(&mut value, BIT_STRING).and_then(|usage| usage.contents.get(1)).is_some_and(|flags| flags & CRL_SIGN != 0)
    }
}

/// The contents of an AlgorithmIdentifier, and the key itself, in a SubjectPublicKeyInfo.
pub(crate) fn public_key(mut spki: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut fields = take(&mut spki, SEQUENCE)?.contents;
    let algorithm = take(&mut fields, SEQUENCE)?.contents;
    Some((algorithm, bits(take(&mut fields, BIT_STRING)?.contents)?))
}

/// A DER value.
struct Value<'a> {
    whole: &'a [u8],
    contents: &'a [u8],
}

/// Takes the first value of `input` if it has this tag; otherwise `input` is not changed.
fn take<'a>(input: &mut &'a [u8], tag: u8) -> Option<Value<'a>> {
    let (&first, rest) = input.split_first().filter(|(first, _)| **first == tag)?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (digits.iter().fold(0, |sum, &digit| sum << 8 | usize::from(digit)), rest)
        }
        _ => return None,
    };
    debug_assert_eq!(first, tag);
    let (contents, rest) = rest.split_at_checked(length)?;
    let whole = input.get(..input.len() - rest.len())?;
    *input = rest;
    Some(Value { whole, contents })
}

/// The number of DER values in `input`, nested ones included. `most + 1` if there are more than `most`, or if it is not DER.
fn values(mut input: &[u8], most: usize) -> usize {
    const CONSTRUCTED: u8 = 0x20;
    /// A tag number in further bytes, which certificates do not use.
    const LONG_TAG: u8 = 0x1f;
    for count in 0..=most {
        let Some(&tag) = input.first() else { return count };
        let before = input;
        let Some(value) = take(&mut input, tag).filter(|_| tag & LONG_TAG != LONG_TAG) else { break };
        if tag & CONSTRUCTED != 0 {
            // Continue with its contents, which are followed by the rest.
            input = before.get(value.whole.len() - value.contents.len()..).unwrap_or_default();
        }
    }
    most + 1
}

/// A BIT STRING without unused bits.
fn bits(contents: &[u8]) -> Option<&[u8]> {
    contents.split_first().filter(|(unused, _)| **unused == 0).map(|(_, bits)| bits)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData};
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    /// An authority that constrains names, and a certificate below it.
    fn pair(usages: &[KeyUsagePurpose]) -> [Vec<u8>; 2] {
        let (above, below) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "Authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = usages.to_vec();
        authority.name_constraints = Some(rcgen::NameConstraints {
            permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("home.example".into())],
            excluded_subtrees: Vec::new(),
        });
        let root = authority.self_signed(&above).expect("a certificate").der().to_vec();
        let mut device = CertificateParams::new(vec!["phone.home.example".to_owned()]).expect("a name");
        device.use_authority_key_identifier_extension = true;
        let device = device.signed_by(&below, &Issuer::new(authority, above)).expect("a certificate");
        assert!(!below.der_bytes().is_empty());
        [root, device.der().to_vec()]
    }

    #[test]
    fn parts_equal_those_of_a_full_parser() {
        for der in pair(&[KeyUsagePurpose::KeyCertSign]) {
            let (_, whole) = X509Certificate::from_der(&der).expect("a certificate");
            let parts = Parts::read(&der).expect("a certificate");
            assert_eq!(parts.issuer, whole.issuer().as_raw());
            assert_eq!(parts.subject, whole.subject().as_raw());
            assert_eq!(parts.key, whole.public_key().raw);
            assert_eq!(parts.serial, whole.raw_serial());
            assert_eq!(parts.signature.message, whole.tbs_certificate.as_ref());
            assert_eq!(parts.signature.value, &*whole.signature_value.data);
        }
    }

    #[test]
    fn authority_key_id_equals_the_issuers_key_id() {
        let [root, device] = pair(&[KeyUsagePurpose::KeyCertSign]);
        let (root, device) = (Parts::read(&root).expect("a root"), Parts::read(&device).expect("a device"));
        assert_eq!(root.key_id(), device.authority_key_id());
        assert!(root.key_id().is_some_and(|id| !id.is_empty()));
        assert_eq!((root.constrains_names(), device.constrains_names()), (true, false));
    }

    #[test]
    fn der_values_are_counted_up_to_the_limit() {
        let (nested, garbage, long_tag) = (&[0x30, 4, 0x31, 0, 0x05, 0][..], &[0x30, 9, 1][..], &[0x9f, 0x1f, 0][..]);
        for (input, most, count) in [(&[][..], 9, 0), (nested, 9, 3), (nested, 3, 3), (nested, 2, 3), (nested, 1, 2)] {
            assert_eq!(values(input, most), count, "{input:02x?}, at most {most}");
        }
        assert_eq!((values(garbage, 9), values(long_tag, 9)), (10, 10));
        let [root, device] = pair(&[KeyUsagePurpose::KeyCertSign]);
        for der in [&root, &device] {
            let parts = Parts::read(der).expect("a certificate");
            assert_eq!((parts.has_more_values_than(100), parts.has_more_values_than(10)), (false, true));
            assert!(!parts.has_too_many_extensions());
        }
    }

    #[test]
    fn crl_sign_defaults_to_true_without_key_usage() {
        use KeyUsagePurpose::{CrlSign, KeyCertSign};
        for (usages, signs) in [(&[][..], true), (&[KeyCertSign], false), (&[KeyCertSign, CrlSign], true)] {
            let [root, _] = pair(usages);
            assert_eq!(Parts::read(&root).map(|root| root.signs_lists()), Some(signs), "{usages:?}");
        }
    }

    #[test]
    fn truncated_or_extended_input_is_rejected() {
        let [root, _] = pair(&[]);
        for length in 0..root.len() {
            assert!(Parts::read(&root[..length]).is_none(), "{length} bytes");
        }
        assert!(Parts::read(&[&root[..], &[0]].concat()).is_none());
    }
}
