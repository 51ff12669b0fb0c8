//! Makes certificates with OpenSSL, as tutorials do, and with rcgen where OpenSSL cannot.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::PathBuf;

use rcgen::{CertificateParams, SerialNumber};

use crate::common::pki::{Authority, TestPki, days_from_now};
use crate::common::process::{run, tool};

/// The extensions of most client certificates.
pub(crate) const V3: &str = "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=clientAuth\n";

/// Options of `openssl req` and `openssl genpkey` for a P-256 key.
pub(crate) const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];

/// The extensions of an authority.
pub(crate) const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n";

/// A folder of certificates. Each kind is `NAME.pem`, its chain, and `NAME.key`.
pub(crate) struct Maker {
    /// The gate's own certificate, and the authority that rcgen signs with.
    pub(crate) server: TestPki,
    serial: Cell<u32>,
}

/// How one certificate differs from a usual one.
pub(crate) struct Leaf<'a> {
    pub(crate) subject: &'a str,
    /// Options of `openssl genpkey`. None: the key that most certificates share.
    pub(crate) key: Option<&'a [&'a str]>,
    /// Extensions. None: version 1.
    pub(crate) extensions: Option<&'a str>,
    pub(crate) issuer: &'a str,
    pub(crate) days: &'a str,
    pub(crate) serial: Option<&'a str>,
    /// Further options of `openssl x509`, such as how to sign.
    pub(crate) sign: &'a [&'a str],
    /// The string types of the name, as `string_mask`, with the common name.
    pub(crate) mask: Option<(&'a str, &'a str)>,
}

impl Default for Leaf<'_> {
    fn default() -> Self {
        Self {
            subject: "/CN=alice",
            key: None,
            extensions: Some(V3),
            issuer: "ca",
            days: "300",
            serial: None,
            sign: &[],
            mask: None,
        }
    }
}

impl Maker {
    /// An empty folder with the shared key.
    pub(crate) fn new() -> Self {
        let maker = Self { server: TestPki::new(), serial: Cell::new(0x4000) };
        maker.key("shared", P256);
        maker
    }

