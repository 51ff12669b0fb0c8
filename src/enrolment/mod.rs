//! How a device gets its certificate: all files that it can be set up with, and a link that hands them over once.
//!
//! [`Kit`] is what one device needs: archives for browsers and phones, a profile for Apple's systems, PEM files and a
//! section for ssh, and a page that says what to do with them, with the owner's own names in it. [`link::Link`] hands one
//! of the archives to a phone that scans the QR code that [`qr::terminal`] draws.
//!
//! The password of the archives is neither in a file nor in the link: a file that leaks is worthless.

mod bundle;
pub mod link;
mod profile;
pub mod qr;
mod steps;

use std::fmt;
use std::path::Path;

use pem::{EncodeConfig, LineEnding, Pem};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::bundle::EXTENSION;
use crate::files::{Access, NewFile};
use crate::model::device_name::DeviceName;
use crate::model::identity::{Identity, NotACertificate};
use crate::model::names::{Name, ServerName, ServerNamePattern};
pub use crate::model::service::{PUBLIC_PORT, ServiceKind};
use crate::pki::{self, Password, Profile};
pub use bundle::{bundle_without_key, home_of};
use steps::Instructions;

/// The file with the certificate of the server authority. It is PEM, which every reader takes; Windows and Android go by the
/// extension.
pub const ROOT_FILE: &str = "server-ca.crt";

/// Why devices trust the gate's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerTrust {
    /// The owner's own authority vouches for it: each device must trust this certificate first.
    OwnAuthority(CertificateDer<'static>),
    /// A public authority does, which devices trust already.
    Public,
}

/// The gate, as a device sees it.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Why the device trusts its certificate.
    pub trust: ServerTrust,
    /// What can be reached through it.
    pub services: Vec<Service>,
    /// The port that the router forwards: [`PUBLIC_PORT`], as a rule.
    pub port: u16,
    /// What the home is called, if that is known: its domain.
    pub home: Option<ServerName>,
    /// The server name under which it renews certificates, if it does.
    pub renewal: Option<ServerName>,
}

/// What can be reached through the gate, and how: what the gate's configuration says about it.
#[derive(Clone, Debug)]
pub struct Reachable {
    /// The services, as far as they are known.
    pub services: Vec<Service>,
    /// The port that the router forwards.
    pub port: u16,
    /// Whether devices trust the gate's certificate already; `None` if there is no valid configuration.
    pub trusted_already: Option<bool>,
    /// What the home is called, if that is known: see [`home_of`].
    pub home: Option<ServerName>,
    /// The server name under which the gate renews certificates, if it does.
    pub renewal: Option<ServerName>,
}

impl Default for Reachable {
    fn default() -> Self {
        Self { services: Vec::new(), port: PUBLIC_PORT, trusted_already: None, home: None, renewal: None }
    }
}

impl Reachable {
    /// Whether a public authority vouches for the gate. The configuration says it; without one, it is so if the owner has no
    /// authority for servers (`has_authority`), which every folder has but one for a public certificate.
    pub fn is_public(&self, has_authority: bool) -> bool {
        self.trusted_already.unwrap_or(!has_authority)
    }
}

/// A service behind the gate, as a device sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The route in the gate's configuration.
    pub route: Name,
    /// The server name that leads to it.
    pub server_name: ServerNamePattern,
    /// Which program uses it.
    pub kind: ServiceKind,
    /// Whether the route admits the device. The page also names services that do not admit it yet, if none does; the file for
    /// `doorward join` names only those that do.
    pub admitted: bool,
}

impl Gate {
    /// The gate, whose certificate devices trust for this reason.
    pub fn new(trust: ServerTrust, Reachable { services, port, home, renewal, .. }: Reachable) -> Self {
        Self { trust, services, port, home, renewal }
    }

    /// The certificate of the authority that each device must trust first, if there is one.
    pub fn root(&self) -> Option<&CertificateDer<'static>> {
        match &self.trust {
            ServerTrust::OwnAuthority(root) => Some(root),
            ServerTrust::Public => None,
        }
    }

    /// The names that a browser can open as they are.
    fn web_names(&self) -> impl Iterator<Item = &ServerName> {
        self.services.iter().filter(|service| service.kind == ServiceKind::Http).filter_map(|service| {
            match &service.server_name {
                ServerNamePattern::Exact(name) => Some(name),
                ServerNamePattern::Wildcard(_) | ServerNamePattern::Default => None,
            }
        })
    }

    /// The names that ssh connects to. The pattern for every name is left out: all ssh connections would go through the gate.
    fn ssh_names(&self) -> Vec<ServerNamePattern> {
        let ssh = self.services.iter().filter(|service| service.kind == ServiceKind::Ssh);
        ssh.map(|service| service.server_name.clone()).filter(|name| *name != ServerNamePattern::Default).collect()
    }

    /// The root as PEM: the contents of [`ROOT_FILE`].
    pub fn root_pem(&self) -> Option<String> {
        self.root().map(|root| pem("CERTIFICATE", root))
    }
}

