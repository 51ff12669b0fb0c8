//! What a device is given to reach a home, in one file: `NAME.doorward`.
//!
//! It says where the gate is, which routes the device may use, and why its certificate is trusted, and holds the device's
//! certificate and key. It is text (TOML) that people can read. The key is encrypted with the password of the device's archives, so
//! a file that is stolen without it is useless. Nothing here does I/O.

mod error;
mod key;
mod text;

use std::fmt;

use rustls::pki_types::CertificateDer;

pub use error::BundleError;
pub use key::{BundleKey, PlainKey};

use crate::model::device_name::DeviceName;
use crate::model::names::{Name, ServerName, ServerNamePattern};
use crate::model::service::ServiceKind;

/// The end of the names of these files.
pub const EXTENSION: &str = ".doorward";

/// The largest file that is read, in bytes. One with the longest keys and a hundred routes has 30 KiB.
pub const BYTES_MAX: usize = 256 * 1024;

/// What a device needs to reach one home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// What the home is called: its domain, as in `home.example`.
    pub home: ServerName,
    /// The device.
    pub device: DeviceName,
    /// The host to dial instead of the server name of a route: a name or an IP address.
    pub address: Option<String>,
    /// The port to dial.
    pub port: u16,
    /// What the device may use.
    pub routes: Vec<BundleRoute>,
    /// Why the gate's certificate is trusted.
    pub trust: Trust,
    /// The device's certificate, and those between it and its authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the certificate.
    pub key: BundleKey,
    /// The server name of the gate's service for renewals, if it has one.
    pub renewal: Option<ServerName>,
}

/// A route, as a device sees it. A route with several server names is several of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleRoute {
    /// Its name in the gate's configuration.
    pub name: Name,
    /// Which program uses it.
    pub kind: ServiceKind,
    /// The server name that leads to it: one name, or `*.name`; never [`ServerNamePattern::Default`], which cannot be asked for.
    pub server_name: ServerNamePattern,
}

impl BundleRoute {
    /// Its server name, if it is one that can be dialled as it is.
    pub const fn host(&self) -> Option<&ServerName> {
        match &self.server_name {
            ServerNamePattern::Exact(name) => Some(name),
            ServerNamePattern::Wildcard(_) | ServerNamePattern::Default => None,
        }
    }

    /// Whether this server name leads to it.
    pub fn answers_to(&self, name: &ServerName) -> bool {
        match &self.server_name {
            ServerNamePattern::Exact(own) => own == name,
            ServerNamePattern::Wildcard(domain) => name.parent() == Some(domain.as_str()),
            ServerNamePattern::Default => false,
        }
    }
}

/// Why the gate's certificate is trusted.
#[derive(Clone, PartialEq, Eq)]
pub enum Trust {
    /// One of these authorities vouches for it, and no other may.
    Authorities(Vec<CertificateDer<'static>>),
    /// A public authority vouches for it, as the system knows them.
    Public,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authorities(authorities) => write!(f, "Authorities({})", authorities.len()),
            Self::Public => f.write_str("Public"),
        }
    }
}

impl Bundle {
    /// The name of the file that this device is given.
    pub fn file_name(&self) -> String {
        format!("{}{EXTENSION}", self.device.slug())
    }

