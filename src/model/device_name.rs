//! The names of devices, as people write them: with spaces and in any script.

use std::fmt;
use std::sync::Arc;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::identity::Sha256;
use super::names::{Name, printable};
use super::unicode::{is_same, nfc};

/// The name of a device: the common name of its certificate, and an entry of `allow`.
///
/// It is in Normalization Form C (UAX 15), so that a name that is typed is the one that was stored, whatever the keyboard. It has
/// only characters that can be seen and that [`printable`] leaves as they are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName {
    name: Arc<str>,
    slug: Arc<str>,
}

/// Characters of names beside letters, digits and the space. None has a meaning in `allow`, and none ends a quoted string.
const PUNCTUATION: &str = "._-'()&+,";

/// The most characters of a slug before its digits.
const SLUG_MAX: usize = 32;

impl DeviceName {
    /// The longest name, in characters: a common name may have no more (`ub-common-name`, RFC 5280 appendix A.1).
    pub const MAX: usize = 64;

    /// Takes `text` as a name, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidDeviceName> {
        let name = nfc(text);
        if name.is_empty() {
            return Err(InvalidDeviceName::Empty);
        }
        if name.chars().count() > Self::MAX {
            return Err(InvalidDeviceName::TooLong);
        }
        let fits = |c: char| {
            c == ' '
                || PUNCTUATION.contains(c)
                || (c.is_alphanumeric() && !printable(c.encode_utf8(&mut [0; 4]), 1).starts_with('\\'))
        };
        if let Some(c) = name.chars().find(|c| !fits(*c)) {
            return Err(InvalidDeviceName::of(c));
        }
        if name.starts_with(['.', '-']) {
            return Err(InvalidDeviceName::FirstCharacter);
        }
        if name.starts_with(' ') || name.ends_with(' ') || name.contains("  ") {
            return Err(InvalidDeviceName::Spaces);
        }
        if !name.chars().any(char::is_alphanumeric) {
            return Err(InvalidDeviceName::NoLetter);
        }
        let slug = slug(&name).into();
        Ok(Self { name: name.into(), slug })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The name for files and URLs: ASCII. It is the name itself if that is a [`Name`]; otherwise what is left of it, and digits
    /// that no other name has.
    pub fn slug(&self) -> &str {
        &self.slug
    }

    /// Whether a reader could take it for `other`: both look the same in common fonts (UTS 39 section 4). Names that differ in case
    /// only count as one, see [`is_same`].
    pub fn is_confusable_with(&self, other: &str) -> bool {
        let skeleton = |text: &str| unicode_security::skeleton(&text.to_lowercase()).collect::<String>();
        !is_same(&self.name, other) && skeleton(&self.name) == skeleton(other)
    }
}

/// What is left of the name in ASCII, and the first digits of its SHA-256.
fn slug(name: &str) -> String {
    if Name::parse(name).is_ok() {
        return name.to_owned();
    }
    let mut slug = String::new();
    // An accent of its own is dropped, so that the letter stays.
    for c in name.nfkd().filter(|c| !is_combining_mark(*c)) {
        match c {
            'ß' => slug.push_str("ss"),
            c if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') => slug.push(c),
            _ if !slug.ends_with('-') => slug.push('-'),
            _ => {}
        }
    }
    let kept: String = slug.trim_matches(['-', '.']).chars().take(SLUG_MAX).collect();
    let kept = if kept.is_empty() { "device" } else { kept.trim_end_matches(['-', '.']) };
    let digest = Sha256::of(name.as_bytes()).to_string();
    format!("{kept}-{}", digest.get(..8).unwrap_or(&digest))
}

/// Whether `text` is what a person may call the device `name`: its name, or that of its files.
pub fn is_called(name: &str, text: &str) -> bool {
    let is_slug = || Name::parse(text).is_ok() && Name::parse(name).is_err() && slug(name) == text;
    is_same(name, text) || is_slug()
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeviceName").field(&self.name).finish()
    }
}

/// Why a text is not a [`DeviceName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDeviceName {
    /// Nothing was given.
    #[error("a name may not be empty")]
    Empty,
    /// More than [`DeviceName::MAX`] characters.
    #[error("a name may have at most {} characters", DeviceName::MAX)]
    TooLong,
    /// A character that is neither a letter nor a digit nor one of a few others.
    #[error("a name may not contain {0:?}: use letters, digits, spaces and {PUNCTUATION}")]
    Character(char),
    /// A character that changes the direction of the text: the name would not look like what it is.
    #[error("a name may not contain U+{:04X}, which changes the direction of the text", u32::from(*.0))]
    Direction(char),
    /// A character that cannot be seen.
    #[error("a name may not contain U+{:04X}, which cannot be seen", u32::from(*.0))]
    Invisible(char),
    /// Starts with `.` or `-`, which would read as a hidden file or an option.
    #[error("a name may not start with \".\" or \"-\"")]
    FirstCharacter,
    /// A space at the start or the end, or two in a row, which cannot be seen.
    #[error("a name may not start or end with a space, or have two in a row")]
    Spaces,
    /// No letter and no digit.
    #[error("a name needs a letter or a digit")]
    NoLetter,
}

