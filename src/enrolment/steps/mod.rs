//! What to do with the files, for each kind of device: one text for the page beside them and for the page of the link.

mod commands;
mod platform;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Form, Gate, PUBLIC_PORT, ROOT_FILE};
use crate::http::Policy;
use crate::model::identity::{Identity, Sha256};
use crate::model::names::{Name, ServerNamePattern, printable};
use crate::model::shell::word;
use crate::model::text::date;

pub(super) use platform::Platform;

/// How pages look: the text between `<style>` and `</style>`.
pub(super) const STYLE: &str = include_str!("page.css");
const PROGRAMS: &str = include_str!("programs.html");

/// The longest name of an authority that is shown, in characters.
const ROOT_NAME_MAX: usize = 128;

/// How many addresses are linked.
const URLS_MAX: usize = 8;

/// What a browser may do with a page (Content Security Policy): apply its style and send its own forms.
pub(super) fn policy() -> String {
    let style = Policy::hash_source(STYLE);
    format!("default-src 'none'; style-src {style}; form-action 'self'; base-uri 'none'")
}

/// Where a page gets the files from.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// From the folder that it is in.
    Folder,
    /// From the one-time link with this path.
    Link(&'a str),
}

/// The instructions for one device, with the owner's own names in them.
pub(super) struct Instructions {
    device: Name,
    valid_until: Option<String>,
    root: String,
    root_fingerprint: String,
    root_is_constrained: bool,
    ssh_names: Vec<ServerNamePattern>,
    urls: Vec<String>,
    example_url: String,
    port: u16,
}

impl Instructions {
    pub(super) fn new(gate: &Gate, device: &Name, identity: &Identity, root: &Identity) -> Self {
        let end = if gate.port == PUBLIC_PORT { "/".to_owned() } else { format!(":{}/", gate.port) };
        let url = |host: &str| format!("https://{host}{end}");
        let urls: Vec<String> = gate.web_names().map(|name| url(name.as_str())).collect();
        let domain = gate.services.iter().find_map(|service| match &service.server_name {
            ServerNamePattern::Wildcard(domain) => Some(domain),
            ServerNamePattern::Exact(_) | ServerNamePattern::Default => None,
        });
        let example_url = match (urls.first(), domain) {
            (Some(url), _) => url.clone(),
            (None, Some(domain)) => url(&format!("NAME.{domain}")),
            (None, None) => url("NAME"),
        };
        Self {
            device: device.clone(),
            valid_until: OffsetDateTime::from_unix_timestamp(identity.not_after).ok().map(|_| date(identity.not_after)),
            // An imported authority may have any name.
            root: printable(&root.display_name(), ROOT_NAME_MAX),
            root_fingerprint: spaced_hex(&root.fingerprint),
            root_is_constrained: is_constrained(&gate.root),
            ssh_names: gate.ssh_names(),
            urls,
            example_url,
            port: gate.port,
        }
    }

    /// The name of the authority, as it is shown.
    pub(super) fn root(&self) -> &str {
        &self.root
    }

    /// The authority's fingerprint as operating systems show it.
    pub(super) fn root_fingerprint(&self) -> &str {
        &self.root_fingerprint
    }

    /// The page that lies beside the files.
    pub(super) fn page(&self) -> String {
        self.render(Source::Folder, &[])
    }

    /// The page of the link with this path, with the steps for `platforms` first and unfolded.
    pub(super) fn link_page(&self, path: &str, platforms: &[Platform]) -> String {
        self.render(Source::Link(path), platforms)
    }