/// A device that is to be set up.
#[derive(Debug)]
pub struct Device {
    /// Its name.
    pub name: DeviceName,
    /// Its certificate.
    pub certificate: CertificateDer<'static>,
    /// Its key (PKCS#8).
    pub key: PrivateKeyDer<'static>,
}

/// The forms of the files that a device can be set up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// PKCS#12, as current systems read it ([`Profile::Modern`]).
    Archive,
    /// PKCS#12, as older systems and phones read it ([`Profile::Compat`]).
    ArchiveCompat,
    /// A configuration profile for iOS, iPadOS and macOS.
    Profile,
    /// PEM.
    Certificate,
    /// PEM (PKCS#8), not encrypted.
    Key,
    /// What `doorward join` takes, if it is known what the device may use.
    Bundle,
    /// A section of `~/.ssh/config`.
    SshConfig,
    /// The page that says what to do with the others.
    Steps,
}

impl Form {
    /// All of them, in the order in which they are written.
    pub const ALL: [Self; 8] = [
        Self::Archive,
        Self::ArchiveCompat,
        Self::Profile,
        Self::Certificate,
        Self::Key,
        Self::Bundle,
        Self::SshConfig,
        Self::Steps,
    ];

    /// The name of the file of the device `name`: ASCII, as not every device takes other names.
    pub fn file_name(self, name: &DeviceName) -> String {
        let end = match self {
            Self::Archive => ".p12",
            Self::ArchiveCompat => "-compat.p12",
            Self::Profile => ".mobileconfig",
            Self::Certificate => ".pem",
            Self::Key => "-key.pem",
            Self::Bundle => EXTENSION,
            Self::SshConfig => "-ssh.conf",
            Self::Steps => ".html",
        };
        format!("{}{end}", name.slug())
    }

    /// Who may read it: a file with the key is private, even if it is encrypted.
    pub const fn access(self) -> Access {
        match self {
            Self::Archive | Self::ArchiveCompat | Self::Profile | Self::Key | Self::Bundle => Access::Private,
            Self::Certificate | Self::SshConfig | Self::Steps => Access::Public,
        }
    }
}

/// The files that one device is set up with.
pub struct Kit {
    device: DeviceName,
    instructions: Instructions,
    files: Vec<(Form, Vec<u8>)>,
    root_pem: Option<String>,
}

impl Kit {
    /// Makes the files. The archives, the one in the profile included, are encrypted with `password`, which is in none.
    pub fn new(gate: &Gate, device: &Device, password: &Password) -> Result<Self, Error> {
        let identity = Identity::from_certificate(&device.certificate, false)?;
        let bundle = bundle::bundle(gate, device, password)?;
        let instructions = Instructions::new(gate, &device.name, &identity, bundle.is_some())?;
        let archive = |profile| {
            pki::device_archive(&device.name, &device.certificate, &device.key, gate.root(), profile, password)
        };
        let compat = archive(Profile::Compat)?;
        let mut files = Vec::new();
        for form in Form::ALL {
            let contents = match form {
                Form::Archive => archive(Profile::Modern)?,
                Form::ArchiveCompat => compat.clone(),
                // Many of Apple's systems read nothing newer.
                Form::Profile => {
                    let root = gate.root().zip(instructions.root());
                    profile::profile(&device.name, &device.certificate, root, &compat)?
                }
                Form::Certificate => pem("CERTIFICATE", &device.certificate).into_bytes(),
                Form::Key => pem("PRIVATE KEY", device.key.secret_der()).into_bytes(),
                Form::Bundle => match &bundle {
                    Some(bundle) => bundle.to_text().as_bytes().to_vec(),
                    None => continue,
                },
                Form::SshConfig => instructions.ssh_config().into_bytes(),
                Form::Steps => instructions.page().into_bytes(),
            };
            files.push((form, contents));
        }
        Ok(Self { device: device.name.clone(), instructions, files, root_pem: gate.root_pem() })
    }

    /// The files, to be written to `folder`. They name each other, and [`ROOT_FILE`] if the device needs it, as files of the same
    /// folder.
    pub fn files(&self, folder: &Path) -> Vec<NewFile> {
        let file = |(form, contents): &(Form, Vec<u8>)| NewFile {
            path: folder.join(form.file_name(&self.device)),
            contents: contents.clone(),
            access: form.access(),
        };
        self.files.iter().map(file).collect()
    }

    /// The authority that the device must trust first, if there is one: its name as it is shown, and its fingerprint (SHA-256) as
    /// systems show it, `0F 3A …`.
    pub fn root(&self) -> Option<(&str, &str)> {
        self.instructions.root()
    }

