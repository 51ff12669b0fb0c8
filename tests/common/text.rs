//! Text as pages have it.

/// Text as it is in HTML.
pub(crate) fn escaped(text: &str) -> String {
    let pairs = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&quot;")];
    pairs.into_iter().fold(text.to_owned(), |text, (plain, escaped)| text.replace(plain, escaped))
}