    fn render(&self, source: Source<'_>, open: &[Platform]) -> String {
        let others = Platform::ALL.iter().filter(|platform| !open.contains(platform));
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="referrer" content="no-referrer";
                    meta http-equiv="Content-Security-Policy" content=(policy());
                    title { "Set up " (self.device) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    h1 { "Set up " (self.device) }
                    p {
                        "The certificate lets this device in through your gate"
                        @if let Some(date) = &self.valid_until { ", until " (date) } "."
                    }
                    p { (self.password(source)) }
                    @for platform in open.iter().chain(others) {
                        (self.section(source, platform.title(), platform.steps(), open.contains(platform)))
                    }
                    // The link has no PEM files.
                    @if let Source::Folder = source {
                        (self.section(source, "curl, ssh and other programs", PROGRAMS, false))
                    }
                    p .quiet.last {
                        (self.authority(source))
                        @if !self.root_is_constrained { br; (unconstrained()) }
                    }
                }
            }
        };
        page.into_string()
    }

    fn section(&self, source: Source<'_>, title: &str, steps: &'static str, open: bool) -> Markup {
        html! {
            details open[open] {
                summary { (title) }
                (fill(steps, |word| self.value(source, word)))
            }
        }
    }

    /// What a word in the texts of the steps is replaced with.
    fn value(&self, source: Source<'_>, word: &str) -> Option<Markup> {
        Some(match word {
            "device" => html! { (self.device) },
            "root" => html! { (self.root) },
            "root_file" => html! { (ROOT_FILE) },
            "android_warning" if self.root_is_constrained => html! {
                "That is true of any authority but this one, which can vouch for your own domain only."
            },
            "android_warning" => unconstrained(),
            // An attacker who can change the page can change a fingerprint in it.
            "compare" => match source {
                Source::Folder => html! { "it must be the one at the end of this page" },
                Source::Link(_) => html! { "it must be the one in the terminal" },
            },
            "archive" => html! { (self.file(Form::Archive)) },
            "certificate" => html! { (self.file(Form::Certificate)) },
            "key" => html! { (self.file(Form::Key)) },
            "get_profile" => self.get(source, Form::Profile),
            "get_archive" => self.get(source, Form::Archive),
            "get_archive_compat" => self.get(source, Form::ArchiveCompat),
            "get_root" => {
                let folder = match source {
                    Source::Folder => String::new(),
                    Source::Link(path) => format!("{path}/"),
                };
                html! { "take " a href={ (folder) (ROOT_FILE) } { (ROOT_FILE) } "." }
            }
            "open" => self.open(),
            "nss" => html! { (self.nss()) },
            "curl" => html! { (self.curl()) },
            "curl_archive" => html! { (self.curl_archive()) },
            "ssh" => html! {
                @if !self.ssh_names.is_empty() {
                    p {
                        b { "ssh, sftp, scp, rsync" } ": append " code { (self.file(Form::SshConfig)) } " to "
                        code { "~/.ssh/config" } ":"
                    }
                    pre { (self.ssh_host()) }
                }
            },
            _ => return None,
        })
    }

    fn password(&self, source: Source<'_>) -> Markup {
        match source {
            Source::Folder => html! {
                "The archives ask for the password that was shown when they were made, and that is stored nowhere. Lost? "
                code { "doorward share " (self.device) } " makes new ones and hands them over."
            },
            Source::Link(_) => html! {
                "You can download one file here, once. It asks for the password that the terminal shows."
            },
        }
    }

    fn authority(&self, source: Source<'_>) -> Markup {
        match source {
            Source::Folder => html! {
                "The authority “" (self.root) "” has this SHA-256 fingerprint. If a device shows another one, do not go on:"
                br; code { (self.root_fingerprint) }
            },
            Source::Link(_) => html! {
                "Before this device trusts “" (self.root) "”, compare the authority’s SHA-256 fingerprint with the one in the \
                 terminal."
            },
        }
    }

    fn get(&self, source: Source<'_>, form: Form) -> Markup {
        let file = self.file(form);
        match source {
            Source::Folder => html! { "Take " a href=(file) { (file) } "." },
            Source::Link(path) => html! {
                form method="post" action={ (path) "/" (file) } { button { "Get " (file) } }
            },
        }
    }

    fn open(&self) -> Markup {
        html! {
            "Open "
            @if self.urls.is_empty() { "the address of your service" }
            @for (index, url) in self.urls.iter().take(URLS_MAX).enumerate() {
                @if index > 0 { ", " }
                a href=(url) { (url) }
            }
            "."
        }
    }

    fn file(&self, form: Form) -> String {
        form.file_name(&self.device)
    }
}

