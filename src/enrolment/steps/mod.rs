//! What to do with the files, for each kind of device: one text for the page beside them and for the page behind a link.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Form, Gate, PUBLIC_PORT, ROOT_FILE};
use crate::html::Html;
use crate::model::identity::{Identity, Sha256};
use crate::model::names::{Name, ServerNamePattern, printable};

const PAGE: &str = include_str!("page.html");
/// How pages look: what stands between `<style>` and `</style>`.
pub(super) const STYLE: &str = include_str!("page.css");
const PROGRAMS: &str = include_str!("programs.html");

/// The most that is shown of the authority's name, in characters.
const ROOT_NAME_MAX: usize = 128;

/// How many addresses are offered to be opened.
const OFFERED: usize = 8;

/// What a page may do (Content Security Policy): look as it does, and send its own forms.
pub(super) fn policy() -> String {
    let style = STANDARD.encode(Sha256::of(STYLE.as_bytes()).0);
    format!("default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; base-uri 'none'")
}

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Platform {
    Iphone,
    Mac,
    Android,
    Windows,
    Linux,
}

impl Platform {
    const ALL: [Self; 5] = [Self::Iphone, Self::Android, Self::Mac, Self::Windows, Self::Linux];

    const fn title(self) -> &'static str {
        match self {
            Self::Iphone => "iPhone, iPad",
            Self::Mac => "Mac",
            Self::Android => "Android",
            Self::Windows => "Windows",
            Self::Linux => "Linux, Firefox",
        }
    }

    const fn steps(self) -> &'static str {
        match self {
            Self::Iphone => include_str!("iphone.html"),
            Self::Mac => include_str!("mac.html"),
            Self::Android => include_str!("android.html"),
            Self::Windows => include_str!("windows.html"),
            Self::Linux => include_str!("linux.html"),
        }
    }

    /// Those that a browser which calls itself so may be running on. An iPad says that it is a Mac.
    pub(super) fn of_user_agent(user_agent: &str) -> &'static [Self] {
        let says = |word: &str| user_agent.contains(word);
        if says("iPhone") || says("iPad") || says("iPod") {
            &[Self::Iphone]
        } else if says("Macintosh") {
            &[Self::Mac, Self::Iphone]
        } else if says("Android") {
            &[Self::Android]
        } else if says("Windows") {
            &[Self::Windows]
        } else if says("Linux") || says("X11") {
            &[Self::Linux]
        } else {
            &[]
        }
    }
}

/// Where the files are to be had.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// In the folder of the page.
    Folder,
    /// At the one-time link whose path this is.
    Link(&'a str),
}

/// The owner's own names, and what else the texts are filled with.
pub(super) struct Facts {
    device: Name,
    until: Option<String>,
    root: String,
    root_fingerprint: String,
    /// Whether it says of itself that it vouches for certain domains only (RFC 5280 section 4.2.1.10).
    root_limited: bool,
    server_names: Vec<ServerNamePattern>,
    urls: Vec<String>,
    example_url: String,
    port: u16,
}

