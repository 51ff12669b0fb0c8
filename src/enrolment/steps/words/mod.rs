//! The words of the pages, one file for each language.
//!
//! They are HTML with `{{placeholders}}`. A language that lacks a text does not compile.

mod de;
mod en;
mod zh;

/// Declares the texts of a language.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The texts in one language.
        #[derive(Debug)]
        pub(in crate::enrolment) struct Words {
            /// The language as HTML names it (BCP 47).
            pub(in crate::enrolment) lang: &'static str,
            $($(#[$doc])* pub(in crate::enrolment) $name: &'static str,)*
        }

        #[cfg(test)]
        impl Words {
            /// Every text with its name.
            fn texts(&self) -> Vec<(&'static str, &'static str)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

texts! {
    /// The language's own name.
    language,
    /// The heading of a page, and its title.
    heading,
    /// What the certificate is for.
    purpose,
    /// The same, with the day on which it expires.
    purpose_until,
    /// Where the password is, on the page beside the files.
    password_folder,
    /// Where the password is, on the page of the link.
    password_link,
    /// What browsers say about downloads over HTTP.
    keep,
    /// The steps for iPhone and iPad.
    iphone,
    /// The same if devices trust the gate's certificate already, as in the other texts of that name.
    iphone_public,
    /// Those for Android.
    android,
    android_public,
    /// Those for macOS.
    mac,
    mac_public,
    /// Those for Windows.
    windows,
    windows_public,
    /// Those for Linux, and for Firefox everywhere.
    linux,
    linux_public,
    /// The title of the steps for other programs.
    programs_title,
    /// The steps for all of them with this program.
    join,
    /// The steps for other programs.
    programs,
    programs_public,
    /// What to do with the section of the ssh configuration.
    ssh,
    /// A link to a file.
    take,
    /// A button that gets a file.
    get,
    /// What to open at the end.
    open,
    /// The same, if no address is known.
    open_unknown,
    /// Why Android's warning does not apply.
    android_warning,
    /// The warning of an authority without name constraints.
    unconstrained,
    /// Where the fingerprint is, on the page beside the files.
    compare_folder,
    /// Where the fingerprint is, on the page of the link.
    compare_link,
    /// The fingerprint, on the page beside the files.
    authority_folder,
    /// To compare the fingerprint, on the page of the link.
    authority_link,
    /// A request had a body.
    no_data,
    /// There is no such path.
    not_found,
    /// A button was pressed.
    begins,
    /// Another download is under way.
    busy,
    /// Another device has downloaded a file.
    other_device,
    /// The link has ended.
    closed,
    /// A request with the wrong method.
    use_buttons,
}

/// A language of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::enrolment) enum Language {
    English,
    German,
    Chinese,
}

impl Language {
    pub(in crate::enrolment) const ALL: [Self; 3] = [Self::English, Self::German, Self::Chinese];

    /// Its texts.
    pub(in crate::enrolment) const fn words(self) -> &'static Words {
        match self {
            Self::English => &en::WORDS,
            Self::German => &de::WORDS,
            Self::Chinese => &zh::WORDS,
        }
    }

    /// The primary language subtag. All forms of a language get the same texts.
    pub(in crate::enrolment) const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
            Self::Chinese => "zh",
        }
    }

    /// The language that a browser with this `Accept-Language` prefers (RFC 9110 section 12.5.4), else English.
    pub(in crate::enrolment) fn of_accept_language(header: &str) -> Self {
        let mut best: Option<(Self, f32)> = None;
        for range in header.split(',') {
            let (tag, parameter) = range.split_once(';').unwrap_or((range, ""));
            let primary = tag.trim().split('-').next().unwrap_or_default();
            let Some(language) = Self::ALL.into_iter().find(|one| one.tag().eq_ignore_ascii_case(primary)) else {
                continue;
            };
            let weight = match parameter.trim().strip_prefix("q=") {
                Some(weight) => weight.trim().parse().unwrap_or(0.0),
                None => 1.0,
            };
            // Of equal ones, the first.
            if weight > 0.0 && best.is_none_or(|(_, most)| weight > most) {
                best = Some((language, weight));
            }
        }
        best.map_or(Self::English, |(language, _)| language)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands between `open` and `close`, sorted.
    fn between<'a>(text: &'a str, open: &str, close: &str) -> Vec<&'a str> {
        let parts = text.split(open).skip(1).map(|rest| rest.split_once(close).expect("an end").0);
        let mut found: Vec<&str> = parts.collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn placeholders_and_elements_are_those_of_the_english_text() {
        for language in Language::ALL {
            for ((name, english), (_, text)) in
                Language::English.words().texts().into_iter().zip(language.words().texts())
            {
                assert_eq!(between(text, "{{", "}}"), between(english, "{{", "}}"), "{language:?}, {name}");
                // Sentences differ in how many words they emphasise.
                let elements = |text| {
                    let mut elements = between(text, "<", ">");
                    elements.retain(|element| !element.trim_start_matches('/').starts_with(['i', 'b']));
                    elements
                };
                assert_eq!(elements(text), elements(english), "{language:?}, {name}");
                for element in ["i", "b", "li", "ol", "p", "code", "pre"] {
                    let count = |tag: String| text.matches(&tag).count();
                    let opened = count(format!("<{element}>")) + count(format!("<{element} "));
                    assert_eq!(opened, count(format!("</{element}>")), "<{element}> in {language:?}, {name}");
                }
            }
        }
    }

    #[test]
    fn every_text_is_in_its_own_language() {
        let mut all: Vec<&str> = Vec::new();
        for language in Language::ALL {
            let words = language.words();
            assert!(words.lang.starts_with(language.tag()), "{}", words.lang);
            for (name, text) in words.texts() {
                assert!(text.trim() == text && !text.is_empty(), "{language:?}, {name}");
                assert!(!all.contains(&text), "{language:?}, {name}: as in another language");
                all.push(text);
                let is_han = text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
                assert_eq!(is_han, language == Language::Chinese, "{language:?}, {name}");
            }
        }
    }

    #[test]
    fn language_is_the_one_that_the_browser_prefers() {
        for (header, language) in [
            ("", Language::English),
            ("de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7", Language::German),
            ("de-AT", Language::German),
            ("DE", Language::German),
            ("zh-CN,zh;q=0.9", Language::Chinese),
            ("zh-Hant-TW, en;q=0.5", Language::Chinese),
            ("fr-FR, de;q=0.3, en;q=0.5", Language::English),
            ("fr, zh ; q=0.2", Language::Chinese),
            ("fr, zh;q=0.2", Language::Chinese),
            ("de;q=0, en", Language::English),
            ("de;q=0", Language::English),
            ("de;q=x, zh;q=0.1", Language::Chinese),
            ("es, *", Language::English),
            ("den, zhx", Language::English),
        ] {
            assert_eq!(Language::of_accept_language(header), language, "{header:?}");
        }
    }
}