/// The warning about an authority without name constraints, such as mkcert's.
fn unconstrained() -> Markup {
    html! {
        "Anyone who has the key of this authority can pose as any site to a device that trusts it: keep the key safe. "
        code { "doorward ca init" } " makes an authority that can vouch for your own domain only."
    }
}

/// Replaces each `{{word}}` in a text of the program. Only markup can be inserted, in which all other text is escaped. A word
/// without a value stays as it is.
fn fill(template: &'static str, value: impl Fn(&str) -> Option<Markup>) -> Markup {
    let (mut filled, mut rest) = (String::new(), template);
    while let Some((before, (word, after))) =
        rest.split_once("{{").and_then(|(before, rest)| Some((before, rest.split_once("}}")?)))
    {
        filled.push_str(before);
        match value(word) {
            Some(PreEscaped(markup)) => filled.push_str(&markup),
            None => filled.extend(["{{", word, "}}"]),
        }
        rest = after;
    }
    filled.push_str(rest);
    PreEscaped(filled)
}

/// Whether the certificate says that it vouches for certain domains only (RFC 5280 section 4.2.1.10).
fn is_constrained(root: &[u8]) -> bool {
    let Ok((_, root)) = X509Certificate::from_der(root) else { return false };
    let constraints = root.name_constraints().ok().flatten().and_then(|found| found.value.permitted_subtrees.as_ref());
    constraints.is_some_and(|permitted| {
        permitted.iter().any(|tree| matches!(tree.base, GeneralName::DNSName(name) if !name.is_empty()))
    })
}