    /// The device's own certificate.
    pub fn certificate(&self) -> &[u8] {
        self.chain.first().map_or(&[], |certificate| certificate)
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::ca::{DeviceAuthority, ServerAuthority};
    use crate::pki::IssuedCredentials;
    use crate::pki::keys::{self, encrypt};

    const PASSWORD: &str = "k7mw-9xbq-aaaa-bbbb-cccc";

    fn issued(device: &str) -> IssuedCredentials {
        DeviceAuthority::new()
            .expect("an authority")
            .issue(&DeviceName::parse(device).expect("a name"))
            .expect("a device")
    }

    fn route(name: &str, kind: ServiceKind, server_name: &str) -> BundleRoute {
        BundleRoute {
            name: Name::parse(name).expect("a name"),
            kind,
            server_name: ServerNamePattern::parse(server_name).expect("a name"),
        }
    }

    fn bundle_with(key: impl FnOnce(&IssuedCredentials) -> BundleKey) -> Bundle {
        let domain = ServerName::parse("home.example").expect("a name");
        let servers = ServerAuthority::new(&domain).expect("an authority");
        let device = issued("Omas Laptop (2)");
        Bundle {
            home: domain,
            device: DeviceName::parse("Omas Laptop (2)").expect("a name"),
            address: Some("203.0.113.7".to_owned()),
            port: 8443,
            routes: vec![
                route("ssh", ServiceKind::Ssh, "ssh.home.example"),
                route("files", ServiceKind::Smb, "smb.home.example"),
                route("lab", ServiceKind::Other, "*.lab.home.example"),
            ],
            trust: Trust::Authorities(vec![servers.authority().certificate().clone()]),
            chain: vec![device.certificate().clone()],
            key: key(&device),
            renewal: Some(ServerName::parse("renew.home.example").expect("a name")),
        }
    }

    fn encrypted(device: &IssuedCredentials) -> BundleKey {
        let pair = keys::read(device.key_pem().as_bytes()).expect("a key");
        BundleKey::Encrypted(encrypt(&pair, PASSWORD).expect("encrypted").trim().to_owned())
    }

    fn plain(device: &IssuedCredentials) -> BundleKey {
        BundleKey::Plain(PlainKey::new(device.key().secret_der()))
    }

    fn error(text: &str) -> String {
        Bundle::parse(text).expect_err("refused").to_string()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let token =
            |_: &IssuedCredentials| BundleKey::Token("pkcs11:token=home;object=laptop?pin-source=/p".to_owned());
        let on_device = |_: &IssuedCredentials| BundleKey::OnDevice;
        for bundle in [bundle_with(encrypted), bundle_with(plain), bundle_with(token), bundle_with(on_device)] {
            let text = bundle.to_text();
            assert_eq!(Bundle::parse(&text).as_ref(), Ok(&bundle), "{}", *text);
            // As a mail program of Windows or a person may leave it.
            assert_eq!(Bundle::parse(&text.replace('\n', "\r\n")).as_ref(), Ok(&bundle));
            assert_eq!(Bundle::parse(&text.replace("port = 8443", "# mine\nport=8443 # too")).as_ref(), Ok(&bundle));
            let public = Bundle { trust: Trust::Public, address: None, renewal: None, routes: Vec::new(), ..bundle };
            assert_eq!(Bundle::parse(&public.to_text()), Ok(public));
        }
        let bundle = bundle_with(encrypted);
        assert!(
            bundle.to_text().starts_with("# What Omas Laptop (2) needs to reach home.example."),
            "{}",
            *bundle.to_text()
        );
        assert!(bundle.to_text().contains(&format!("doorward join {}\n", bundle.file_name())));
    }

    #[test]
    fn text_shows_all_but_the_key() {
        let text = bundle_with(encrypted).to_text();
        for shown in
            ["home = \"home.example\"", "{ name = \"ssh\", kind = \"ssh\", server_name = \"ssh.home.example\" },"]
        {
            assert!(text.contains(shown), "{}", *text);
        }
        assert!(!text.contains("BEGIN PRIVATE KEY") && !text.contains(PASSWORD), "{}", *text);
        let plain = bundle_with(plain);
        let BundleKey::Plain(key) = &plain.key else { panic!("a plain key") };
        assert_eq!(format!("{key:?}{:?}", plain.key), "PlainKey(…)Plain(…)");
        assert!(!format!("{plain:?}").contains(&format!("{:?}", key.bytes())));
    }

    #[test]
    fn key_is_strongly_encrypted_and_opens_with_its_password_only() {
        let bundle = bundle_with(encrypted);
        let BundleKey::Encrypted(pem) = &bundle.key else { panic!("an encrypted key") };
        let (_, document) = pkcs8::der::SecretDocument::from_pem(pem).expect("PEM");
        let info = pkcs8::EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).expect("PKCS#8");
        let kdf = info.encryption_algorithm.pbes2().and_then(|parameters| parameters.kdf.pbkdf2()).expect("PBKDF2");
        assert_eq!(kdf.prf, pkcs8::pkcs5::pbes2::Pbkdf2Prf::HmacWithSha256);
        assert!(kdf.iteration_count >= 600_000 && kdf.salt.as_ref().len() >= 16, "{kdf:?}");
        for wrong in ["", "k7mw-9xbq-aaaa-bbbb-cccd", "K7MW-9XBQ-AAAA-BBBB-CCCC", "password"] {
            assert_eq!(bundle.unlock(wrong), Err(BundleError::WrongPassword), "{wrong:?}");
        }
        // As a mail program or an editor leaves it.
        let spaced = bundle.to_text().replace('\n', " \t\n");
        assert_eq!(Bundle::parse(&spaced), Ok(bundle.clone()));
        let key = bundle.unlock(PASSWORD).expect("the key");
        let joined = Bundle { key: BundleKey::Plain(PlainKey::new(key.secret_der())), ..bundle };
        assert_eq!(joined.unlock(""), Ok(key.clone_key()));
        assert_eq!(Bundle::parse(&joined.to_text()), Ok(joined));
        assert!(matches!(key, PrivateKeyDer::Pkcs8(_)));
    }

