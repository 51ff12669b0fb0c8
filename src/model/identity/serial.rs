//! Serial numbers of certificates.

use std::fmt;

use super::digest::{hex_bytes, write_hex};

/// A certificate's serial number (RFC 5280 section 4.1.2.2), without leading zero bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Vec<u8>);

impl Serial {
    /// From the contents of the DER INTEGER.
    pub fn from_be_bytes(bytes: &[u8]) -> Self {
        let start = bytes.iter().position(|&b| b != 0).unwrap_or(bytes.len());
        Self(bytes.get(start..).unwrap_or_default().to_vec())
    }

    /// The number, most significant byte first.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads hexadecimal digits, with or without colons.
    pub fn parse(text: &str) -> Option<Self> {
        let compact: String = text.chars().filter(|&c| c != ':').collect();
        let even = if compact.len() % 2 == 1 { format!("0{compact}") } else { compact };
        hex_bytes(&even).map(|bytes| Self::from_be_bytes(&bytes))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("00");
        }
        write_hex(f, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_compared_without_leading_zeros() {
        assert_eq!(Serial::parse("00:AB:cd"), Serial::parse("abCD"));
        assert_eq!(Serial::parse("abc"), Some(Serial::from_be_bytes(&[0x0a, 0xbc])));
        assert_eq!(Serial::parse("0").map(|s| s.to_string()), Some("00".into()));
        assert_eq!(Serial::parse("xyz"), None);
        assert_eq!(Serial::parse(""), None);
    }
}
