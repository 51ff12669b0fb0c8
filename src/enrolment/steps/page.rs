//! The page with the steps, in one language and for one place.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::words::{Language, Words};
use super::{Instructions, Platform, STYLE, URLS_MAX, fill, policy};
use crate::enrolment::{Form, ROOT_FILE};
use crate::model::shell::word;

/// Where a page gets the files from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// From the folder that it is in.
    Folder,
    /// From the link with this path.
    Link(&'a str),
}

/// A page of steps.
#[derive(Clone, Copy)]
pub(super) struct Page<'a> {
    pub(super) instructions: &'a Instructions,
    pub(super) source: Source<'a>,
    pub(super) words: &'static Words,
}

/// The page for a folder. It has every language, and shows the one whose link was followed, at first English. A browser that cannot
/// select by what is in an element shows all of them.
pub(super) fn of_folder(instructions: &Instructions) -> String {
    let page = |language: Language| Page { instructions, source: Source::Folder, words: language.words() };
    let body = html! {
        nav.languages {
            @for language in Language::ALL {
                @let words = language.words();
                a href={ "#" (language.tag()) } lang=(words.lang) hreflang=(words.lang) { (words.language) }
            }
        }
        @for language in Language::ALL {
            section.language #(language.tag()) lang=(language.words().lang) { (page(language).body(&[])) }
        }
    };
    whole(page(Language::English), &body)
}

fn whole(page: Page<'_>, body: &Markup) -> String {
    let words = page.words;
    let whole = html! {
        (DOCTYPE)
        html lang=(words.lang) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content="no-referrer";
                meta http-equiv="Content-Security-Policy" content=(policy());
                title { (page.text(words.heading)) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    whole.into_string()
}

impl Page<'_> {
    /// The page, with the steps for the platforms in `open` first and unfolded.
    pub(super) fn render(self, open: &[Platform]) -> String {
        whole(self, &self.body(open))
    }

    fn body(self, open: &[Platform]) -> Markup {
        let others = Platform::ALL.iter().filter(|platform| !open.contains(platform));
        let words = self.words;
        let purpose = if self.instructions.valid_until.is_some() { words.purpose_until } else { words.purpose };
        html! {
            h1 { (self.text(words.heading)) }
            p { (self.text(purpose)) }
            @match self.source {
                Source::Folder => p { (self.text(words.password_folder)) },
                Source::Link(_) => {
                    p { (self.text(words.password_link)) }
                    p { (self.text(words.keep)) }
                }
            }
            @for platform in open.iter().chain(others) {
                (self.section(platform.title(), self.steps(*platform), open.contains(platform)))
            }
            (self.programs())
            @if let Some(root) = &self.instructions.root {
                p .quiet.last {
                    @match self.source {
                        Source::Folder => (self.text(words.authority_folder)),
                        Source::Link(_) => (self.text(words.authority_link)),
                    }
                    @if !root.is_constrained { br; (self.text(words.unconstrained)) }
                }
            }
        }
    }

    /// The steps for a platform. Without an authority that the device must trust, they say nothing about trust.
    const fn steps(self, platform: Platform) -> &'static str {
        match (platform, self.instructions.root.is_some()) {
            (Platform::Iphone, true) => self.words.iphone,
            (Platform::Iphone, false) => self.words.iphone_public,
            (Platform::Mac, true) => self.words.mac,
            (Platform::Mac, false) => self.words.mac_public,
            (Platform::Android, true) => self.words.android,
            (Platform::Android, false) => self.words.android_public,
            (Platform::Windows, true) => self.words.windows,
            (Platform::Windows, false) => self.words.windows_public,
            (Platform::Linux, true) => self.words.linux,
            (Platform::Linux, false) => self.words.linux_public,
        }
    }

    /// The steps for other programs.
    fn programs(self) -> Markup {
        let words = self.words;
        // The link has no PEM files.
        let has_pem = matches!(self.source, Source::Folder);
        let pem = if self.instructions.root.is_some() { words.programs } else { words.programs_public };
        html! {
            @if has_pem || self.instructions.has_bundle {
                details {
                    summary { (words.programs_title) }
                    @if self.instructions.has_bundle { (self.text(words.join)) }
                    @if has_pem { (self.text(pem)) }
                }
            }
        }
    }

    fn section(self, title: &str, steps: &'static str, open: bool) -> Markup {
        html! {
            details open[open] {
                summary { (title) }
                (self.text(steps))
            }
        }
    }

    fn text(self, text: &'static str) -> Markup {
        fill(text, |word| self.value(word))
    }

    /// What a placeholder is replaced with.
    fn value(self, name: &str) -> Option<Markup> {
        let Self { instructions, source, words } = self;
        let file = |form| instructions.file(form);
        Some(match name {
            "device" => html! { (instructions.device) },
            "device_word" => html! { (word(instructions.device.as_str())) },
            "date" => html! { (instructions.valid_until.as_deref().unwrap_or_default()) },
            "root" => html! { (instructions.root.as_ref()?.name) },
            "root_file" => html! { (ROOT_FILE) },
            "fingerprint" => html! { (instructions.root.as_ref()?.fingerprint) },
            "android_warning" if instructions.root.as_ref()?.is_constrained => self.text(words.android_warning),
            "android_warning" => self.text(words.unconstrained),
            // An attacker who can change the page can change a fingerprint in it.
            "compare" => match source {
                Source::Folder => self.text(words.compare_folder),
                Source::Link(_) => self.text(words.compare_link),
            },
            "archive" => html! { (file(Form::Archive)) },
            "certificate" => html! { (file(Form::Certificate)) },
            "key" => html! { (file(Form::Key)) },
            "ssh_file" => html! { (file(Form::SshConfig)) },
            "bundle" => html! { (word(&file(Form::Bundle))) },
            "get_bundle" => self.get(Form::Bundle),
            "get_profile" => self.get(Form::Profile),
            "get_archive" => self.get(Form::Archive),
            "get_archive_compat" => self.get(Form::ArchiveCompat),
            "get_root" => {
                let folder = match source {
                    Source::Folder => String::new(),
                    Source::Link(path) => format!("{path}/"),
                };
                self.take(&format!("{folder}{ROOT_FILE}"), ROOT_FILE)
            }
            "open" if instructions.urls.is_empty() => self.text(words.open_unknown),
            "open" => self.text(words.open),
            "urls" => html! {
                @for (index, url) in instructions.urls.iter().take(URLS_MAX).enumerate() {
                    @if index > 0 { ", " }
                    a href=(url) { (url) }
                }
            },
            "nss" => html! { (instructions.nss()) },
            "curl" => html! { (instructions.curl()) },
            "curl_archive" => html! { (instructions.curl_archive()) },
            "ssh" => html! {
                @if !instructions.ssh_names.is_empty() {
                    (self.text(words.ssh))
                    pre { (instructions.ssh_host()) }
                }
            },
            _ => return None,
        })
    }

    fn get(self, form: Form) -> Markup {
        let file = self.instructions.file(form);
        match self.source {
            Source::Folder => self.take(&file, &file),
            Source::Link(path) => html! {
                form method="post" action={ (path) "/" (file) } {
                    button {
                        (fill(self.words.get, |word| (word == "file").then(|| html! { (file) })))
                    }
                }
            },
        }
    }

    fn take(self, href: &str, file: &str) -> Markup {
        fill(self.words.take, |word| (word == "link").then(|| html! { a href=(href) { (file) } }))
    }
}