    #[test]
    fn key_in_pem_of_another_form_is_written_in_ours() {
        let bundle = bundle_with(encrypted);
        let text = bundle.to_text();
        let begin = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
        // Other ends of lines, and text before the key (RFC 7468 sections 2 and 3): here it would end the string.
        for other in [format!("{begin}\\r"), format!("Key \\\"\\\"\\\"\\\\\\u0007\n{begin}")] {
            let read = Bundle::parse(&text.replace(begin, &other)).expect("a bundle");
            assert_eq!(read, bundle);
            assert_eq!(Bundle::parse(&read.to_text()), Ok(read));
        }
        let other = text.replace("ENCRYPTED PRIVATE KEY", "ENCRYPTED KEY");
        assert!(error(&other).contains("key: not a private key in PEM (PKCS#8)"), "{}", error(&other));
    }

    #[test]
    fn key_of_another_device_is_refused() {
        let other = issued("other");
        let mixed = bundle_with(|_| plain(&other));
        assert_eq!(Bundle::parse(&mixed.to_text()), Err(BundleError::KeyDoesNotFit));
        let mixed = bundle_with(|_| encrypted(&other));
        assert_eq!(
            Bundle::parse(&mixed.to_text()).expect("readable").unlock(PASSWORD),
            Err(BundleError::KeyDoesNotFit)
        );
        let token = bundle_with(|_| BundleKey::Token("pkcs11:object=x".to_owned()));
        assert_eq!(token.unlock(PASSWORD), Err(BundleError::InToken));
        assert_eq!(bundle_with(|_| BundleKey::OnDevice).unlock(PASSWORD), Err(BundleError::OnDevice));
    }