/// A fingerprint as operating systems show it: `0F 3A …`.
fn spaced_hex(fingerprint: &Sha256) -> String {
    fingerprint.0.map(|byte| format!("{byte:02X}")).join(" ")
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;

    use super::*;
    use crate::ca::{DeviceAuthority, ServerAuthority};
    use crate::enrolment::{Service, ServiceKind};
    use crate::model::names::ServerName;

    const LINK: &str = "/0123456789abcdef0123456789abcdef";

    fn instructions(names: &[&str], port: u16) -> Instructions {
        let domain = ServerName::parse("home.example").expect("a name");
        let root: CertificateDer<'_> =
            ServerAuthority::new(&domain).expect("an authority").authority().certificate().clone();
        let name = Name::parse("alice-phone").expect("a name");
        let device = DeviceAuthority::new().expect("an authority").issue(&name).expect("a device");
        let service = |name: &&str| Service {
            server_name: ServerNamePattern::parse(name).expect("a name"),
            kind: match name.split('.').next() {
                Some("ssh") => ServiceKind::Ssh,
                Some("smb") => ServiceKind::Smb,
                _ => ServiceKind::Http,
            },
        };
        let services = names.iter().map(service).collect();
        let identity = |der: &CertificateDer<'_>| Identity::from_certificate(der, false).expect("a certificate");
        let gate = Gate { root: root.clone(), services, port };
        Instructions::new(&gate, &name, &identity(device.certificate()), &identity(&root))
    }

    #[test]
    fn ssh_section_has_the_ssh_routes_and_no_other() {
        let config = |names: &[&str]| instructions(names, PUBLIC_PORT).ssh_config();
        assert!(config(&["nas.home.example", "ssh.home.example", "*"]).contains("\nHost ssh.home.example\n"));
        for names in [&["nas.home.example", "*.lab.home.example"][..], &["smb.home.example"], &[]] {
            let config = config(names);
            assert!(config.lines().all(|line| line.starts_with('#')), "{config}");
            assert!(config.contains("kind = \"ssh\"") && config.contains("doorward ca renew alice-phone"), "{config}");
            assert!(!instructions(names, PUBLIC_PORT).page().contains("ProxyCommand"));
        }
        let urls = instructions(&["nas.home.example", "ssh.home.example", "smb.home.example"], PUBLIC_PORT).urls;
        assert_eq!(urls, ["https://nas.home.example/"]);
    }

    #[test]
    fn both_pages_are_complete_and_have_the_real_names() {
        let instructions =
            instructions(&["nas.home.example", "ssh.home.example", "*.lab.home.example", "*"], PUBLIC_PORT);
        let (folder, link) = (instructions.page(), instructions.link_page(LINK, &[Platform::Android]));
        for page in [&folder, &link] {
            assert!(!page.contains("{{") && !page.contains("}}"), "{page}");
            for needed in
                ["<title>Set up alice-phone</title>", "“Doorward home.example ", "https://nas.home.example/\""]
            {
                assert!(page.contains(needed), "{needed} is missing in\n{page}");
            }
            for platform in Platform::ALL {
                assert!(page.contains(&format!("<summary>{}</summary>", platform.title())), "{platform:?}");
            }
        }
        for file in ["alice-phone.p12", "alice-phone-compat.p12", "alice-phone.mobileconfig", "server-ca.crt"] {
            assert!(folder.contains(&format!("<a href=\"{file}\">{file}</a>")), "{folder}");
        }
        assert!(folder.contains(&instructions.root_fingerprint) && instructions.root_fingerprint.len() == 3 * 32 - 1);
        assert!(!link.contains(&instructions.root_fingerprint), "an attacker could change it with the page");
        assert!(folder.contains("doorward share alice-phone") && !folder.contains("<form"), "{folder}");
        for file in ["alice-phone.p12", "alice-phone-compat.p12", "alice-phone.mobileconfig"] {
            assert!(link.contains(&format!("<form method=\"post\" action=\"{LINK}/{file}\">")), "{link}");
        }
        assert!(link.contains(&format!("<a href=\"{LINK}/server-ca.crt\">")), "{link}");
        assert!(!link.contains("ProxyCommand") && !link.contains("alice-phone-key.pem"), "no PEM behind a link");
    }

    #[test]
    fn steps_for_the_browsers_platform_are_first_and_unfolded() {
        let instructions = instructions(&["nas.home.example"], PUBLIC_PORT);
        for (user_agent, first, opened) in [
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Safari/604.1",
                "iPhone, iPad",
                1,
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/17.5 Safari/605.1.15",
                "Mac",
                2,
            ),
            (
                "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 Chrome/126.0.0.0 Mobile Safari/537.36",
                "Android",
                1,
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/126.0.0.0 Safari/537.36",
                "Windows",
                1,
            ),
            ("Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0", "Linux, Firefox", 1),
            ("curl/7.88.1", "iPhone, iPad", 0),
            ("", "iPhone, iPad", 0),
        ] {
            let page = instructions.link_page(LINK, Platform::of_user_agent(user_agent));
            let (_, summary) = page.split_once("<summary>").expect("sections");
            assert!(summary.starts_with(&format!("{first}</summary>")), "{user_agent}: {summary}");
            assert_eq!(page.matches("<details open>").count(), opened, "{user_agent}");
            assert_eq!(page.matches("<details").count(), Platform::ALL.len());
        }
    }

    #[test]
    fn ssh_config_applies_to_the_gates_names_only() {
        let config = instructions(&["ssh.home.example", "nas.home.example", "*"], 8443).ssh_config();
        assert!(config.contains("\nHost ssh.home.example\n"), "{config}");
        assert!(config.contains(" -connect %h:8443 "), "{config}");
        let none = instructions(&["*"], PUBLIC_PORT).ssh_config();
        assert!(none.lines().all(|line| line.starts_with('#')), "{none}");
    }

    #[test]
    fn urls_have_a_port_only_if_it_is_not_443() {
        assert!(instructions(&["nas.home.example"], 443).curl().ends_with(" https://nas.home.example/"));
        assert!(instructions(&["nas.home.example"], 8443).curl().ends_with(" https://nas.home.example:8443/"));
        assert!(instructions(&["*.home.example"], 443).curl().ends_with(" https://NAME.home.example/"));
    }

    #[test]
    fn filled_text_is_escaped_and_unknown_words_stay() {
        let value = |word: &str| (word == "name").then(|| html! { "<" (word) ">{{x}}'" });
        let filled = fill("<p>{{name}} {{other}}</p>{{", value).into_string();
        assert_eq!(filled, "<p>&lt;name&gt;{{x}}' {{other}}</p>{{");
    }
}
