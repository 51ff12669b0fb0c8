//! Debian's pebble 2.4 and its challenge server, which answers its DNS questions. This version knows neither renewal information
//! (RFC 9773) nor profiles.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::pki::{Authority, Certified};
use crate::common::process::{Daemon, own_loopback, run, tool};

/// What names its HTTPS, beside its address.
const HOST: &str = "acme.home.example";

/// How a pebble differs from one that is quick and has no moods.
pub(crate) struct Settings {
    /// The share of good nonces that it rejects, in percent.
    pub(crate) rejected_nonces: u8,
    /// The share of valid authorizations that another order uses again, in percent.
    pub(crate) reused_authorizations: u8,
    /// It does not look at challenges.
    pub(crate) validates: bool,
    /// How many authorities are in a chain, the root left out.
    pub(crate) chain: u8,
    /// The operator's keys, without which it makes no accounts: identifier, and the key in base64url.
    pub(crate) external_keys: Vec<(&'static str, &'static str)>,
    /// How long its certificates are valid, in seconds.
    pub(crate) validity: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rejected_nonces: 0,
            reused_authorizations: 0,
            validates: true,
            chain: 1,
            external_keys: Vec::new(),
            validity: 90 * 24 * 3600,
        }
    }
}

/// A running pebble.
pub(crate) struct Pebble {
    folder: TempDir,
    address: SocketAddrV4,
    management: SocketAddrV4,
    server: Daemon,
    _dns: Daemon,
}

impl Pebble {
    /// Starts one that validates at port `tls_port` of `host`, whatever the name.
    pub(crate) fn start(host: Ipv4Addr, tls_port: u16, settings: &Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = own_loopback();
        let [address, management, dns, dns_management] =
            [14000, 15000, 8053, 8055].map(|port| SocketAddrV4::new(own, port));
        let authority = Authority::new("HTTPS of the ACME server");
        let mut params = Certified::for_servers(&[HOST]);
        params.subject_alt_names.push(rcgen::SanType::IpAddress(own.into()));
        let https = authority.issue(params);
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let external: serde_json::Map<String, Value> =
            settings.external_keys.iter().map(|(id, key)| ((*id).to_owned(), (*key).into())).collect();
        let config = json!({ "pebble": {
            "listenAddress": address.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": write("https.pem", https.chain_pem()),
            "privateKey": write("https-key.pem", https.key_pem()),
            "httpPort": 5002,
            "tlsPort": tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": !external.is_empty(),
            "externalAccountMACKeys": external,
            "certificateValidityPeriod": settings.validity,
        } });
        write("https-ca.pem", authority.pem().to_owned());
        let config = write("pebble.json", config.to_string());
        let mut command = tool("pebble-challtestsrv", "pebble");
        let empty = ["-http01=", "-https01=", "-tlsalpn01=", "-defaultIPv6="];
        let (dns, dns_management) = (dns.to_string(), dns_management);
        command.args(empty).args(["-dns01", &dns, "-management", &dns_management.to_string()]);
        command.args(["-defaultIPv4", &host.to_string()]);
        let dns_server = Daemon::start(&mut command, dns_management);
        let mut command = tool("pebble", "pebble");
        command.arg("-config").arg(config).args(["-strict", "-dnsserver", &dns]);
        command
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", settings.rejected_nonces.to_string())
            .env("PEBBLE_AUTHZREUSE", settings.reused_authorizations.to_string())
            .env("PEBBLE_CHAIN_LENGTH", settings.chain.to_string());
        if !settings.validates {
            command.env("PEBBLE_VA_ALWAYS_VALID", "1");
        }
        let server = Daemon::start(&mut command, address);
        Self { folder, address, management, server, _dns: dns_server }
    }

    /// Where its HTTPS is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address.into()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        self.server.output()
    }

    /// How many accounts it has.
    pub(crate) fn accounts(&self) -> usize {
        self.log().matches("accounts in memory").count()
    }

    /// How many orders it has.
    pub(crate) fn orders(&self) -> usize {
        self.log().matches("Added order").count()
    }

    /// A file with the authority of its HTTPS.
    pub(crate) fn https_authority(&self) -> PathBuf {
        self.folder.path().join("https-ca.pem")
    }

    /// The root of the certificates that it issues.
    pub(crate) fn root(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.root_pem().as_bytes()).unwrap()
    }

    /// The same in PEM.
    pub(crate) fn root_pem(&self) -> String {
        let mut curl = tool("curl", "curl");
        curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--cacert"]).arg(self.https_authority());
        run(curl.arg(format!("https://{}/roots/0", self.management))).success().text()
    }
}