    #[test]
    fn slow_and_weak_schemes_are_refused_without_computing() {
        use pkcs8::pkcs5::pbes2::Parameters;
        let device = issued("laptop");
        let key = device.key();
        let with = |parameters: Parameters| {
            let info = pkcs8::PrivateKeyInfoRef::try_from(key.secret_der()).expect("PKCS#8");
            let document = info.encrypt_with_params(parameters, PASSWORD).expect("encrypted");
            document.to_pem("ENCRYPTED PRIVATE KEY", pkcs8::LineEnding::LF).expect("PEM").trim().to_owned()
        };
        let pbkdf2 =
            |rounds| Parameters::generate_pbkdf2_sha256_aes256cbc(rounds, &[1; 16], [2; 16]).expect("parameters");
        let ours = with(pbkdf2(1_000));
        assert!(check(&ours).is_ok());
        // The DER of the number of rounds, 1000, becomes 2^31 - 1.
        let (_, document) = pkcs8::der::SecretDocument::from_pem(&ours).expect("PEM");
        let at = document.as_bytes().windows(4).position(|bytes| bytes == [2, 2, 0x03, 0xe8]).expect("the rounds");
        let mut slow = document.as_bytes().to_vec();
        slow.splice(at..at + 4, [2, 4, 0x7f, 0xff, 0xff, 0xff]);
        // Every enclosing length grows by two.
        for position in 0..at {
            let [tag, length] = [slow[position], slow[position + 1]];
            if tag == 0x30 && length < 0x7e && position + 2 + usize::from(length) >= at - 2 && position > 2 {
                slow[position + 1] += 2;
            }
        }
        slow[2] += 2;
        let slow = pem::encode(&pem::Pem::new("ENCRYPTED PRIVATE KEY", slow));
        assert_eq!(check(slow.trim()), Err(BundleError::UnsupportedEncryption));
        assert_eq!(
            check("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----"),
            Err(BundleError::UnsupportedEncryption)
        );
    }

    fn check(pem: &str) -> Result<(), BundleError> {
        key::encrypted(pem).map(drop)
    }

    #[test]
    fn every_cut_is_noticed() {
        for bundle in [bundle_with(encrypted), bundle_with(plain)] {
            let text = bundle.to_text();
            let complete = text.trim_end().len();
            for end in 0..complete {
                let Some(cut) = text.get(..end) else { continue };
                assert!(Bundle::parse(cut).is_err(), "{cut}");
            }
        }
    }

    #[test]
    fn hostile_values_are_refused_with_their_line() {
        let good = bundle_with(encrypted).to_text();
        let line = |needle: &str| 1 + good.lines().position(|line| line.contains(needle)).expect("the line");
        let rows = [
            ("home = \"home.example\"", "home = \"../../etc\"", "home: not a host name"),
            ("home = \"home.example\"", "home = \"a\\nb\"", "home: not a host name"),
            ("home = \"home.example\"", "home = \"192.0.2.1\"", "home: an IP address"),
            ("device = \"Omas Laptop (2)\"", "device = \"../x\"", "device: a name may not contain '/'"),
            ("device = \"Omas Laptop (2)\"", "device = \"\\u001b[31m\"", "device: a name may not contain U+001B"),
            ("device = \"Omas Laptop (2)\"", "device = \"a\\u202eb\"", "which changes the direction"),
            ("address = \"203.0.113.7\"", "address = \"a b\"", "address: not a host name"),
            ("address = \"203.0.113.7\"", "address = \"-oProxyCommand=x\"", "address: not a host name"),
            ("port = 8443", "port = 0", "port: expected"),
            ("port = 8443", "port = 65536", "port: expected"),
            ("port = 8443", "port = \"x\"", "invalid type"),
            ("renewal = \"renew.home.example\"", "renewal = \"/\"", "renewal: not a host name"),
            ("name = \"ssh\"", "name = \"../x\"", "a name may not contain '/'"),
            ("name = \"ssh\"", "name = \"-x\"", "may not start with"),
            ("name = \"ssh\"", "name = \"a\\u0007\"", "a name may not contain"),
            ("server_name = \"ssh.home.example\"", "server_name = \"*\"", "\"*\" is not a name"),
            ("server_name = \"ssh.home.example\"", "server_name = \"$(reboot)\"", "server_name: not a host name"),
            ("server_name = \"smb.home.example\"", "server_name = \"SSH.home.example.\"", "leads to two routes"),
            ("kind = \"ssh\"", "kind = \"rsh\"", "expected one of http, ssh, smb, other"),
            ("port = 8443", "port = 8443\n\"x\\u001b[2J\" = 1", "unknown field"),
            ("port = 8443", "port = 8443\nport = 1", "duplicate key"),
        ];
        for (from, to, what) in rows {
            let text = good.replacen(from, to, 1);
            assert_ne!(text, *good, "{from}");
            let error = error(&text);
            let lines = [0, 1].map(|more| format!("line {}: ", line(from) + more));
            assert!(error.contains(what) && lines.iter().any(|line| error.starts_with(line)), "{to}: {error}");
            assert!(!error.contains('\u{1b}') && error.ends_with("copy it again from where it was made"), "{error}");
        }
    }