    /// The path of a file.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.server.path(name)
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        self.server.write(name, text)
    }

    /// Reads a file.
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn openssl(&self, arguments: &[&str]) {
        let mut openssl = tool("openssl", "openssl");
        run(openssl.args(arguments).current_dir(self.path("."))).success();
    }

    /// Makes `NAME.key`.
    pub(crate) fn key(&self, name: &str, options: &[&str]) {
        let file = format!("{name}.key");
        if let Some(file_of_parameters) = options.first().and_then(|option| option.strip_prefix("dsa:")) {
            self.openssl(&["dsaparam", "-out", "dsa.params", file_of_parameters]);
            self.openssl(&["genpkey", "-paramfile", "dsa.params", "-out", &file]);
            return;
        }
        self.openssl(&[&["genpkey", "-out", &file], options].concat());
    }

    /// Makes the authority `NAME.pem`, a root.
    pub(crate) fn root(&self, name: &str, subject: &str, key: &[&str]) {
        self.key(name, key);
        let (key, pem) = (format!("{name}.key"), format!("{name}.pem"));
        self.openssl(&["req", "-new", "-key", &key, "-subj", subject, "-out", "root.csr"]);
        self.write("root.ext", CA);
        self.openssl(&[
            "x509", "-req", "-in", "root.csr", "-signkey", &key, "-days", "3650", "-extfile", "root.ext", "-out", &pem,
        ]);
    }

    /// Makes `NAME.pem`.
    pub(crate) fn leaf(&self, name: &str, leaf: &Leaf<'_>) {
        let Leaf { subject, key, extensions, issuer, days, serial, sign, mask } = leaf;
        let own = format!("{name}.key");
        match key {
            Some(options) => self.key(name, options),
            None => drop(self.write(&own, &self.read("shared.key"))),
        }
        match mask {
            None => self.openssl(&["req", "-new", "-key", &own, "-subj", subject, "-out", "leaf.csr"]),
            Some((mask, name)) => {
                let config =
                    format!("[req]\ndistinguished_name=dn\nstring_mask={mask}\nprompt=no\nutf8=yes\n[dn]\nCN={name}\n");
                self.write("leaf.cnf", &config);
                self.openssl(&["req", "-new", "-key", &own, "-utf8", "-config", "leaf.cnf", "-out", "leaf.csr"]);
            }
        }
        self.serial.set(self.serial.get() + 1);
        let number = self.serial.get().to_string();
        let (ca, ca_key, pem) = (format!("{issuer}.pem"), format!("{issuer}.key"), format!("{name}.pem"));
        let mut arguments = vec!["x509", "-req", "-in", "leaf.csr", "-CA", &ca, "-CAkey", &ca_key];
        arguments.extend(["-days", days, "-set_serial", serial.unwrap_or(&number), "-out", &pem]);
        if let Some(extensions) = extensions {
            self.write("leaf.ext", extensions);
            arguments.extend(["-extfile", "leaf.ext"]);
        }
        arguments.extend(*sign);
        self.openssl(&arguments);
    }

    /// Appends the certificates of these files to that of a kind.
    pub(crate) fn behind(&self, name: &str, above: &[&str]) {
        let chain = std::iter::once(&name).chain(above).map(|one| self.read(&format!("{one}.pem"))).collect::<String>();
        self.write(&format!("{name}.pem"), &chain);
    }

    /// An authority of a file, for rcgen.
    pub(crate) fn authority(&self, name: &str) -> Authority {
        Authority::read(&self.path(&format!("{name}.pem")), &self.path(&format!("{name}.key")))
    }

    /// Makes `NAME.pem` with rcgen.
    pub(crate) fn issue(&self, name: &str, issuer: &str, params: CertificateParams) {
        let certified = self.authority(issuer).issue(params);
        self.write(&format!("{name}.pem"), &certified.chain_pem());
        self.write(&format!("{name}.key"), &certified.key_pem());
    }

    /// Makes the list `NAME.crl` of the authority `issuer`, valid for this many days.
    pub(crate) fn list(&self, name: &str, issuer: &str, revoked: &[u64], days: i64) {
        let revoked: Vec<SerialNumber> = revoked.iter().map(|&serial| serial.into()).collect();
        let list = self.authority(issuer).revocation_list(&revoked, days_from_now(-10), days_from_now(days));
        self.write(&format!("{name}.crl"), &list);
    }

    /// The configuration for all kinds. The routes are in `kinds`.
    pub(crate) fn config(&self, backend: SocketAddr) -> String {
        let route = |name: &str, keys: &str| {
            let auth = if keys.is_empty() { String::new() } else { format!("[route.client_auth]\n{keys}\n") };
            format!(
                "[[route]]\nname = \"{name}\"\nserver_names = [\"{name}.home.example\"]\nbackends = [\"{backend}\"]\nallow = \
                 [\"any\"]\n{auth}\n"
            )
        };
        let file = |name: &str| format!("{:?}", self.path(name));
        let lists = |names: &[&str]| names.iter().map(|name| file(name)).collect::<Vec<_>>().join(", ");
        let chain = format!("trust = [{}]\nrevocation_lists = [{}]", file("ca.pem"), lists(&["ca.crl", "between.crl"]));
        let stale = format!("trust = [{}]\nrevocation_lists = [{}]", file("ca.pem"), file("stale.crl"));
        let leaf = format!(
            "trust = [{}]\nrevocation_lists = [{}]\nrevocation_check = \"leaf\"",
            file("ca.pem"),
            file("between.crl")
        );
        let only = format!("trust = [{}]\nrevocation_lists = [{}]", file("ca.pem"), file("between.crl"));
        format!(
            "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n[metrics]\naddress = \"127.0.0.1:0\"\n[log]\nformat = \
             \"json\"\nsampling = \"off\"\n[limits]\nconnection_rate_per_source = \"off\"\npenalties = \"off\"\n\
             [certificate]\nchain = {}\nkey = {}\n[client_auth]\ntrust = [{}]\n{}{}{}{}{}",
            file("server.pem"),
            file("server-key.pem"),
            lists(&["ca.pem", "rsa.pem", "small.pem", "ed448.pem", "k1.pem", "eded.pem", "bounded.pem"]),
            route("nas", ""),
            route("listed", &chain),
            route("stale", &stale),
            route("leaf", &leaf),
            route("unlisted", &only),
        )
    }
}
