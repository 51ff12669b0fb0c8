//! What to do with the files, for each kind of device: one text for the page beside them and for the page of the link.

mod commands;
mod page;
mod platform;
mod words;

use maud::{Markup, PreEscaped};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Form, Gate, PUBLIC_PORT};
use crate::http::Policy;
use crate::model::device_name::DeviceName;
use crate::model::identity::{Identity, NotACertificate, Sha256};
use crate::model::names::{ServerNamePattern, printable};
use crate::model::text::date;

use page::{Page, Source};
pub(super) use platform::Platform;
pub(super) use words::{Language, Words};

/// How pages look: the text between `<style>` and `</style>`.
pub(super) const STYLE: &str = include_str!("page.css");

/// The longest name of an authority that is shown, in characters.
const ROOT_NAME_MAX: usize = 128;

/// How many addresses are linked.
const URLS_MAX: usize = 8;

/// What a browser may do with a page (Content Security Policy): apply its style and send its own forms.
pub(super) fn policy() -> String {
    let style = Policy::hash_source(STYLE);
    format!("default-src 'none'; style-src {style}; form-action 'self'; base-uri 'none'")
}

/// The authority that a device must trust first, as it is shown.
struct Root {
    name: String,
    fingerprint: String,
    is_constrained: bool,
}

impl Root {
    fn new(certificate: &CertificateDer<'_>) -> Result<Self, NotACertificate> {
        let identity = Identity::from_certificate(certificate, false)?;
        Ok(Self {
            // An imported authority may have any name.
            name: printable(&identity.display_name(), ROOT_NAME_MAX),
            fingerprint: spaced_hex(&identity.fingerprint),
            is_constrained: is_constrained(certificate),
        })
    }
}

/// The instructions for one device, with the owner's own names in them.
pub(super) struct Instructions {
    device: DeviceName,
    valid_until: Option<String>,
    root: Option<Root>,
    ssh_names: Vec<ServerNamePattern>,
    urls: Vec<String>,
    example_url: String,
    port: u16,
    has_bundle: bool,
}

impl Instructions {
    /// `has_bundle`: whether there is a file of the form [`Form::Bundle`].
    pub(super) fn new(
        gate: &Gate,
        device: &DeviceName,
        identity: &Identity,
        has_bundle: bool,
    ) -> Result<Self, NotACertificate> {
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
        Ok(Self {
            device: device.clone(),
            valid_until: OffsetDateTime::from_unix_timestamp(identity.not_after).ok().map(|_| date(identity.not_after)),
            root: gate.root().map(Root::new).transpose()?,
            ssh_names: gate.ssh_names(),
            urls,
            example_url,
            port: gate.port,
            has_bundle,
        })
    }

    /// The authority that the device must trust first: its name as it is shown, and its fingerprint as operating systems show it.
    pub(super) fn root(&self) -> Option<(&str, &str)> {
        self.root.as_ref().map(|root| (root.name.as_str(), root.fingerprint.as_str()))
    }

    /// The page that lies beside the files, in every language: who will read it is not known, and no server is asked for it.
    pub(super) fn page(&self) -> String {
        page::of_folder(self)
    }

    /// The page of the link with this path, with the steps for `platforms` first and unfolded.
    pub(super) fn link_page(&self, path: &str, platforms: &[Platform], language: Language) -> String {
        let words = language.words();
        Page { instructions: self, source: Source::Link(path), words }.render(platforms)
    }