    #[test]
    fn other_files_versions_and_sizes_are_told_apart() {
        assert_eq!(Bundle::parse(""), Err(BundleError::NotABundle));
        assert_eq!(Bundle::parse("-----BEGIN CERTIFICATE-----"), Err(BundleError::NotABundle));
        assert_eq!(Bundle::parse("version = 0"), Err(BundleError::NotABundle));
        let newer = bundle_with(plain).to_text().replace("version = 1", "version = 2\nshape = \"round\"");
        assert_eq!(Bundle::parse(&newer), Err(BundleError::Newer(2)));
        assert!(error(&newer).contains("update doorward"), "{}", error(&newer));
        assert_eq!(Bundle::parse(&" ".repeat(BYTES_MAX + 1)), Err(BundleError::TooLarge));
        assert!(Bundle::parse(&"[".repeat(BYTES_MAX)).is_err());
        for deep in ["a.", "{a=", "a={a=", "[[", "[a."] {
            let deep = deep.repeat((BYTES_MAX - 100) / deep.len());
            assert!(Bundle::parse(&format!("version = 1\n{deep}")).is_err());
            assert!(Bundle::parse(&format!("version = 1\nx = {deep}")).is_err());
        }
        for (before, after) in [("", " = 1"), ("[", "]"), ("[[", "]]")] {
            let key = "a.".repeat(BYTES_MAX / 2 - 100);
            assert!(Bundle::parse(&format!("version = 1\n{before}{key}a{after}")).is_err());
        }
        let text = bundle_with(plain).to_text();
        let routes = (0..300).map(|n| format!("{{ name = \"a\", kind = \"ssh\", server_name = \"a{n}.example\" }},"));
        let many = text.replace("routes = [", &format!("routes = [{}", routes.collect::<String>()));
        assert!(error(&many).contains("more than 256 routes"), "{}", error(&many));
    }

    #[test]
    fn certificates_are_certificates_and_nothing_else() {
        let bundle = bundle_with(plain);
        let text = bundle.to_text();
        let key = text.split("key = \"\"\"\n").nth(1).and_then(|rest| rest.split("\"\"\"").next()).expect("a key");
        let begin = "certificate = \"\"\"\n";
        assert!(error(&text.replace(begin, &format!("{begin}{key}"))).contains("certificate: not certificates in PEM"));
        let twice = text.replace(key, &format!("{key}{key}"));
        assert!(error(&twice).contains("expected one key in PEM"), "{}", error(&twice));
        let many = Bundle { chain: vec![bundle.chain[0].clone(); 17], ..bundle.clone() };
        assert!(error(&many.to_text()).contains("too many certificates"));
        let none = Bundle { chain: Vec::new(), ..bundle.clone() };
        assert!(error(&none.to_text()).contains("certificate: no certificate"));
        let untrusted = Bundle { trust: Trust::Authorities(Vec::new()), ..bundle };
        assert!(error(&untrusted.to_text()).contains("trust: no certificate"));
        assert!(PrivateKeyDer::from_pem_slice(key.as_bytes()).is_ok());
    }

    #[test]
    fn routes_answer_to_their_names() {
        let name = |text: &str| ServerName::parse(text).expect("a name");
        let ssh = route("ssh", ServiceKind::Ssh, "ssh.home.example");
        assert!(ssh.answers_to(&name("SSH.home.example")) && !ssh.answers_to(&name("x.ssh.home.example")));
        assert_eq!(ssh.host(), Some(&name("ssh.home.example")));
        let lab = route("lab", ServiceKind::Other, "*.lab.home.example");
        assert!(lab.answers_to(&name("a.lab.home.example")) && lab.host().is_none());
        assert!(!lab.answers_to(&name("lab.home.example")) && !lab.answers_to(&name("a.b.lab.home.example")));
    }
}