impl InvalidDeviceName {
    /// Why a name may not have this character.
    fn of(c: char) -> Self {
        match c {
            // UAX 9: marks, embeddings, overrides and isolates.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                Self::Direction(c)
            }
            c if c.is_control()
                || c.is_whitespace()
                || c.is_alphanumeric()
                || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2065}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}') =>
            {
                Self::Invisible(c)
            }
            c => Self::Character(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DeviceName {
        DeviceName::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    #[test]
    fn names_are_taken_as_people_write_them() {
        for text in [
            "alice-phone",
            "Omas Tablet Küche",
            "小明的手机",
            "Bob's iPhone (2)",
            "Телефон Анны",
            "هاتف سارة",
            "מחשב",
            "x86_64",
            &"ü".repeat(64),
        ] {
            assert_eq!(name(text).as_str(), text);
            assert_eq!(printable(text, 200), text, "a name is shown as it is");
        }
        // What some keyboards type, and macOS stores: u and a combining mark.
        assert_eq!(name("Ku\u{308}che"), name("Küche"));
        assert_eq!(name("Ku\u{308}che").as_str(), "K\u{fc}che");
    }

    #[test]
    fn names_that_could_mislead_are_refused_with_the_reason() {
        use InvalidDeviceName::{Character, Direction, Empty, FirstCharacter, Invisible, NoLetter, Spaces, TooLong};
        for (text, reason) in [
            ("", Empty),
            ("a\u{202e}b", Direction('\u{202e}')),
            ("a\u{2066}b", Direction('\u{2066}')),
            ("a\u{200f}b", Direction('\u{200f}')),
            ("a\nb", Invisible('\n')),
            ("a\u{0}b", Invisible('\u{0}')),
            ("a\u{1b}[31m", Invisible('\u{1b}')),
            ("a\u{200b}b", Invisible('\u{200b}')),
            ("a\u{a0}b", Invisible('\u{a0}')),
            ("a\u{3164}b", Invisible('\u{3164}')),
            ("a/b", Character('/')),
            ("cn:a", Character(':')),
            ("a\"b", Character('"')),
            ("a\\b", Character('\\')),
            ("a`b", Character('`')),
            ("\u{1f4f1}", Character('\u{1f4f1}')),
            ("../x", Character('/')),
            ("-x", FirstCharacter),
            (".x", FirstCharacter),
            (" x", Spaces),
            ("x ", Spaces),
            ("x  y", Spaces),
            ("(.)", NoLetter),
            (&"x".repeat(65), TooLong),
        ] {
            assert_eq!(DeviceName::parse(text), Err(reason), "{text:?}");
        }
        assert_eq!(
            Direction('\u{202e}').to_string(),
            "a name may not contain U+202E, which changes the direction of the text"
        );
    }

    #[test]
    fn slugs_are_names_of_files_and_distinct() {
        assert_eq!(name("alice-phone").slug(), "alice-phone");
        let long = "Der Fernseher im Wohnzimmer von Großmutter";
        let texts =
            ["Omas Tablet Küche", "Omas Tablet Kuche", "Omas-Tablet Küche", "小明的手机", "小红的手机", "(é).", long];
        let slugs: Vec<String> = texts.iter().map(|text| name(text).slug().to_owned()).collect();
        assert!(slugs[0].starts_with("Omas-Tablet-Kuche-") && slugs[3].starts_with("device-"), "{slugs:?}");
        assert!(slugs[6].starts_with("Der-Fernseher-im-Wohnzimmer-von-"), "{slugs:?}");
        for (index, slug) in slugs.iter().enumerate() {
            assert!(Name::parse(slug).is_ok(), "{slug}");
            assert!(!slugs[..index].contains(slug), "{slugs:?}");
            assert!(is_called(texts[index], slug) && is_called(texts[index], texts[index]));
            assert!(!is_called("alice-phone", slug));
        }
    }

    #[test]
    fn names_that_look_alike_are_confusable_and_cases_are_the_same() {
        for (one, other) in [
            ("alice-phone", "\u{430}lice-phone"),
            ("alice-ph\u{43e}ne", "alice-phone"),
            ("alice-phone", "Alice-ph\u{3bf}ne"),
            ("pc-1", "pc-l"),
        ] {
            assert!(name(one).is_confusable_with(other) && name(other).is_confusable_with(one), "{one} {other}");
        }
        for (one, other) in
            [("alice-phone", "alice-phones"), ("Küche", "Kuche"), ("alice phone", "alice-phone"), ("小明", "小红")]
        {
            assert!(!name(one).is_confusable_with(other), "{one} {other}");
        }
        assert!(is_same("KÜCHE", "ku\u{308}che") && !name("KÜCHE").is_confusable_with("küche"));
    }
}