    fn file(&self, form: Form) -> String {
        form.file_name(&self.device)
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
    use maud::html;

    use super::*;
    use crate::ca::{DeviceAuthority, ServerAuthority};
    use crate::enrolment::{ServerTrust, Service, ServiceKind};
    use crate::model::names::{Name, ServerName};

    const LINK: &str = "/0123456789abcdef0123456789abcdef";

    fn instructions(names: &[&str], port: u16) -> Instructions {
        let domain = ServerName::parse("home.example").expect("a name");
        let servers = ServerAuthority::new(&domain).expect("an authority");
        instructions_with(ServerTrust::OwnAuthority(servers.authority().certificate().clone()), names, port)
    }

    fn instructions_with(trust: ServerTrust, names: &[&str], port: u16) -> Instructions {
        let name = DeviceName::parse("alice-phone").expect("a name");
        let device = DeviceAuthority::new().expect("an authority").issue(&name).expect("a device");
        let service = |name: &&str| Service {
            route: Name::parse("route").expect("a name"),
            server_name: ServerNamePattern::parse(name).expect("a name"),
            kind: match name.split('.').next() {
                Some("ssh") => ServiceKind::Ssh,
                Some("smb") => ServiceKind::Smb,
                _ => ServiceKind::Http,
            },
            admitted: true,
        };
        let services = names.iter().map(service).collect();
        let identity = Identity::from_certificate(device.certificate(), false).expect("a certificate");
        let gate = Gate { trust, services, port, home: None, renewal: None };
        Instructions::new(&gate, &name, &identity, true).expect("instructions")
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
        let (folder, link) =
            (instructions.page(), instructions.link_page(LINK, &[Platform::Android], Language::English));
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
        let (_, fingerprint) = instructions.root().expect("a root");
        assert!(folder.contains(fingerprint) && fingerprint.len() == 3 * 32 - 1);
        assert!(!link.contains(fingerprint), "an attacker could change it with the page");
        assert!(folder.contains("doorward share alice-phone") && !folder.contains("<form"), "{folder}");
        for file in ["alice-phone.p12", "alice-phone-compat.p12", "alice-phone.mobileconfig"] {
            assert!(link.contains(&format!("<form method=\"post\" action=\"{LINK}/{file}\">")), "{link}");
        }
        assert!(link.contains(&format!("<a href=\"{LINK}/server-ca.crt\">")), "{link}");
        assert!(!link.contains("ProxyCommand") && !link.contains("alice-phone-key.pem"), "no PEM behind a link");
    }

    #[test]
    fn public_certificate_leaves_every_step_of_trust_out() {
        let names = ["nas.home.example", "ssh.home.example"];
        let instructions = instructions_with(ServerTrust::Public, &names, PUBLIC_PORT);
        assert_eq!(instructions.root(), None);
        let link = |language| instructions.link_page(LINK, &[Platform::Iphone], language);
        let pages = [instructions.page(), link(Language::English), link(Language::German), link(Language::Chinese)];
        for text in pages.iter().chain([&instructions.ssh_config(), &instructions.curl(), &instructions.nss()]) {
            for left_out in [
                "server-ca",
                "{{",
                "-CAfile",
                "--cacert",
                "certutil",
                "ingerprint",
                "ingerabdruck",
                "指纹",
                "Certificate Trust Settings",
                "CA certificate",
                "CA-Zertifikat",
                "CA 证书",
                "Keychain",
                "Doorward home.example",
            ] {
                assert!(!text.contains(left_out), "{left_out} in {text}");
            }
        }
        for page in &pages {
            assert_eq!(page.matches("https://nas.home.example/\"").count() % Platform::ALL.len(), 0, "{page}");
            assert!(page.contains("alice-phone.mobileconfig") && page.contains("alice-phone-compat.p12"), "{page}");
        }
        assert!(pages[1].matches("<form").count() == 6 && pages[1].contains("password"), "{}", pages[1]);
        let ssh = instructions.ssh_config();
        assert!(ssh.contains("#   alice-phone.pem alice-phone-key.pem\n"), "{ssh}");
        assert!(
            ssh.contains(" -verify_return_error ") && ssh.contains(":443 -cert ~/doorward/alice-phone.pem"),
            "{ssh}"
        );
    }

    #[test]
    fn page_beside_the_files_has_every_language() {
        let page = instructions(&["nas.home.example", "ssh.home.example"], PUBLIC_PORT).page();
        assert!(!page.contains("{{") && page.starts_with("<!DOCTYPE html><html lang=\"en\">"), "{page}");
        for (id, lang, name, heading, programs) in [
            ("en", "en", "English", "Set up alice-phone", "curl, ssh and other programs"),
            ("de", "de", "Deutsch", "alice-phone einrichten", "curl, ssh und andere Programme"),
            ("zh", "zh-Hans", "中文", "设置 alice-phone", "curl、ssh"),
        ] {
            assert!(
                page.contains(&format!("<a href=\"#{id}\" lang=\"{lang}\" hreflang=\"{lang}\">{name}</a>")),
                "{page}"
            );
            let begin = format!("<section class=\"language\" id=\"{id}\" lang=\"{lang}\"><h1>{heading}</h1>");
            let (_, section) = page.split_once(&begin).unwrap_or_else(|| panic!("{begin} is missing in {page}"));
            let (section, _) = section.split_once("</section>").expect("an end");
            assert!(section.contains(&format!("<summary>{programs}")), "{section}");
            assert_eq!(section.matches("<details").count(), Platform::ALL.len() + 1, "{section}");
            for file in ["alice-phone.p12", "alice-phone.mobileconfig", "server-ca.crt"] {
                assert!(section.contains(&format!("<a href=\"{file}\">{file}</a>")), "{file} in {section}");
            }
        }
    }

    #[test]
    fn link_page_is_complete_in_each_language() {
        let instructions = instructions(&["nas.home.example"], PUBLIC_PORT);
        for (header, lang, heading, button) in [
            ("en", "en", "Set up alice-phone", "Get alice-phone.p12"),
            ("de-DE,en;q=0.5", "de", "alice-phone einrichten", "alice-phone.p12 laden"),
            ("zh-CN", "zh-Hans", "设置 alice-phone", "下载 alice-phone.p12"),
        ] {
            let page = instructions.link_page(LINK, &[], Language::of_accept_language(header));
            assert!(page.contains(&format!("<html lang=\"{lang}\">")), "{page}");
            assert!(page.contains(&format!("<title>{heading}</title>")), "{page}");
            assert!(page.contains(&format!("<h1>{heading}</h1>")), "{page}");
            assert!(page.contains(&format!("<button>{button}</button>")), "{page}");
            assert!(!page.contains("{{") && page.matches("<form").count() == 6, "{page}");
            assert_eq!(page.matches("https://nas.home.example/\"").count(), Platform::ALL.len(), "{page}");
        }
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
            let page = instructions.link_page(LINK, Platform::of_user_agent(user_agent), Language::English);
            let (_, summary) = page.split_once("<summary>").expect("sections");
            assert!(summary.starts_with(&format!("{first}</summary>")), "{user_agent}: {summary}");
            assert_eq!(page.matches("<details open>").count(), opened, "{user_agent}");
            assert_eq!(page.matches("<details").count(), Platform::ALL.len() + 1, "and those for other programs");
        }
    }

    #[test]
    fn ssh_config_applies_to_the_gates_names_only() {
        let config = instructions(&["ssh.home.example", "nas.home.example", "*"], 8443).ssh_config();
        // A Mac's own openssl ends at two of its options.
        assert!(config.contains("LibreSSL") && config.contains("doorward join"), "{config}");
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
