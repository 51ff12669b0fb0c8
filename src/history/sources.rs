//! How many different sources there were: an estimate in a fixed space.
//!
//! Linear counting (Whang, Vander-Zanden, Taylor 1990): each source sets one bit, and the share of bits that are not set says how
//! many sources there were. Two percent off at a hundred, three percent at some thousands.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::source::Source;

/// How many bits. With a few unset ones left, estimates end at about eight times as many sources.
const BITS: u16 = 2048;
const WORDS: usize = 32;

/// More bits than that are written as hexadecimal digits, fewer as numbers.
const LISTED_MAX: u32 = 100;

/// A set of sources, of which only the number is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sources(Option<Box<[u64; WORDS]>>);

impl Sources {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn add(&mut self, source: Source) {
        let (address, bits) = source.parts();
        let bytes = match address {
            std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            std::net::IpAddr::V6(v6) => v6.octets(),
        };
        self.set(hash(&bytes, bits));
    }

    fn set(&mut self, bit: u16) {
        let bit = bit % BITS;
        let words = self.0.get_or_insert_with(|| Box::new([0; WORDS]));
        if let Some(word) = words.get_mut(usize::from(bit / 64)) {
            *word |= 1 << (bit % 64);
        }
    }

    pub(super) fn add_all(&mut self, other: &Self) {
        let Some(theirs) = &other.0 else { return };
        let words = self.0.get_or_insert_with(|| Box::new([0; WORDS]));
        words.iter_mut().zip(theirs.iter()).for_each(|(word, other)| *word |= other);
    }

    /// How many there are, about.
    pub(super) fn estimate(&self) -> u64 {
        let Some(words) = &self.0 else { return 0 };
        let set: u32 = words.iter().map(|word| word.count_ones()).sum();
        let unset = f64::from(u32::from(BITS).saturating_sub(set).max(1));
        let estimate = f64::from(BITS) * (f64::from(BITS) / unset).ln();
        // Below 16,000, and not negative.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
        let estimate = estimate.round() as u64;
        estimate
    }

    fn bits(&self) -> impl Iterator<Item = u16> {
        let words = self.0.iter().flat_map(|words| words.iter());
        words
            .zip(0_u16..)
            .flat_map(|(word, index)| (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| index * 64 + bit))
    }
}

/// FNV-1a with a last mix. The files keep its values, so it is not the hash of the standard library, which may change. To choose
/// addresses that collide makes a stranger's sources look fewer, which is worth nothing.
fn hash(address: &[u8], bits: u8) -> u16 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in address.iter().chain([&bits]) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
    let [high, low, ..] = hash.to_be_bytes();
    u16::from_be_bytes([high, low])
}

impl Serialize for Sources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let words = self.0.as_deref().unwrap_or(&[0; WORDS]);
        if words.iter().map(|word| word.count_ones()).sum::<u32>() <= LISTED_MAX {
            serializer.collect_seq(self.bits())
        } else {
            serializer.collect_str(&words.iter().map(|word| format!("{word:016x}")).collect::<String>())
        }
    }
}

impl<'de> Deserialize<'de> for Sources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Bits(Vec<u16>),
            Words(String),
        }
        let mut sources = Self::default();
        match Form::deserialize(deserializer)? {
            Form::Bits(bits) => bits.into_iter().for_each(|bit| sources.set(bit)),
            Form::Words(text) => {
                let mut words = Box::new([0; WORDS]);
                for (index, word) in words.iter_mut().enumerate() {
                    let digits = text.get(index * 16..(index + 1) * 16);
                    let parsed = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
                    *word = parsed.ok_or_else(|| D::Error::custom("not the bits of sources"))?;
                }
                sources.0 = Some(words);
            }
        }
        Ok(sources)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::model::source::Prefixes;

    fn of(count: u32) -> Sources {
        let mut sources = Sources::default();
        for n in 0..count {
            let address = IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + n * 7));
            // Again and again.
            for _ in 0..2 {
                sources.add(Source::of(address, Prefixes::default()));
            }
        }
        sources
    }

    #[test]
    fn number_of_sources_is_estimated_within_a_few_percent() {
        for count in [0, 1, 2, 10, 131, 1000, 5000] {
            let estimate = of(count).estimate();
            let off = estimate.abs_diff(u64::from(count));
            assert!(off <= u64::from(count) * 6 / 100, "{estimate} of {count}");
        }
        // All bits are set: an end, not a panic.
        assert!((8_000..20_000).contains(&of(1_000_000).estimate()));
    }

    #[test]
    fn written_sources_are_read_again() {
        for count in [1, 99, 3000] {
            let text = serde_json::to_string(&of(count)).expect("text");
            assert!(text.len() < 600, "{text}");
            assert_eq!(serde_json::from_str::<Sources>(&text).expect("sources"), of(count));
        }
        for wrong in ["\"\"", "\"zz\"", "[70000]", "7"] {
            assert!(serde_json::from_str::<Sources>(wrong).is_err(), "{wrong}");
        }
    }
}