impl Facts {
    pub(super) fn new(gate: &Gate, device: &Name, identity: &Identity, root: &Identity) -> Self {
        let end = if gate.port == PUBLIC_PORT { "/".to_owned() } else { format!(":{}/", gate.port) };
        let url = |host: &str| format!("https://{host}{end}");
        let urls: Vec<String> = gate.exact_names().map(|name| url(name.as_str())).collect();
        let domain = gate.server_names.iter().find_map(|pattern| match pattern {
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
            until: OffsetDateTime::from_unix_timestamp(identity.not_after).ok().map(|at| at.date().to_string()),
            // Somebody else's authority is called as somebody else pleased.
            root: printable(&root.display_name(), ROOT_NAME_MAX),
            root_fingerprint: pairs(&root.fingerprint),
            root_limited: is_limited(&gate.root),
            server_names: gate.server_names.clone(),
            urls,
            example_url,
            port: gate.port,
        }
    }

    /// What people read of the root.
    pub(super) fn root(&self) -> &str {
        &self.root
    }

    /// The root's fingerprint as systems show it.
    pub(super) fn root_fingerprint(&self) -> &str {
        &self.root_fingerprint
    }

    /// The page that lies beside the files.
    pub(super) fn page(&self) -> String {
        self.render(Source::Folder, &[])
    }

    /// The page behind the link with this path, with the steps for `platforms` unfolded and first.
    pub(super) fn link_page(&self, path: &str, platforms: &[Platform]) -> String {
        self.render(Source::Link(path), platforms)
    }

    fn render(&self, source: Source<'_>, open: &[Platform]) -> String {
        let mut html = Html::default();
        html.template(PAGE, |html, word| match word {
            "sections" => {
                let others = Platform::ALL.iter().filter(|platform| !open.contains(platform));
                for platform in open.iter().chain(others) {
                    let opened = open.contains(platform);
                    self.section(html, source, platform.title(), platform.steps(), opened);
                }
                // The link has no PEM: that is for those who have the files.
                if matches!(source, Source::Folder) {
                    self.section(html, source, "curl, ssh and other programs", PROGRAMS, false);
                }
            }
            "style" => {
                html.raw(STYLE);
            }
            "policy" => {
                html.text(policy());
            }
            word => self.insert(html, source, word),
        });
        html.finish()
    }

    fn section(&self, html: &mut Html, source: Source<'_>, title: &'static str, steps: &'static str, open: bool) {
        html.raw(if open { "<details open><summary>" } else { "<details><summary>" }).raw(title).raw("</summary>\n");
        html.template(steps, |html, word| self.insert(html, source, word)).raw("</details>\n");
    }

    /// What stands for `word` in the texts.
    fn insert(&self, html: &mut Html, source: Source<'_>, word: &str) {
        match word {
            "device" => html.text(&self.device),
            "root" => html.text(&self.root),
            "root_file" => html.text(ROOT_FILE),
            "android_warning" => html.raw(if self.root_limited {
                "That is true of any authority but this one, which can vouch for your own domain only."
            } else {
                UNLIMITED
            }),
            // Who could change the page could change what it says here, too.
            "compare" => html.raw(match source {
                Source::Folder => "it must be the one at the end of this page",
                Source::Link(_) => "it must be the one in the terminal",
            }),
            "authority" => {
                self.authority(html, source);
                if self.root_limited { html } else { html.raw("<br>\n").raw(UNLIMITED) }
            }
            "archive" => html.text(self.file(Form::Archive)),
            "certificate" => html.text(self.file(Form::Certificate)),
            "key" => html.text(self.file(Form::Key)),
            "until" => match &self.until {
                Some(date) => html.raw(", until ").text(date),
                None => html,
            },
            "password" => match source {
                Source::Folder => html
                    .raw("The archives ask for the password that was shown when they were made, and that is stored nowhere. Lost? <code>")
                    .text(format_args!("{SHARE} {}", self.device))
                    .raw("</code> makes new ones and hands them over."),
                Source::Link(_) => html.raw("What you get here works once, and asks for the password that stands in the terminal."),
            },
            "get_profile" => self.get(html, source, Form::Profile),
            "get_archive" => self.get(html, source, Form::Archive),
            "get_archive_compat" => self.get(html, source, Form::ArchiveCompat),
            "get_root" => {
                let path = match source {
                    Source::Folder => Cow::Borrowed(""),
                    Source::Link(path) => Cow::Owned(format!("{path}/")),
                };
                let link = format!("{path}{ROOT_FILE}");
                html.raw("take <a href=\"").text(link).raw("\">").text(ROOT_FILE).raw("</a>.")
            }
            "open" => self.open(html),
            "nss" => html.text(self.nss()),
            "curl" => html.text(self.curl()),
            "curl_archive" => html.text(self.curl_archive()),
            "ssh" if self.ssh_hosts().next().is_some() => html
                .raw("<p><b>ssh, sftp, scp, rsync</b>: append <code>")
                .text(self.file(Form::SshConfig))
                .raw("</code> to <code>~/.ssh/config</code>:</p>\n<pre>")
                .text(self.ssh_host())
                .raw("</pre>"),
            _ => html,
        };
    }

    fn authority<'a>(&self, html: &'a mut Html, source: Source<'_>) -> &'a mut Html {
        match source {
            Source::Folder => html
                .raw("The authority “")
                .text(&self.root)
                .raw("” has this SHA-256 fingerprint. Where a device shows another one, do not go on:<br>\n<code>")
                .text(&self.root_fingerprint)
                .raw("</code>"),
            Source::Link(_) => html
                .raw("Before this device trusts “")
                .text(&self.root)
                .raw("”, compare the authority’s SHA-256 fingerprint with the one in the terminal."),
        }
    }

    fn get<'a>(&self, html: &'a mut Html, source: Source<'_>, form: Form) -> &'a mut Html {
        let file = self.file(form);
        match source {
            Source::Folder => html.raw("Take <a href=\"").text(&file).raw("\">").text(&file).raw("</a>."),
            Source::Link(path) => html
                .raw("<form method=\"post\" action=\"")
                .text(format_args!("{path}/{file}"))
                .raw("\"><button>Get ")
                .text(&file)
                .raw("</button></form>"),
        }
    }

    fn open<'a>(&self, html: &'a mut Html) -> &'a mut Html {
        html.raw("Open ");
        if self.urls.is_empty() {
            return html.raw("what is behind the gate.");
        }
        for (index, url) in self.urls.iter().take(OFFERED).enumerate() {
            html.raw(if index > 0 { ", " } else { "" });
            html.raw("<a href=\"").text(url).raw("\">").text(url).raw("</a>");
        }
        html.raw(".")
    }

    fn file(&self, form: Form) -> String {
        form.file_name(&self.device)
    }

    /// The commands for the store that Chromium reads on Linux.
    fn nss(&self) -> String {
        let archive = self.file(Form::Archive);
        format!(
            "pk12util -d sql:$HOME/.pki/nssdb -i {}\ncertutil -d sql:$HOME/.pki/nssdb -A -t C,, -n doorward -i {}",
            word(&archive),
            word(ROOT_FILE)
        )
    }

    fn curl(&self) -> String {
        let [certificate, key] = [Form::Certificate, Form::Key].map(|form| self.file(form));
        format!(
            "curl --cacert {} --cert {} --key {} {}",
            word(ROOT_FILE),
            word(&certificate),
            word(&key),
            word(&self.example_url)
        )
    }

    fn curl_archive(&self) -> String {
        let archive = format!("{}:PASSWORD", self.file(Form::Archive));
        format!(
            "curl --cacert {} --cert-type P12 --cert {} {}",
            word(ROOT_FILE),
            word(&archive),
            word(&self.example_url)
        )
    }

    /// What may stand behind `Host`. A pattern for everything would send all of somebody's ssh through the gate.
    fn ssh_hosts(&self) -> impl Iterator<Item = &ServerNamePattern> {
        self.server_names.iter().filter(|pattern| **pattern != ServerNamePattern::Default)
    }

    /// The part of `~/.ssh/config`. Why each option is there, the README says.
    fn ssh_host(&self) -> String {
        let hosts: Vec<String> = self.ssh_hosts().map(ToString::to_string).collect();
        format!(
            "Host {}\n  ProxyCommand openssl s_client -quiet -verify_quiet -verify_return_error -verify_hostname %h \
             -servername %h -connect %h:{} -CAfile ~/doorward/{ROOT_FILE} -cert ~/doorward/{} -key ~/doorward/{}\n",
            hosts.join(" "),
            self.port,
            word(&self.file(Form::Certificate)),
            word(&self.file(Form::Key)),
        )
    }

    /// The same with a word on how to use it.
    pub(super) fn ssh_config(&self) -> String {
        let mut out = format!("# OpenSSH on {}. Append this to ~/.ssh/config, and put into ~/doorward:\n", self.device);
        let [certificate, key] = [Form::Certificate, Form::Key].map(|form| self.file(form));
        let _ = writeln!(out, "#   {ROOT_FILE} {certificate} {key}");
        if self.ssh_hosts().next().is_some() {
            out.push_str(&self.ssh_host());
        }
        out
    }
}