    /// Whether there is a file of this form.
    pub(crate) fn has(&self, wanted: Form) -> bool {
        self.files.iter().any(|(form, _)| *form == wanted)
    }

    fn contents(&self, wanted: Form) -> &[u8] {
        self.files.iter().find(|(form, _)| *form == wanted).map_or(&[], |(_, contents)| contents)
    }
}

impl fmt::Debug for Kit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kit").field("device", &self.device).finish_non_exhaustive()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    pem::encode_config(&Pem::new(label, der), EncodeConfig::new().set_line_ending(LineEnding::LF))
}

/// The files for a device could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An archive could not be made.
    #[error(transparent)]
    Pki(#[from] pki::Error),
    /// A certificate could not be parsed.
    #[error(transparent)]
    NotACertificate(#[from] NotACertificate),
    /// The configuration profile could not be written.
    #[error("failed to make a configuration profile")]
    Profile(#[from] plist::Error),
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;
    use crate::ca::DeviceAuthority;

    /// The files for alice-phone, under an authority with this name.
    fn kit(name: &str) -> Kit {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let root = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").der().clone();
        kit_with(ServerTrust::OwnAuthority(root))
    }

    fn kit_with(trust: ServerTrust) -> Kit {
        let nas = ServerNamePattern::parse("nas.home.example").expect("a name");
        let home = home_of([&nas]);
        let nas = Service {
            route: Name::parse("nas").expect("a name"),
            server_name: nas,
            kind: ServiceKind::Http,
            admitted: true,
        };
        let gate = Gate { trust, services: vec![nas], port: PUBLIC_PORT, home, renewal: None };
        let name = DeviceName::parse("alice-phone").expect("a name");
        let issued = DeviceAuthority::new().expect("an authority").issue(&name).expect("a device");
        let device = Device { name, certificate: issued.certificate().clone(), key: issued.key() };
        Kit::new(&gate, &device, &Password::generate().expect("random bytes")).expect("a kit")
    }

    #[test]
    fn authority_name_is_text_in_page_and_profile() {
        let evil = kit("</p><script>alert('1')</script>&amp; ]]></string> \u{1b}[31m {{device}}");
        let shown = "</p><script>alert('1')</script>&amp; ]]></string> \\u{1b}[31m {{device}}";
        assert_eq!(evil.root().expect("a root").0, shown);
        let page = String::from_utf8(evil.contents(Form::Steps).to_vec()).expect("UTF-8");
        assert!(!page.contains("<script") && !page.contains('\u{1b}'), "{page}");
        assert!(page.contains("&lt;script&gt;alert('1')&lt;/script&gt;&amp;amp;"), "{page}");
        // Inserted text is not searched for words.
        assert!(page.contains("{{device}}"), "{page}");
        let profile = plist::Value::from_reader_xml(evil.contents(Form::Profile)).expect("a property list");
        let payloads = profile.as_dictionary().and_then(|profile| profile.get("PayloadContent")?.as_array());
        let root = payloads.expect("payloads")[1].as_dictionary().expect("a payload");
        assert_eq!(root.get("PayloadDisplayName").and_then(plist::Value::as_string), Some(shown));
        assert!(kit(&"x".repeat(500)).root().expect("a root").0.chars().count() <= 129);
    }

    #[test]
    fn profile_for_a_public_certificate_has_the_device_alone() {
        let kit = kit_with(ServerTrust::Public);
        assert_eq!((kit.root(), &kit.root_pem), (None, &None));
        let profile = plist::Value::from_reader_xml(kit.contents(Form::Profile)).expect("a property list");
        let profile = profile.as_dictionary().expect("a dictionary");
        let text = |key: &str| profile.get(key).and_then(plist::Value::as_string).expect("text");
        assert_eq!(text("PayloadDescription"), "Lets alice-phone in through your gate");
        let payloads = profile.get("PayloadContent").and_then(plist::Value::as_array).expect("payloads");
        let kinds: Vec<_> =
            payloads.iter().map(|payload| payload.as_dictionary()?.get("PayloadType")?.as_string()).collect();
        assert_eq!(kinds, [Some("com.apple.security.pkcs12")]);
    }

    #[test]
    fn trust_is_the_configurations_or_that_of_the_folder() {
        for (trusted_already, has_authority, public) in [
            (Some(true), true, true),
            (Some(true), false, true),
            (Some(false), true, false),
            (Some(false), false, false),
            (None, true, false),
            (None, false, true),
        ] {
            let reachable = Reachable { trusted_already, ..Reachable::default() };
            assert_eq!(reachable.is_public(has_authority), public, "{trusted_already:?} {has_authority}");
        }
    }

    #[test]
    fn debug_output_holds_no_key() {
        let text = format!("{:?}", kit("Doorward"));
        assert_eq!(text, "Kit { device: DeviceName(\"alice-phone\"), .. }");
    }
}
