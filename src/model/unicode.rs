//! Text that people type, in the one form that is compared (UAX 15).

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// `text` in Normalization Form C.
pub fn nfc(text: &str) -> Cow<'_, str> {
    match is_nfc_quick(text.chars()) {
        IsNormalized::Yes => Cow::Borrowed(text),
        IsNormalized::No | IsNormalized::Maybe => Cow::Owned(text.nfc().collect()),
    }
}

/// Whether two names are one device's: they differ in case at most, as names of files on some file systems.
pub fn is_same(one: &str, other: &str) -> bool {
    one == other || nfc(one).to_lowercase() == nfc(other).to_lowercase()
}
