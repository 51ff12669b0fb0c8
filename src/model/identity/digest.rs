//! SHA-256 digests, as fingerprints are.

use std::fmt;

use aws_lc_rs::digest;

/// A SHA-256 digest: of a certificate's DER encoding (a *fingerprint*) or of its SubjectPublicKeyInfo.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// The digest of `data`.
    pub fn of(data: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
        Self(out)
    }

    /// Reads 64 hexadecimal digits; colons, as OpenSSL and browsers print them, do not matter.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = hex_bytes(text)?;
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// Writes two hexadecimal digits for each byte. Digests stand in every line of the log, and `{:02x}` for each of their bytes was
/// half of what such a line cost.
pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| DIGITS.get(usize::from(value & 0xf)).copied().unwrap_or(b'0');
    for part in bytes.chunks(32) {
        let mut text = [0; 64];
        for ([high, low], byte) in text.as_chunks_mut().0.iter_mut().zip(part) {
            (*high, *low) = (digit(byte >> 4), digit(*byte));
        }
        f.write_str(text.get(..2 * part.len()).and_then(|text| str::from_utf8(text).ok()).unwrap_or_default())?;
    }
    Ok(())
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

/// The bytes of an even number of hexadecimal digits, colons aside; `None` for anything else, and for none.
pub(super) fn hex_bytes(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|&c| c != ':')
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect::<Option<_>>()?;
    if digits.is_empty() {
        return None;
    }
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    Some(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_parse_with_and_without_colons() {
        let digest = Sha256::of(b"doorward");
        let plain = digest.to_string();
        let colons: Vec<&str> = plain.as_bytes().chunks(2).filter_map(|c| std::str::from_utf8(c).ok()).collect();
        assert_eq!(Sha256::parse(&plain), Some(digest));
        assert_eq!(Sha256::parse(&colons.join(":").to_uppercase()), Some(digest));
        assert_eq!(Sha256::parse("abcd"), None);
    }
}