/// The command that makes new archives and hands them over.
const SHARE: &str = "doorward share";

/// What there is to know about an authority as mkcert's.
const UNLIMITED: &str = "Whoever has the key of this authority can pose as any site to a device that trusts it: keep the key \
                         safe. One that can vouch for your own domain only is made by <code>doorward ca init</code>.";

fn is_limited(root: &[u8]) -> bool {
    let Ok((_, root)) = X509Certificate::from_der(root) else { return false };
    let constraints = root.name_constraints().ok().flatten().and_then(|found| found.value.permitted_subtrees.as_ref());
    constraints.is_some_and(|permitted| {
        permitted.iter().any(|tree| matches!(tree.base, GeneralName::DNSName(name) if !name.is_empty()))
    })
}

/// `0f 3a …`, as systems show fingerprints.
fn pairs(fingerprint: &Sha256) -> String {
    fingerprint.0.map(|byte| format!("{byte:02X}")).join(" ")
}

/// `text` as one word of a shell's command line. Names need no quotes by their grammar; should it ever allow more, a
/// command line still says nothing else.
pub(crate) fn word(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '/' | '%' | '+' | ',' | '@');
    if !text.is_empty() && text.chars().all(plain) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("'{}'", text.replace('\'', "'\\''")))
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;

    use super::*;
    use crate::ca::{DeviceAuthority, ServerAuthority};
    use crate::model::names::ServerName;

    const LINK: &str = "/0123456789abcdef0123456789abcdef";

    fn facts(names: &[&str], port: u16) -> Facts {
        let domain = ServerName::parse("home.example").expect("a name");
        let root: CertificateDer<'_> =
            ServerAuthority::new(&domain).expect("an authority").authority().certificate().clone();
        let name = Name::parse("alice-phone").expect("a name");
        let device = DeviceAuthority::new().expect("an authority").issue(&name).expect("a device");
        let server_names = names.iter().map(|name| ServerNamePattern::parse(name).expect("a name")).collect();
        let identity = |der: &CertificateDer<'_>| Identity::from_certificate(der, false).expect("a certificate");
        let gate = Gate { root: root.clone(), server_names, port };
        Facts::new(&gate, &name, &identity(device.certificate()), &identity(&root))
    }

    #[test]
    fn both_pages_are_filled_whole_and_say_the_real_names() {
        let facts = facts(&["nas.home.example", "ssh.home.example", "*.lab.home.example", "*"], PUBLIC_PORT);
        let (folder, link) = (facts.page(), facts.link_page(LINK, &[Platform::Android]));
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
        assert!(folder.contains(&facts.root_fingerprint) && facts.root_fingerprint.len() == 3 * 32 - 1);
        assert!(!link.contains(&facts.root_fingerprint), "whoever tampers with the page would write his own");
        assert!(folder.contains("doorward share alice-phone") && !folder.contains("<form"), "{folder}");
        for file in ["alice-phone.p12", "alice-phone-compat.p12", "alice-phone.mobileconfig"] {
            assert!(link.contains(&format!("<form method=\"post\" action=\"{LINK}/{file}\">")), "{link}");
        }
        assert!(link.contains(&format!("<a href=\"{LINK}/server-ca.crt\">")), "{link}");
        assert!(!link.contains("ProxyCommand") && !link.contains("alice-phone-key.pem"), "no PEM behind a link");
    }

    #[test]
    fn the_steps_for_who_asks_come_first_and_unfolded() {
        let facts = facts(&["nas.home.example"], PUBLIC_PORT);
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
            let page = facts.link_page(LINK, Platform::of_user_agent(user_agent));
            let (_, summary) = page.split_once("<summary>").expect("sections");
            assert!(summary.starts_with(&format!("{first}</summary>")), "{user_agent}: {summary}");
            assert_eq!(page.matches("<details open>").count(), opened, "{user_agent}");
            assert_eq!(page.matches("<details").count(), Platform::ALL.len());
        }
    }

    #[test]
    fn ssh_goes_through_the_gate_for_its_names_and_no_others() {
        let config = facts(&["nas.home.example", "*.lab.home.example", "*"], 8443).ssh_config();
        assert!(config.contains("\nHost nas.home.example *.lab.home.example\n"), "{config}");
        assert!(config.contains(" -connect %h:8443 "), "{config}");
        let none = facts(&["*"], PUBLIC_PORT).ssh_config();
        assert!(none.lines().all(|line| line.starts_with('#')), "{none}");
    }

    #[test]
    fn addresses_say_a_port_only_if_they_must() {
        assert!(facts(&["nas.home.example"], 443).curl().ends_with(" https://nas.home.example/"));
        assert!(facts(&["nas.home.example"], 8443).curl().ends_with(" https://nas.home.example:8443/"));
        assert!(facts(&["*.home.example"], 443).curl().ends_with(" https://NAME.home.example/"));
    }

    #[test]
    fn a_word_stays_one_word() {
        for text in ["alice-phone.p12", "a b", "$(reboot)", "a'; reboot; '", "", "`x`", "a\nb", "*", "~", "-x"] {
            let output = std::process::Command::new("sh").args(["-c", &format!("printf '%s' {}", word(text))]).output();
            let output = output.expect("a shell");
            assert_eq!(String::from_utf8_lossy(&output.stdout), text, "{}", word(text));
        }
        assert_eq!(word("alice-phone.p12"), "alice-phone.p12");
    }
}
