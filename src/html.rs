//! HTML in the making. Only text of the program's own goes in as it is; all other text is escaped.

use std::fmt::{Display, Write as _};

/// HTML in the making.
#[derive(Debug, Default)]
pub(crate) struct Html(String);

impl Html {
    /// Markup: what stands in the program itself.
    pub(crate) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text, between tags or in a quoted attribute, whoever wrote it.
    pub(crate) fn text(&mut self, text: impl Display) -> &mut Self {
        // Writing to a String does not fail.
        let _ = write!(Escaping(&mut self.0), "{text}");
        self
    }

    /// A whole page of the program's own, in which `insert` writes whatever stands for `{{a word}}`.
    pub(crate) fn template(&mut self, template: &'static str, mut insert: impl FnMut(&mut Self, &str)) -> &mut Self {
        let mut rest = template;
        while let Some((markup, (word, after))) =
            rest.split_once("{{").and_then(|(m, r)| Some((m, r.split_once("}}")?)))
        {
            self.raw(markup);
            insert(self, word);
            rest = after;
        }
        self.raw(rest)
    }

    /// All of it.
    pub(crate) fn finish(self) -> String {
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
    #[test]
    fn words_in_a_template_are_replaced_and_what_replaces_them_is_text() {
        let mut html = Html::default();
        html.template("<p>{{name}} {{name}}</p>{{", |html, word| {
            html.text(format_args!("<{word}>{{{{x}}}}"));
        });
        assert_eq!(html.finish(), "<p>&lt;name&gt;{{x}} &lt;name&gt;{{x}}</p>{{");
    }
}
