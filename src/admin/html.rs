//! HTML in the making. Only text of the program's own goes in as it is; all other text is escaped.

use std::fmt::{Display, Write as _};

/// HTML in the making.
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Markup: what stands in the program itself.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text, between tags or in a quoted attribute, whoever wrote it.
    pub(super) fn text(&mut self, text: impl Display) -> &mut Self {
        // Writing to a String does not fail.
        let _ = write!(Escaping(&mut self.0), "{text}");
        self
    }

    /// All of it.
    pub(super) fn finish(self) -> String {
        self.0
    }
}

struct Escaping<'a>(&'a mut String);

impl std::fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_markup() {
        let mut html = Html::default();
        html.raw("<p title=\"").text("\"'&").raw("\">").text("<script>alert(1)</script>").raw("</p>");
        assert_eq!(html.finish(), "<p title=\"&quot;&#39;&amp;\">&lt;script&gt;alert(1)&lt;/script&gt;</p>");
    }
}
